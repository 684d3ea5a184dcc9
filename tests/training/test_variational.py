"""Training of auto-encoders: what is paid for the latents, what is logged, resuming bit-equal, stopping on NaN."""

from __future__ import annotations

import math

import pytest
import torch

from wavegen.config import Recipe
from wavegen.errors import TrainingError

pytest.importorskip("lightning", reason="the train extra is not installed")

from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.training import fit
from wavegen.training.variational import VariationalModule, kl_cost

CONV = {"family": "conv", "strides": [16, 8], "channels": [12], "conditioning": {"label": True, "hidden_channels": 8}}
WAVENET = {"family": "wavenet", "residual_channels": 8, "skip_channels": 8, "output_channels": 8,
           "dilations": [1, 2, 4], "conditioning": {"label": True, "features": 4, "hop_length": 64}}


def vae_recipe(decoder=CONV, noise="learned", variational=None, prior="standard", **training):
    variational = variational or ({"spectral_weight": 1, "kl_warmup_steps": 4} if decoder is CONV else {})
    return Recipe.model_validate({
        "name": "tiny-vae", "audio": {"sample_rate": 8000},
        "model": {"family": "vae", "num_samples": 1024, "latent_channels": 4, "latent_noise": noise,
                  "prior": prior,
                  "encoder": {"strides": [8, 16], "channels": [8, 12]}, "decoder": decoder},
        "training": {"max_steps": 6, "samples_per_batch": 4096, "tail_samples": 80, "checkpoint_interval": 3,
                     "validation_interval": 3, "log_interval": 3, "threads": 1,
                     "variational": {"spectral_sizes": [64, 128], **variational}, **training}})


def weights(run):
    return read_checkpoint(latest_checkpoint(run))["wavegen"]["ema"]


def assert_bit_equal(first, second):
    one, two = weights(first), weights(second)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def conv_run(tiny_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("vae") / "run"
    fit(vae_recipe(sample_interval=3), tiny_store, run)
    return run


def test_dimensions_below_the_free_bits_cost_alike():
    kl = torch.tensor([[[0.1, 3.0]], [[0.3, 1.0]]], requires_grad=True)  # means 0.2 and 2 nats
    assert kl_cost(kl, 0.0).item() == pytest.approx(2.2)
    cost = kl_cost(kl, 1.0)
    assert cost.item() == pytest.approx(math.log(2) + 2.0)
    cost.backward()
    assert kl.grad[:, 0, 0].tolist() == [0, 0] and kl.grad[:, 0, 1].tolist() == [0.5, 0.5]


def test_the_weight_of_the_kl_rises_over_the_warm_up(tiny_store):
    from wavegen.data.store import Store
    from wavegen.training.trainer import build_vocabulary

    def weight(step, **variational):
        return VariationalModule(vae_recipe(variational=variational), vocabulary, "").kl_weight(step)

    vocabulary = build_vocabulary(Store.open(tiny_store))
    assert [weight(step, kl_weight=2, kl_warmup_steps=4) for step in (0, 1, 4, 9)] == [0, 0.5, 2, 2]
    assert weight(0, kl_weight=2) == 2


def test_a_resumed_training_is_bit_equal(tiny_store, conv_run, tmp_path):
    # To listen does not change the training either: only the run in one go wrote sounds.
    fit(vae_recipe(), tiny_store, tmp_path / "run", )
    assert_bit_equal(conv_run, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-6.ckpt"):
        checkpoint.unlink()
    fit(vae_recipe(), tiny_store, tmp_path / "run", resume="auto")
    assert_bit_equal(conv_run, tmp_path / "run")


def test_figures_sounds_and_spectrograms_are_logged(conv_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(conv_run / "tensorboard"), size_guidance={"audio": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert {"train/reconstruction_bits", "train/kl_nats", "train/kl_bits_per_dimension", "train/spectral_distance",
            "train/kl_weight", "train/latent_noise", "validation/bits", "validation/active_units",
            "validation/log_mel_distance"} <= set(tags["scalars"])
    assert {"samples/0-anna", "recordings/0", "reconstructions/0"} <= set(tags["audio"])
    assert {"spectrograms/0-anna", "spectrograms/reconstructions/0"} <= set(tags["images"])


def test_the_bound_is_reconstruction_plus_kl(conv_run):
    figures = read_checkpoint(latest_checkpoint(conv_run))["wavegen"]["metrics"]
    assert figures["validation_bits"] > figures["validation_reconstruction_bits"] > 0
    assert 0 <= figures["validation_active_units"] <= 4 * 8
    per_dimension = figures["validation_kl_nats"] / math.log(2) / 32
    assert figures["validation_kl_bits_per_dimension"] == pytest.approx(per_dimension)


@pytest.mark.parametrize(("decoder", "noise", "variational"), [
    (CONV, "none", {"kl_weight": 0}),  # the plain auto-encoder
    (CONV, "learned", {"kl_weight": 0}),  # noise that is free to shrink
    (CONV, "learned", {"free_bits": 0.5}),
    (WAVENET, "learned", {}),
])
def test_every_kind_trains(tiny_store, tmp_path, decoder, noise, variational):
    recipe = vae_recipe(decoder, noise, variational, max_steps=2, sample_interval=2, validation_interval=2)
    fit(recipe, tiny_store, tmp_path / "run")
    figures = read_checkpoint(latest_checkpoint(tmp_path / "run"))["wavegen"]["metrics"]
    assert math.isfinite(figures["validation_bits"])
    assert ("validation_log_mel_distance" in figures) == (decoder is CONV)
    assert (figures["validation_kl_nats"] == 0) == (noise == "none")


def test_a_conditional_prior_is_learned(tiny_store, tmp_path):
    fit(vae_recipe(prior="conditional", variational={"kl_weight": 1}, sample_interval=6), tiny_store, tmp_path / "run")
    learned = weights(tmp_path / "run")
    assert learned["prior.head.weight"].abs().max() > 0


def test_a_loss_that_is_not_a_number_stops_the_training(tiny_store, tmp_path, monkeypatch):
    step = VariationalModule.training_step
    monkeypatch.setattr(VariationalModule, "training_step", lambda *a: step(*a) * float("nan"))
    with pytest.raises(TrainingError, match="not finite for 3 steps in a row"):
        fit(vae_recipe(), tiny_store, tmp_path / "run")


def test_shifted_and_balanced_windows_train_and_resume_bit_equal(tiny_store, tmp_path):
    recipe = vae_recipe(pitch_shift=3, balance_labels=True, validation_interval=6)
    fit(recipe, tiny_store, tmp_path / "run")
    whole = weights(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-6.ckpt").unlink()
    fit(recipe, tiny_store, tmp_path / "run", resume="auto")
    again = weights(tmp_path / "run")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_models_of_whole_clips_are_not_shifted():
    model = {"family": "rnn", "hidden_channels": 8, "output_channels": 8, "embedding_channels": 4}
    with pytest.raises(ValueError, match=r"pitch_shift is 2.0, but the family rnn learns clips as they are"):
        Recipe.model_validate({"name": "r", "audio": {"sample_rate": 8000}, "model": model,
                               "training": {"max_steps": 1, "pitch_shift": 2}})


@pytest.mark.parametrize(("options", "message"), [
    ({"noise": "none"}, r"kl_weight is 1.0, but without latent noise .* there is no KL"),
    ({"decoder": WAVENET, "variational": {"spectral_weight": 1}}, "spectral_weight is 1.0, but the wavenet decoder"),
])
def test_objectives_that_do_not_fit_the_model_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vae_recipe(**options)
