"""The fetching scripts of drums and notes; no test uses the network."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

from helpers import load_script
from wavegen.cli.corpus import sample_url
from wavegen.config import load_recipe
from wavegen.data.fetch import read_digests
from wavegen.data.store import Store

FILES = {  # of each recipe: path in the data set, place below the host
    "drums": {"drum-machines/LM-2/kick.ogg": "LM-2/kick.ogg", "sonic-pi/sn_dub.flac": "etc/samples/sn_dub.flac"},
    "notes": {"electric_grand_piano/027-D#1-FF.wav": "Discord GM/Melodic/003-Electric Grand Piano/027-D#1-FF.wav",
              "sung_martin/A#3-2.wav": "data/voices/martin/notes/exports/mono/A#3-2.wav"},
}


@pytest.fixture(params=FILES)
def mirror(request, tmp_path, monkeypatch):
    """The script of a recipe, a host that has two of its files, and what the script takes for the whole list."""
    script = load_script(f"recipes/{request.param}/prepare.py")
    sums = []
    for number, (path, place) in enumerate(FILES[request.param].items()):
        repository = script.SOURCES[path.split("/")[0]].split("/")[:3]
        file = tmp_path.joinpath("host", *repository, *place.split("/"))
        file.parent.mkdir(parents=True)
        soundfile.write(file, 0.5 * np.sin(np.arange(4000) / (8 + number)), 16000)
        sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {path}\n")
    (tmp_path / "SHA256SUMS").write_text("".join(sums))
    (tmp_path / "recipe.yaml").write_bytes(next(script.HERE.glob("vae.yaml")).read_bytes())
    monkeypatch.setattr(script, "HERE", tmp_path)
    return script


def run(script, monkeypatch, folder, *arguments) -> int:
    host = (folder / "host").as_uri()
    arguments = ["--out", folder / "store", "--cache", folder / "cache", "--recipe", folder / "recipe.yaml",
                 "--host", host, "--workers", 0, *arguments]
    monkeypatch.setattr("sys.argv", ["prepare.py", *map(str, arguments)])
    return script.main()


def test_files_are_fetched_one_by_one_checked_and_prepared(mirror, tmp_path, monkeypatch):
    assert run(mirror, monkeypatch, tmp_path) == 0
    store = Store.open(tmp_path / "store")
    assert len(store) == 2
    found = {str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert found == set(read_digests(tmp_path / "SHA256SUMS"))


def test_what_is_there_is_not_fetched_again(mirror, tmp_path, monkeypatch, capsys):
    assert run(mirror, monkeypatch, tmp_path) == 0
    _, second = read_digests(tmp_path / "SHA256SUMS")
    (tmp_path / "cache" / second).unlink()
    (tmp_path / "host").rename(tmp_path / "gone")
    assert run(mirror, monkeypatch, tmp_path) == 3  # the second file is missing, and so is the host
    error = capsys.readouterr().err
    assert quote(second.split("/")[-1]) in error and "pass --data DIR" in error and error.count("\n") == 1
    (tmp_path / "gone").rename(tmp_path / "host")
    assert run(mirror, monkeypatch, tmp_path) == 0


def test_another_file_is_refused_and_leaves_nothing(mirror, tmp_path, monkeypatch, capsys):
    second = list(read_digests(tmp_path / "SHA256SUMS"))[1]
    for file in (tmp_path / "host").rglob(second.split("/")[-1]):
        file.write_bytes(b"<html>not found</html>")
    assert run(mirror, monkeypatch, tmp_path) == 3
    assert "is not the file expected" in capsys.readouterr().err
    assert not (tmp_path / "cache" / second).exists() and not list((tmp_path / "cache").rglob("*.part"))
    (tmp_path / "cache" / second).write_bytes(b"mine")
    assert run(mirror, monkeypatch, tmp_path) == 3
    assert "exists and is not the file of the data set" in capsys.readouterr().err
    assert (tmp_path / "cache" / second).read_bytes() == b"mine"


@pytest.mark.parametrize(("name", "count"), [("drums", 356), ("notes", 124)])
def test_the_lists_are_those_of_the_real_recordings(name, count, data_folder):
    script = load_script(f"recipes/{name}/prepare.py")
    sums = read_digests(script.HERE / "SHA256SUMS")
    assert len(sums) == count and {path.split("/")[0] for path in sums} == set(script.SOURCES)
    for recipe in script.HERE.glob("*.yaml"):
        load_recipe(recipe)
    if not (data_folder / name).is_dir():
        pytest.skip(f"no folder {name} in {data_folder}")
    for path, digest in sums.items():
        real = data_folder / name / path
        if real.suffix == ".wav":  # there as FLAC
            assert real.with_suffix(".flac").is_file()
        else:
            assert hashlib.sha256(real.read_bytes()).hexdigest() == digest


def test_addresses_are_quoted():
    script = load_script("recipes/notes/prepare.py")
    assert sample_url("acoustic_guitar/MartinGM2_040__E2_1.wav", script.SOURCES).endswith(
        "/Discord%20GM/Melodic/026-Acoustic%20Guitar%20%28steel%29/MartinGM2_040__E2_1.wav")
    assert sample_url("sung_martin/A#3-2.wav", script.SOURCES).endswith("/exports/mono/A%233-2.wav")
