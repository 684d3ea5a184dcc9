"""Files that are whole or not there: written under another name, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from wavegen.errors import WavegenError


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when the block ends well.

    An existing file is replaced in one step; if the block fails it stays as it was and
    nothing else is left behind.

    Raises:
        WavegenError: the file cannot be written (disk full, no such folder, no permission).
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise write_error(path, error) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write plain values as JSON, into a folder that is made if need be.

    Raises:
        WavegenError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """`atomic_write` for a caller who explains an OSError better than we can here."""
    part = part_of(path)
    try:
        with open(part, "wb") as file:
            yield file
            sync(file)
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """The name a file has while it is written: hidden, beside its place, not shared with another process."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def sync(file: BinaryIO) -> None:
    """Bring what was written onto the disk; a full disk shows here at the latest."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_error(path: Path, error: OSError) -> WavegenError:
    """The readable form of a failed write."""
    reason = error.strerror or str(error)
    return WavegenError(f"{path} could not be written: {reason}; nothing half-written was left there")
