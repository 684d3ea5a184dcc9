"""Fetches LJSpeech, checks it and prepares the store.

    python recipes/ljspeech/prepare.py --out stores/ljspeech               # downloads 2.6 GB
    python recipes/ljspeech/prepare.py --data DIR --out stores/ljspeech    # offline: metadata.csv and wavs/*.wav

The archive is LJSpeech 1.1 (public domain): 13,100 clips of one reader, 24 hours at 22.05 kHz. It is checked by its
sha256. A folder of your own recordings in the same layout works as well, with --data.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.data.fetch import fetch_checked

HERE = Path(__file__).resolve().parent
URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
MAX_ARCHIVE_BYTES = 4_000_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare LJSpeech.", HERE / "wavenet.yaml",
                           "folder with metadata.csv and wavs; downloads the corpus if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/ljspeech"), help="where the download is unpacked")
    parser.add_argument("--url", default=URL, help="archive to download; it must be the same one")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: fetch_checked(options.url, SHA256, options.cache, MAX_ARCHIVE_BYTES, place))


def place(path: PurePosixPath) -> str | None:
    """Where a file of the archive goes: recordings, texts and the readme, by their plain names."""
    if path.suffix == ".wav" and path.parent.name == "wavs":
        return f"wavs/{path.name}"
    return path.name if path.name in ("metadata.csv", "README") else None


if __name__ == "__main__":
    sys.exit(main())
