"""The measuring scripts of the spoken digits, on tones and on a few real recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import load_script
from stores import tones_store
from tiny import save_tiny
from wavegen.audio import mulaw
from wavegen.config import load_recipe
from wavegen.data.prepare import prepare
from wavegen.data.store import Store
from wavegen.metrics.clips import check_clip, rates
from wavegen.metrics.judge import load_judges

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "fsdd"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_store(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory, fsdd_folder):
    """The first test take of every digit and speaker, and the first for training."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "data").mkdir()
    for path in (fsdd_folder / "recordings").glob("*.wav"):
        if path.stem.split("_")[2] in ("0", "5"):
            shutil.copy(path, folder / "data")
    prepare(load_recipe(RECIPE / "wavenet.yaml"), folder / "data", folder / "store", workers=0, progress=False)
    return Store.open(folder / "store")


def run(script, monkeypatch, *arguments) -> int:
    module = load_script("recipes/judge.py" if script == "judge" else f"recipes/fsdd/{script}.py")
    monkeypatch.setattr("sys.argv", [f"{script}.py", *map(str, arguments)])
    return module.main()


def test_the_committed_judges_hear_real_digits(digits):
    rows = digits.rows("test")
    waveforms = [mulaw.decode(digits.codes(int(row))) for row in rows]
    judges = load_judges(RECIPE / "judges")
    assert list(judges) == ["augmented", "clean"] and len(rows) == 50
    for judge in judges.values():
        verdict = judge(waveforms)
        assert verdict.label_accuracy(digits.label_ids[rows]) >= 0.98
        assert verdict.speaker_accuracy(digits.speaker_ids[rows]) >= 0.98


def test_the_augmented_judge_bears_noise_better(digits):
    rows = digits.rows("test")
    rng = np.random.default_rng(0)
    noisy = []
    for row in rows:
        waveform = mulaw.decode(digits.codes(int(row)))
        noisy.append(waveform + 0.05 * rng.standard_normal(len(waveform)).astype(np.float32))
    heard = {name: judge(noisy).label_accuracy(digits.label_ids[rows])
             for name, judge in load_judges(RECIPE / "judges").items()}
    assert heard["augmented"] > heard["clean"] and heard["augmented"] > 0.7


def test_real_digits_are_neither_silent_nor_noise(digits):
    checks = [check_clip(mulaw.decode(digits.codes(int(row))), 8000) for row in digits.rows()]
    assert rates(checks)["silent"] == 0 and rates(checks)["noise_like"] <= 0.01


@pytest.mark.parametrize("name", ["augmented", "clean"])
def test_the_committed_judges_say_what_they_are(name):
    judge = load_judges(RECIPE / "judges")[name]
    assert judge.config.augmented == (name == "augmented") and judge.sample_rate == 8000
    assert min(judge.config.test_label_accuracy, judge.config.test_speaker_accuracy) >= 0.99


def test_floors_of_real_digits_are_near_the_committed_ones(digits, monkeypatch):
    script = load_script("recipes/fsdd/floors.py")
    committed = json.loads((RECIPE / "results" / "floors.json").read_text())
    wanted = next(row for row in committed["linear"] if (row["order"], row["memory"]) == (20, "tuned"))
    monkeypatch.setattr(script, "ORDERS", (20,))
    monkeypatch.setattr(script, "MEMORIES", (wanted["forgetting"],))
    _, found = script.measure(digits)["linear"]
    assert found["mean"] == pytest.approx(wanted["mean"], abs=0.2)
    assert set(found["groups"]) == set(digits.speakers)


def test_floors_are_written_and_shown(store, monkeypatch, tmp_path, capsys):
    assert run("floors", monkeypatch, "--store", store.path, "--out", tmp_path / "new" / "floors.json") == 0
    floors = json.loads((tmp_path / "new" / "floors.json").read_text())
    assert [row["order"] for row in floors["context"]] == [0, 1, 2, 3]
    assert floors["best_context"] == min(row["mean"] for row in floors["context"])
    assert {row["num_clips"] for row in floors["linear"]} == {12}
    assert "linear, order 20, long (0.999)" in capsys.readouterr().out


def test_judges_of_tones_are_trained_and_an_unfit_one_is_told(store, monkeypatch, tmp_path, capsys):
    code = run("judge", monkeypatch, "--store", store.path, "--out", tmp_path / "judges", "--epochs", 1)
    assert code == 1 and "99%" in capsys.readouterr().err
    assert list(load_judges(tmp_path / "judges")) == ["augmented", "clean"]


def test_an_evaluation_is_written(store, monkeypatch, tmp_path, capsys):
    model = save_tiny(tmp_path / "model")
    run("judge", monkeypatch, "--store", store.path, "--out", tmp_path / "judges", "--epochs", 1)
    code = run("evaluate", monkeypatch, model, "--store", store.path, "--judge", tmp_path / "judges", "--seeds", 1,
               "--out", tmp_path / "results" / "tiny.json")
    assert code == 0 and "generated" in capsys.readouterr().out
    assert json.loads((tmp_path / "results" / "tiny.json").read_text())["generated"]["clips"] == 6


def test_a_picture_is_drawn(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model = save_tiny(tmp_path / "model")
    assert run("plot", monkeypatch, model, "--speaker", "ben", "--out", tmp_path / "img" / "digits.png") == 0
    assert (tmp_path / "img" / "digits.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("script", ["judge", "floors", "evaluate"])
def test_a_missing_store_is_one_clear_line(script, monkeypatch, tmp_path, capsys):
    first = [save_tiny(tmp_path / "model")] if script == "evaluate" else []
    code = run(script, monkeypatch, *first, "--store", tmp_path / "nothing", "--out", tmp_path / "out")
    assert code == 3 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
