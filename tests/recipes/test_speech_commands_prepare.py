"""The fetching script of Speech Commands; no test uses the network."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest
import soundfile

from helpers import load_script
from wavegen.data.fetch import fetch_checked
from wavegen.data.store import Store

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


def test_the_digits_are_unpacked_by_word_and_name(archive, tmp_path):
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    fetch_checked(archive.as_uri(), sha256, tmp_path / "a" / "cache", 100_000, script.place)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert found == [f"a/cache/{name}.wav" for name in
                     ("nine/evil_nohash_0", "one/0b_nohash_1", "two/root_nohash_0", "zero/0a_nohash_0")]


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
