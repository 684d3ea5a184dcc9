"""A very small model with random weights, for tests of everything around a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import wavegen
from wavegen.audio.mel import log_mel
from wavegen.checkpoint import save_model
from wavegen.config import (
    AudioConfig,
    ConditioningConfig,
    MelSpec,
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


def save_tiny_vocoder(folder: Path, signal_path: str = "lpc", mel: dict[str, Any] | None = None,
                      conditioning: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """A vocoder with random weights at 8 kHz, the same bytes each time: 12 bands, 80 samples a frame, 1 of context.

    `mel=PRESETS["tacotron2"].model_dump()` makes it one for that preset.

    Args:
        signal_path: "lpc" (pre-emphasis 0.85) or "direct".
        mel: fields of its MelSpec.
        conditioning: fields of its ConditioningConfig; with `speaker` it knows anna and ben.
        sizes: fields of its WaveNetConfig.
    """
    spec = {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 80, "n_mels": 12, **(mel or {})}
    told = {"hidden_channels": 8, "hop_length": spec["hop_length"], "features": spec["n_mels"], "context_frames": 1,
            "feature_mean": -4.0, "feature_scale": 3.0, **(conditioning or {})}
    audio = {"sample_rate": spec["sample_rate"], "mel": spec, "signal_path": signal_path,
             "preemphasis": 0.85 if signal_path == "lpc" else 0.0}
    folder_spec = tiny_spec(False, folder.name, audio, conditioning=told, **sizes)
    if told.get("speaker"):
        folder_spec = folder_spec.model_copy(update={"vocabulary": Vocabulary(speakers=SPEAKERS)})
    model = tiny_model(folder_spec)
    with torch.no_grad():
        model.end_weight.mul_(8)  # so that the codes are not all of one likelihood
    return save_model(folder, model, folder_spec)


def tiny_mel(num_frames: int, seed: int = 0, n_mels: int = 12) -> np.ndarray:
    """A log-mel spectrogram (n_mels, F) with the spread of speech, for the tiny vocoder."""
    return np.random.default_rng(seed).normal(-5.0, 2.0, (n_mels, num_frames)).clip(-11.4, -1.5).astype(np.float32)


def heard_mel(num_frames: int) -> np.ndarray:
    """The log-mel spectrogram (12, F) of a noise that comes and goes, with the texture of a recording."""
    spec = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=12)
    time = np.arange(80 * num_frames)
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time)) * np.exp(2.5 * np.sin(time / 1000))
    return log_mel(noise.clip(-1, 1).astype(np.float32), spec)[:, :num_frames]
