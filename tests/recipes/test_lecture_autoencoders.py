"""The lecture's comparison of auto-encoders, on tones and with tiny networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import load_script
from stores import tones_store

JUDGE = Path(__file__).resolve().parents[2] / "recipes" / "fsdd" / "judges" / "augmented"
SMALL = ["model.num_samples=1024", "model.encoder.strides=[16,64]", "model.encoder.channels=[8,8]",
         "model.latent_channels=4", "model.decoder.strides=[64,16]", "model.decoder.channels=[8]",
         "training.samples_per_batch=8192", "training.sample_interval=0", "training.threads=1",
         "training.validation_interval=2"]


def test_every_kind_is_trained_measured_and_drawn(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning", reason="the train extra is not installed")
    script = load_script("recipes/lecture/autoencoders.py")
    tones_store(tmp_path)
    small = {kind: (name, [*overrides, *SMALL], first) for kind, (name, overrides, first) in script.KINDS.items()}
    monkeypatch.setattr(script, "KINDS", small)
    arguments = ["autoencoders.py", "--store", tmp_path / "store", "--judge", JUDGE, "--runs", tmp_path / "runs",
                 "--out", tmp_path / "out.json", "--plot", tmp_path / "plot.png", "--steps", 2, "--clips", 12]
    monkeypatch.setattr("sys.argv", [str(argument) for argument in arguments])
    assert script.main() == 0, capsys.readouterr().err
    first = (tmp_path / "out.json").read_bytes()
    models = json.loads(first)["models"]
    assert list(models) == ["ae", "vae", "conditional", "wide", "free"]
    assert models["ae"]["latents"]["noise"] == 0 and models["free"]["latents"]["noise"] > 0
    for found in models.values():
        for name in script.SETS:
            assert found[name]["frechet_distance"] >= 0 and 0 < found[name]["confidence"] <= 1
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert script.main() == 0  # nothing is trained again
    assert (tmp_path / "out.json").read_bytes() == first


def test_gaussians_of_kinds_have_a_mean_each_and_one_spread():
    script = load_script("recipes/lecture/autoencoders.py")
    rng = np.random.default_rng(0)
    label_ids, speaker_ids = np.repeat([0, 0, 1, 1], 500), np.repeat([0, 1, 0, 0], 500)
    means = rng.normal(0, 0.5, (2000, 3, 1)) + (label_ids * 4.0 - speaker_ids)[:, None, None]
    centres, spread = script.of_kinds(means, label_ids, speaker_ids, 2, 2)
    assert np.allclose(centres[0, 0], 0, atol=0.1) and np.allclose(centres[0, 1], -1, atol=0.1)
    assert np.allclose(centres[1, 0], 4, atol=0.1) and np.allclose(centres[1, 1], means.mean(0))
    assert np.allclose(spread, 0.5, atol=0.05)


def test_midpoints_are_between_clips_of_one_kind(tmp_path):
    script, store = load_script("recipes/lecture/autoencoders.py"), tones_store(tmp_path)
    rows = store.rows("train")
    first, second = script.pairs(store, rows, 40, seed=0)
    assert (first != second).all()
    assert np.array_equal(store.label_ids[rows[first]], store.label_ids[rows[second]])
    assert np.array_equal(store.speaker_ids[rows[first]], store.speaker_ids[rows[second]])
