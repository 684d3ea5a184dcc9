"""Fetches the single notes, checks them and prepares the store.

    python recipes/notes/prepare.py --out stores/notes                  # downloads 124 files, 22 MB
    python recipes/notes/prepare.py --data DIR --out stores/notes       # offline; DIR holds the four folders

The files are fetched one by one from two repositories at fixed commits, which hold far more than these, and checked by
`SHA256SUMS` in this folder. Licences are in the README. Interrupted, it continues with the files that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wavegen.cli.corpus import prepare_samples

HERE = Path(__file__).resolve().parent
GM = "sfzinstruments/Discord-SFZ-GM-Bank/7a9c478fe331f94f246d33332f0adedb25bbbe27/Discord GM/Melodic"
SINGER = "vocobox/human-voice-dataset/77248fc69fd93c40a69d49c0cade4144c5d7a9f4"
SOURCES = {  # folder of the data set: repository, commit, folder there
    "electric_grand_piano": f"{GM}/003-Electric Grand Piano",
    "acoustic_guitar": f"{GM}/026-Acoustic Guitar (steel)",
    "pizzicato_strings": f"{GM}/046-Pizzicato Strings",
    "sung_martin": f"{SINGER}/data/voices/martin/notes/exports/mono",
}


def main() -> int:
    return prepare_samples("Fetch, check and prepare the single notes.", HERE, "vae.yaml", SOURCES)


if __name__ == "__main__":
    sys.exit(main())
