"""A very small model with random weights, for tests of everything around a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import wavegen
from wavegen.checkpoint import save_model
from wavegen.config import (
    AudioConfig,
    ConditioningConfig,
    ModelFolder,
    VAEConfig,
    Vocabulary,
    WaveNetConfig,
    WGANConfig,
)
from wavegen.models import build_model

LABELS, SPEAKERS = ("0", "1", "2"), ("anna", "ben")


def tiny_spec(conditional: bool = True, name: str = "tiny", audio: dict[str, Any] | None = None,
              **sizes: Any) -> ModelFolder:
    """A WaveNet of 1000-odd parameters at 8 kHz; conditional on label, speaker and progress or on nothing."""
    told = ConditioningConfig(label=True, speaker=True, progress_steps=4, hidden_channels=8, hop_length=80)
    model = WaveNetConfig(
        **{
            "residual_channels": 8,
            "skip_channels": 8,
            "output_channels": 8,
            "dilations": (1, 2, 4),
            "input_taps": 4,
            "conditioning": told if conditional else ConditioningConfig(),
            **sizes,
        }
    )
    # Label i and speaker j last 400 + 160 i + 80 j samples, give or take 40.
    durations = tuple(
        tuple(
            (360 + 160 * i + 80 * j, 400 + 160 * i + 80 * j, 440 + 160 * i + 80 * j)
            for j in range(len(SPEAKERS))
        )
        for i in range(len(LABELS))
    )
    vocabulary = (
        Vocabulary(labels=LABELS, speakers=SPEAKERS, durations=durations) if conditional else Vocabulary()
    )
    return ModelFolder(
        wavegen_version=wavegen.__version__,
        name=name,
        audio=AudioConfig.model_validate({"sample_rate": 8000, **(audio or {})}),
        model=model,
        vocabulary=vocabulary,
        training={"steps": 3, "validation_bits": 5.5},
    )


def tiny_family(family: str, folder: Path, latent_noise: str = "learned", prior: str = "standard", **told: Any) -> Path:
    """A model folder of a family of fixed windows of 512 samples: wgan, vae, or vae_wavenet.

    Args:
        told: fields of its conditioning; label by default.
    """
    told = {"label": True, "hidden_channels": 4, **told}
    conv = {"strides": (8, 8), "channels": (8, 8), "residual_layers": 0}
    decoder: dict[str, Any] = {"family": "conv", "strides": (8, 8), "channels": (8,), "conditioning": told}
    if family == "vae_wavenet":
        told |= {"features": 3, "hop_length": 16}
        decoder = {"family": "wavenet", "residual_channels": 8, "skip_channels": 8, "output_channels": 8,
                   "dilations": (1, 2, 4), "conditioning": told}
    if family == "wgan":
        model: Any = WGANConfig.model_validate({"num_samples": 512, "latent_channels": 5, "channels": (8, 8),
                                                "strides": (8, 8), "kernel_size": 16, "conditioning": told})
    else:
        model = VAEConfig.model_validate({"num_samples": 512, "latent_channels": 3, "latent_noise": latent_noise,
                                          "prior": prior, "encoder": conv, "decoder": decoder})
    spec = tiny_spec(name=folder.name).model_copy(update={"model": model})
    network = tiny_model(spec)
    if prior == "conditional":
        with torch.no_grad():  # it begins as the standard normal
            torch.nn.init.normal_(network.prior.head.weight, generator=torch.Generator().manual_seed(1))
    return save_model(folder, network, spec)


def tiny_model(spec: ModelFolder, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(spec.model, spec.audio, spec.vocabulary)


def save_tiny(folder: Path, conditional: bool = True, audio: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """A model folder with random weights, the same bytes each time."""
    spec = tiny_spec(conditional, folder.name, audio, **sizes)
    return save_model(folder, tiny_model(spec), spec)
