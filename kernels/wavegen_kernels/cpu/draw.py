"""The random draw of a code, scalar Numba functions shared by the vector and the plain loop.

Cumulative probability: the codes are cut into 16 runs of `count` consecutive codes. A run's sum is
taken in code order, the runs are added in order, and inside the run drawn the sum goes on from
where the runs before it ended, all in float32. The code drawn is the first whose cumulative
probability exceeds uniform * total; a code of probability zero is never drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, UNIT, WEYL_0, WEYL_1

LANES = 16
_LOW, _32, _8 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_M0, _M1, _W0, _W1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1), np.uint64(WEYL_0), np.uint64(WEYL_1)
_UNIT = np.float32(UNIT)


@njit(nogil=True)
def philox_uniform(seed: Any, stream: Any, t: Any) -> Any:
    """Twin of `wavegen_kernels.philox.uniform` for three uint64 scalars."""
    c0, c1, c2, c3 = t & _LOW, t >> _32, stream & _LOW, stream >> _32
    k0, k1 = seed & _LOW, seed >> _32
    for _ in range(ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.float32(c0 >> _8) * _UNIT


@njit(nogil=True)
def draw_code(e: Any, sums: Any, count: Any, uniform: Any) -> Any:
    """The code at `uniform` of the cumulative probability.

    Args:
        e: float32, unnormalised probabilities; code c lies at (c % count) * 16 + c // count.
        sums: float32 (16,), the sum of each run of `count` codes.
        count: codes in a run.
        uniform: float32 in [0, 1).
    """
    total = np.float32(0)
    for lane in range(LANES):
        total += sums[lane]
    target = uniform * total
    # Where rounding leaves the target at or above the end, the last possible code is drawn.
    run, before, reached = 0, np.float32(0), np.float32(0)
    for lane in range(LANES):
        if sums[lane] > 0:
            run, before = lane, reached
            reached += sums[lane]
            if reached > target:
                break
    code, reached = 0, before
    for i in range(count):
        p = e[i * LANES + run]
        if p > 0:
            code = i
            reached += p
            if reached > target:
                break
    return run * count + code
