"""Training a generator against critics: resuming, stopping, bounds, alarms, what it refuses."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from tests.helpers import write_tones
from tests.training.conftest import RECIPE
from tests.training.test_trainer import assert_bit_equal, latest_step, start
from wavegen.checkpoint import export_run, load_model
from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.config import Recipe
from wavegen.data.batches import WindowBatches
from wavegen.data.prepare import prepare
from wavegen.data.store import Store
from wavegen.errors import ConfigError, StoreError, TrainingError
from wavegen.models import ConditioningInputs
from wavegen.training import fit
from wavegen.training.adversarial import AdversarialModule, critic_loss, generator_loss
from wavegen.training.module import companded
from wavegen.training.trainer import build_vocabulary

MODEL = {"family": "wgan", "num_samples": 512, "latent_channels": 4, "channels": [8, 4], "strides": [4, 4],
         "kernel_size": 8, "conditioning": {"label": True, "speaker": True, "hidden_channels": 8}}
SMALL = {"channels": [4, 8], "strides": [4, 4], "kernel_size": 8}
SPECTRAL = {"n_fft": 64, "hop_length": 32, "n_mels": 8,
            "critic": {"channels": [8, 8], "strides": [2, 2], "kernel_size": 4, "phase_shuffle": 0}}
TRAINING = {"max_steps": 6, "samples_per_batch": 4 * 512, "checkpoint_interval": 2, "validation_interval": 3,
            "log_interval": 2, "threads": 1, "precision": "bf16",
            "optimizer": {"name": "adamw", "adamw_lr": 1e-3, "betas": [0.5, 0.9], "warmup_steps": 0}}
GAME = {"critic_steps": 2, "critic": SMALL, "spectral": [SPECTRAL]}


def recipe(training=(), game=(), **model) -> Recipe:
    return Recipe.model_validate({**RECIPE, "model": {**MODEL, **model},
                                  "training": {**TRAINING, **dict(training), "adversarial": {**GAME, **dict(game)}}})


def module(store, **kwargs) -> AdversarialModule:
    return AdversarialModule(recipe(**kwargs), build_vocabulary(Store.open(store)), "")


def saved(run):
    return read_checkpoint(latest_checkpoint(run))


@pytest.fixture(scope="module")
def whole(tiny_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("wgan") / "whole"
    fit(recipe(), tiny_store, run)
    return run


def test_steps_are_those_of_the_generator(whole):
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-4.ckpt", "step-6.ckpt"]
    content = saved(whole)
    assert content["wavegen"]["step"] == content["global_step"] == 6
    assert {"validation_distance", "diversity"} <= set(content["wavegen"]["metrics"])
    assert content["optimizer_states"][1]["state"][0]["step"] == 12  # two of the critic for one of the generator


def test_a_resumed_training_is_bit_equal(tiny_store, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "checkpoints" / "step-6.ckpt").unlink()
    fit(recipe(), tiny_store, run, resume="auto")
    one, other = saved(whole), saved(run)
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    assert all(torch.equal(value, other["wavegen"]["ema"][name]) for name, value in one["wavegen"]["ema"].items())
    assert one["wavegen"]["metrics"] == other["wavegen"]["metrics"]


def test_a_killed_training_goes_on_bit_equal(tiny_store, whole, tmp_path):
    """SIGKILL after the first checkpoint; the interval of checkpoints does not change what is trained."""
    run, path = tmp_path / "run", tmp_path / "recipe.yaml"
    path.write_text((whole / "recipe.yaml").read_text())
    process = start(path, tiny_store, run)
    while process.poll() is None and latest_step(run) == 0:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL and latest_step(run) > 0
    fit(recipe(), tiny_store, run, resume="auto")
    assert_bit_equal(run, whole)


def test_a_model_folder_holds_the_generator_alone(whole, tmp_path):
    export_run(whole, tmp_path / "model", dtype="float16")
    loaded = load_model(tmp_path / "model")
    inputs = ConditioningInputs(label=torch.tensor([1]), speaker=torch.tensor([0]))
    clip = loaded.model.generate(torch.zeros(1, 4), inputs)
    assert clip.shape == (1, 512) and not any("critic" in name for name in loaded.model.state_dict())


@pytest.mark.parametrize("game", [{"regulariser": "clip", "clip_value": 0.02}, {"objective": "js"},
                                  {"objective": "js_nonsaturating", "in_bin_noise": False, "spectral": []}])
def test_every_objective_trains(tiny_store, tmp_path, game):
    fit(recipe({"max_steps": 2, "checkpoint_interval": 2}, game), tiny_store, tmp_path / "run")
    weights = saved(tmp_path / "run")["state_dict"]
    critics = [value for name, value in weights.items() if name.startswith("critics")]
    assert all(torch.isfinite(value).all() for value in weights.values())
    if "regulariser" in game:
        assert max(float(value.abs().max()) for value in critics) <= 0.02


def test_a_gradient_that_stays_not_finite_stops_the_training(tiny_store, tmp_path, monkeypatch):
    step = AdversarialModule._critic_step

    def poisoned(self, batch, optimizer):
        if self.global_step >= 3:
            self.critics[0].layers[0].bias.data.fill_(float("nan"))
        return step(self, batch, optimizer)

    monkeypatch.setattr(AdversarialModule, "_critic_step", poisoned)
    with pytest.raises(TrainingError, match=r"stopped at step \d: the gradient was not finite.*--resume auto"):
        fit(recipe(), tiny_store, tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in saved(tmp_path / "run")["wavegen"]["ema"].values())


@pytest.mark.parametrize(("collapsed", "alarms"), [(True, 1), (False, 0)])
def test_the_collapse_alarm(tiny_store, caplog, collapsed, alarms, monkeypatch):
    monkeypatch.setattr(AdversarialModule, "log_dict", lambda *args, **kwargs: None)
    monkeypatch.setattr(AdversarialModule, "global_step", 7)
    one = module(tiny_store).eval()
    store = Store.open(tiny_store)
    batches = WindowBatches(store, "train", 40_000, 0, 1, fixed=512)

    def clips(latents, inputs):
        batch = batches.collate(np.roll(np.arange(len(latents)), 1))
        real = companded(batch, 256, "cpu")
        return real[:1].repeat(len(real), 1) if collapsed else real

    monkeypatch.setattr(one.model, "forward", clips)
    monkeypatch.setattr(one.ema.module, "forward", clips)
    one.on_validation_start()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        one.validation_step(batches.collate(np.arange(len(batches.rows))), 0)
        one.on_validation_epoch_end()
    assert len([r for r in caplog.records if "may have collapsed" in r.message]) == alarms
    assert one.results["diversity"] == pytest.approx(0 if collapsed else 1, abs=0.3)


def test_the_jensen_shannon_estimate_ends_at_log_2():
    sure, unsure = torch.full((4,), 40.0), torch.zeros(4)
    assert critic_loss(sure, -sure, "js")[1] == pytest.approx(math.log(2))
    assert critic_loss(unsure, unsure, "js")[1] == pytest.approx(0, abs=1e-6)
    assert critic_loss(sure, -sure, "wasserstein")[1] == pytest.approx(80)
    # Where the critic is sure, the saturating loss has no gradient and the other one has.
    for objective, slope in (("js", 0.0), ("js_nonsaturating", -1.0), ("wasserstein", -1.0)):
        score = torch.tensor([-40.0], requires_grad=True)
        generator_loss(score, objective).backward()
        assert float(score.grad) == pytest.approx(slope, abs=1e-6)


def test_noise_stays_inside_the_bins(tiny_store):
    batch = WindowBatches(Store.open(tiny_store), "train", 4096, 0, 1, fixed=512).batch(0)
    points, spread = companded(batch, 256, "cpu", noise=False), companded(batch, 256, "cpu")
    assert points.shape == (8, 512) and (points - spread).abs().max() <= 1 / 255 + 1e-6
    assert torch.equal(((spread + 1) / 2 * 255).round(), torch.from_numpy(batch.codes).float())


def test_what_does_not_fit_is_named(tiny_store, tmp_path):
    with pytest.raises(ValueError, match="length 500 must be a multiple of the product of the strides, 16"):
        recipe(num_samples=500)
    with pytest.raises(ValueError, match=r"num_samples 512 must be a multiple of .*hop_length 48"):
        recipe(game={"spectral": [{**SPECTRAL, "hop_length": 48}]})
    other = Recipe.model_validate({**recipe().model_dump(), "audio": {"sample_rate": 16000}})
    with pytest.raises(StoreError, match="sample_rate 8000 but recipe tiny wants 16000"):
        fit(other, tiny_store, tmp_path / "run")
    unnamed = Recipe.model_validate({**recipe().model_dump(), "prepare": {"hash_splits": {"test": 0.4}}})
    prepare(unnamed, write_tones(tmp_path / "data"), tmp_path / "store", workers=0, progress=False)
    with pytest.raises(ConfigError, match="label is true but the store has no labels"):
        fit(unnamed, tmp_path / "store", tmp_path / "run")


def test_a_judge_of_other_labels_is_refused(tiny_store):
    with pytest.raises(ConfigError, match=r"knows the labels .*, the store has"):
        module(tiny_store, game={"judge": "recipes/fsdd/judges"})
