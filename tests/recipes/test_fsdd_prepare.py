"""The fetching script of the spoken digits; no test uses the network."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from helpers import load_script, write_tones
from wavegen.data.store import Store
from wavegen.errors import BadInputError

script = load_script("recipes/fsdd/prepare.py")
DIGITS = ("0", "1")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")


def zip_of(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    return content.getvalue()


@pytest.fixture
def digits(tmp_path):
    return write_tones(tmp_path / "digits", DIGITS, (*SPEAKERS, "yweweler"), takes=range(6))


@pytest.fixture
def archive(digits, tmp_path, monkeypatch):
    """A small data set as an archive; the script believes that it is the real one."""
    files = sorted((digits / "recordings").glob("*.wav"))
    content = {f"set-1.0/recordings/{path.name}": path.read_bytes() for path in files}
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of({"set-1.0/README.md": b"hello", **content}))
    monkeypatch.setattr(script, "NUM_FILES", len(files))
    monkeypatch.setattr(script, "DIGEST", script.digest_of_files(files))
    return path


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["prepare.py", *map(str, arguments)])
    return script.main()


def test_unpacked_recordings_become_a_store_without_the_sixth_speaker(digits, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--data", digits, "--out", tmp_path / "store", "--workers", 0) == 0
    store = Store.open(tmp_path / "store")
    assert store.speakers == SPEAKERS and len(store) == 60
    assert len(store.rows("test")) == 50 and len(store.rows("train")) == 10
    assert "left out: 12 of yweweler" in capsys.readouterr().err


def test_the_archive_is_fetched_checked_and_used_again(archive, tmp_path):
    cache = tmp_path / "cache" / "fsdd"
    assert script.fetch(cache, archive.as_uri()) == cache
    assert len(list((cache / "recordings").iterdir())) == script.NUM_FILES
    archive.unlink()
    assert script.fetch(cache, archive.as_uri()) == cache  # nothing is downloaded a second time


def test_another_archive_is_refused_and_leaves_nothing(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "DIGEST", "0" * 64)
    with pytest.raises(BadInputError, match="are not the"):
        script.fetch(tmp_path / "cache" / "fsdd", archive.as_uri())
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(archive, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "thesis.txt").write_text("ten years of work")
    with pytest.raises(BadInputError, match="is not the whole data set"):
        script.fetch(cache, archive.as_uri())
    assert (cache / "thesis.txt").read_text() == "ten years of work"


def test_no_network_is_one_clear_line(tmp_path, monkeypatch, capsys):
    url = (tmp_path / "nothing.zip").as_uri()
    code = run(monkeypatch, "--out", tmp_path / "store", "--cache", tmp_path / "cache", "--url", url)
    error = capsys.readouterr().err
    assert code == 3 and error.count("\n") == 1 and "pass --data DIR" in error
    assert not (tmp_path / "store").exists() and not (tmp_path / "cache").exists()


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    evil = {
        "../../recordings/evil.wav": b"1",
        "/tmp/recordings/root.wav": b"2",
        "set/recordings/../recordings/dots.wav": b"3",
        "set/elsewhere/other.wav": b"4",
    }
    (tmp_path / "evil.zip").write_bytes(zip_of(evil))
    script.unpack(tmp_path / "evil.zip", tmp_path / "a" / "b" / "out")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert written == ["a/b/out/dots.wav", "a/b/out/evil.wav", "a/b/out/root.wav"]


def test_a_bomb_in_the_archive_is_not_unpacked(tmp_path):
    bomb = zip_of({"set/recordings/0_george_0.wav": bytes(script.MAX_FILE_BYTES + 1)})
    (tmp_path / "bomb.zip").write_bytes(bomb)
    with pytest.raises(BadInputError, match="more than any digit"):
        script.unpack(tmp_path / "bomb.zip", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>rate limited</html>", b"PK\x03\x04 half an archive"])
def test_a_download_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(BadInputError, match="zip archive"):
        script.unpack(tmp_path / "some.zip", tmp_path / "out")


def test_a_folder_without_wavs_is_named(tmp_path):
    with pytest.raises(BadInputError, match="holds no wavs"):
        script.recordings_of(tmp_path)


def test_the_real_recordings_are_those_of_the_release(fsdd_folder):
    paths = [path for path in (fsdd_folder / "recordings").glob("*.wav")]
    if len(paths) != 2500:
        pytest.skip(f"{fsdd_folder} holds {len(paths)} recordings, not the 2500 of five speakers")
    five = "6683e4cce57553414a3f46d7e6159c614cdbba1313f3ca0f3ea109523db11ea6"
    assert script.digest_of_files(paths) == five and Path(script.__file__).name == "prepare.py"
