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

__all__ = ["draw", "margin", "normal", "probabilities", "uniform"]


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


def normal(seeds: ArrayLike, streams: ArrayLike, count: int) -> NDArray[np.float32]:
    """Standard normal numbers float32 (B, count): the inverse CDF of Philox uniforms.

    Number t of a row is a function of (seed, stream, t), so the latents of a clip, and with them its
    sound, do not depend on the batch it is made in. |x| is at most 5.4: uniforms have 24 bits.

    Args:
        seeds, streams: scalars or (B,), in [0, 2^64).

    Reference: Wichura, algorithm AS 241, Applied Statistics 37(3), 1988; PPND7, relative error below 1e-7.
    """
    seeds, streams = np.atleast_1d(np.asarray(seeds, np.uint64), np.asarray(streams, np.uint64))
    uniforms = uniform(seeds[:, None], streams[:, None], np.arange(count, dtype=np.uint64)[None])
    # The middle of each of the 2^24 steps, so that 0 gives a finite number and the sign is fair.
    return _inverse_normal(uniforms.astype(np.float64) + 2.0**-25).astype(np.float32)


def _inverse_normal(p: NDArray[np.float64]) -> NDArray[np.float64]:
    q = p - 0.5
    near = np.abs(q) <= 0.425
    r = np.where(near, 0.180625 - q * q, 0.0)
    middle = q * _ratio(r, (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
                        (1.0, 17.895169469, 78.757757664, 67.187563600))
    tail = np.sqrt(-np.log(np.where(near, 0.5, np.minimum(p, 1 - p))))
    close = _ratio(tail - 1.6, (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103),
                   (1.0, 0.73700164250, 0.12021132975))
    far = _ratio(tail - 5.0, (6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997),
                 (1.0, 0.24197894225, 0.012258202635))
    outer = np.where(tail <= 5, close, far)
    return np.where(near, middle, np.copysign(outer, q))


def _ratio(x: NDArray[np.float64], numerator: tuple[float, ...], denominator: tuple[float, ...]) -> NDArray[np.float64]:
    """Quotient of two polynomials, lowest power first."""
    result: NDArray[np.float64] = np.polyval(numerator[::-1], x) / np.polyval(denominator[::-1], x)
    return result
