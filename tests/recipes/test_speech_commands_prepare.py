"""The fetching script of Speech Commands; no test uses the network."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest
import soundfile

from helpers import load_script
from wavegen.data.store import Store
from wavegen.errors import BadInputError

script = load_script("recipes/speech_commands/prepare.py")


def wav() -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.sin(np.arange(1600) / 8), 16000, format="WAV")
    return content.getvalue()


def archive_of(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            content = wav()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path):
    names = ["./zero/0a_nohash_0.wav", "./one/0b_nohash_1.wav", "./bed/0c_nohash_0.wav", "./LICENSE",
             "./../../nine/evil_nohash_0.wav", "/etc/two/root_nohash_0.wav"]
    return archive_of(tmp_path / "corpus.tar.gz", names)


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["prepare.py", *map(str, arguments)])
    return script.main()


def test_the_digits_are_unpacked_checked_and_used_again(archive, tmp_path):
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    cache = script.fetch(tmp_path / "a" / "cache", archive.as_uri(), sha256)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert found == [f"a/cache/{name}.wav" for name in
                     ("nine/evil_nohash_0", "one/0b_nohash_1", "two/root_nohash_0", "zero/0a_nohash_0")]
    archive.unlink()
    assert script.fetch(cache, archive.as_uri(), sha256) == cache


def test_another_archive_is_refused_and_leaves_nothing(archive, tmp_path):
    with pytest.raises(BadInputError, match="not the archive expected"):
        script.fetch(tmp_path / "a" / "cache", archive.as_uri(), "0" * 64)
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"<html>rate limited</html>", b"\x1f\x8b half an archive"])
def test_a_download_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "some.tar.gz").write_bytes(content)
    with pytest.raises(BadInputError, match="tar archive"):
        script.unpack(tmp_path / "some.tar.gz", tmp_path / "out")


def test_no_network_is_one_clear_line(tmp_path, monkeypatch, capsys):
    url = (tmp_path / "nothing.tar.gz").as_uri()
    code = run(monkeypatch, "--out", tmp_path / "store", "--cache", tmp_path / "cache", "--url", url)
    error = capsys.readouterr().err
    assert code == 3 and error.count("\n") == 1 and "pass --data DIR" in error
    assert not (tmp_path / "store").exists() and not (tmp_path / "cache").exists()


def test_the_excerpt_becomes_a_store_with_the_official_split(data_folder, tmp_path, monkeypatch, capsys):
    excerpt = data_folder / "speech_commands"
    assert run(monkeypatch, "--data", excerpt, "--out", tmp_path / "store", "--workers", 0) == 0
    store = Store.open(tmp_path / "store")
    assert store.labels == script.DIGITS and store.audio.sample_rate == 16000
    lines = (excerpt / "ORIGIN.csv").read_text().splitlines()[1:]
    digits = [line.split(",") for line in lines if line.split("/")[0] in script.DIGITS]
    for split, official in (("train", "training"), ("validation", "validation"), ("test", "testing")):
        assert len(store.rows(split)) == sum(line[2] == official for line in digits)
    assert len(store) == 328 and store.lengths.max() == 16000
    assert "32 of zero" in capsys.readouterr().err
