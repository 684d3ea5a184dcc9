"""Fetches the Speech Commands corpus, checks it and prepares the store of its ten digits ("SC09").

    python recipes/speech_commands/prepare.py --out stores/sc09              # downloads 2.4 GB
    python recipes/speech_commands/prepare.py --data DIR --out stores/sc09   # offline, from unpacked wavs

The archive is version 0.02 of Pete Warden's corpus (CC BY 4.0), or 0.01 with --version. It is checked by its
sha256, and the folders of the ten digits are unpacked. The split is the official one, by a hash of the
speaker's id: 10 % validation, 10 % test.

Clips longer than 1.024 s would be cut; there is none in the corpus. Folders of other words are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.config import Recipe
from wavegen.data.fetch import fetch_checked

HERE = Path(__file__).resolve().parent
URL = "http://download.tensorflow.org/data/speech_commands_v{version}.tar.gz"
SHA256 = {
    "0.01": "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    "0.02": "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_ARCHIVE_BYTES = 4_000_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare the digits of Speech Commands.", HERE / "wavenet.yaml",
                           "folder of unpacked wavs; downloads the archive if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/speech_commands"), help="where it is unpacked")
    parser.add_argument("--version", choices=sorted(SHA256), default="0.02", help="of the corpus")
    parser.add_argument("--url", help="archive to download; it must be the same one")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: download(options), look)


def download(options: argparse.Namespace) -> Path:
    """The folder of the version asked for."""
    url = options.url or URL.format(version=options.version)
    return fetch_checked(url, SHA256[options.version], options.cache, MAX_ARCHIVE_BYTES, place)


def look(data: Path, recipe: Recipe) -> Path:
    """Say what recordings there are; gives their folder."""
    print(describe(data), file=sys.stderr)
    return data


def describe(data: Path) -> str:
    """How many recordings of which digits a folder holds."""
    found = Counter(path.parent.name for path in data.rglob("*_nohash_*.wav"))
    others = sum(count for word, count in found.items() if word not in DIGITS)
    digits = ", ".join(f"{found[digit]} of {digit}" for digit in DIGITS)
    return digits + (f"; left out: {others} of other words" if others else "")


def place(path: PurePosixPath) -> str | None:
    """Where a file of the archive goes: recordings of digits, by word and plain name; no path in it is followed."""
    wanted = path.suffix == ".wav" and path.parent.name in DIGITS
    return f"{path.parent.name}/{path.name}" if wanted else None


if __name__ == "__main__":
    sys.exit(main())
