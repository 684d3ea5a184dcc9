"""The vocoder recipes find their corpora: folders and archives of tones in each corpus's layout; no network."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import load_script
from wavegen.audio.mel_formats import PRESETS
from wavegen.config import load_recipe
from wavegen.data.fetch import digest_of_files
from wavegen.data.store import Store

CORPORA = ("kathleen", "ljspeech", "vctk", "libritts")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SCRIPTS = {corpus: load_script(f"recipes/{corpus}/prepare.py") for corpus in CORPORA}


def tone(number: int, kind: str = "WAV", rate: int = 24000, channels: int = 1) -> bytes:
    time = np.arange(rate // 5 + 40 * number) / rate
    clip = 0.4 * np.sin(2 * np.pi * (180 + 30 * number) * time)
    content = io.BytesIO()
    soundfile.write(content, np.stack([clip] * channels, 1), rate, format=kind, subtype="PCM_16")
    return content.getvalue()


def text(number: int) -> str:
    return f"Sentence no. {number}, “quoted”"


def corpus_files(corpus: str) -> dict[str, bytes]:
    """Paths and contents of a small corpus, as its archive has them below one folder."""
    files: dict[str, bytes] = {"README": b"about"}
    if corpus == "ljspeech":
        ids = [f"LJ001-{number:04d}" for number in (1, 2, 12, 20, 22)]
        files |= {f"wavs/{name}.wav": tone(number, rate=22050) for number, name in enumerate(ids)}
        lines = [f"{name}|raw {number}|{text(number)}\n" for number, name in enumerate(ids)]
        files["metadata.csv"] = "".join(lines).encode()
    elif corpus == "vctk":
        for number, name in enumerate(("p225_001", "p226_001", "p227_001", "s5_001")):
            speaker = name.partition("_")[0]
            for microphone in (1, 2):
                place = f"wav48_silence_trimmed/{speaker}/{name}_mic{microphone}.flac"
                files[place] = tone(number, "FLAC", 48000)
            files[f"txt/{speaker}/{name}.txt"] = f"{text(number)}\n".encode()
        files["wav48_silence_trimmed/p315/p315_001_mic1.flac"] = tone(4, "FLAC", 48000)  # this speaker has no texts
    elif corpus == "libritts":
        places = ("train-clean-100/19/198/19_198_000000_000002", "dev-clean/84/121123/84_121123_000007_000001",
                  "test-clean/121/121726/121_121726_000004_000003")
        for number, place in enumerate(places):
            files[f"{place}.wav"] = tone(number)
            files[f"{place}.original.txt"] = b"raw"
            files[f"{place}.normalized.txt"] = text(number).encode()
    else:
        for number, prompt in enumerate(("a0001", "a0386", "a0406", "b0001")):
            for time in (1592700000, 1592700009):
                files[f"data/arctic_{prompt}_{time}.wav"] = tone(number, rate=48000, channels=2)
                files[f"data/arctic_{prompt}_{time}.txt"] = text(number).encode()
    return files


WANTED = {  # id -> split, speaker
    "ljspeech": {"LJ001-0001": ("train", None), "LJ001-0002": ("train", None), "LJ001-0012": ("validation", None),
                 "LJ001-0020": ("test", None), "LJ001-0022": ("validation", None)},
    "vctk": {"p225_001": ("test", "p225"), "p226_001": ("validation", "p226"), "p227_001": ("train", "p227"),
             "p315_001": ("train", "p315"), "s5_001": ("train", "s5")},
    "libritts": {"84_121123_000007_000001": ("validation", "84"), "121_121726_000004_000003": ("test", "121"),
                 "19_198_000000_000002": ("train", "19")},
    "kathleen": {"arctic_a0001": ("train", None), "arctic_a0386": ("test", None)},
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def run(corpus, monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["prepare.py", *map(str, arguments), "--workers", "0"])
    return SCRIPTS[corpus].main()


def check(corpus, folder) -> Store:
    store = Store.open(folder)
    rows = [store.entry(row) for row in range(len(store))]
    assert {row["id"]: (row["split"], row["speaker"]) for row in rows} == WANTED[corpus]
    assert store.audio == load_recipe(RECIPES / f"{corpus}/wavenet.yaml").audio
    store.verify()
    return store


@pytest.mark.parametrize("corpus", ["ljspeech", "vctk", "libritts"])
def test_a_folder_in_the_corpus_s_layout_becomes_a_store_with_texts(corpus, tmp_path, monkeypatch):
    data = write(tmp_path / "data", corpus_files(corpus))
    assert run(corpus, monkeypatch, "--data", data, "--out", tmp_path / "store") == 0
    store = check(corpus, tmp_path / "store")
    texts = {store.entry(row)["id"]: store.entry(row)["text"] for row in range(len(store))}
    assert texts.pop("p315_001", None) is None
    assert sorted(texts.values()) == [text(number) for number in range(len(texts))]


def archive_of(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"Corpus-1.0/{name}", content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"./Corpus-1.0/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("corpus", ["ljspeech", "vctk"])
def test_the_archive_is_fetched_checked_and_used_again(corpus, tmp_path, monkeypatch, capsys):
    archive = archive_of(tmp_path / ("all.zip" if corpus == "vctk" else "all.tar.gz"), corpus_files(corpus))
    options = ["--cache", tmp_path / "cache", "--url", archive.as_uri()]
    assert run(corpus, monkeypatch, "--out", tmp_path / "store", *options) == 3
    assert "not the archive expected" in capsys.readouterr().err and not (tmp_path / "cache").exists()
    monkeypatch.setattr(SCRIPTS[corpus], "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert run(corpus, monkeypatch, "--out", tmp_path / "store", *options) == 0
    check(corpus, tmp_path / "store")
    assert not list((tmp_path / "cache").rglob("*_mic2.flac"))
    archive.unlink()
    assert run(corpus, monkeypatch, "--out", tmp_path / "store", *options) == 0


@pytest.mark.parametrize("restored", [False, True])
def test_the_subsets_of_libritts_are_fetched_one_by_one(restored, tmp_path, monkeypatch, capsys):
    script, files = SCRIPTS["libritts"], corpus_files("libritts")
    digests = {}
    for subset in ("train-clean-100", "dev-clean", "test-clean"):
        part = {name: content for name, content in files.items() if name.startswith(subset)}
        name = subset.replace("-", "_") if restored else subset
        archive = archive_of(tmp_path / f"{name}.tar.gz", part)
        kind = hashlib.md5 if restored else hashlib.sha256
        digests[subset] = kind(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(script, "DIGESTS", {restored: digests})
    options = ["--cache", tmp_path / "cache", "--url", tmp_path.as_uri() + "/{subset}.tar.gz"]
    options += ["--restored"] if restored else []
    assert run("libritts", monkeypatch, "--out", tmp_path / "store", *options) == 0
    check("libritts", tmp_path / "store")
    assert not list((tmp_path / "cache").rglob("*.original.txt"))


def test_kathleen_keeps_the_last_recording_of_each_of_the_first_sentences(tmp_path, monkeypatch, capsys):
    script, files = SCRIPTS["kathleen"], corpus_files("kathleen")
    archive = archive_of(tmp_path / "all.tar.gz", files)
    options = ["--cache", tmp_path / "cache", "--url", archive.as_uri(), "--out", tmp_path / "store"]
    assert run("kathleen", monkeypatch, *options) == 3
    assert "8 recordings that are not the 1620 expected" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
    wavs = {name: content for name, content in files.items() if name.endswith(".wav")}
    monkeypatch.setattr(script, "NUM_FILES", len(wavs))
    monkeypatch.setattr(script, "DIGEST", digest_of_files(write(tmp_path / "raw", wavs).glob("data/*.wav")))
    for _ in range(2):
        assert run("kathleen", monkeypatch, *options) == 0
        archive.unlink(missing_ok=True)
    store = check("kathleen", tmp_path / "store")
    assert [store.entry(row)["source"] for row in range(2)] == [f"data/arctic_{name}_1592700009.flac"
                                                                for name in ("a0001", "a0386")]
    assert (tmp_path / "cache/metadata.csv").read_text().count(text(1)) == 2


def test_the_excerpt_of_ljspeech_becomes_a_store(data_folder, tmp_path, monkeypatch):
    excerpt = data_folder / "ljspeech_excerpt"
    if not excerpt.is_dir():
        pytest.skip(f"no folder ljspeech_excerpt in {data_folder}")
    assert run("ljspeech", monkeypatch, "--data", excerpt, "--out", tmp_path / "store", "--strict") == 0
    store = Store.open(tmp_path / "store")
    assert {split: len(store.rows(split)) for split in store.splits} == {"train": 29, "test": 1, "validation": 2}
    assert store.entry(1)["text"] == "in being comparatively modern."
    assert all(store.entry(row)["text"] for row in range(len(store)))


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_network_is_one_clear_line(corpus, tmp_path, monkeypatch, capsys):
    url = (tmp_path / "nothing.tar.gz").as_uri()
    code = run(corpus, monkeypatch, "--out", tmp_path / "store", "--cache", tmp_path / "cache", "--url", url)
    error = capsys.readouterr().err
    assert code == 3 and error.count("\n") == 1 and "pass --data DIR" in error
    assert not (tmp_path / "store").exists() and not list((tmp_path / "cache").glob("*"))


def test_the_sizes_of_a_corpus_share_their_store_and_the_presets():
    for corpus, preset in (("kathleen", "speecht5"), ("ljspeech", "tacotron2"), ("vctk", "tacotron2")):
        assert load_recipe(RECIPES / f"{corpus}/wavenet.yaml").audio.mel == PRESETS[preset]
    for corpus in CORPORA:
        small, large = (load_recipe(RECIPES / f"{corpus}/{size}.yaml") for size in ("wavenet", "large"))
        assert (small.audio, small.prepare) == (large.audio, large.prepare)
    lpc, direct = (load_recipe(RECIPES / f"kathleen/{name}.yaml") for name in ("wavenet", "direct"))
    assert lpc.model == direct.model and lpc.prepare == direct.prepare
    assert lpc.audio.model_copy(update={"signal_path": "direct"}) == direct.audio
