"""From recordings to a model folder: prepare, train, export, synth in one go, and the mistakes on the way."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path

import pytest
import soundfile

from helpers import write_tones
from tiny import tiny_spec
from wavegen.config import load_recipe
from wavegen.data import prepare as preparation

RECIPE = """
name: tones
audio: {sample_rate: 8000}
prepare:
  pattern: "recordings/(?P<label>\\\\d+)_(?P<speaker>\\\\w+)_(?P<take>\\\\d+)\\\\.wav"
  splits: {test: {take: ["0", "1"]}}
model:
  family: wavenet
  residual_channels: 8
  skip_channels: 8
  output_channels: 8
  dilations: [1, 2, 4]
  conditioning: {label: true, speaker: true, hidden_channels: 8, progress_steps: 4}
training: {max_steps: 4, samples_per_batch: 3000, checkpoint_interval: 2, validation_interval: 4, threads: 1}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tones.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def store(wavegen, recipe, tmp_path) -> Path:
    write_tones(tmp_path / "data", takes=range(4))
    outcome = wavegen("prepare", recipe, "--data", tmp_path / "data", "--out", tmp_path / "store", "--workers", 1)
    assert outcome.code == 0, outcome.err
    return tmp_path / "store"


def test_from_recordings_to_a_clip(wavegen, recipe, store, tmp_path):
    pytest.importorskip("lightning", reason="the train extra is not installed")
    run, model = tmp_path / "run", tmp_path / "model"
    train = ["train", recipe, "--store", store, "--out", run]
    outcome = wavegen(*train, "training.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert "step 2/2" in outcome.err
    again = wavegen(*train)
    assert again.code == 2 and "continue it with --resume auto" in again.err
    resumed = wavegen(*train, "--resume", "auto")
    assert resumed.code == 0 and "step 4/4" in resumed.err
    exported = wavegen("export", run, "--out", model, "--name", "mine")
    assert exported.code == 0 and 'model "mine" after 4 steps' in exported.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAVEGEN_KERNELS", "plain")  # compiled once for all precisions
        calibrated = wavegen("export", run, "--out", model, "--name", "mine", "--calibrate", store)
    assert calibrated.code == 0 and 'calibrated "mine" on' in calibrated.err, calibrated.err
    spoken = wavegen("synth", model, "--label", 1, "--speaker", "ben", "-o", tmp_path / "a.wav")
    assert spoken.code == 0, spoken.err
    assert len(soundfile.read(tmp_path / "a.wav")[0]) > 480
    card = json.loads(wavegen("info", model, "--json").out)
    assert card["name"] == "mine" and card["training"]["steps"] == 4
    measured = wavegen("eval", model, "--store", store, "--seeds", 1, "--json")
    assert measured.code == 0, measured.err
    found = json.loads(measured.out)
    assert 0 < found["bits_per_sample"]["all"] < 9 and abs(found["engine_bits"]["change"]) < 0.01
    wrong = wavegen("synth", run, "--label", 1, "-o", tmp_path / "b.wav")
    assert wrong.code == 3 and "is a training run; run `wavegen export" in wrong.error


def test_prepare_hands_everything_over(wavegen, recipe, tmp_path, monkeypatch):
    calls = []

    def prepare(*arguments, **options):
        calls.append((arguments, options))
        return {"rows": 3}

    monkeypatch.setattr(preparation, "prepare", prepare)
    outcome = wavegen("prepare", recipe, "--data", "d", "--out", "s", "--strict", "--workers", 2, "--json")
    assert json.loads(outcome.out) == {"rows": 3}
    given = ["--features", "f", "--features-spec", "pwg"]
    wavegen("prepare", recipe, "prepare.peak=0.5", "--data", "d", "--out", "s", *given)
    usual = {"strict": False, "workers": None, "features": None, "features_spec": None}
    assert calls == [
        ((load_recipe(recipe), Path("d"), Path("s")), {**usual, "strict": True, "workers": 2}),
        ((load_recipe(recipe, ["prepare.peak=0.5"]), Path("d"), Path("s")),
         {**usual, "features": Path("f"), "features_spec": "pwg"}),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("residual_channels: 8", "residual_chanels: 8"),
            'unknown key "model.residual_chanels": did you mean "residual_channels"',
        ),
        (("family: wavenet", "family: wavnet"), '"model.family": did you mean "wavenet"? Known: wavenet, rnn'),
        (("family: wavenet", "bias: true"), 'missing key "model.family": one of wavenet, rnn, vae, wgan'),
        (("max_steps: 4", "max_steps: 4, copy_clips: 1"), "yaml: training.copy_clips is 1, but only a vocoder makes"),
        (("max_steps: 4", "max_stepps: 4"), 'unknown key "training.max_stepps": did you mean "max_steps"'),
        (("sample_rate: 8000", "sample_rate: -1"), '"audio.sample_rate"'),
        (("model:", "model: ["), "is not valid YAML"),
    ],
)
def test_a_mistake_in_the_recipe_is_named(wavegen, recipe, tmp_path, change, complaint):
    recipe.write_text(recipe.read_text().replace(*change))
    for command in (["prepare", recipe, "--data", tmp_path], ["train", recipe, "--store", tmp_path]):
        outcome = wavegen(*command, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert complaint in outcome.error
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_an_override_is_named(wavegen, recipe, tmp_path):
    train = ["train", recipe, "--store", tmp_path, "--out", tmp_path / "out"]
    assert 'did you mean "max_steps"' in wavegen(*train, "training.max_step=3").error
    assert "is not of the form key=value" in wavegen(*train, "fast").error
    assert wavegen(*train, "--resum", "auto").code == 2


def test_a_store_or_run_that_is_not_there(wavegen, recipe, tmp_path):
    pytest.importorskip("lightning", reason="the train extra is not installed")
    outcome = wavegen("train", recipe, "--store", tmp_path / "none", "--out", tmp_path / "out")
    assert outcome.code == 3 and str(tmp_path / "none") in outcome.error
    outcome = wavegen("export", tmp_path / "none", "--out", tmp_path / "out")
    assert outcome.code == 3 and "no training run at" in outcome.error
    assert not (tmp_path / "out").exists()


def test_a_model_folder_is_exported_only_to_be_calibrated(wavegen, model, tmp_path):
    plain = wavegen("export", model, "--out", tmp_path / "out")
    assert plain.code == 2 and "--calibrate STORE writes one calibrated" in plain.error
    alone = wavegen("export", model, "--out", tmp_path / "out", "--limit", 1e-2)
    assert alone.code == 2 and "--calibrate STORE" in alone.error
    drawn = wavegen("export", model, "--out", tmp_path / "out", "--temperature", 0.8)
    assert drawn.code == 2 and "set where its run is exported" in drawn.error.replace("\n", " ")
    missing = wavegen("export", model, "--out", tmp_path / "out", "--calibrate", tmp_path / "none")
    assert missing.code == 3
    assert not (tmp_path / "out").exists()


def test_which_checkpoint_is_exported_can_be_said(wavegen, model, tmp_path, monkeypatch):
    calls = []

    def export_run(run, out, name, **options):
        calls.append((run, out, options["checkpoint"]))
        return tiny_spec()

    monkeypatch.setattr(importlib.import_module("wavegen.checkpoint"), "export_run", export_run)
    assert wavegen("export", tmp_path, "--out", "m", "--checkpoint", "last").code == 0
    assert calls == [(tmp_path, Path("m"), "last")]
    outcome = wavegen("export", model, "--out", tmp_path / "m", "--checkpoint", "best")
    assert outcome.code == 2 and "has no checkpoints; leave out --checkpoint" in outcome.error


def test_a_first_recipe_is_written_and_prepared(wavegen, tmp_path):
    data, recipe = write_tones(tmp_path / "my recordings"), tmp_path / "mine.yaml"
    outcome = wavegen("init", recipe, "--data", data, "--kind", "speech")
    assert outcome.code == 0 and "recordings, " in outcome.err
    prepare = shlex.split(outcome.out.splitlines()[0])
    assert prepare[:3] == ["wavegen", "prepare", str(recipe)]
    assert wavegen(*prepare[1:-1], tmp_path / "store").code == 0
    assert load_recipe(recipe).name == "mine"
    before = recipe.read_text()
    assert "exists and is not overwritten" in wavegen("init", recipe, "--data", data).error
    assert recipe.read_text() == before
    assert "ending .yaml" in wavegen("init", tmp_path / "mine", "--data", data).error
    assert wavegen("init", tmp_path / "b.yaml", "--data", tmp_path / "none").code == 3
