"""Copies made while a vocoder trains: what is logged and kept, and that the training is none the wiser."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch

from stores import tones_store
from wavegen.checkpoint import export_run, load_model
from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.config import MelSpec, Recipe
from wavegen.engines.numba_engine import KERNELS_VARIABLE
from wavegen.errors import ConfigError, MissingBackendError
from wavegen.metrics import perception
from wavegen.training import copies, fit, trainer
from wavegen.training.copies import speak_rows

pytest.importorskip("pystoi", reason="pystoi is not installed (extra train)")

MEL = {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 80, "n_mels": 20}
AUDIO = {"sample_rate": 8000, "mel": MEL, "signal_path": "lpc", "preemphasis": 0.85}
MODEL = {"family": "wavenet", "residual_channels": 8, "skip_channels": 8, "output_channels": 8, "dilations": [1, 2],
         "conditioning": {"features": 20, "hop_length": 80, "hidden_channels": 8, "context_frames": 1}}
TRAINING = {"max_steps": 6, "samples_per_batch": 9000, "tail_samples": 0, "checkpoint_interval": 2,
            "validation_interval": 3, "log_interval": 2, "threads": 1, "copy_clips": 3, "copy_interval": 2}


@pytest.fixture(scope="module", autouse=True)
def plain_kernels():
    """Plain loops are compiled once for all shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KERNELS_VARIABLE, "plain")
        yield


def recipe(**training) -> Recipe:
    return Recipe.model_validate({"name": "voice", "audio": AUDIO, "model": MODEL, "training": TRAINING | training})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_store(tmp_path_factory.mktemp("tones"), MelSpec(**MEL), "lpc", 0.85, takes=range(3), num_samples=4600)


def judged(values, monkeypatch):
    """Let the copies have these STOIs, one after the other."""
    given, real = iter(values), copies.means

    def means(clips):
        return real(clips) | {"stoi": {"mean": next(given), "standard_error": 0.0, "clips": 3}}

    monkeypatch.setattr(copies, "means", means)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A training whose copies were best at step 4."""
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        judged([0.5, 0.75, 0.625], patch)
        fit(recipe(), store.path, folder)
    return folder


def content(path):
    return read_checkpoint(path)["wavegen"]


def test_the_best_weights_are_kept_and_exported(run, tmp_path):
    best = content(run / "checkpoints" / "best.ckpt")
    assert best["step"] == 4 and best["metrics"]["best_stoi"] == 0.75
    last = content(latest_checkpoint(run))
    assert last["step"] == 6 and last["metrics"]["best_step"] == 4 and last["metrics"]["copy_stoi"] == 0.625
    assert last["metrics"]["copy_log_mel"] > 0 and last["metrics"]["validation_bits"] > 0
    at_4 = content(run / "checkpoints" / "step-4.ckpt")
    assert all(torch.equal(value, at_4["ema"][name]) for name, value in best["ema"].items())

    assert export_run(run, tmp_path / "chosen").training["steps"] == 4
    assert export_run(run, tmp_path / "best", checkpoint="best").training["best_stoi"] == 0.75
    assert export_run(run, tmp_path / "last", checkpoint="last").training["steps"] == 6
    assert load_model(tmp_path / "chosen").spec.is_vocoder


def test_an_interrupted_training_comes_to_the_same(run, store, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/checkpoints/step-6.ckpt").unlink()
    judged([0.625], monkeypatch)
    fit(recipe(), store.path, tmp_path / "run", resume="auto")
    ours, theirs = (read_checkpoint(latest_checkpoint(folder)) for folder in (tmp_path / "run", run))
    assert ours["wavegen"]["metrics"] == theirs["wavegen"]["metrics"]
    for part in ("state_dict", "wavegen"):
        a, b = (checkpoint["ema"] if part == "wavegen" else checkpoint for checkpoint in (ours[part], theirs[part]))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_to_listen_does_not_change_the_training(run, store, tmp_path):
    fit(recipe(copy_clips=0), store.path, tmp_path / "run")
    ours, theirs = (content(latest_checkpoint(folder))["ema"] for folder in (tmp_path / "run", run))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()
    with pytest.raises(ConfigError, match="has no best checkpoint"):
        export_run(tmp_path / "run", tmp_path / "model", checkpoint="best")


def test_figures_and_sounds_are_logged(run, store, tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with caplog.at_level(logging.INFO):
        fit(recipe(max_steps=2, checkpoint_interval=2, validation_interval=2), store.path, tmp_path / "run")
    assert "copies of 3 held-out clips: STOI" in caplog.text and "best STOI" in caplog.text
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"audio": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert {"copies/stoi", "copies/log_mel"} <= set(tags["scalars"])
    assert [round(event.value, 3) for event in events.Scalars("copies/stoi")] == [0.5, 0.75, 0.625]
    assert len(tags["audio"]) == len(tags["images"]) == 6  # three copies and their recordings
    copied = [tag for tag in tags["audio"] if not tag.endswith("recording")]
    assert {len(events.Audio(tag)) for tag in copied} == {3}


def test_a_copy_is_as_long_as_its_recording_and_does_not_depend_on_its_company(run, store, tmp_path):
    export_run(run, tmp_path / "model")
    model, rows = load_model(tmp_path / "model").model, store.rows("test")[:3]
    spoken = speak_rows(model, store, rows)
    assert [len(clip) for clip in spoken] == store.lengths[rows].tolist()
    alone = speak_rows(model, store, rows[1:2])
    assert np.array_equal(alone[0][:2000], spoken[1][:2000])
    assert [len(clip) for clip in speak_rows(model, store, rows, max_seconds=0.1)] == [800] * 3


def test_the_best_weights_are_nothing_to_resume_from(run, store):
    with pytest.raises(ConfigError, match="not a training to resume"):
        fit(recipe(), store.path, run, resume=run / "checkpoints" / "best.ckpt")


def test_only_a_vocoder_makes_copies():
    deaf = MODEL | {"conditioning": {"hop_length": 80}}
    with pytest.raises(ValueError, match="only a vocoder makes copies"):
        Recipe.model_validate({"name": "deaf", "audio": AUDIO, "model": deaf, "training": TRAINING})


def test_without_pystoi_it_is_said_at_the_start(store, tmp_path, monkeypatch):
    monkeypatch.setattr(perception.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"pystoi is not installed.*training.copy_clips=0"):
        fit(recipe(), store.path, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_finished_training_is_checked_for_collapse(store, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(trainer, "warn_of_collapse", lambda model, data, split, clips: asked.append((split, clips)))
    for name, clips in (("one", 2), ("two", 0)):
        fit(recipe(max_steps=2, copy_clips=0, check_clips=clips), store.path, tmp_path / name)
    assert asked == [("test", 2)]
