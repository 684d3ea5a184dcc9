"""The critic: one number for a clip, high for recordings and low for what a generator made."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.config import CriticConfig, Vocabulary, WGANConfig
from wavegen.models.conditioning import ConditioningInputs
from wavegen.models.polyphase import PolyphaseConv


class Critic(nn.Module):
    """Strided convolutions with phase shuffle, then a linear score plus a projection on the conditions.

        companded (B, T) -> convolutions -> features (B, C) -> w . features + sum_k e_k[y_k] . features

    Reference: WaveGAN (arXiv:1802.04208), projection (arXiv:1802.05637).
    """

    def __init__(self, config: CriticConfig, model: WGANConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        inputs = (1, *config.channels[:-1])
        self.layers = nn.ModuleList(
            PolyphaseConv(before, after, -(-config.kernel_size // stride), down=stride, gain=math.sqrt(2))
            for before, after, stride in zip(inputs, config.channels, config.strides, strict=True))
        width = model.num_samples // math.prod(config.strides) * config.channels[-1]
        self.score = nn.Linear(width, 1)
        self.projections = nn.ParameterDict()
        for kind, names in (("label", vocabulary.labels), ("speaker", vocabulary.speakers)):
            if getattr(model.conditioning, kind):
                self.projections[kind] = nn.Parameter(torch.randn(len(names), width) / math.sqrt(width))

    def forward(self, companded: Tensor, inputs: ConditioningInputs) -> Tensor:
        """Scores float32 (B,) of clips (B, T) under their conditions."""
        h = companded[..., None].to(self.compute_dtype)
        for i, layer in enumerate(self.layers):
            h = functional.leaky_relu(layer(h), 0.2)
            if self.training and i + 1 < len(self.layers):
                h = phase_shuffle(h, self.config.phase_shuffle)
        features = h.flatten(1).float()
        score = self.score(features)[:, 0]
        for kind, table in self.projections.items():
            score = score + (features * table[getattr(inputs, kind)]).sum(1)
        return score


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
