"""Fetches LJSpeech, checks it and prepares the store.

    python recipes/ljspeech/prepare.py --out stores/ljspeech               # downloads 2.6 GB
    python recipes/ljspeech/prepare.py --data DIR --out stores/ljspeech    # offline: metadata.csv and wavs/*.wav

The archive is LJSpeech 1.1 (public domain): 13,100 clips of one reader, 24 hours at 22.05 kHz. It is checked by its
sha256. A folder of your own recordings in the same layout works as well, with --data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePosixPath

from wavegen.config import load_recipe
from wavegen.data.fetch import fetch_checked
from wavegen.data.prepare import prepare
from wavegen.errors import WavegenError

HERE = Path(__file__).resolve().parent
URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
MAX_ARCHIVE_BYTES = 4_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch, check and prepare LJSpeech.")
    parser.add_argument("--data", type=Path, help="folder with metadata.csv and wavs; downloads the corpus if left out")
    parser.add_argument("--out", type=Path, required=True, help="store to write, or to continue")
    parser.add_argument("--recipe", type=Path, default=HERE / "wavenet.yaml", help="any of this folder's YAMLs")
    parser.add_argument("--cache", type=Path, default=Path("data/ljspeech"), help="where the download is unpacked")
    parser.add_argument("--url", default=URL, help="archive to download; it must be the same one")
    parser.add_argument("--strict", action="store_true", help="a bad recording is an error")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    try:
        recipe = load_recipe(options.recipe)
        data = options.data
        if data is None:
            data = fetch_checked(options.url, SHA256, options.cache, MAX_ARCHIVE_BYTES, place)
        prepare(recipe, data, options.out, strict=options.strict, workers=options.workers)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def place(path: PurePosixPath) -> str | None:
    """Where a file of the archive goes: recordings, texts and the readme, by their plain names."""
    if path.suffix == ".wav" and path.parent.name == "wavs":
        return f"wavs/{path.name}"
    return path.name if path.name in ("metadata.csv", "README") else None


if __name__ == "__main__":
    sys.exit(main())
