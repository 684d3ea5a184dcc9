"""Models that give a whole clip at once: a generator from noise, a decoder from latents.

    seed, stream -> latents, standard normal -> network -> companded (T,) -> waveform (T,)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from wavegen.audio.mulaw import from_companded
from wavegen.engines.sampling import normal
from wavegen.errors import ConfigError, EngineUnavailableError, did_you_mean
from wavegen.models import ConditioningInputs
from wavegen.synth.plan import NEAR_STREAM, Near

ENGINES, PRECISIONS = ("auto", "torch"), ("auto", "f32")


def draw_latents(model: Any, seed: int, stream: int, temperature: float = 1.0,
                 near: Near | None = None) -> torch.Tensor:
    """Latents of one clip from the prior: float32 (1, Z), or (1, C, F) of one window.

    They depend on seed and stream alone, so a clip is the same in every batch.

    Args:
        model: of family `wgan` or `vae`.
        seed, stream: see `wavegen.synth.Plan`.
        temperature: standard deviation; below 1 keeps to what is usual.
        near: the clip whose latents they lie near to.
    """
    shape = model.latent_shape
    stream += near.depth * NEAR_STREAM if near else 0
    drawn = normal(np.array([seed], np.uint64), np.array([stream], np.uint64), math.prod(shape))
    latents = torch.from_numpy(drawn.reshape(1, *shape)) * temperature
    if near is None:
        return latents
    other = draw_latents(model, near.seed, near.stream, near.temperature, near.near)
    return math.sqrt(1 - near.spread**2) * other + near.spread * latents


class OnePassEngine:
    """Runs a one-pass model, clip by clip: the bits of a clip depend on no other."""

    name, precision = "torch", "f32"
    choice = ""  # there is none to explain
    batch_rows = 16  # clips held at a time

    def __init__(self, model: Any, quantization_channels: int, engine: str = "auto", precision: str = "auto",
                 device: str | None = None) -> None:
        """Check what was asked for.

        Raises:
            ConfigError: a precision this engine has not.
            EngineUnavailableError: another engine, which runs models that speak code after code.
        """
        family = model.config.family
        if engine not in ENGINES:
            raise EngineUnavailableError(f'a {family} gives its clips in one pass, which the engine "torch" does; '
                                         f'engine "{engine}" speaks code after code: leave --engine out')
        if precision not in PRECISIONS:
            raise ConfigError(f'the torch engine has no precision "{precision}"; {did_you_mean(precision, PRECISIONS)}')
        self.model, self.device = model.to(device or "cpu"), torch.device(device or "cpu")
        self._channels = quantization_channels

    def generate(self, latents: torch.Tensor, inputs: ConditioningInputs) -> np.ndarray:
        """The waveform of one clip: float32 (T,).

        Args:
            latents: (1, Z) or (1, C, F).
            inputs: what the model is told.
        """
        with torch.inference_mode():
            companded = self.model.generate(latents.to(self.device), inputs.to(self.device))[0]
        return from_companded(companded.cpu().numpy(), self._channels)
