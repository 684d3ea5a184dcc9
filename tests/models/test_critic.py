"""The critic: phase shuffle, projection, its two views, and its gradient penalty against plain conv1d."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from wavegen.config import AudioConfig, ConditioningConfig, CriticConfig, SpectralCriticConfig, Vocabulary, WGANConfig
from wavegen.models import ConditioningInputs
from wavegen.models.critic import Critic, LogMelView, phase_shuffle
from wavegen.training.adversarial import penalty_norm

NAMES = Vocabulary(labels=("a", "b", "c"), speakers=("x", "y"))
MODEL = WGANConfig(num_samples=64, channels=(8, 4), strides=(4, 4),
                   conditioning=ConditioningConfig(label=True, speaker=True))
SIZES = CriticConfig(channels=(6, 10), strides=(4, 4), kernel_size=12)
INPUTS = ConditioningInputs(label=torch.tensor([0, 2]), speaker=torch.tensor([1, 0]))


def critic():
    torch.manual_seed(0)
    one = Critic(SIZES, 64, 1, MODEL, NAMES).double().eval()
    one.compute_dtype = torch.float64
    return one


def as_conv1d(one, x, inputs):
    """The same critic as one would write it first."""
    h = x.transpose(1, 2)
    for layer in one.layers:
        size = layer.taps * layer.down
        kernel = layer.weight.view(size, h.shape[1], layer.outputs).permute(2, 1, 0)
        left = layer.taps // 2 * layer.down
        padded = functional.pad(h, (left, size - layer.down - left))
        h = functional.leaky_relu(functional.conv1d(padded, kernel, layer.bias, stride=layer.down), 0.2)
    features = h.transpose(1, 2).flatten(1)
    told = one.projections["label"][inputs.label] + one.projections["speaker"][inputs.speaker]
    return one.score(features)[:, 0] + (features * told).sum(1)


def test_scores_and_gradient_penalty_are_those_of_conv1d():
    one = critic()
    other = copy.deepcopy(one)
    real, fake = torch.randn(2, 64, 1, dtype=torch.float64), torch.randn(2, 64, 1, dtype=torch.float64)
    scores = one(real, INPUTS)
    assert torch.allclose(scores, as_conv1d(one, real, INPUTS))
    torch.manual_seed(5)
    penalty = (penalty_norm(one, real, fake, INPUTS) - 1).square().mean()
    torch.manual_seed(5)
    expected = (penalty_norm(lambda x, y: as_conv1d(other, x, y), real, fake, INPUTS) - 1).square().mean()
    assert torch.allclose(penalty, expected, rtol=1e-5)
    mine = torch.autograd.grad(penalty, [layer.weight for layer in one.layers])
    theirs = torch.autograd.grad(expected, [layer.weight for layer in other.layers])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-8) for a, b in zip(mine, theirs, strict=True))


def test_phase_shuffle_shifts_and_mirrors():
    h = torch.arange(8.0).view(1, 8, 1).expand(2, 8, 3)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        moved = phase_shuffle(h, 2)
        assert moved.shape == h.shape and (moved == moved[:1, :, :1]).all()
        seen.add(tuple(int(value) for value in moved[0, :, 0]))
    assert seen == {(0, 1, 2, 3, 4, 5, 6, 7), (1, 0, 1, 2, 3, 4, 5, 6), (2, 1, 0, 1, 2, 3, 4, 5),
                    (1, 2, 3, 4, 5, 6, 7, 6), (2, 3, 4, 5, 6, 7, 6, 5)}
    assert torch.equal(phase_shuffle(h, 0), h)


def test_a_critic_shuffles_in_training_only():
    one, x = critic(), torch.randn(2, 64, 1, dtype=torch.float64)
    assert torch.equal(one(x, INPUTS), one(x, INPUTS))
    one.train()
    with torch.no_grad():
        assert len({float(one(x, INPUTS)[0]) for _ in range(12)}) > 1


def test_the_log_mel_view_hears_level_and_silence():
    audio = AudioConfig(sample_rate=8000)
    view = LogMelView(SpectralCriticConfig(n_fft=64, hop_length=16, n_mels=10), audio)
    time = torch.arange(640) / 8000
    clips = torch.stack([torch.zeros(640), torch.sin(2 * torch.pi * 1000 * time)]).requires_grad_(True)
    seen = view(clips)
    assert seen.shape == (2, 40, 10)
    assert seen[0].std() < 0.02 and seen[1].max() > 1 > seen[0].max()
    assert int(seen[1].mean(0).argmax()) == pytest.approx(4, abs=1)
    gradient, = torch.autograd.grad(seen.sum(), clips)
    assert torch.isfinite(gradient).all()
