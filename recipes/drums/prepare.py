"""Fetches the drum one-shots, checks them and prepares the store.

    python recipes/drums/prepare.py --out stores/drums                  # downloads 356 files, 7 MB
    python recipes/drums/prepare.py --data DIR --out stores/drums       # offline, from DIR/drum-machines, DIR/sonic-pi

The files are fetched one by one from two repositories at fixed commits, which hold far more than these, and checked by
`SHA256SUMS` in this folder. Licences are in the README. Interrupted, it continues with the files that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.data.fetch import fetch_files, read_digests

HERE = Path(__file__).resolve().parent
HOST = "https://raw.githubusercontent.com"
SOURCES = {  # folder of the data set: repository, commit, folder there
    "drum-machines": "smpldsnds/drum-machines/a894cb8c72abe15b05e7b4fd4b8ee561c0f9e960",
    "sonic-pi": "sonic-pi-net/sonic-pi/c0002065a976b1355e7889f4aa96a1804e2b8119/etc/samples",
}


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare the drum one-shots.", HERE / "wgan.yaml",
                           "folder of the recordings; they are downloaded if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/drums"), help="where the download is kept")
    parser.add_argument("--host", default=HOST, help="a mirror: repositories, commits and files in folders below it")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: fetch_files(
        read_digests(HERE / "SHA256SUMS"), lambda path: url_of(path, options.host), options.cache))


def url_of(path: str, host: str = HOST) -> str:
    """Where the file of a path of this data set is."""
    folder, name = path.split("/", 1)
    return f"{host}/{quote(f'{SOURCES[folder]}/{name}')}"


if __name__ == "__main__":
    sys.exit(main())
