"""The generation loop of the integer precisions as plain loops: the twin of `loop_vector.py` bit for bit.

It serves processors without vector kernels, every shape and precision, and is the oracle the vector
kernels are tested against. `layout.py` states the arithmetic. Sums of products are exact in int32;
every float operation is the one the vector kernels make, rounded once, in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from wavegen_kernels.cpu.lanes import EXP2, LOG2_E, ROUND
from wavegen_kernels.cpu.loop_plain import LANES, begin, draw_next, keep_logits, panel_width, settle
from wavegen_kernels.cpu.signature import SIGNATURE

_EXP2 = tuple(np.float32(x) for x in EXP2)
_POWERS = np.float32(2.0) ** np.arange(-127, 128, dtype=np.float32)
_ZERO, _ONE, _LOG2_E, _ROUND = np.float32(0), np.float32(1), np.float32(LOG2_E), np.float32(ROUND)
_TANH, _LIMIT, _SMALLEST = np.float32(-2 * LOG2_E), np.float32(60), np.float32(-126)
I16, I8X15, I8 = 1, 2, 3  # places in `layout.PRECISIONS`


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def lower(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        float_type = ir.FloatType()
        name = "llvm.fma.f32"
        known = builder.module.globals.get(name)
        if known is None:
            known = ir.Function(builder.module, ir.FunctionType(float_type, [float_type] * 3), name)
        return builder.call(known, values)

    return types.float32(types.float32, types.float32, types.float32), lower


def _interpreted_fma(a: Any, b: Any, c: Any) -> Any:
    """Without a compiler: rounded twice, which shows in about one of 2^29 cases."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@njit(nogil=True)
def _compiled_fma(a: Any, b: Any, c: Any) -> Any:
    return _fma(np.float32(a), np.float32(b), np.float32(c))


fma = _interpreted_fma if config.DISABLE_JIT else _compiled_fma


@njit(nogil=True, error_model="numpy")
def exp2(x: Any) -> Any:
    """2^x, twin of `Lanes.exp2`."""
    whole = np.float32(np.rint(x))
    rest, power = x - whole, _EXP2[0]
    for i in range(1, 6):
        power = fma(power, rest, _EXP2[i])
    return power * _POWERS[int(whole) + 127]


@njit(nogil=True, error_model="numpy")
def exp2_clamped(x: Any, scale: Any) -> Any:
    """2^(scale * x), the exponent held within +-60."""
    return exp2(min(max(x * scale, -_LIMIT), _LIMIT))


@njit(nogil=True, error_model="numpy")
def tanh(x: Any) -> Any:
    p = exp2_clamped(x, _TANH)
    return (_ONE - p) / (_ONE + p)


@njit(nogil=True, error_model="numpy")
def gated(u: Any, v: Any) -> Any:
    """tanh(u) * sigmoid(v), twin of `Lanes.gate`."""
    p, q = exp2_clamped(u, _TANH), exp2_clamped(v, -_LOG2_E)
    return (_ONE - p) / ((_ONE + p) * (_ONE + q))


@njit(nogil=True, error_model="numpy")
def quantized(x: Any, lowest: Any, highest: Any) -> Any:
    """x, to which ROUND has been added, as an integer in [lowest, highest]; twin of `Lanes.quantize`."""
    clipped = min(max(x, _ROUND + np.float32(lowest)), _ROUND + np.float32(highest))
    return np.int32(clipped - _ROUND)


@njit(nogil=True, error_model="numpy")
def write(stored: Any, at: Any, channel: Any, channels: Any, precision: Any, q: Any) -> None:
    """Store an activation of a ring at byte `at`."""
    if precision == I16:
        stored[at + 2 * channel] = np.uint8(q & 255)
        stored[at + 2 * channel + 1] = np.uint8((q >> 8) & 255)
    else:
        stored[at + channel] = np.uint8(q & 255)
        if precision == I8X15:
            stored[at + channels + channel] = np.uint8(q >> 8)


@njit(nogil=True, error_model="numpy")
def read(stored: Any, at: Any, x: Any, channels: Any, precision: Any) -> None:
    """x = the activations stored at byte `at`."""
    for channel in range(channels):
        if precision == I16:
            low, high = np.int32(stored[at + 2 * channel]), np.int32(stored[at + 2 * channel + 1])
            x[channel] = low + 256 * (high - 256 if high > 127 else high)
        else:
            x[channel] = np.int32(stored[at + channel])
            if precision == I8X15:
                x[channel] += 256 * np.int32(stored[at + channels + channel])


@njit(nogil=True, error_model="numpy")
def add_integer_product(out: Any, outputs: Any, weights: Any, at: Any, inputs: Any, depth: Any, width: Any,
                        group: Any) -> None:
    """out[:outputs] += inputs @ weights, int32, in panels of `width`; `group` inputs of an output are neighbours."""
    for start in range(0, outputs, width):
        for k in range(0, depth, group):
            for j in range(width):
                for g in range(group):
                    out[start + j] += np.int32(weights[at + j * group + g]) * inputs[k + g]
            at += width * group


@njit(nogil=True, error_model="numpy")
def add_exact_product(out: Any, outputs: Any, weights: Any, inputs: Any, depth: Any, width: Any, limit: Any,
                      sums: Any) -> None:
    """out += inputs @ weights in float32, summed in chains as `micro.Matrix` does; `sums` takes 16 of them."""
    chains = 1
    while 2 * chains * width <= limit * LANES:
        chains *= 2
    chains = min(chains, 16)
    for j in range(outputs):
        panel = j // width
        sums[:] = _ZERO
        sums[0] = out[j]
        for k in range(depth):
            w = weights[panel * depth * width + k * width + j % width]
            sums[k % chains] = fma(w, inputs[k], sums[k % chains])
        for chain in range(1, chains):
            sums[0] += sums[chain]
        out[j] = sums[0]


@njit(nogil=True, error_model="numpy")
def exponentials(e: Any, sums: Any, logits: Any, inverse_temperature: Any, least: Any) -> None:
    """e = exp((logits - max) * inverse_temperature), 0 below `least`; sums of each lane in order."""
    rate, top = inverse_temperature * _LOG2_E, logits[0]
    for c in range(logits.shape[0]):
        top = max(top, logits[c])
    sums[:] = _ZERO
    for c in range(logits.shape[0]):
        power = (logits[c] - top) * rate
        p = exp2(max(power, _SMALLEST))
        if power < _SMALLEST or p < least:
            p = _ZERO
        e[c] = p
        sums[c % LANES] += p


@njit(SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, thresholds: Any, dilations: Any, scale: Any,
             rings: Any, cursors: Any, history: Any, previous: Any, table: Any, prediction: Any, hop: Any,
             first_frame: Any, position: Any, seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any,
             uniforms: Any, forced: Any, codes: Any, logits: Any, scratch: Any) -> Any:
    """Advance every row by codes.shape[1] samples; see `signature.py` for the arguments."""
    floats, starts = weights.view(np.float32), weights.view(np.int32)
    bytes_, words = weights.view(np.int8), weights.view(np.int16)
    layers, size, skip_size, output_size, code_size = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    past, taps, squash, limit, precision, order = sizes[5] - 1, sizes[7], sizes[8], sizes[9], sizes[11], sizes[12]
    kept = max(taps, order)
    count, gate_width = code_size // LANES, 2 * panel_width(size, max(1, limit // 2))
    # Bytes of a weight and of a slot of a ring; the end layer is always i16.
    wide, row_bytes = 2 if precision == I16 else 1, size if precision == I8 else 2 * size
    lowest, highest = (-4095, 4095) if precision == I16 else (0, 255 if precision == I8 else 32767)

    window, x, z = np.zeros(taps, np.float32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    h, a, r = np.zeros(size, np.float32), np.zeros(2 * size, np.int32), np.zeros(size, np.int32)
    sums, s = np.zeros(skip_size, np.int32), np.zeros(skip_size, np.int32)
    hidden, o = np.zeros(output_size, np.int32), np.zeros(output_size, np.int32)
    last, raw, e = np.zeros(code_size, np.int32), np.zeros(code_size, np.float32), np.zeros(code_size, np.float32)
    lane_sums = np.zeros(LANES, np.float32)
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
            if taps > 0:
                add_exact_product(h, size, floats, window, taps, panel_width(size, limit), limit, lane_sums)
            if squash:
                for j in range(size):
                    h[j] = tanh(h[j])
            at, ring = 4 * taps * size, 0
            sums[:] = 0
            for index in range(layers):
                length = past * dilations[index]
                slot = t % length
                constants = at + past * wide * 2 * size * size
                a[:] = 0
                for tap in range(past + 1):
                    place = ring + (slot + tap * dilations[index]) % length * row_bytes
                    if tap == past:
                        # The oldest tap has been read, and its slot now takes the newest input.
                        for j in range(size):
                            entered = fma(h[j], floats[constants // 4 + j], floats[constants // 4 + size + j])
                            write(rings[row], place, j, size, precision, quantized(entered, lowest, highest))
                        at += 16 * size + 128
                    read(rings[row], place, x, size, precision)
                    if precision == I16:
                        add_integer_product(a, 2 * size, words, at // 2, x, size, gate_width, 2)
                    else:
                        add_integer_product(a, 2 * size, bytes_, at, x, size, gate_width, 4)
                    at += wide * 2 * size * size
                ring += length * row_bytes
                first = constants // 4 + 2 * size
                rate, zero = floats[first + 2 * size], floats[first + 2 * size + LANES]
                for j in range(size):
                    # Sixteen u lie beside the sixteen v of the same channels.
                    pair = 2 * j - j % LANES
                    u = fma(np.float32(a[pair]), floats[first + j], table[frames, frame, index, j])
                    v = fma(np.float32(a[pair + LANES]), floats[first + size + j],
                            table[frames, frame, index, size + j])
                    z[j] = quantized(fma(gated(u, v), rate, zero), lowest, highest)
                if index < layers - 1:
                    r[:] = 0
                    matrix = at + 8 * size
                    if precision == I16:
                        add_integer_product(r, size, words, matrix // 2, z, size, panel_width(size, limit), 2)
                    else:
                        add_integer_product(r, size, bytes_, matrix, z, size, panel_width(size, limit), 4)
                    for j in range(size):
                        biased = fma(h[j], scale[0], floats[at // 4 + j])
                        h[j] = fma(np.float32(r[j]), floats[at // 4 + size + j], biased)
                    at = matrix + wide * size * size
                if precision == I16:
                    add_integer_product(sums, skip_size, words, at // 2, z, size, panel_width(skip_size, limit), 2)
                else:
                    add_integer_product(sums, skip_size, bytes_, at, z, size, panel_width(skip_size, limit), 4)
                at += wide * size * skip_size
            at = at // 4
            for j in range(skip_size):
                total = fma(np.float32(np.int32(sums[j] + starts[at + j])), floats[at + skip_size + j],
                            floats[at + 2 * skip_size + j])
                s[j] = quantized(total + _ROUND, 0, highest)
            at += 3 * skip_size
            hidden[:] = 0
            matrix = 4 * (at + 2 * output_size)
            if precision == I16:
                add_integer_product(hidden, output_size, words, matrix // 2, s, skip_size,
                                    panel_width(output_size, limit), 2)
            else:
                add_integer_product(hidden, output_size, bytes_, matrix, s, skip_size,
                                    panel_width(output_size, limit), 4)
            for j in range(output_size):
                total = fma(np.float32(hidden[j]), floats[at + j], floats[at + output_size + j])
                o[j] = quantized(total + _ROUND, 0, 4095)
            at = (matrix + wide * skip_size * output_size) // 4
            last[:] = 0
            add_integer_product(last, code_size, words, 2 * (at + 2 * code_size), o, output_size,
                                panel_width(code_size, limit), 2)
            for c in range(code_size):
                raw[c] = fma(np.float32(last[c]), floats[at + c], floats[at + code_size + c])
            keep_logits(logits, row, i, raw, count)
            older = code
            if forced.shape[1] > 0:
                code = forced[row, i]
            else:
                exponentials(e, lane_sums, raw, inverse_temperature[row], min_p[row])
                code = draw_next(e, lane_sums, count, uniforms, row, i, seeds[row], streams[row], t)
            codes[row, i] = code
            older = settle(history[row], kept, t, decode[code], older, predicted, thresholds, order)
        previous[row, 0], previous[row, 1] = code, older
    return 0
