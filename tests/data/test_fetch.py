"""Downloading, without a network: archives are files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pytest

from wavegen.data.fetch import download, fetch, fetch_checked, unpack
from wavegen.errors import BadInputError


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "archive").write_bytes(b"all the recordings")
    return tmp_path / "archive"


def copy(archive, folder):
    folder.mkdir()
    (folder / "clip.wav").write_bytes(archive.read_bytes())


def is_complete(folder):
    return (folder / "clip.wav").is_file()


def test_a_data_set_is_fetched_once(archive, tmp_path):
    cache = tmp_path / "a" / "cache"
    assert fetch(archive.as_uri(), cache, 100, copy, is_complete) == cache
    archive.unlink()
    assert fetch(archive.as_uri(), cache, 100, copy, is_complete) == cache
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_what_is_no_data_set_leaves_nothing(archive, tmp_path):
    def refuse(archive, folder):
        copy(archive, folder)
        raise BadInputError("these are not the recordings")

    with pytest.raises(BadInputError, match="not the recordings"):
        fetch(archive.as_uri(), tmp_path / "a" / "cache", 100, refuse, is_complete)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(archive, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(BadInputError, match="is not the whole data set"):
        fetch(archive.as_uri(), tmp_path / "cache", 100, copy, is_complete)
    assert (tmp_path / "cache" / "thesis.txt").read_text() == "ten years of work"


def test_a_download_says_what_came(archive, tmp_path):
    assert download(archive.as_uri(), tmp_path / "out", 100) == hashlib.sha256(b"all the recordings").hexdigest()


def test_a_download_too_large_is_stopped(archive, tmp_path):
    with pytest.raises(BadInputError, match="larger than 5 bytes"):
        download(archive.as_uri(), tmp_path / "out", 5)


@pytest.mark.parametrize("url", ["file:///nowhere/archive", "no address at all"])
def test_no_network_says_what_to_do(url, tmp_path):
    with pytest.raises(BadInputError, match="pass --data DIR"):
        download(url, tmp_path / "out", 100)


def tar_of(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as content:
        for name, value in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            content.addfile(entry, io.BytesIO(value))
    return path


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, value in files.items():
            content.writestr(name, value)
    return path


FILES = {"set/wavs/a.wav": b"first", "set/wavs/b.wav": b"second" * 999, "set/README": b"hello", "../../c.wav": b"third"}
ARCHIVES = {"zip": zip_of, "tar.gz": tar_of, "tar.bz2": lambda path, files: tar_of(path, files, "w:bz2")}


def wav_by_name(path):
    return f"wavs/{path.name}" if path.suffix == ".wav" else None


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_checked_archive_is_unpacked_by_plain_names(kind, tmp_path):
    archive = ARCHIVES[kind](tmp_path / f"set.{kind}", FILES)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    cache = fetch_checked(archive.as_uri(), digest, tmp_path / "a" / "cache", 100_000, wav_by_name)
    found = {str(path.relative_to(tmp_path / "a")): path.read_bytes() for path in tmp_path.glob("a/**/*.wav")}
    assert found == {f"cache/wavs/{name[-5:]}": value for name, value in FILES.items() if name.endswith(".wav")}
    archive.unlink()
    assert fetch_checked(archive.as_uri(), digest, cache, 100_000, wav_by_name) == cache


def test_an_archive_of_another_digest_is_refused(tmp_path):
    archive = tar_of(tmp_path / "set.tar.gz", FILES)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    for wanted in ("0" * 64, "0" * 32):
        with pytest.raises(BadInputError, match=r"not the archive expected .*fetch it with a browser"):
            fetch_checked(archive.as_uri(), wanted, tmp_path / "a" / "cache", 100_000, wav_by_name)
    assert list((tmp_path / "a").iterdir()) == []
    assert fetch_checked(archive.as_uri(), md5, tmp_path / "a" / "cache", 100_000, wav_by_name).is_dir()


@pytest.mark.parametrize("kind", ARCHIVES)
def test_half_an_archive_is_no_archive(kind, tmp_path):
    random = bytes(np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8))
    archive = ARCHIVES[kind](tmp_path / "set", {"wavs/a.wav": random})
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(BadInputError, match="not a whole archive"):
        unpack(archive, tmp_path / "out", wav_by_name)


@pytest.mark.parametrize("content", [b"", b"<html>rate limited</html>", b"\x1f\x8b half an archive"])
def test_what_is_no_archive_at_all_is_refused(content, tmp_path):
    (tmp_path / "set").write_bytes(content)
    with pytest.raises(BadInputError, match=r"not a whole archive|holds nothing of the corpus"):
        unpack(tmp_path / "set", tmp_path / "out", wav_by_name)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    archive = tar_of(tmp_path / "set", FILES)
    with pytest.raises(BadInputError, match=r"b\.wav in the archive has 5994 bytes"):
        unpack(archive, tmp_path / "out", wav_by_name, max_file_bytes=1000)
