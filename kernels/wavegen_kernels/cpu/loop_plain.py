"""The generation loop as plain loops: the readable twin of `loop_vector.py`, for every shape and CPU.

    h0    = embedding[0, code[t-1]] + embedding[1, code[t-2]] + sum_j x[t-1-j] W_in[j]
    a     = sum_k W_k h[t - k d] + cond[t // hop]
    z     = tanh(u) sigmoid(v),  (u, v) = a
    h     = residual_scale h + W_res z + b
    s     = relu(W_skip [z_1 .. z_L] + b),  o = relu(W_out s + b),  logits = W_end o + b

It reads the same buffers as the vector loop, so it proves packing and draw as well as arithmetic.
Sizes are arguments here, so that one compiled function serves every network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.draw import draw_code, philox_uniform
from wavegen_kernels.cpu.signature import SIGNATURE

LANES = 16
UNROLL = 4
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(nogil=True, error_model="numpy")
def panel_vectors(vectors: Any, limit: Any) -> Any:
    """Twin of `layout.panel_width`."""
    width = min(vectors, limit)
    while vectors % width:
        width -= 1
    return width


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def add_product(out: Any, weights: Any, inputs: Any, width: Any) -> None:
    """out += inputs @ weights, the weights in panels of `width` outputs."""
    depth = inputs.shape[0]
    for panel in range(out.shape[0] // width):
        sums = out[panel * width:(panel + 1) * width]
        for k in range(0, depth, UNROLL):
            x0, x1, x2, x3 = inputs[k], inputs[k + 1], inputs[k + 2], inputs[k + 3]
            rows = weights[(panel * depth + k) * width:(panel * depth + k + UNROLL) * width]
            for j in range(width):
                sums[j] += (rows[j] * x0 + rows[width + j] * x1
                            + rows[2 * width + j] * x2 + rows[3 * width + j] * x3)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def gate(z: Any, a: Any, width: Any) -> None:
    """z = tanh(u) sigmoid(v); a panel of `width` outputs holds sixteen u, then the sixteen v beside them."""
    for i in range(z.shape[0]):
        vector, lane = i // LANES, i % LANES
        u = a[2 * vector * LANES + lane]
        v = a[(2 * vector + 1) * LANES + lane]
        z[i] = np.float32(math.tanh(u)) / (_ONE + np.float32(math.exp(-v)))


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def dense(out: Any, weights: Any, inputs: Any, limit: Any, rectify: Any) -> None:
    """out = bias + inputs @ weights, then relu if wanted; the bias lies before the weights."""
    size = out.shape[0]
    out[:] = weights[:size]
    add_product(out, weights[size:size + size * inputs.shape[0]], inputs,
                panel_vectors(size // LANES, limit) * LANES)
    if rectify:
        for j in range(size):
            out[j] = max(out[j], _ZERO)


@njit(nogil=True, error_model="numpy")
def exponentials(e: Any, sums: Any, logits: Any, rate: Any, least: Any) -> None:
    """e = exp((logits - max) * rate), 0 below `least`; sums of each lane in order."""
    top = logits[0]
    for c in range(logits.shape[0]):
        top = max(top, logits[c])
    sums[:] = _ZERO
    for c in range(logits.shape[0]):
        p = np.float32(math.exp((logits[c] - top) * rate))
        if p < least:
            p = _ZERO
        e[c] = p
        sums[c % LANES] += p


@njit(SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, dilations: Any, scale: Any, rings: Any,
             cursors: Any, history: Any, previous: Any, table: Any, hop: Any, first_frame: Any, position: Any,
             seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any, uniforms: Any, forced: Any,
             codes: Any, logits: Any, scratch: Any) -> Any:
    """Advance every row by codes.shape[1] samples; see `signature.py` for the arguments."""
    layers, size, skip_size, output_size, code_size = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    past, taps, squash, limit = sizes[5] - 1, sizes[7], sizes[8], sizes[9]
    count = code_size // LANES
    pair_width = 2 * panel_vectors(size // LANES, max(1, limit // 2)) * LANES
    residual_width = panel_vectors(size // LANES, limit) * LANES
    gate_size, residual_size = (past + 1) * size * 2 * size, size + size * size

    x, a = np.zeros((past + 1) * size, np.float32), np.zeros(2 * size, np.float32)
    h = x[past * size:]
    z = np.zeros(layers * size, np.float32)
    s, o = np.zeros(skip_size, np.float32), np.zeros(output_size, np.float32)
    raw, e, sums = np.zeros(code_size, np.float32), np.zeros(code_size, np.float32), np.zeros(LANES, np.float32)
    for row in range(codes.shape[0]):
        code, older = previous[row, 0], previous[row, 1]
        frames = row if table.shape[0] > 1 else 0
        for i in range(codes.shape[1]):
            t = position + i
            condition = table[frames, t // hop - first_frame]
            h[:] = embedding[0, code]
            if embedding.shape[0] > 1:
                h += embedding[1, older]
            at = taps * size
            if taps > 0:
                newest = taps - 1 - t % taps
                add_product(h, weights[:at], history[row, newest:newest + taps], residual_width)
            if squash:
                for j in range(size):
                    h[j] = math.tanh(h[j])
            start = 0
            for index in range(layers):
                length, slot = past * dilations[index], cursors[row, index]
                ring = rings[row, start:start + length * size].reshape(length, size)
                for tap in range(past):
                    x[tap * size:(tap + 1) * size] = ring[(slot + tap * dilations[index]) % length]
                # The oldest tap has been read, and its slot now takes the newest input.
                ring[slot] = h
                cursors[row, index] = (slot + 1) % length
                start += length * size
                for j in range(size):
                    first = 2 * (j // LANES) * LANES + j % LANES
                    a[first], a[first + LANES] = condition[index, j], condition[index, size + j]
                add_product(a, weights[at:at + gate_size], x, pair_width)
                at += gate_size
                gated = z[index * size:(index + 1) * size]
                gate(gated, a, pair_width)
                if index < layers - 1:
                    for j in range(size):
                        h[j] = scale[0] * h[j] + weights[at + j]
                    add_product(h, weights[at + size:at + residual_size], gated, residual_width)
                    at += residual_size
            dense(s, weights[at:], z, limit, True)
            at += skip_size + skip_size * layers * size
            dense(o, weights[at:], s, limit, True)
            at += output_size + output_size * skip_size
            dense(raw, weights[at:], o, limit, False)
            if logits.shape[1] > 0:
                for c in range(logits.shape[2]):
                    logits[row, i, c] = raw[(c % count) * LANES + c // count]
            older = code
            if forced.shape[1] > 0:
                code = forced[row, i]
            else:
                exponentials(e, sums, raw, inverse_temperature[row], min_p[row])
                if uniforms.shape[1] > 0:
                    uniform = uniforms[row, i]
                else:
                    uniform = philox_uniform(seeds[row], streams[row], np.uint64(t))
                code = draw_code(e, sums, count, uniform)
            codes[row, i] = code
            if taps > 0:
                newest = taps - 1 - (t + 1) % taps
                history[row, newest] = decode[code]
                history[row, newest + taps] = decode[code]
        previous[row, 0], previous[row, 1] = code, older
    return 0
