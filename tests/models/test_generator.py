"""The generator: shapes, conditions, and that every form of it is an ordinary convolution network."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from wavegen.config import AudioConfig, ConditioningConfig, Vocabulary, WGANConfig
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs, build_model
from wavegen.models.polyphase import NearestUpsample

AUDIO, NAMES = AudioConfig(sample_rate=8000), Vocabulary(labels=("a", "b", "c"), speakers=("x", "y"))
TOLD = ConditioningConfig(label=True, speaker=True, hidden_channels=8)


def generator(**sizes):
    torch.manual_seed(0)
    config = WGANConfig(**{"num_samples": 192, "latent_channels": 5, "channels": (12, 8, 4), "strides": (4, 4, 4),
                           "kernel_size": 8, "conditioning": TOLD, **sizes})
    return build_model(config, AUDIO, NAMES).eval()


INPUTS = ConditioningInputs(label=torch.tensor([0, 2]), speaker=torch.tensor([1, 0]))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize("sizes", [{}, {"kernel_size": 25}, {"kernel_size": 1}, {"post_filter_size": 31},
                                   {"num_samples": 60, "channels": (7, 3), "strides": (5, 2)}])
def test_clips_have_the_length_of_the_config_and_stay_in_range(upsampling, sizes):
    model = generator(upsampling=upsampling, **sizes)
    clips = model.generate(torch.randn(2, 5) * 10, INPUTS)
    assert clips.shape == (2, model.num_samples) and clips.dtype == torch.float32
    assert clips.abs().max() <= 1


@pytest.mark.parametrize("num_samples", [8192, 16384, 32768])
def test_published_lengths(num_samples):
    channels = (16, 8, 8, 4, 4) if num_samples < 32768 else (16, 8, 8, 4, 4, 2)
    strides = (4, 4, 4, 4, 4) if num_samples < 32768 else (4, 4, 4, 4, 4, 2)
    model = generator(num_samples=num_samples, channels=channels, strides=strides)
    assert model.generate(torch.zeros(2, 5), INPUTS).shape == (2, num_samples)


def test_conditions_change_a_clip_and_rows_are_independent():
    model, latents = generator(), torch.randn(2, 5)
    both = model(latents, INPUTS)
    other = model(latents, ConditioningInputs(label=torch.tensor([0, 1]), speaker=torch.tensor([1, 0])))
    assert torch.equal(both[0], other[0]) and not torch.allclose(both[1], other[1], atol=1e-4)
    alone = model(latents[1:], ConditioningInputs(label=INPUTS.label[1:], speaker=INPUTS.speaker[1:]))
    assert torch.allclose(alone[0], both[1], atol=1e-6)


def test_a_missing_condition_is_named():
    with pytest.raises(ConfigError, match="conditioned on a speaker; none was given"):
        generator()(torch.zeros(1, 5), ConditioningInputs(label=torch.tensor([0])))


def test_a_model_without_conditions():
    model = generator(conditioning=ConditioningConfig())
    assert model(torch.randn(3, 5)).shape == (3, 192)


def test_an_untrained_filter_changes_nothing():
    plain, filtered = generator(), generator(post_filter_size=16)
    filtered.load_state_dict({**filtered.state_dict(), **plain.state_dict()})
    latents = torch.randn(2, 5)
    assert torch.allclose(plain(latents, INPUTS), filtered(latents, INPUTS), atol=1e-6)


@pytest.mark.parametrize("sizes", [{"num_samples": 200}, {"strides": (4, 4)},
                                   {"conditioning": ConditioningConfig(label=True, progress_steps=4)}])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValidationError, match=r"200 must be a multiple .* 64|of one length, found 3 and 2|must be 0"):
        generator(**sizes)


@pytest.mark.parametrize(("taps", "up"), [(1, 4), (2, 3), (3, 2), (4, 4)])
def test_nearest_upsampling_is_repetition_and_a_convolution(taps, up):
    torch.manual_seed(0)
    module = NearestUpsample(3, 5, taps, up).double()
    torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    left = (taps + 1) // 2 * up
    repeated = functional.pad(x.repeat_interleave(up, 1).transpose(1, 2), (left, taps * up - 1 - left))
    expected = functional.conv1d(repeated, module.weight.permute(2, 1, 0), module.bias).transpose(1, 2)
    assert torch.allclose(module(x), expected)
