"""Fetches VCTK 0.92, checks it and prepares the store.

    python recipes/vctk/prepare.py --out stores/vctk               # downloads 11 GB, keeps 6 of them
    python recipes/vctk/prepare.py --data DIR --out stores/vctk    # offline: has wav48_silence_trimmed and txt

The archive is version 0.92 of the CSTR VCTK corpus (CC BY 4.0): 110 speakers, 44 hours, two microphones at 48 kHz. It
is checked by its sha256. The recordings of the first microphone and the texts are unpacked.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.data.fetch import fetch_checked

HERE = Path(__file__).resolve().parent
URL = "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"
SHA256 = "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c"
MAX_ARCHIVE_BYTES = 15_000_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare VCTK.", HERE / "wavenet.yaml",
                           "folder of the unpacked corpus; downloads it if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/vctk"), help="where the download is unpacked")
    parser.add_argument("--url", default=URL, help="archive to download; it must be the same one")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: fetch_checked(options.url, SHA256, options.cache, MAX_ARCHIVE_BYTES, place))


def place(path: PurePosixPath) -> str | None:
    """Where a file of the archive goes: the first microphone, the texts and the licence; no path in it is followed."""
    if path.parent.parent.name == "wav48_silence_trimmed" and path.name.endswith("_mic1.flac"):
        return f"wav48_silence_trimmed/{path.parent.name}/{path.name}"
    if path.parent.parent.name == "txt" and path.suffix == ".txt":
        return f"txt/{path.parent.name}/{path.name}"
    return path.name if path.name in ("license_text", "speaker-info.txt", "README.txt") else None


if __name__ == "__main__":
    sys.exit(main())
