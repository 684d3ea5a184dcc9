"""Fetches VCTK 0.92, checks it and prepares the store.

    python recipes/vctk/prepare.py --out stores/vctk               # downloads 11 GB, keeps 6 of them
    python recipes/vctk/prepare.py --data DIR --out stores/vctk    # offline: has wav48_silence_trimmed and txt

The archive is version 0.92 of the CSTR VCTK corpus (CC BY 4.0): 110 speakers, 44 hours, two microphones at 48 kHz. It
is checked by its sha256. The recordings of the first microphone and the texts are unpacked.
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
URL = "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"
SHA256 = "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c"
MAX_ARCHIVE_BYTES = 15_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch, check and prepare VCTK.")
    parser.add_argument("--data", type=Path, help="folder of the unpacked corpus; downloads it if left out")
    parser.add_argument("--out", type=Path, required=True, help="store to write, or to continue")
    parser.add_argument("--recipe", type=Path, default=HERE / "wavenet.yaml", help="any of this folder's YAMLs")
    parser.add_argument("--cache", type=Path, default=Path("data/vctk"), help="where the download is unpacked")
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
    """Where a file of the archive goes: the first microphone, the texts and the licence; no path in it is followed."""
    if path.parent.parent.name == "wav48_silence_trimmed" and path.name.endswith("_mic1.flac"):
        return f"wav48_silence_trimmed/{path.parent.name}/{path.name}"
    if path.parent.parent.name == "txt" and path.suffix == ".txt":
        return f"txt/{path.parent.name}/{path.name}"
    return path.name if path.name in ("license_text", "speaker-info.txt", "README.txt") else None


if __name__ == "__main__":
    sys.exit(main())
