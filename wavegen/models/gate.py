"""The gate of the training form and its gradient, one pass over memory each.

    t = tanh(u + c_u)    s = sigmoid(v + c_v)    z = t * s
    du = dz * s * (1 - t^2)                      dv = dz * t * s * (1 - s)

u, v are the two halves of the pre-activation, c the conditioning held for a frame. Rows are
time-major: row = t * batch + b. The pre-activation buffer is overwritten with (t, s) and then
with (du, dv), so nothing is allocated. bfloat16 buffers come in as their uint16 bit patterns.

tanh is the 13/6 rational minimax approximation (error below 4 ulp in float32): arithmetic only,
so that LLVM vectorises the loop without a vector math library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from wavegen.audio.compiled import compiled


def _kernel(function: Any) -> Any:
    return compiled(function, fastmath={"contract", "nsz", "arcp", "reassoc"})


@njit(inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    # Beyond the clamp tanh is 1 in float32; without it the rational form would overflow.
    x = min(max(x, np.float32(-7.90531110763549805)), np.float32(7.90531110763549805))
    y = x * x
    p = np.float32(-2.76076847742355e-16)
    p = p * y + np.float32(2.00018790482477e-13)
    p = p * y + np.float32(-8.60467152213735e-11)
    p = p * y + np.float32(5.12229709037114e-08)
    p = p * y + np.float32(1.48572235717979e-05)
    p = p * y + np.float32(6.37261928875436e-04)
    p = p * y + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * y + np.float32(1.18534705686654e-04)
    q = q * y + np.float32(2.26843463243900e-03)
    q = q * y + np.float32(4.89352518554385e-03)
    return x * p / q


def _widen(x):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@overload(_widen, inline="always")
def _widen_overload(x):  # type: ignore[no-untyped-def]
    """A stored number as float32: float32 itself, or the bit pattern of a bfloat16."""
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def _narrow(x, like):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@overload(_narrow, inline="always")
def _narrow_overload(x, like):  # type: ignore[no-untyped-def]
    """float32 in the number format of `like`; bfloat16 rounds to nearest even."""
    if like == types.uint16:
        def to_bfloat16(x, like):  # type: ignore[no-untyped-def]
            bits = np.float32(x).view(np.uint32)
            return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return to_bfloat16
    return lambda x, like: x


@_kernel
def gate_forward(pre, table, z_all, column, batch, hop):  # type: ignore[no-untyped-def]
    """Gate every row; leaves (t, s) in `pre` and writes z.

    Args:
        pre: (T * batch, 2R) pre-activations without conditioning.
        table: float32 (F * batch, 2R), conditioning frames; frame = t // hop.
        z_all: (T * batch, at least column + R); z goes to the R columns from `column` on. A
            contiguous matrix and an offset, because a strided view would not vectorise.
    """
    half = pre.shape[1] // 2
    for row in range(pre.shape[0]):
        time = row // batch
        frame = time // hop * batch + row - time * batch
        for i in range(half):
            t = _tanh(_widen(pre[row, i]) + table[frame, i])
            s = np.float32(0.5) + np.float32(0.5) * _tanh(
                np.float32(0.5) * (_widen(pre[row, half + i]) + table[frame, half + i]))
            z_all[row, column + i] = _narrow(t * s, z_all[row, column + i])
            pre[row, i] = _narrow(t, pre[row, i])
            pre[row, half + i] = _narrow(s, pre[row, half + i])


@_kernel
def gate_backward(gates, grad_z, column, grad_table, batch, hop):  # type: ignore[no-untyped-def]
    """Turn (t, s) in `gates` into (du, dv) and sum them over each frame into `grad_table`.

    Args:
        gates: (T * batch, 2R), what `gate_forward` left in `pre`.
        grad_z: (T * batch, at least column + R), read from `column` on.
        grad_table: float32 (F * batch, 2R), added to.
    """
    half = gates.shape[1] // 2
    one = np.float32(1)
    for row in range(gates.shape[0]):
        time = row // batch
        frame = time // hop * batch + row - time * batch
        for i in range(half):
            t, s, dz = _widen(gates[row, i]), _widen(gates[row, half + i]), _widen(grad_z[row, column + i])
            du = dz * s * (one - t * t)
            dv = dz * t * s * (one - s)
            grad_table[frame, i] += du
            grad_table[frame, half + i] += dv
            gates[row, i] = _narrow(du, gates[row, i])
            gates[row, half + i] = _narrow(dv, gates[row, half + i])


@_kernel
def residual_forward(h, update, bias, scale, out, narrow):  # type: ignore[no-untyped-def]
    """out = (h + update + bias) * scale in float32, and the same in the format of `narrow`.

    Args:
        h: float32 (N, R).
        update: (N, R), z @ W_res.
        bias: float32 (R,).
        out: float32 (N, R), may be `h`.
        narrow: (N, R).
    """
    for row in range(h.shape[0]):
        for i in range(h.shape[1]):
            value = (h[row, i] + _widen(update[row, i]) + bias[i]) * scale
            out[row, i] = value
            narrow[row, i] = _narrow(value, narrow[row, i])
