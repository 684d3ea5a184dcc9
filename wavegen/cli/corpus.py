"""The command line of the scripts in `recipes/` that fetch a corpus and prepare a store of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from wavegen.config import Recipe, load_recipe
from wavegen.data.fetch import fetch_files, read_digests
from wavegen.data.prepare import prepare
from wavegen.errors import WavegenError

HOST = "https://raw.githubusercontent.com"  # repository, commit and file in folders below it


def corpus_parser(description: str, recipe: Path, data: str) -> argparse.ArgumentParser:
    """The options every corpus has: --data, --out, --recipe, --strict and --workers.

    Args:
        description: of the script.
        recipe: the YAML that is taken where none is named.
        data: help of --data.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help=data)
    parser.add_argument("--out", type=Path, required=True, help="store to write, or to continue")
    parser.add_argument("--recipe", type=Path, default=recipe, help="any of this folder's YAMLs")
    parser.add_argument("--strict", action="store_true", help="a bad recording is an error")
    parser.add_argument("--workers", type=int)
    return parser


def prepare_corpus(options: argparse.Namespace, download: Callable[[], Path],
                   look: Callable[[Path, Recipe], Path] = lambda data, recipe: data) -> int:
    """Prepare what --data names, or what is downloaded in its place; the exit code, an error told on stderr.

    Args:
        options: of a `corpus_parser`.
        download: fetches the corpus, and gives its folder.
        look: what is said of a folder, and which one is prepared.
    """
    try:
        recipe = load_recipe(options.recipe)
        data = download() if options.data is None else options.data
        prepare(recipe, look(data, recipe), options.out, strict=options.strict, workers=options.workers)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def prepare_samples(description: str, here: Path, recipe: str, sources: Mapping[str, str]) -> int:
    """The whole of a script whose files lie in public repositories: fetched one by one, checked, prepared.

    Args:
        description: of the script.
        here: its folder, with `SHA256SUMS`; its name is that of the cache below data/.
        recipe: the YAML in it that is taken where none is named.
        sources: folder of the data set to repository, commit and folder there.
    """
    parser = corpus_parser(description, here / recipe, "folder of the recordings; they are downloaded if left out")
    parser.add_argument("--cache", type=Path, default=Path("data") / here.name, help="where the download is kept")
    parser.add_argument("--host", default=HOST, help="a mirror: repositories, commits and files in folders below it")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: fetch_files(
        read_digests(here / "SHA256SUMS"), lambda path: sample_url(path, sources, options.host), options.cache))


def sample_url(path: str, sources: Mapping[str, str], host: str = HOST) -> str:
    """Where the file of a path of a data set is."""
    folder, name = path.split("/", 1)
    return f"{host}/{quote(f'{sources[folder]}/{name}')}"
