"""Writing a store so that a killed run can be continued.

    PARTIAL/state.json      how many recordings are done and how long each file was then
    PARTIAL/skipped.jsonl   what was left out
    PARTIAL/store/          the store; becomes the real one by a rename

Everything is only ever appended. At a checkpoint the files are synced first and the state is renamed into
place after, so the state never promises more than the disk holds; what follows it is cut off and done again.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from wavegen.audio.atomic import replacing, sync, sync_folder
from wavegen.config import AudioConfig, PrepareConfig
from wavegen.data.plan import Item
from wavegen.data.splits import REST
from wavegen.data.store import (
    COLUMNS_FILE,
    FORMAT_VERSION,
    INDEX,
    INFO,
    FileRecord,
    StoreInfo,
    Totals,
    code_dtype,
    read_columns,
    sha256_of,
    write_columns,
)

logger = logging.getLogger(__name__)

SKIPPED = "skipped.jsonl"


class StoreWriter:
    """Appends utterances and what was left out, in the order of a plan; used in a `with` block."""

    def __init__(self, partial: Path, audio: AudioConfig, config: PrepareConfig, fingerprint: str) -> None:
        """Continue what lies in `partial`, if it was begun with the same settings and recordings."""
        self.partial, self.folder = partial, partial / "store"
        self.num_done = 0  # recordings taken or left out
        self.num_utterances = 0
        self._audio, self._config = audio, config
        self._code_bytes = np.dtype(code_dtype(audio)).itemsize
        self._shard, self._offset = 0, 0
        self._files: dict[str, BinaryIO] = {}
        self._saved = time.monotonic()
        self._settings = {"format_version": FORMAT_VERSION, "audio": audio.model_dump(mode="json"),
                          "prepare": config.model_dump(mode="json"), "recordings": fingerprint}
        if not self._continue():
            shutil.rmtree(self.folder, ignore_errors=True)
            (partial / "state.json").unlink(missing_ok=True)
            (partial / SKIPPED).unlink(missing_ok=True)
            self.folder.mkdir()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                logger.debug("%s could not be closed", file.name)  # the error that ended us says why
        self._files = {}

    def add(self, item: Item, codes: bytes, features: bytes, gain: float, peak: float, clipped: int) -> None:
        """Append an utterance; `codes` and `features` as they are on disk."""
        num_samples = len(codes) // self._code_bytes
        if self._offset and self._offset + num_samples > self._config.shard_samples:
            self._sync()  # a full shard is not written to again
            self._shard, self._offset = self._shard + 1, 0
        row = {"id": item.id, "shard": self._shard, "offset": self._offset, "num_samples": num_samples,
               "split": item.split, "label": item.label, "speaker": item.speaker, "text": item.text,
               "source": item.source, "gain": gain, "clipped": clipped, "peak": peak}
        self._append(self.folder / self._name("codes"), codes)
        if self._audio.mel is not None:
            self._append(self.folder / self._name("features"), features)
        self._append(self.folder / INDEX, _line(row))
        self._offset += num_samples
        self.num_utterances += 1
        self.num_done += 1

    def skip(self, item: Item, reason: str) -> None:
        """Note a recording that is left out."""
        self._append(self.partial / SKIPPED, _line({"source": item.source, "reason": reason}))
        self.num_done += 1

    def skipped(self) -> Iterator[dict[str, str]]:
        """What was left out: `source` and `reason`, in order."""
        self._flush()
        if (self.partial / SKIPPED).is_file():
            with open(self.partial / SKIPPED, "rb") as file:
                yield from map(json.loads, file)

    def checkpoint(self, seconds: float) -> None:
        """Make what was written safe against a kill, if the last time was `seconds` ago."""
        if time.monotonic() < self._saved + seconds:
            return
        self._sync()
        sizes = {str(file.relative_to(self.partial)): file.stat().st_size
                 for file in (self.partial / SKIPPED, *self.folder.iterdir()) if file.is_file()}
        state = {"settings": self._settings, "done": self.num_done, "utterances": self.num_utterances,
                 "shard": self._shard, "offset": self._offset, "sizes": sizes}
        with replacing(self.partial / "state.json") as file:
            file.write(json.dumps(state).encode())
        self._saved = time.monotonic()

    def finish(self, sources: str, features_source: str = "") -> tuple[StoreInfo, np.ndarray]:
        """Close the files and write columns and `store.json`.

        Args:
            sources: fingerprint of the list of recordings.
            features_source: fingerprint of features that were given.

        Returns:
            What `store.json` says, and the columns of the index.
        """
        self.checkpoint(0.0)
        splits, labels, speakers = _names(self.folder / INDEX)
        labels = self._config.labels or labels
        speakers = self._config.speakers or speakers
        columns = read_columns(self.folder / INDEX, splits, labels, speakers, self._audio.mel)
        write_columns(self.folder / COLUMNS_FILE, columns)
        totals = {}
        for number, split in enumerate(splits):
            chosen = columns["num_samples"][columns["split"] == number]
            totals[split] = Totals(utterances=len(chosen), samples=int(chosen.sum()))
        info = StoreInfo(audio=self._audio, labels=labels, speakers=speakers, splits=totals,
                         index=self._record(INDEX), codes=self._shards("codes"),
                         features=self._shards("features"), columns=self._record(COLUMNS_FILE),
                         sources=sources, features_source=features_source, prepare=self._config)
        with replacing(self.folder / INFO) as file:
            file.write((info.model_dump_json(indent=2) + "\n").encode())
        return info, columns

    def _continue(self) -> bool:
        """Take up the last checkpoint; cuts off what was written after it."""
        try:
            state = json.loads((self.partial / "state.json").read_text("utf-8"))
            if state["settings"] != self._settings:
                logger.info("an unfinished store of other settings or recordings is discarded")
                return False
            sizes: dict[str, int] = state["sizes"]
            if any((self.partial / name).stat().st_size < size for name, size in sizes.items()):
                return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        for file in (self.partial / SKIPPED, *self.folder.iterdir()):
            name = str(file.relative_to(self.partial))
            if name not in sizes:
                file.unlink(missing_ok=True)
            else:
                with open(file, "r+b") as handle:
                    handle.truncate(sizes[name])
        self.num_done, self.num_utterances = state["done"], state["utterances"]
        self._shard, self._offset = state["shard"], state["offset"]
        return True

    def _append(self, path: Path, data: bytes) -> None:
        if path.name not in self._files:
            self._files[path.name] = open(path, "ab")  # noqa: SIM115  closed at the next checkpoint or exit
        self._files[path.name].write(data)

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def _sync(self) -> None:
        for file in self._files.values():
            sync(file)
            file.close()
        self._files = {}
        sync_folder(self.folder)

    def _name(self, kind: str) -> str:
        width = 8 * self._code_bytes
        return f"codes-{self._shard:05d}.u{width}" if kind == "codes" else f"features-{self._shard:05d}.f16"

    def _record(self, name: str) -> FileRecord:
        file = self.folder / name
        return FileRecord(name=name, bytes=file.stat().st_size, sha256=sha256_of(file))

    def _shards(self, kind: str) -> tuple[FileRecord, ...]:
        return tuple(self._record(file.name) for file in sorted(self.folder.glob(f"{kind}-*")))


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _names(index: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Splits (the training split first), labels and speakers of an index, each sorted."""
    found: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    with open(index, "rb") as file:
        for line in file:
            row = json.loads(line)
            for names, key in zip(found, ("split", "label", "speaker"), strict=True):
                if row[key] is not None:
                    names.add(row[key])
    splits = sorted(found[0], key=lambda name: (name != REST, name))
    return tuple(splits), tuple(sorted(found[1])), tuple(sorted(found[2]))
