"""How large a network's activations grow: what the integer precisions are scaled by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.errors import ConfigError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ActivationRanges:
    """Lowest and highest value of every channel over a calibration excerpt; static while an engine lives.

    Attributes:
        hidden: float32 (L, R, 2), (lowest, highest) of the input of each layer.
        gated: float32 (L, R, 2), (lowest, highest) of the gated output z of each layer.
        skip: float32 (S,), highest of s = relu(skip * skip_scale + bias), what enters the output layer.
        output: float32 (O,), highest of o, the rectified output layer, what enters the end layer.
    """

    hidden: Floats
    gated: Floats
    skip: Floats
    output: Floats

    def merge(self, other: ActivationRanges) -> ActivationRanges:
        """The ranges over both excerpts."""
        def widest(a: Floats, b: Floats) -> Floats:
            return np.stack([np.minimum(a[..., 0], b[..., 0]), np.maximum(a[..., 1], b[..., 1])], axis=-1)

        return ActivationRanges(widest(self.hidden, other.hidden), widest(self.gated, other.gated),
                                np.maximum(self.skip, other.skip), np.maximum(self.output, other.output))

    def check(self, num_layers: int, residual: int, skip: int, output: int) -> None:
        """Raise ConfigError unless these are finite ranges of a network of this size."""
        shapes = {"hidden": (num_layers, residual, 2), "gated": (num_layers, residual, 2), "skip": (skip,),
                  "output": (output,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ConfigError(f'the activation range "{name}" is {array.shape}, the network needs {shape}; '
                                  f"calibrate this model")
            if not np.isfinite(array).all():
                raise ConfigError(f'the activation range "{name}" holds NaN or infinity; calibrate the model again')


def ranges_of(layers: Mapping[str, NDArray[Any]]) -> ActivationRanges:
    """Ranges from intermediate results.

    Args:
        layers: "h" and "z" (..., L, R), "s" (..., S), "o" (..., O), as `ReferenceEngine.layers` returns them.
    """
    def both(array: NDArray[Any]) -> Floats:
        flat = array.reshape(-1, *array.shape[-2:])
        return np.stack([flat.min(0), flat.max(0)], axis=-1).astype(np.float32)

    def highest(array: NDArray[Any]) -> Floats:
        top: Floats = array.reshape(-1, array.shape[-1]).max(0).astype(np.float32)
        return top

    return ActivationRanges(both(layers["h"]), both(layers["z"]), highest(layers["s"]), highest(layers["o"]))
