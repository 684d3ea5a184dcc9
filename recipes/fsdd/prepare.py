"""Fetches the Free Spoken Digit Dataset, checks it and prepares the store.

    python recipes/fsdd/prepare.py --out stores/fsdd                  # downloads 16 MB
    python recipes/fsdd/prepare.py --data DIR --out stores/fsdd       # offline, from unpacked wavs

The archive is release 1.0.10 of Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0): 3000 recordings
of six speakers. Every file is checked against one digest, which anyone can repeat:

    cd recordings && LC_ALL=C sha256sum *.wav | sha256sum

The recipe names five speakers; recordings of others (yweweler) are counted and left out.
"""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.config import Recipe
from wavegen.data.fetch import digest_of_files
from wavegen.data.fetch import fetch as fetch_archive
from wavegen.errors import BadInputError

HERE = Path(__file__).resolve().parent
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
NUM_FILES = 3000
DIGEST = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"
MAX_ARCHIVE_BYTES = 200_000_000  # ten times the real one: more is something else
MAX_FILE_BYTES = 1_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare the spoken digits.", HERE / "wavenet.yaml",
                           "folder of unpacked wavs; downloads the archive if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/fsdd"), help="where the download is unpacked")
    parser.add_argument("--url", default=URL, help="archive to download; it must hold the same recordings")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: fetch(options.cache, options.url), look)


def look(data: Path, recipe: Recipe) -> Path:
    """Say what recordings there are; gives their folder."""
    folder = recordings_of(data)
    for line in describe(folder, recipe):
        print(line, file=sys.stderr)
    return folder


def recordings_of(data: Path) -> Path:
    """The folder of wavs: `data` itself or its subfolder `recordings`.

    Raises:
        BadInputError: neither holds a wav.
    """
    for folder in (data / "recordings", data):
        if folder.is_dir() and any(folder.glob("*.wav")):
            return folder
    raise BadInputError(f"{data} holds no wavs, neither itself nor in a folder recordings; "
                        "--data wants the unpacked data set, and without --data it is downloaded")


def describe(folder: Path, recipe: Recipe) -> list[str]:
    """How many recordings of whom are there, and who is left out."""
    names = [path.stem.split("_") for path in folder.glob("*.wav")]
    found = Counter(parts[1] for parts in names if len(parts) == 3)
    wanted = recipe.prepare.speakers or tuple(sorted(found))
    lines = [f"{sum(found[name] for name in wanted)} recordings of {', '.join(wanted)}"]
    missing = [name for name in wanted if not found[name]]
    if missing:
        lines.append(f"none of {', '.join(missing)}")
    others = sorted(set(found) - set(wanted))
    if others:
        lines.append(f"left out: {', '.join(f'{found[name]} of {name}' for name in others)} (not in the recipe)")
    return lines


def fetch(cache: Path, url: str = URL) -> Path:
    """The checked data set, downloaded unless it is in `cache` already.

    Raises:
        BadInputError: no network, or what came is not the data set; nothing is left behind. Or `cache`
            holds something else, which is left alone.
    """
    def unpack_all(archive: Path, folder: Path) -> None:
        unpack(archive, folder / "recordings")
        found = sorted((folder / "recordings").glob("*.wav"))
        digest = digest_of_files(found)
        if len(found) != NUM_FILES or digest != DIGEST:
            raise BadInputError(f"{url} holds {len(found)} recordings that are not the {NUM_FILES} expected "
                                f"(digest {digest[:12]}, wanted {DIGEST[:12]}); try again, or unpack the data "
                                "set yourself and pass --data DIR")

    def is_complete(folder: Path) -> bool:
        return digest_of_files((folder / "recordings").glob("*.wav")) == DIGEST

    return fetch_archive(url, cache, MAX_ARCHIVE_BYTES, unpack_all, is_complete)


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's recordings into `folder`, by their plain names: no path in it is followed."""
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                path = PurePosixPath(entry.filename)
                if entry.is_dir() or path.suffix != ".wav" or path.parent.name != "recordings":
                    continue
                if entry.file_size > MAX_FILE_BYTES:
                    raise BadInputError(f"{archive.name}: {path.name} has {entry.file_size} bytes, more than any digit")
                # Only the last part of the name is used, so "../" and absolute paths lead nowhere else.
                (folder / Path(path.name).name).write_bytes(content.read(entry))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadInputError(f"the download is not a whole zip archive ({error}); try again") from error


if __name__ == "__main__":
    sys.exit(main())
