"""Data sets that are downloaded: fetched, checked, unpacked beside their place and renamed into it.

A download that is interrupted, damaged or something else leaves nothing behind; one that is there is used again.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wavegen.errors import BadInputError

TIMEOUT = 60  # seconds without an answer
BLOCK_BYTES = 1 << 16


def fetch(url: str, cache: Path, max_bytes: int, unpack: Callable[[Path, Path], None],
          is_complete: Callable[[Path], bool]) -> Path:
    """A data set in `cache`, downloaded unless it is there already.

    Args:
        url: of the archive.
        cache: folder of the unpacked data set.
        max_bytes: a larger download is something else.
        unpack: given the archive and a new folder, fills it; raises `BadInputError` for what is no data set of ours.
        is_complete: whether a folder holds the whole data set.

    Raises:
        BadInputError: no network, or what came is not the data set; nothing is left behind. Or `cache` holds
            something else, which is left alone.
    """
    if cache.is_dir() and is_complete(cache):
        return cache
    if cache.exists() and (not cache.is_dir() or any(cache.iterdir())):
        raise BadInputError(f"{cache} exists and is not the whole data set; pass --data {cache} to use it as it is, "
                            "or --cache DIR to download elsewhere")
    cache.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{cache.name}.", suffix=".part", dir=cache.parent))
    try:
        archive = scratch / "archive"
        download(url, archive, max_bytes)
        unpack(archive, scratch / "new")
        os.replace(scratch / "new", cache)  # an empty folder may be in its place, nothing else
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return cache


def download(url: str, path: Path, max_bytes: int) -> str:
    """Fetch a file; shows how far it is on a terminal.

    Returns:
        Its sha256, in hexadecimal.

    Raises:
        BadInputError: it cannot be fetched, or is larger than `max_bytes`.
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    seen, columns = hashlib.sha256(), (TextColumn("downloading"), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    try:
        with bar, urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
            task, total = bar.add_task("downloading", total=_length(response)), 0
            while block := response.read(BLOCK_BYTES):
                total += len(block)
                if total > max_bytes:
                    raise BadInputError(f"{url} is larger than {max_bytes} bytes: not the data set")
                seen.update(block)
                file.write(block)
                bar.update(task, completed=total)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise BadInputError(f"{url} cannot be downloaded ({reason}); on a machine without a network pass "
                            "--data DIR with the unpacked wavs") from error
    return seen.hexdigest()


def _length(response: Any) -> float | None:
    """Bytes a server has promised."""
    length = response.headers.get("Content-Length", "")
    return float(length) if length.isdigit() else None
