"""The store: a folder of mu-law codes, written once by `wavegen prepare`, memory-mapped in training.

    store.json          format, codec, AudioConfig, labels, speakers, totals, sha256 of every file
    index.jsonl         one row an utterance
    codes-00000.u8      codes back to back (.u16 above 256 codes)
    features-00000.f16  log-mel frames (F, n_mels) back to back, if `audio.mel` is set
    columns.npy         the numbers of index.jsonl, so that opening three million rows parses no JSON
    report.json         what was skipped and why, clipping, durations, levels
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from wavegen.audio.atomic import replacing
from wavegen.audio.mel import num_frames
from wavegen.audio.signal import decode_codes
from wavegen.config import AudioConfig, Config, MelSpec, PrepareConfig, parse
from wavegen.errors import ConfigError, StoreError, did_you_mean

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
INDEX, COLUMNS_FILE, REPORT, INFO = "index.jsonl", "columns.npy", "report.json", "store.json"
COLUMNS = np.dtype([
    ("shard", "<i4"),
    ("offset", "<i8"),  # in its shard
    ("num_samples", "<i8"),
    ("frame_offset", "<i8"),  # of its features in their shard
    ("num_frames", "<i4"),
    ("split", "<i2"),
    ("label", "<i4"),  # -1 is none
    ("speaker", "<i4"),  # -1 is none
    ("gain", "<f8"),
    ("clipped", "<i8"),
    ("peak", "<f4"),
    ("line", "<i8"),  # bytes of index.jsonl before the row
])


class FileRecord(Config):
    """One file of a store."""

    name: str
    bytes: int = Field(ge=0)
    sha256: str


class Totals(Config):
    """How much a split holds."""

    utterances: int = Field(ge=0)
    samples: int = Field(ge=0)


class StoreInfo(Config):
    """`store.json`."""

    format: Literal["wavegen-store"] = "wavegen-store"
    format_version: Literal[1] = 1
    audio: AudioConfig
    labels: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    splits: dict[str, Totals]
    index: FileRecord
    codes: tuple[FileRecord, ...]
    features: tuple[FileRecord, ...] = ()
    columns: FileRecord | None = None
    sources: str = ""  # fingerprint of the list of recordings
    features_source: str = ""  # fingerprint of features that were given; empty: computed from the recordings
    prepare: PrepareConfig

    @property
    def digest(self) -> str:
        """sha256 over everything that decides what a row is; equal stores have equal digests."""
        # What the codes of older stores could not be otherwise does not change their digest.
        later = {"signal_path", "lpc_order", "preemphasis"} if self.audio.is_plain else set()
        parts = [self.audio.model_dump_json(exclude=later), self.index.sha256]
        parts += [record.sha256 for record in (*self.codes, *self.features)]
        return hashlib.sha256(json.dumps([parts, self.labels, self.speakers]).encode()).hexdigest()

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """What must be there; the columns can be made again."""
        return (self.index, *self.codes, *self.features)


class Store:
    """A finished store, opened for reading.

    Columns are numpy arrays, codes are memory-mapped; a row's JSON is parsed only when asked for.
    """

    def __init__(self, path: Path, info: StoreInfo, columns: np.ndarray) -> None:
        self.path = path
        self.info = info
        self.audio: AudioConfig = info.audio
        self.labels: tuple[str, ...] = info.labels
        self.speakers: tuple[str, ...] = info.speakers
        self.splits: tuple[str, ...] = tuple(info.splits)
        self.digest: str = info.digest
        self._columns = columns
        self._maps: dict[str, np.ndarray] = {}
        self.lengths: np.ndarray = np.ascontiguousarray(columns["num_samples"])
        self.label_ids: np.ndarray = np.ascontiguousarray(columns["label"])
        self.speaker_ids: np.ndarray = np.ascontiguousarray(columns["speaker"])
        self.gains: np.ndarray = np.ascontiguousarray(columns["gain"])

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store.

        Raises:
            StoreError: there is none, it is of another version, or a file is missing or cut short.
        """
        path = Path(path)
        info = read_info(path)
        for record in info.files:
            file = path / record.name
            if not file.is_file() or file.stat().st_size != record.bytes:
                found = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
                raise StoreError(f"store {path} is damaged: {record.name} should have {record.bytes} bytes, "
                                 f"found {found}; prepare it again")
        return cls(path, info, _load_columns(path, info))

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Store.open, (self.path,)  # a loader's worker maps the files itself

    def __len__(self) -> int:
        return len(self._columns)

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers of a split, or of all: int64 (N,), increasing.

        Raises:
            ConfigError: the store has no such split.
        """
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in self.splits:
            raise ConfigError(f'store {self.path} has no split "{split}"; {did_you_mean(split, self.splits)}')
        rows: np.ndarray = np.flatnonzero(self._columns["split"] == self.splits.index(split)).astype(np.int64)
        return rows

    def codes(self, row: int) -> np.ndarray:
        """Codes of a row: uint8 or uint16 (T,), a read-only view of the file."""
        column = self._columns[row]
        shard, offset, length = int(column["shard"]), int(column["offset"]), int(column["num_samples"])
        values = self._map(self.info.codes[shard], code_dtype(self.audio))
        return values[offset : offset + length]

    def features(self, row: int) -> np.ndarray | None:
        """Log-mel frames of a row: float16 (F, n_mels), a read-only view of the file; None if it has none."""
        if self.audio.mel is None:
            return None
        column, n_mels = self._columns[row], self.audio.mel.n_mels
        start, length = int(column["frame_offset"]) * n_mels, int(column["num_frames"]) * n_mels
        values = self._map(self.info.features[int(column["shard"])], "<f2")
        return values[start : start + length].reshape(-1, n_mels)

    def waveform(self, row: int) -> np.ndarray:
        """What the codes of a row say: float32 (T,) in [-1, 1]."""
        features = self.features(row) if self.audio.signal_path == "lpc" else None
        return decode_codes(self.codes(row), self.audio, None if features is None else features.T)

    def entry(self, row: int) -> dict[str, Any]:
        """The index row as written: id, num_samples, split, label, speaker, text, source, gain and so on."""
        with open(self.path / self.info.index.name, "rb") as file:
            file.seek(int(self._columns["line"][row]))
            entry: dict[str, Any] = json.loads(file.readline())
        return entry

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            StoreError: names the first file that differs.
        """
        for record in (*self.info.files, *([self.info.columns] if self.info.columns else [])):
            if sha256_of(self.path / record.name) != record.sha256:
                raise StoreError(f"store {self.path} is damaged: {record.name} is not what was written; "
                                 "prepare it again")

    def _map(self, record: FileRecord, dtype: str) -> np.ndarray:
        if record.name not in self._maps:
            # A view as a plain array: slices of a memmap object cost ten times as much.
            self._maps[record.name] = np.asarray(np.memmap(self.path / record.name, dtype=dtype, mode="r"))
        return self._maps[record.name]


def read_info(path: Path) -> StoreInfo:
    """Read and check `store.json`.

    Raises:
        StoreError: there is none, or it is not ours.
    """
    file = path / INFO
    if not file.is_file():
        raise StoreError(f"{path} holds no store (no store.json); make one with `wavegen prepare`")
    try:
        values = json.loads(file.read_text("utf-8"))
        if not isinstance(values, dict) or values.get("format") != "wavegen-store":
            raise StoreError(f"{file} does not describe a wavegen store")
        if values.get("format_version") != FORMAT_VERSION:
            raise StoreError(f"store {path} has format version {values.get('format_version')}, this wavegen "
                             f"reads version {FORMAT_VERSION}; prepare it again")
        return parse(StoreInfo, values, str(file))
    except (json.JSONDecodeError, UnicodeDecodeError, ConfigError) as error:
        raise StoreError(f"store {path} is damaged: {error}; prepare it again") from error


def code_dtype(audio: AudioConfig) -> str:
    """numpy type of a code on disk."""
    return "|u1" if audio.quantization_channels <= 256 else "<u2"


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_columns(index: Path, splits: tuple[str, ...], labels: tuple[str, ...], speakers: tuple[str, ...],
                 mel: MelSpec | None) -> np.ndarray:
    """The numbers of an index as one array of `COLUMNS`; reads line by line.

    Raises:
        StoreError: a line cannot be read.
    """
    ids = [{name: number for number, name in enumerate(names)} for names in (splits, labels, speakers)]

    def rows() -> Iterator[tuple[Any, ...]]:
        line_start, frame_offset, last_shard = 0, 0, 0
        with open(index, "rb") as file:
            for line in file:
                row = json.loads(line)
                shard, length, label, speaker = row["shard"], row["num_samples"], row["label"], row["speaker"]
                frames = num_frames(length, mel) if mel is not None else 0
                frame_offset, last_shard = frame_offset if shard == last_shard else 0, shard
                yield (shard, row["offset"], length, frame_offset, frames, ids[0][row["split"]],
                       -1 if label is None else ids[1][label], -1 if speaker is None else ids[2][speaker],
                       row["gain"], row["clipped"], row["peak"], line_start)
                line_start, frame_offset = line_start + len(line), frame_offset + frames

    try:
        return np.fromiter(rows(), dtype=COLUMNS)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{index} is damaged ({error!r}); prepare the store again") from error


def write_columns(path: Path, columns: np.ndarray) -> None:
    """Keep the columns beside the index."""
    with replacing(path) as file:
        np.save(file, columns, allow_pickle=False)


def _fit(columns: np.ndarray, info: StoreInfo) -> bool:
    """Whether columns and `store.json` agree on what there is."""
    totals = info.splits.values()
    return (len(columns) == sum(split.utterances for split in totals)
            and int(columns["num_samples"].sum()) == sum(split.samples for split in totals))


def _load_columns(path: Path, info: StoreInfo) -> np.ndarray:
    """Map the columns, or make them again from the index if they are gone or not those of this store."""
    file = path / COLUMNS_FILE
    if info.columns is not None and file.is_file() and file.stat().st_size == info.columns.bytes:
        try:
            columns: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
            if columns.dtype == COLUMNS and _fit(columns, info):
                return columns
        except ValueError as error:
            logger.debug("%s: %s", file, error)
    columns = read_columns(path / info.index.name, tuple(info.splits), info.labels, info.speakers,
                           info.audio.mel)
    if info.columns is not None:
        logger.info("%s is missing or damaged; made again from %s", file, info.index.name)
        try:
            write_columns(file, columns)
        except OSError as error:
            logger.debug("%s", error)  # a store that may only be read works without
    return columns
