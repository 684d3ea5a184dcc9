"""The input stage of the signal path lpc, scalar Numba functions shared by the vector and the plain loop.

    p[t] = clip(a_1 s[t-1] + .. + a_n s[t-n])                        predict
    s[t] = clip(p[t] + decode[e[t]])                                 follow
    h0   = E_0[code(s[t-1])] + E_1[code(p[t])] + E_2[e[t-1]]         embed_excitation

The sum runs over i ascending in float32, product and sum each rounded; Numba contracts nothing that
it is not told to. So every engine has the same s, and with it the same codes, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_ONE = np.float32(1)


@njit(nogil=True, error_model="numpy")
def predict(coefficients: Any, past: Any, newest: Any) -> Any:
    """Prediction of a sample from float32 (order,) coefficients and the past, which begins at `newest`."""
    total = np.float32(0)
    for i in range(coefficients.shape[0]):
        total += coefficients[i] * past[newest + i]
    return min(max(total, -_ONE), _ONE)


@njit(nogil=True, error_model="numpy")
def follow(predicted: Any, excitation: Any) -> Any:
    """The sample that a prediction and a decoded excitation give."""
    return min(max(predicted + excitation, -_ONE), _ONE)


@njit(nogil=True, error_model="numpy")
def code_of(thresholds: Any, x: Any) -> Any:
    """The number of thresholds <= x: float32 (Q - 1,), increasing."""
    low, high = 0, thresholds.shape[0]
    while low < high:
        middle = (low + high) // 2
        if thresholds[middle] <= x:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, error_model="numpy")
def embed_excitation(embedding: Any, before: Any, about: Any, code: Any, h: Any) -> None:
    """h[:R] from the codes of s[t-1], of p[t] and of e[t-1]; embedding is float32 (3, Q, R)."""
    for j in range(embedding.shape[2]):
        h[j] = embedding[0, before, j] + embedding[1, about, j] + embedding[2, code, j]
