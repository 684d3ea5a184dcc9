"""Downloading, without a network: archives are files."""

from __future__ import annotations

import hashlib

import pytest

from wavegen.data.fetch import download, fetch
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
