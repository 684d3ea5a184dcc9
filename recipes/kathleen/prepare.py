"""Fetches the voice data set "Kathleen", checks it and prepares the store.

    python recipes/kathleen/prepare.py --out stores/kathleen               # downloads 0.9 GB
    python recipes/kathleen/prepare.py --data DIR --out stores/kathleen    # offline: data/*.flac

The archive is rhasspy/dataset-voice-kathleen at one commit (CC0): one reader, 1620 recordings of 1132 sentences. Every
recording is checked against one digest, which anyone can repeat:

    cd data && LC_ALL=C sha256sum *.wav | sha256sum

Kept are the sentences arctic_a0001 to arctic_a0405, one recording each, the last that was made: 20 minutes. They are
written as FLAC without loss, beside metadata.csv with the texts.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import soundfile

from wavegen.cli.corpus import corpus_parser, prepare_corpus
from wavegen.data.fetch import digest_of_files, fetch, unpack
from wavegen.errors import BadInputError

HERE = Path(__file__).resolve().parent
COMMIT = "c51cb971036a127359b43c621f26ca5081eab13e"
URL = f"https://github.com/rhasspy/dataset-voice-kathleen/archive/{COMMIT}.tar.gz"
NUM_FILES = 1620
DIGEST = "d7e2c6316259aa94269f8d395dbf151ac56104cfd20a144c48345cd7381a7156"
LAST_PROMPT = "arctic_a0405"
MAX_ARCHIVE_BYTES = 2_000_000_000


def main() -> int:
    parser = corpus_parser("Fetch, check and prepare the voice Kathleen.", HERE / "wavenet.yaml",
                           "folder of recordings; downloads the data set if left out")
    parser.add_argument("--cache", type=Path, default=Path("data/kathleen"), help="where the download is unpacked")
    parser.add_argument("--url", default=URL, help="archive to download; it must hold the same recordings")
    options = parser.parse_args()
    return prepare_corpus(
        options, lambda: fetch(options.url, options.cache, MAX_ARCHIVE_BYTES, unpack_chosen, is_complete))


def unpack_chosen(archive: Path, folder: Path) -> None:
    """Check all recordings of the archive and keep one of each sentence.

    Raises:
        BadInputError: they are others.
    """
    whole = folder / ".whole"
    unpack(archive, whole, place)
    found = sorted(whole.glob("*.wav"))
    digest = digest_of_files(found)
    if len(found) != NUM_FILES or digest != DIGEST:
        raise BadInputError(f"the archive holds {len(found)} recordings that are not the {NUM_FILES} expected (digest "
                            f"{digest[:12]}, wanted {DIGEST[:12]}); try again, or unpack the data set yourself and "
                            "pass --data DIR")
    (folder / "data").mkdir()
    lines = []
    for path in chosen(found):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(folder / "data" / f"{path.stem}.flac", samples, rate, subtype="PCM_16")
        text = " ".join(path.with_suffix(".txt").read_text("utf-8").split())
        lines.append(f"{path.stem}|{text}|{text}\n")
    for path in whole.iterdir():
        path.unlink()
    whole.rmdir()
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")


def place(path: PurePosixPath) -> str | None:
    """Where a file of the archive goes: recordings and their texts, by their plain names."""
    return path.name if path.parent.name == "data" and path.suffix in (".wav", ".txt") else None


def chosen(paths: list[Path]) -> list[Path]:
    """The last recording of each sentence up to `LAST_PROMPT`; a name is PROMPT_TIME."""
    latest: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: path.name):  # times are of equal length
        prompt = path.stem.rpartition("_")[0]
        if prompt <= LAST_PROMPT:
            latest[prompt] = path
    return list(latest.values())


def is_complete(folder: Path) -> bool:
    """Whether a folder holds what `unpack_chosen` leaves."""
    if not (folder / "metadata.csv").is_file():
        return False
    lines = (folder / "metadata.csv").read_text("utf-8").splitlines()
    return all((folder / "data" / f"{line.split('|')[0]}.flac").is_file() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
