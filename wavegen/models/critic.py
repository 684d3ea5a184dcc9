"""Critics: one number for a clip, high for recordings and low for what a generator made."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.audio.mel import mel_basis
from wavegen.config import AudioConfig, CriticConfig, MelSpec, SpectralCriticConfig, Vocabulary, WGANConfig
from wavegen.models.conditioning import ConditioningInputs
from wavegen.models.polyphase import PolyphaseConv

FLOOR = 0.1  # of a mel magnitude before the logarithm: about the noise of 8-bit codes


class Critic(nn.Module):
    """Strided convolutions with phase shuffle, then a linear score plus a projection on the conditions.

        view (B, L, C) -> convolutions -> features (B, W) -> w . features + sum_k e_k[y_k] . features

    Args:
        config: sizes.
        length, inputs: L and C of the view of a clip it looks at.
        model: the generator's; its conditions are the critic's.

    Reference: WaveGAN (arXiv:1802.04208), projection (arXiv:1802.05637).
    """

    def __init__(self, config: CriticConfig, length: int, inputs: int, model: WGANConfig,
                 vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.layers = nn.ModuleList(
            PolyphaseConv(before, after, -(-config.kernel_size // stride), down=stride, gain=math.sqrt(2))
            for before, after, stride in zip((inputs, *config.channels[:-1]), config.channels, config.strides,
                                             strict=True))
        width = length // math.prod(config.strides) * config.channels[-1]
        self.score = nn.Linear(width, 1)
        self.projections = nn.ParameterDict()
        for kind, names in (("label", vocabulary.labels), ("speaker", vocabulary.speakers)):
            if getattr(model.conditioning, kind):
                self.projections[kind] = nn.Parameter(torch.randn(len(names), width) / math.sqrt(width))

    def forward(self, view: Tensor, inputs: ConditioningInputs) -> Tensor:
        """Scores (B,) of views (B, L, C) under their conditions."""
        h = view.to(self.compute_dtype)
        for i, layer in enumerate(self.layers):
            h = functional.leaky_relu(layer(h), 0.2)
            if self.training and i + 1 < len(self.layers):
                h = phase_shuffle(h, self.config.phase_shuffle)
        features = h.flatten(1).to(self.score.weight.dtype)
        score = self.score(features)[:, 0]
        for kind, table in self.projections.items():
            score = score + (features * table[getattr(inputs, kind)]).sum(1)
        return score


class CompandedView(nn.Module):
    """What the critic of waveforms looks at: the companded samples themselves, (B, T, 1)."""

    def forward(self, companded: Tensor) -> Tensor:
        return companded[..., None]


class LogMelView(nn.Module):
    """What the critic of spectrograms looks at: log-mel frames of the waveform, (B, T / hop_length, n_mels)."""

    basis: Tensor
    window: Tensor

    def __init__(self, config: SpectralCriticConfig, audio: AudioConfig) -> None:
        super().__init__()
        self.config, self.mu = config, audio.quantization_channels - 1
        spec = MelSpec(sample_rate=audio.sample_rate, n_fft=config.n_fft, win_length=config.n_fft,
                       hop_length=config.hop_length, n_mels=config.n_mels, fmin=40.0, norm="none")
        self.register_buffer("basis", torch.from_numpy(mel_basis(spec)), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, companded: Tensor) -> Tensor:
        waveform = torch.expm1(companded.abs() * math.log1p(self.mu)) / self.mu * companded.sign()
        edge = self.config.n_fft // 2
        spectrum = torch.stft(functional.pad(waveform, (edge, edge)), self.config.n_fft, self.config.hop_length,
                              window=self.window, center=False, return_complex=True)
        frames = companded.shape[1] // self.config.hop_length
        power = torch.view_as_real(spectrum[..., :frames]).square().sum(-1)
        # The gradient of a magnitude is not defined at zero.
        mel = (power + 1e-6).sqrt().transpose(1, 2) @ self.basis.t()
        return torch.log(mel + FLOOR) / 2


def phase_shuffle(h: Tensor, reach: int) -> Tensor:
    """Shift (B, L, C) by a random number of samples, at most `reach`, mirrored at the end.

    A critic that is blind to the phase cannot be fooled by, nor reward, the artefacts of upsampling
    that always stand at the same phase (arXiv:1802.04208, section 3.3).
    """
    shift = int(torch.randint(-reach, reach + 1, ())) if reach else 0
    if shift > 0:
        return torch.cat([h[:, 1 : shift + 1].flip(1), h[:, :-shift]], dim=1)
    if shift < 0:
        return torch.cat([h[:, -shift:], h[:, shift - 1 : -1].flip(1)], dim=1)
    return h
