"""How a code is drawn from logits; every engine follows this rule.

    p = exp((logits - max) / temperature), 0 where p < min_p
    code = the first whose cumulative sum of p exceeds uniform * total

The reference engine sums in float64, in code order. The numba engine sums in float32 over sixteen
runs of codes (`wavegen_kernels/cpu/draw.py`), so the two can differ where uniform * total lies
within rounding of a border between two codes: about 1e-7 of the total, plus what the logits
differ by. `margin` measures that distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavegen_kernels.philox import uniform

__all__ = ["draw", "margin", "probabilities", "uniform"]


def probabilities(logits: ArrayLike, temperature: ArrayLike = 1.0,
                  min_p: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Unnormalised probabilities float64 (B, Q), the largest 1, from logits (B, Q)."""
    values = np.asarray(logits, np.float64)
    p = np.exp((values - values.max(-1, keepdims=True)) / np.asarray(temperature, np.float64).reshape(-1, 1))
    return np.where(p < np.asarray(min_p, np.float64).reshape(-1, 1), 0.0, p)


def draw(logits: ArrayLike, uniforms: ArrayLike, temperature: ArrayLike = 1.0,
         min_p: ArrayLike = 0.0) -> NDArray[np.int64]:
    """Codes int64 (B,).

    Args:
        logits: (B, Q).
        uniforms: (B,) in [0, 1).
        temperature, min_p: scalars or (B,).
    """
    p = probabilities(logits, temperature, min_p)
    cumulative = np.cumsum(p, axis=-1)
    target = np.asarray(uniforms, np.float64)[:, None] * cumulative[:, -1:]
    # Where rounding leaves no sum above the target, the last possible code is drawn.
    last = p.shape[-1] - 1 - np.argmax(p[:, ::-1] > 0, axis=-1)
    return np.minimum((cumulative <= target).sum(-1), last)


def margin(logits: ArrayLike, uniforms: ArrayLike, temperature: ArrayLike = 1.0,
           min_p: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Distance (B,) of each uniform to the nearest border between two codes, as a share of the total.

    Two engines may draw different codes where this is within their rounding.
    """
    p = probabilities(logits, temperature, min_p)
    borders = np.cumsum(p, axis=-1) / p.sum(-1, keepdims=True)
    inner = np.concatenate([np.zeros_like(borders[:, :1]), borders], axis=-1)
    distance: NDArray[np.float64] = np.abs(inner - np.asarray(uniforms, np.float64)[:, None]).min(-1)
    return distance
