"""Data sets that are downloaded: fetched, checked, unpacked beside their place and renamed into it.

A download that is interrupted, damaged or something else leaves nothing behind; one that is there is used again. A data
set of single files (`fetch_files`) keeps the files that came whole, and continues with the others.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from wavegen.errors import BadInputError

TIMEOUT = 60  # seconds without an answer
BLOCK_BYTES = 1 << 16
DIGEST_FILE = "DIGEST"  # beside what was unpacked: of the archive it is from

Place = Callable[[PurePosixPath], PurePosixPath | str | None]  # where a file of an archive goes, None is nowhere


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


def fetch_checked(url: str, digest: str, cache: Path, max_bytes: int, place: Place) -> Path:
    """`fetch` for an archive whose digest is known: tar with any compression, or zip.

    Args:
        digest: sha256 or md5 of the archive, in hexadecimal.
        place: which of its files are unpacked where below `cache`; see `unpack`.
    """
    def unpack_all(archive: Path, folder: Path) -> None:
        check_digest(archive, digest, url)
        unpack(archive, folder, place)
        (folder / DIGEST_FILE).write_text(digest + "\n")

    def is_complete(folder: Path) -> bool:
        return (folder / DIGEST_FILE).is_file() and (folder / DIGEST_FILE).read_text().strip() == digest

    return fetch(url, cache, max_bytes, unpack_all, is_complete)


def fetch_files(files: Mapping[str, str], url_of: Callable[[str], str], cache: Path,
                max_bytes: int = 100_000_000) -> Path:
    """A data set of single files in `cache`; those that are there already are checked and not downloaded again.

    Args:
        files: the sha256 of each path below `cache`, as `read_digests` reads them.
        url_of: where the file of a path is.
        max_bytes: a larger file is something else.

    Raises:
        BadInputError: no network, a file that is not the one expected, or `cache` holds another one of its name, which
            is left alone. Files that came whole stay, and are not downloaded again.
    """
    from rich.console import Console
    from rich.progress import track

    missing = []
    for path, digest in files.items():
        if not (cache / path).is_file():
            missing.append(path)
        elif hashlib.sha256((cache / path).read_bytes()).hexdigest() != digest:
            raise BadInputError(f"{cache / path} exists and is not the file of the data set; pass --data {cache} to "
                                "use it as it is, or --cache DIR to download elsewhere")
    shown = track(missing, "downloading", console=Console(stderr=True), transient=True,
                  disable=not sys.stderr.isatty())
    for path in shown:
        target = cache / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            found = download(url_of(path), part, max_bytes, quiet=True)
            if found != files[path]:
                raise BadInputError(f"{url_of(path)} is not the file expected (sha256 {found[:12]}, wanted "
                                    f"{files[path][:12]}); try again, or fetch the files yourself and pass --data DIR")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return cache


def read_digests(path: Path) -> dict[str, str]:
    """The sha256 of each path in a file that `sha256sum` wrote."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in path.read_text().splitlines())}


def download(url: str, path: Path, max_bytes: int, quiet: bool = False) -> str:
    """Fetch a file; shows how far it is on a terminal, unless `quiet`.

    Returns:
        Its sha256, in hexadecimal.

    Raises:
        BadInputError: it cannot be fetched, or is larger than `max_bytes`.
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    seen, columns = hashlib.sha256(), (TextColumn("downloading"), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True,
                   disable=quiet or not sys.stderr.isatty())
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
                            "--data DIR with the recordings") from error
    return seen.hexdigest()


def check_digest(file: Path, wanted: str, url: str) -> None:
    """Compare a download with the digest its publisher names.

    Args:
        wanted: sha256, or md5, in hexadecimal.
        url: where it came from, for the message.

    Raises:
        BadInputError: it is something else.
    """
    kind = "md5" if len(wanted) == 32 else "sha256"
    with file.open("rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    if found != wanted:
        raise BadInputError(f"{url} gave {file.stat().st_size} bytes that are not the archive expected ({kind} "
                            f"{found[:12]}, wanted {wanted[:12]}); try again, fetch it with a browser and give "
                            "--url file:///PATH, or unpack the corpus yourself and pass --data DIR")


def digest_of_files(files: Iterable[Path]) -> str:
    """sha256 of the lines that `sha256sum` prints for files in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as content:
            total.update(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {path.name}\n".encode())
    return total.hexdigest()


def unpack(archive: Path, folder: Path, place: Place, max_file_bytes: int = 100_000_000) -> int:
    """Write files of a tar or zip archive into a folder.

    Args:
        place: for a path in the archive, the path below `folder`, or None for a file that is not wanted.
        max_file_bytes: a larger file is no recording.

    Returns:
        Number of files written.

    Raises:
        BadInputError: no whole archive, a file that is too large, or nothing that is wanted.
    """
    count = 0
    try:
        for name, size, content in _files(archive):
            target = place(PurePosixPath(name))
            if target is None:
                continue
            if size > max_file_bytes:
                raise BadInputError(f"{name} in the archive has {size} bytes, more than any recording")
            parts = PurePosixPath(target).parts
            assert ".." not in parts and not PurePosixPath(target).is_absolute(), "`place` keeps files in the folder"
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with content() as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, BLOCK_BYTES)
            count += 1
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
            RuntimeError) as error:
        raise BadInputError(f"the download is not a whole archive ({error}); try again") from error
    if not count:
        raise BadInputError("the archive holds nothing of the corpus; is it another one?")
    return count


def _files(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, size and a way to open each file of an archive, in its order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for entry in files.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, functools.partial(files.open, entry)
        return
    with tarfile.open(archive, "r|*") as members:
        for member in members:
            if member.isfile():
                yield member.name, member.size, functools.partial(_opened, members, member)


def _opened(members: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = members.extractfile(member)
    assert content is not None  # it is a file
    return content


def _length(response: Any) -> float | None:
    """Bytes a server has promised."""
    length = response.headers.get("Content-Length", "")
    return float(length) if length.isdigit() else None
