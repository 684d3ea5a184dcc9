"""Philox4x32-10: uniforms that are a pure function of (seed, stream, t).

    key = (seed low, seed high), counter = (t low, t high, stream low, stream high)
    uniform = (first word of the block >> 8) * 2^-24, a float32 in [0, 1)

One definition for every engine; `cpu/draw.py` holds the scalar Numba twin with equal bits.

Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 3.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
UNIT = 2.0**-24  # one step of a 24-bit uniform

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def block(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The four random words of a counter.

    Args:
        counter: uint32 (..., 4).
        key: uint32 (..., 2), broadcast against the counter.

    Returns:
        uint32 (..., 4).
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key[..., 0].astype(np.uint64), key[..., 1].astype(np.uint64)
    for _ in range(ROUNDS):
        # 32 x 32 bits fit 64: no product overflows.
        p0, p1 = c0 * np.uint64(MULTIPLIER_0), c2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(WEYL_0)) & _LOW, (k1 + np.uint64(WEYL_1)) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(seed: ArrayLike, stream: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
    """Random numbers in [0, 1), the same for the same (seed, stream, t) everywhere.

    Args:
        seed, stream, t: integers in [0, 2^64), broadcast against each other.

    Returns:
        float32 of the broadcast shape; a multiple of 2^-24 below 1.
    """
    seed, stream, t = np.broadcast_arrays(*(np.asarray(x).astype(np.uint64) for x in (seed, stream, t)))
    counter = np.stack([t & _LOW, t >> _32, stream & _LOW, stream >> _32], axis=-1).astype(np.uint32)
    key = np.stack([seed & _LOW, seed >> _32], axis=-1).astype(np.uint32)
    words = block(counter, key)[..., 0]
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(UNIT)).astype(np.float32)
