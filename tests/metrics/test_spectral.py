"""Spectral distances on tones and noise, and beside an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.metrics.spectral import log_mel_distance, stft_distance


def tone(frequency=440.0, amplitude=0.5, num_samples=8000):
    return (amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(num_samples) / 8000))[None]


def test_equal_clips_are_at_0():
    assert stft_distance(tone(), tone()).item() == 0
    assert log_mel_distance(tone(), tone(), 8000).item() == 0


def test_a_level_is_a_distance_of_its_logarithm():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32))
    # Spectral convergence of half the level is 1/2, the mean difference of logarithms log 2.
    assert stft_distance(noise / 2, noise).item() == pytest.approx(0.5 + np.log(2), abs=1e-3)
    assert log_mel_distance(noise / 2, noise, 8000).item() == pytest.approx(np.log(2), abs=1e-3)


def test_nearer_clips_are_nearer():
    for distance in (stft_distance, lambda a, b: log_mel_distance(a, b, 8000)):
        assert distance(tone(450), tone()) < distance(tone(880), tone()) < distance(torch.randn(1, 8000), tone())


def test_what_is_far_below_full_scale_does_not_count():
    assert log_mel_distance(tone() + 1e-5 * torch.randn(1, 8000), tone(), 8000).item() < 0.01


def test_rows_are_independent_and_gradients_flow():
    clips = torch.cat([tone(), tone(600)]).requires_grad_()
    both = stft_distance(clips, tone().repeat(2, 1))
    assert both[1].item() == pytest.approx(stft_distance(tone(600), tone()).item(), rel=1e-5)
    both.sum().backward()
    assert torch.isfinite(clips.grad).all() and clips.grad[1].abs().max() > 0


@pytest.mark.parametrize("num_samples", [1, 129])
def test_short_clips_have_distances(num_samples):
    first, second = tone(num_samples=num_samples), tone(900, num_samples=num_samples)
    assert torch.isfinite(stft_distance(first + 0.1, second)).all()
    assert torch.isfinite(log_mel_distance(first + 0.1, second, 8000)).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8000\) and \(1, 100\)"):
        stft_distance(tone(), tone(num_samples=100))


def test_the_distance_agrees_with_auraloss():
    auraloss = pytest.importorskip("auraloss", reason="the dev extra is not installed")
    rng = np.random.default_rng(1)
    first, second = (torch.from_numpy(rng.standard_normal((1, 16000)).astype(np.float32)) * 0.1 for _ in range(2))
    theirs = auraloss.freq.MultiResolutionSTFTLoss(fft_sizes=[512, 1024, 2048], hop_sizes=[50, 120, 240],
                                                   win_lengths=[240, 600, 1200])
    # They reflect at the ends, where we pad with silence.
    assert stft_distance(first, second).item() == pytest.approx(theirs(first[None], second[None]).item(), rel=0.01)
