"""Small networks with lively random weights, and how two engines are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from wavegen.config import AudioConfig, ConditioningConfig, RNNConfig, Vocabulary, WaveNetConfig
from wavegen.engines.sampling import margin
from wavegen.models import RNN, WaveNet, build_model

# Two engines may differ where a uniform lies this close to the border between two codes.
MARGIN = 1e-5


def make_wavenet(
    residual: int = 8,
    skip: int = 8,
    output: int = 8,
    dilations: Sequence[int] = (1, 2, 4, 8),
    quantization_channels: int = 64,
    seed: int = 0,
    label: bool = False,
    features: int = 0,
    context_frames: int = 0,
    upsampling: int = 1,
    signal_path: Literal["direct", "lpc"] = "direct",
    lpc_order: int = 16,
    **options: Any,
) -> WaveNet:
    """A WaveNet whose logits spread over several units, so that a wrong sum shows."""
    conditioning = ConditioningConfig(label=label, hidden_channels=8, hop_length=16, progress_steps=4 * label,
                                      features=features, context_frames=context_frames, upsampling=upsampling)
    config = WaveNetConfig(residual_channels=residual, skip_channels=skip, output_channels=output,
                           dilations=tuple(dilations), conditioning=conditioning, **options)
    return _lively(config, quantization_channels, seed, signal_path=signal_path, lpc_order=lpc_order)


def make_rnn(hidden: int = 12, quantization_channels: int = 64, seed: int = 0, label: bool = False) -> RNN:
    conditioning = ConditioningConfig(label=label, hidden_channels=8, hop_length=16, progress_steps=4 * label)
    config = RNNConfig(hidden_channels=hidden, embedding_channels=6, output_channels=10, conditioning=conditioning)
    return _lively(config, quantization_channels, seed)


def _lively(config: WaveNetConfig | RNNConfig, quantization_channels: int, seed: int, **audio: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        spec = AudioConfig(sample_rate=8000, quantization_channels=quantization_channels, **audio)
        model = build_model(config, spec, Vocabulary(labels=("a", "b", "c")))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "bias" in name:
                    parameter.normal_(0, 0.2)
            model.end_weight.mul_(8)
            if config.family == "wavenet":
                model.skip_weight.mul_(3)
    return model.eval()


def random_codes(quantization_channels: int, batch: int, num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, quantization_channels, (batch, num_samples))


def make_uniforms(seed: int, batch: int, num_samples: int) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, num_samples), np.float32)


def assert_layers_agree(engine: Any, reference: Any, codes: np.ndarray, tolerance: float = 1e-4) -> None:
    """Compare the input of every layer, then the logits; a failure names the first layer that is off."""
    truth = reference.layers(codes)
    state = engine.start(len(codes))
    done = 0
    for stop in sorted({1, codes.shape[1] // 2, codes.shape[1]} - {0}):
        engine.force(state, codes[:, done:stop])
        found = engine.layer_inputs(state)
        for layer in range(found.shape[1]):
            error = np.abs(found[:, layer] - truth["h"][:, stop - 1, layer]).max()
            assert error <= tolerance, f"the input of layer {layer} is off by {error:.2e} at sample {stop - 1}"
        done = stop
    error = np.abs(engine.logits(codes) - truth["logits"]).max(axis=(0, 2))
    first = int(np.argmax(error > tolerance))
    assert error.max() <= tolerance, (f"all layer inputs agree, but the logits are off by {error.max():.2e}, "
                                      f"first at sample {first} by {error[first]:.2e}")


def assert_same_codes(found: np.ndarray, expected: np.ndarray, reference: Any, uniforms: np.ndarray) -> None:
    """Codes are equal, or differ first where the draw was a matter of rounding.

    Args:
        found: (B, T), from the engine under test.
        expected: (B, T), from `reference` with the same uniforms.
    """
    for row in range(len(expected)):
        if np.array_equal(found[row], expected[row]):
            continue
        first = int(np.argmax(found[row] != expected[row]))
        logits = reference.logits(expected[row:row + 1, :first + 1])[:, -1]
        distance = float(margin(logits, uniforms[row:row + 1, first])[0])
        assert distance <= MARGIN, (f"row {row} first differs at sample {first}: {found[row, first]} where the "
                                    f"reference draws {expected[row, first]}, {distance:.2e} from a border")


def make_coefficients(seed: int, batch: int, frames: int, order: int = 16, radius: float = 0.9) -> np.ndarray:
    """Coefficients of linear predictions whose poles lie inside `radius`: float32 (batch, frames, order)."""
    rng = np.random.default_rng(seed)
    coefficients = np.zeros((batch, frames, order), np.float32)
    for row, frame in np.ndindex(batch, frames):
        poles = radius * rng.random(order // 2) * np.exp(1j * np.pi * rng.random(order // 2))
        coefficients[row, frame, : 2 * (order // 2)] = -np.poly(np.concatenate([poles, poles.conj()])).real[1:]
    return coefficients
