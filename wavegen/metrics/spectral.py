"""Distances between a clip and its reconstruction, by their spectra. Torch, so that a training can use them too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from wavegen.audio.mel import mel_basis
from wavegen.config import MelSpec

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # n_fft, hop, window, in samples
MIN_POWER = 1e-8  # of a bin


def stft_distance(estimate: Tensor, target: Tensor,
                  resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS, depth: float | None = None) -> Tensor:
    """Multi-resolution STFT distance: spectral convergence plus mean difference of log magnitudes.

    Args:
        estimate, target: float (B, T), waveforms.
        resolutions: n_fft, hop and Hann window of each spectrogram, in samples.
        depth: dB below a full-scale tone under which all magnitudes are alike, so that a training
            does not spend itself on the noise in silence; None compares down to the last bit.

    Returns:
        float (B,): 0 for equal clips; differentiable in `estimate`.

    Reference: Yamamoto et al., arXiv:1910.11480, section 2.2.
    """
    _check(estimate, target)
    total = torch.zeros(len(estimate), dtype=estimate.dtype, device=estimate.device)
    for n_fft, hop, window in resolutions:
        found, wanted = (_magnitude(waveform, n_fft, hop, window) for waveform in (estimate, target))
        if depth is not None:
            floor = window / 4 * 10 ** (-depth / 20)
            found, wanted = found + floor, wanted + floor
        convergence = torch.linalg.norm(wanted - found, dim=(1, 2)) / torch.linalg.norm(wanted, dim=(1, 2))
        total = total + convergence + (wanted.log() - found.log()).abs().mean(dim=(1, 2))
    return total / len(resolutions)


def distance_mel(sample_rate: int) -> MelSpec:
    """The spectrogram `log_mel_distance` compares: 64 ms windows every 16 ms, 80 bands, 60 dB deep."""
    window = 2 ** round(math.log2(0.064 * sample_rate))
    return MelSpec(sample_rate=sample_rate, n_fft=window, hop_length=window // 4, win_length=window, n_mels=80,
                   norm="none", power=1.0, floor=0.1)


def log_mel_distance(estimate: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of log-mel magnitudes, in nats (1 nat is 8.7 dB).

    Args:
        estimate, target: float (B, T), waveforms.
        sample_rate: Hz.

    Returns:
        float (B,): 0 for equal clips; differentiable in `estimate`.
    """
    _check(estimate, target)
    found, wanted = log_mel(estimate, sample_rate), log_mel(target, sample_rate)
    return (wanted - found).abs().mean(dim=(1, 2))


def log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Natural logarithms of the magnitudes of `distance_mel` (B, 80, F) of waveforms float (B, T)."""
    spec = distance_mel(sample_rate)
    magnitude = _magnitude(waveform, spec.n_fft, spec.hop_length, spec.win_length)
    return (_basis(spec).to(waveform) @ magnitude).clamp(min=spec.floor).log()


@lru_cache
def _basis(spec: MelSpec) -> Tensor:
    return torch.from_numpy(mel_basis(spec))


def _magnitude(waveform: Tensor, n_fft: int, hop: int, window: int) -> Tensor:
    """(B, bins, F); the ends are padded with silence, so that any length has a spectrogram."""
    padded = torch.nn.functional.pad(waveform, (n_fft // 2, n_fft // 2))
    shape = torch.hann_window(window, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(padded, n_fft, hop, window, shape, center=False, return_complex=True)
    power = spectrum.real**2 + spectrum.imag**2
    return power.clamp(min=MIN_POWER).sqrt()


def _check(estimate: Tensor, target: Tensor) -> None:
    if estimate.shape != target.shape or estimate.dim() != 2 or estimate.shape[1] == 0:
        raise ValueError("a spectral distance needs two sets of clips of one shape (B, T), found "
                         f"{tuple(estimate.shape)} and {tuple(target.shape)}")
