"""Generator of fixed-length clips: noise and conditions in, companded audio out, in one pass.

    latents (B, Z), label, speaker -> linear -> upsampling convolutions -> tanh -> companded (B, T)
                                                                    (-> learned filter)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.config import AudioConfig, Vocabulary, WGANConfig
from wavegen.models.conditioning import ConditioningInputs, ConditioningNetwork
from wavegen.models.polyphase import NearestUpsample, PolyphaseConv


class Generator(nn.Module):
    """WaveGAN's generator with every size free (arXiv:1802.04208), conditioned by embeddings.

    A condition enters beside the latents and as a bias of every layer.
    """

    def __init__(self, config: WGANConfig, audio: AudioConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32  # the trainer sets bfloat16 where the recipe asks for it
        self.conditioning = ConditioningNetwork(config.conditioning, vocabulary)
        width = config.conditioning.hidden_channels if self.conditioning.is_active else 0
        self.first_length = config.num_samples // math.prod(config.strides)
        self.first = nn.Linear(config.latent_channels + width, self.first_length * config.channels[0])
        outputs = (*config.channels[1:], 1)
        self.layers = nn.ModuleList(
            _upsample(config, before, after, stride)
            for before, after, stride in zip(config.channels, outputs, config.strides, strict=True))
        self.told = nn.ModuleList(nn.Linear(width, after) for after in outputs[:-1]) if width else None
        if config.post_filter_size:
            taps = torch.zeros(config.post_filter_size)
            taps[config.post_filter_size // 2] = 1
            self.post_filter = nn.Parameter(taps)

    @property
    def num_samples(self) -> int:
        """Length of every clip."""
        return self.config.num_samples

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one clip, standard normal."""
        return (self.config.latent_channels,)

    def forward(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """Companded clips float32 (B, T) in [-1, 1] from latents (B, Z) and conditions.

        Raises:
            ConfigError: if a condition the model was built with is missing.
        """
        hidden = self.conditioning(inputs or ConditioningInputs(), 0, 1)[:, 0] if self.told is not None else None
        given = latents if hidden is None else torch.cat([latents, hidden], dim=1)
        h = functional.relu(self.first(given)).view(len(latents), self.first_length, -1).to(self.compute_dtype)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i + 1 < len(self.layers):
                if self.told is not None:
                    h = h + self.told[i](hidden)[:, None].to(h.dtype)
                h = functional.relu(h)
        companded = torch.tanh(h[..., 0].float())
        if self.config.post_filter_size:
            companded = self._filter(companded).clamp(-1, 1)
        return companded

    def generate(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """What both one-pass families are asked for: companded clips float32 (B, T)."""
        return self(latents, inputs)

    def _filter(self, companded: Tensor) -> Tensor:
        size = self.config.post_filter_size
        padded = functional.pad(companded, (size // 2, size - 1 - size // 2))
        return functional.conv1d(padded[:, None], self.post_filter[None, None])[:, 0]


def _upsample(config: WGANConfig, inputs: int, outputs: int, stride: int) -> nn.Module:
    taps = -(-config.kernel_size // stride)
    gain = 0.3 * math.sqrt(2) if outputs == 1 else math.sqrt(2)  # the clips of an untrained generator are quiet
    if config.upsampling == "nearest":
        return NearestUpsample(inputs, outputs, taps, stride, gain)
    return PolyphaseConv(inputs, outputs, taps, up=stride, gain=gain)
