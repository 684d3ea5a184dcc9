"""The float32 generation loop as plain loops: the readable twin of `loop_vector.py`, for every shape and CPU.

    h0    = embedding[0, code[t-1]] + embedding[1, code[t-2]] + sum_j x[t-1-j] W_in[j]     (path lpc: `predict.py`)
    a     = sum_k W_k h[t - k d] + cond[t // hop]
    z     = tanh(u) sigmoid(v),  (u, v) = a
    h     = residual_scale h + W_res z + b
    s     = relu(W_skip [z_1 .. z_L] + b),  o = relu(W_out s + b),  logits = W_end o + b

It reads the same buffers as the vector loop, so it proves packing and draw as well as arithmetic.
Sizes are arguments here, so that one compiled function serves every network. `loop_integer.py` is
the same for the integer precisions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.draw import draw_code, philox_uniform
from wavegen_kernels.cpu.predict import code_of, embed_excitation, follow, predict
from wavegen_kernels.cpu.signature import SIGNATURE

LANES = 16
UNROLL = 4
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(nogil=True, error_model="numpy")
def panel_width(outputs: Any, limit: Any) -> Any:
    """Outputs in a panel; twin of `layout.panel_width`."""
    vectors = outputs // LANES
    width = min(vectors, limit)
    while vectors % width:
        width -= 1
    return width * LANES


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def add_product(out: Any, outputs: Any, weights: Any, at: Any, inputs: Any, first: Any, depth: Any,
                width: Any) -> None:
    """out[:outputs] += inputs[first:first + depth] @ weights, which begin at `at`, in panels of `width`."""
    for start in range(0, outputs, width):
        for k in range(first, first + depth, UNROLL):
            x0, x1, x2, x3 = inputs[k], inputs[k + 1], inputs[k + 2], inputs[k + 3]
            for j in range(width):
                out[start + j] += (weights[at + j] * x0 + weights[at + width + j] * x1
                                   + weights[at + 2 * width + j] * x2 + weights[at + 3 * width + j] * x3)
            at += UNROLL * width


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def dense(out: Any, outputs: Any, weights: Any, at: Any, inputs: Any, depth: Any, limit: Any,
          rectify: Any) -> Any:
    """out = bias + inputs @ weights, then relu if wanted; returns where the next weights begin."""
    for j in range(outputs):
        out[j] = weights[at + j]
    add_product(out, outputs, weights, at + outputs, inputs, 0, depth, panel_width(outputs, limit))
    if rectify:
        for j in range(outputs):
            out[j] = max(out[j], _ZERO)
    return at + outputs + outputs * depth


@njit(nogil=True, error_model="numpy")
def exponentials(e: Any, sums: Any, logits: Any, rate: Any, least: Any) -> None:
    """e = exp((logits - max) * rate), 0 below `least`; sums of each lane in order."""
    top = logits[0]
    for c in range(logits.shape[0]):
        top = max(top, logits[c])
    for lane in range(LANES):
        sums[lane] = _ZERO
    for c in range(logits.shape[0]):
        p = np.float32(math.exp((logits[c] - top) * rate))
        if p < least:
            p = _ZERO
        e[c] = p
        sums[c % LANES] += p


@njit(nogil=True, error_model="numpy")
def keep_logits(logits: Any, row: Any, i: Any, raw: Any, count: Any) -> None:
    """Copy the logits of a sample, which lie permuted in `raw`, to where they are wanted, if they are."""
    if logits.shape[1] > 0:
        for c in range(logits.shape[2]):
            logits[row, i, c] = raw[(c % count) * LANES + c // count]


@njit(nogil=True, error_model="numpy")
def draw_next(e: Any, sums: Any, count: Any, uniforms: Any, row: Any, i: Any, seed: Any, stream: Any, t: Any) -> Any:
    """The code of a sample, by the uniform number given for it or by Philox."""
    uniform = uniforms[row, i] if uniforms.shape[1] > 0 else philox_uniform(seed, stream, np.uint64(t))
    return draw_code(e, sums, count, uniform)


@njit(nogil=True, error_model="numpy")
def begin(h: Any, window: Any, embedding: Any, thresholds: Any, rule: Any, past: Any, newest: Any, code: Any,
          older: Any, order: Any) -> Any:
    """Fill what a sample begins with, h from the codes before it and the window of samples; gives its prediction."""
    predicted = np.float32(0)
    if order > 0:
        predicted = predict(rule, past, newest)
        embed_excitation(embedding, older, code_of(thresholds, predicted), code, h)
    else:
        for j in range(h.shape[0]):
            h[j] = embedding[0, code, j]
            if embedding.shape[0] > 1:
                h[j] += embedding[1, older, j]
    for j in range(window.shape[0]):
        window[j] = past[newest + j]
    return predicted


@njit(nogil=True, error_model="numpy")
def settle(past: Any, kept: Any, t: Any, sample: Any, before: Any, predicted: Any, thresholds: Any,
           order: Any) -> Any:
    """End a sample that was decoded to `sample`; gives the older of the codes the next one is told."""
    older = before
    if order > 0:
        sample = follow(predicted, sample)
        older = code_of(thresholds, sample)
    remember(past, kept, t, sample)
    return older


@njit(nogil=True, error_model="numpy")
def remember(past: Any, kept: Any, t: Any, sample: Any) -> None:
    """Put sample t into a row's history: newest first, written twice, so that what is read lies in one piece."""
    if kept > 0:
        newest = kept - 1 - (t + 1) % kept
        past[newest] = sample
        past[newest + kept] = sample


@njit(SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, thresholds: Any, dilations: Any, scale: Any,
             rings: Any, cursors: Any, history: Any, previous: Any, table: Any, prediction: Any, hop: Any,
             first_frame: Any, position: Any, seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any,
             uniforms: Any, forced: Any, codes: Any, logits: Any, scratch: Any) -> Any:
    """Advance every row by codes.shape[1] samples; see `signature.py` for the arguments."""
    weights, memory = weights.view(np.float32), rings.view(np.float32)
    layers, size, skip_size, output_size, code_size = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    past, taps, squash, limit = sizes[5] - 1, sizes[7], sizes[8], sizes[9]
    order = sizes[12]
    kept = max(taps, order)
    count, gate_width = code_size // LANES, 2 * panel_width(size, max(1, limit // 2))

    window, x = np.zeros(taps, np.float32), np.zeros(size, np.float32)
    a, h, z = np.zeros(2 * size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    s, o = np.zeros(skip_size, np.float32), np.zeros(output_size, np.float32)
    raw, e = np.zeros(code_size, np.float32), np.zeros(code_size, np.float32)
    sums = np.zeros(LANES, np.float32)
    predicted = np.float32(0)
    for row in range(codes.shape[0]):
        code, older = previous[row, 0], previous[row, 1]
        frames = row if table.shape[0] > 1 else 0
        rules = row if prediction.shape[0] > 1 else 0
        for i in range(codes.shape[1]):
            t = position + i
            frame = t // hop - first_frame
            newest = kept - 1 - t % kept if kept > 0 else 0
            predicted = begin(h, window, embedding, thresholds, prediction[rules, frame], history[row], newest, code,
                              older, order)
            add_product(h, size, weights, 0, window, 0, taps, panel_width(size, limit))
            at, ring = taps * size, 0
            s[:] = _ZERO
            if squash:
                for j in range(size):
                    h[j] = math.tanh(h[j])
            for index in range(layers):
                length = past * dilations[index]
                slot = t % length
                for j in range(size):
                    # Sixteen u lie beside the sixteen v of the same channels.
                    first = 2 * j - j % LANES
                    a[first] = table[frames, frame, index, j]
                    a[first + LANES] = table[frames, frame, index, size + j]
                for tap in range(past + 1):
                    read = ring + (slot + tap * dilations[index]) % length * size
                    for j in range(size):
                        # The oldest tap has been read, and its slot now takes the newest input, read last.
                        if tap == past:
                            memory[row, read + j] = h[j]
                        x[j] = memory[row, read + j]
                    add_product(a, 2 * size, weights, at, x, 0, size, gate_width)
                    at += size * 2 * size
                ring += length * size
                for j in range(size):
                    u, v = a[2 * j - j % LANES], a[2 * j - j % LANES + LANES]
                    z[j] = np.float32(math.tanh(u)) / (_ONE + np.float32(math.exp(-v)))
                if index < layers - 1:
                    for j in range(size):
                        h[j] = scale[0] * h[j] + weights[at + j]
                    add_product(h, size, weights, at + size, z, 0, size, panel_width(size, limit))
                    at += size + size * size
                add_product(s, skip_size, weights, at, z, 0, size, panel_width(skip_size, limit))
                at += size * skip_size
            # The bias of the skip lies behind all slices.
            for j in range(skip_size):
                s[j] = max(s[j] + weights[at + j], _ZERO)
            at += skip_size
            at = dense(o, output_size, weights, at, s, skip_size, limit, True)
            dense(raw, code_size, weights, at, o, output_size, limit, False)
            keep_logits(logits, row, i, raw, count)
            older = code
            if forced.shape[1] > 0:
                code = forced[row, i]
            else:
                exponentials(e, sums, raw, inverse_temperature[row], min_p[row])
                code = draw_next(e, sums, count, uniforms, row, i, seeds[row], streams[row], t)
            codes[row, i] = code
            older = settle(history[row], kept, t, decode[code], older, predicted, thresholds, order)
        previous[row, 0], previous[row, 1] = code, older
    return 0
