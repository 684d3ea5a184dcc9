"""Fetches the drum one-shots, checks them and prepares the store.

    python recipes/drums/prepare.py --out stores/drums                  # downloads 356 files, 7 MB
    python recipes/drums/prepare.py --data DIR --out stores/drums       # offline, from DIR/drum-machines, DIR/sonic-pi

The files are fetched one by one from two repositories at fixed commits, which hold far more than these, and checked by
`SHA256SUMS` in this folder. Licences are in the README. Interrupted, it continues with the files that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wavegen.cli.corpus import prepare_samples

HERE = Path(__file__).resolve().parent
SOURCES = {  # folder of the data set: repository, commit, folder there
    "drum-machines": "smpldsnds/drum-machines/a894cb8c72abe15b05e7b4fd4b8ee561c0f9e960",
    "sonic-pi": "sonic-pi-net/sonic-pi/c0002065a976b1355e7889f4aa96a1804e2b8119/etc/samples",
}


def main() -> int:
    return prepare_samples("Fetch, check and prepare the drum one-shots.", HERE, "wgan.yaml", SOURCES)


if __name__ == "__main__":
    sys.exit(main())
