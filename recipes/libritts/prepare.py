"""Fetches LibriTTS or LibriTTS-R, checks it and prepares the store.

    python recipes/libritts/prepare.py --out stores/libritts                    # three subsets, downloads 10 GB
    python recipes/libritts/prepare.py --restored --out stores/libritts-r       # LibriTTS-R, the same subsets
    python recipes/libritts/prepare.py --data DIR --out stores/libritts         # offline: SUBSET/SPEAKER/CHAPTER/*.wav

LibriTTS (OpenSLR 60) and LibriTTS-R (OpenSLR 141), both CC BY 4.0: 2,456 readers, 585 hours at 24 kHz in seven subsets.
An archive is checked by its sha256, one of LibriTTS-R by the md5 its publisher names. The split is the official one:
a folder whose name begins with dev is `validation`, one that begins with test is `test`.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path, PurePosixPath

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.data.fetch import fetch_checked

HERE = Path(__file__).resolve().parent
SUBSETS = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other",
           "test-clean", "test-other")
URLS = {False: "https://www.openslr.org/resources/60/{subset}.tar.gz",
        True: "https://www.openslr.org/resources/141/{subset}.tar.gz"}
DIGESTS = {
    False: {
        "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
        "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
        "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
        "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
        "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
        "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
        "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
    },
    True: {
        "dev-clean": "2c1f5312914890634cc2d15783032ff3",
        "dev-other": "62d3a80ad8a282b6f31b3904f0507e4f",
        "test-clean": "4d373d453eb96c0691e598061bbafab7",
        "test-other": "dbc0959d8bdb6d52200595cabc9995ae",
        "train-clean-100": "6df668d8f5f33e70876bfa33862ad02b",
        "train-clean-360": "382eb3e64394b3da6a559f864339b22c",
        "train-other-500": "a37a8e9f4fe79d20601639bf23d1add8",
    },
}
MAX_ARCHIVE_BYTES = 60_000_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare LibriTTS or LibriTTS-R.", HERE / "wavenet.yaml",
                           "folder of the unpacked subsets; downloads them if left out")
    parser.add_argument("--subsets", nargs="+", choices=SUBSETS, default=["train-clean-100", "dev-clean", "test-clean"],
                        metavar="SUBSET", help=f"which to download, of {', '.join(SUBSETS)}")
    parser.add_argument("--restored", action="store_true", help="LibriTTS-R in place of LibriTTS")
    parser.add_argument("--cache", type=Path, help="where it is unpacked; data/libritts, or data/libritts-r")
    parser.add_argument("--url", help="archives to download, with {subset} in place of the name; they must be the same")
    options = parser.parse_args()
    return prepare_corpus(options, lambda: download(options))


def download(options: argparse.Namespace) -> Path:
    """The folder of the subsets asked for."""
    folder: Path = options.cache or Path("data/libritts-r" if options.restored else "data/libritts")
    for subset in options.subsets:
        fetch(folder, subset, options.restored, options.url)
    return folder


def fetch(cache: Path, subset: str, restored: bool = False, url: str | None = None) -> Path:
    """The checked folder of a subset, downloaded unless it is in `cache` already; raises as `fetch_checked`."""
    # The archives of LibriTTS-R are named with underscores, what they hold with hyphens.
    name = subset.replace("-", "_") if restored else subset
    address = (url or URLS[restored]).format(subset=name)
    return fetch_checked(address, DIGESTS[restored][subset], cache / subset, MAX_ARCHIVE_BYTES,
                         functools.partial(place, subset=subset))


def place(path: PurePosixPath, subset: str) -> str | None:
    """Where a file of the archive goes: SPEAKER/CHAPTER/name; no path in it is followed."""
    parts = path.parts
    if len(parts) < 4 or parts[-4] != subset or not (parts[-3].isdigit() and parts[-2].isdigit()):
        return None
    wanted = path.suffix == ".wav" or path.name.endswith(".normalized.txt")
    return "/".join(parts[-3:]) if wanted else None


if __name__ == "__main__":
    sys.exit(main())
