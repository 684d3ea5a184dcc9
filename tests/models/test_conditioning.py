"""Feature frames as local conditioning: what each frame sees, and that windows and chunks see the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import make_uniforms, make_wavenet
from wavegen.config import ConditioningConfig, Vocabulary, load_recipe
from wavegen.engines import ModelConditioning, build_engine
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs
from wavegen.models.conditioning import ConditioningNetwork

CONTEXT = 2
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def _network(context_frames=CONTEXT, **options):
    torch.manual_seed(0)
    config = ConditioningConfig(features=3, context_frames=context_frames, hidden_channels=8, hop_length=16, **options)
    network = ConditioningNetwork(config, Vocabulary(labels=("a", "b")))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def _features(batch=2, frames=9):
    return torch.randn(batch, 3, frames, generator=torch.Generator().manual_seed(1))


def test_a_frame_sees_its_context_and_no_more():
    network, features = _network(), _features()
    features.requires_grad_(True)
    network(ConditioningInputs(features=features), 0, 9)[0, 4].sum().backward()
    seen = features.grad[0].abs().sum(0) > 0
    assert seen.tolist() == [2 <= frame <= 6 for frame in range(9)]
    assert not features.grad[1].any()


@pytest.mark.parametrize(("start", "count"), [(0, 9), (0, 3), (4, 5), (8, 1), (7, 6)])
def test_a_stretch_equals_the_same_frames_of_the_whole(start, count):
    network, features = _network(), _features()
    whole = network(ConditioningInputs(features=features), 0, 13)
    part = network(ConditioningInputs(features=features), start, count)
    assert torch.allclose(part, whole[:, start : start + count], atol=1e-6)


def test_the_first_and_last_frame_hold_on_beyond_the_ends():
    network, features = _network(), _features(1)
    held = torch.cat([features[:, :, :1]] * CONTEXT + [features] + [features[:, :, -1:]] * 6, dim=2)
    inside = network(ConditioningInputs(features=held), CONTEXT, 11)
    assert torch.allclose(network(ConditioningInputs(features=features), 0, 11), inside, atol=1e-6)


def test_a_padded_clip_ends_where_its_own_frames_end():
    network, features = _network(), _features(2)
    counts = torch.tensor([5, 9])
    together = network(ConditioningInputs(features=features, num_frames=counts), 0, 9)
    alone = network(ConditioningInputs(features=features[:1, :, :5]), 0, 9)
    assert torch.allclose(together[:1], alone, atol=1e-6)


def test_a_window_of_a_clip_sees_the_frames_around_it():
    network, features = _network(), _features(2)
    whole = network(ConditioningInputs(features=features), 0, 9)
    inputs = ConditioningInputs(features=features, start_frame=torch.tensor([0, 5]))
    window = network(inputs, 0, 4)
    assert torch.allclose(window[0], whole[0, :4], atol=1e-6)
    assert torch.allclose(window[1], whole[1, 5:9], atol=1e-6)


def test_upsampled_frames_lie_on_the_line_between_two_frames():
    features = _features(1, 5)
    places = np.minimum((np.arange(20) + 0.5) / 4, 4)
    drawn = torch.from_numpy(np.stack([np.interp(places, np.arange(5), band) for band in features[0].numpy()])[None])
    fine = _network(context_frames=0)(ConditioningInputs(features=drawn), 0, 20)
    assert torch.allclose(_network(context_frames=0, upsampling=4)(ConditioningInputs(features=features), 0, 20), fine,
                          atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 16])
@pytest.mark.parametrize(("start", "count"), [(0, 40), (5, 1), (4, 7), (17, 40)])
def test_an_upsampled_stretch_equals_the_same_frames_of_the_whole(factor, start, count):
    network, features = _network(upsampling=factor), _features()
    counts = torch.tensor([5, 9])
    whole = network(ConditioningInputs(features=features, num_frames=counts), 0, 60)
    part = network(ConditioningInputs(features=features, num_frames=counts), start, count)
    assert torch.allclose(part, whole[:, start : start + count], atol=1e-5)
    begins = torch.tensor([start + 2, start])
    windows = network(ConditioningInputs(features=features, num_frames=counts, start_frame=begins), 0, 3)
    for row, begin in enumerate(begins.tolist()):
        assert torch.allclose(windows[row], whole[row, begin : begin + 3], atol=1e-5)
    alone = network(ConditioningInputs(features=features[:1, :, :5]), 0, 60)
    assert torch.allclose(whole[:1], alone, atol=1e-5)


def test_an_upsampled_frame_sees_one_frame_further():
    network, features = _network(upsampling=4), _features(1)
    features.requires_grad_(True)
    network(ConditioningInputs(features=features), 0, 36)[0, 16:20].sum().backward()
    seen = features.grad[0].abs().sum(0) > 0
    assert seen.tolist() == [2 <= frame <= 7 for frame in range(9)]
    assert network.config.lookahead_frames == CONTEXT + 1 and network.config.feature_hop_length == 64


def test_features_join_the_other_conditions():
    network, features = _network(label=True), _features(2)
    both = network(ConditioningInputs(label=torch.tensor([0, 1]), features=features), 0, 9)
    other = network(ConditioningInputs(label=torch.tensor([1, 1]), features=features), 0, 9)
    assert not torch.allclose(both[0], other[0]) and torch.allclose(both[1], other[1])


def test_a_label_may_be_a_mixture_of_labels():
    network, features = _network(label=True, progress_steps=4), _features(2)
    length = torch.tensor([100, 90])
    def told(label):
        return network(ConditioningInputs(label=label, num_samples=length, features=features), 0, 9)
    assert torch.allclose(told(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), told(torch.tensor([0, 1])), atol=1e-6)
    middle = told(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert not torch.allclose(middle, told(torch.tensor([0, 1]))) and middle.isfinite().all()


@pytest.mark.parametrize(("features", "message"), [
    (None, "conditioned on frames of 3 features; none were given"),
    (torch.zeros(1, 4, 9), r"features \(B, 3, frames\), found \(1, 4, 9\)"),
    (torch.zeros(1, 3, 0), r"features \(B, 3, frames\), found \(1, 3, 0\)"),
])
def test_features_that_do_not_fit_are_refused(features, message):
    with pytest.raises(ConfigError, match=message):
        _network()(ConditioningInputs(features=features), 0, 1)


def test_context_without_features_is_refused():
    with pytest.raises(ValueError, match="context_frames 2 widens the view on features, but features is 0"):
        ConditioningConfig(context_frames=2)
    with pytest.raises(ValueError, match="upsampling 2 is of feature frames, but features is 0"):
        ConditioningConfig(upsampling=2)


MODEL = make_wavenet(features=3, context_frames=1)
UPSAMPLED = make_wavenet(features=3, context_frames=1, upsampling=3)
SPOKEN = ConditioningInputs(features=_features(2, 7))


@pytest.mark.parametrize("engine", ["numba", "reference"])
@settings(max_examples=6)
@given(chunks=st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_chunking_never_changes_what_a_model_told_features_speaks(engine, chunks):
    speaker = build_engine(MODEL, engine)
    uniforms = make_uniforms(3, 2, sum(chunks))
    whole = speaker.step(speaker.start(2, ModelConditioning(MODEL, SPOKEN)), sum(chunks), uniforms)
    state, done, pieces = speaker.start(2, ModelConditioning(MODEL, SPOKEN)), 0, []
    for size in chunks:
        pieces.append(speaker.step(state, size, uniforms[:, done : done + size]))
        done += size
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("model", [MODEL, UPSAMPLED])
def test_teacher_forcing_equals_the_engine(model):
    codes = np.random.default_rng(0).integers(0, 64, (2, 50))
    previous = np.concatenate([np.full((2, 1), 32), codes[:, :-1]], axis=1)
    with torch.inference_mode():
        trained = model(torch.from_numpy(previous), SPOKEN).numpy()
    spoken = build_engine(model, "reference").logits(codes, ModelConditioning(model, SPOKEN))
    assert np.allclose(trained, spoken, atol=1e-3)


def test_an_upsampling_factor_that_does_not_fit_is_named():
    recipe = load_recipe(RECIPES / "ljspeech/wavenet.yaml", ["model.conditioning.hop_length=64",
                                                             "model.conditioning.upsampling=4"])
    assert recipe.model.conditioning.feature_hop_length == recipe.audio.mel.hop_length == 256
    with pytest.raises(ConfigError, match="hop_length is 64 and upsampling 3: their product must be 256"):
        load_recipe(RECIPES / "ljspeech/wavenet.yaml", ["model.conditioning.hop_length=64",
                                                        "model.conditioning.upsampling=3"])
    with pytest.raises(ConfigError, match="latents are held, set it to 1"):
        load_recipe(RECIPES / "fsdd/vae_wavenet.yaml", ["model.decoder.conditioning.upsampling=2"])
