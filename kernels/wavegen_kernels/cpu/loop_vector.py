"""The generation loop over vector micro-kernels, specialised for one shape.

`jit.load` copies this file, puts the shape of a network in the line that starts with SHAPE, and
imports the copy; as it stands it serves the smallest shape. `loop_plain.py` is the twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.draw import draw_code, philox_uniform
from wavegen_kernels.cpu.layout import Shape
from wavegen_kernels.cpu.micro import make_kernels
from wavegen_kernels.cpu.predict import code_of, embed_excitation, follow, predict
from wavegen_kernels.cpu.signature import SIGNATURE

SHAPE = Shape(1, 16, 16, 16, 16, 2, 2, 0, False, 4, 0)

_kernels = make_kernels(SHAPE)
embed, project, squash = (_kernels[name] for name in ("embed", "project", "squash"))
copy, fetch = _kernels["copy"], _kernels["fetch"]
gate, residual, skip = (_kernels[name] for name in ("gate", "residual", "skip"))
output, end, exponentials = (_kernels[name] for name in ("output", "end", "exponentials"))

LAYERS, TAPS, PAST, TANH = SHAPE.num_layers, SHAPE.input_taps, SHAPE.kernel_size - 1, SHAPE.input_tanh
CODES, COUNT = SHAPE.codes, SHAPE.codes // 16
ORDER, KEPT = SHAPE.order, SHAPE.history
# Bytes: of one channel vector, of the parts of the weights.
ROW = 4 * SHAPE.residual
INPUT, LAYER, GATE = 4 * SHAPE.input_floats, 4 * SHAPE.layer_floats, 4 * SHAPE.gate_floats
SKIP, OUTPUT, END = 4 * SHAPE.skip_start, 4 * SHAPE.output_start, 4 * SHAPE.end_start
# Floats: where the parts of the scratch begin.
H = PAST * SHAPE.residual
Z = H + SHAPE.residual
S = Z + LAYERS * SHAPE.residual
O = S + SHAPE.skip  # noqa: E741
LOGITS = O + SHAPE.output
E = LOGITS + CODES
SUMS = E + CODES


@njit(SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, thresholds: Any, dilations: Any, scale: Any,
             rings: Any, cursors: Any, history: Any, previous: Any, table: Any, prediction: Any, hop: Any,
             first_frame: Any, position: Any, seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any,
             uniforms: Any, forced: Any, codes: Any, logits: Any, scratch: Any) -> Any:
    """Advance every row by codes.shape[1] samples; see `signature.py` for the arguments."""
    w = weights.ctypes.data
    base = scratch.ctypes.data
    x, z = base, base + 4 * Z
    h = x + PAST * ROW
    s, o, raw, e, sums = base + 4 * S, base + 4 * O, base + 4 * LOGITS, base + 4 * E, base + 4 * SUMS
    exponential, lane_sums = scratch[E:E + CODES], scratch[SUMS:SUMS + 16]
    table_1, factor = embedding.ctypes.data, scale.ctypes.data
    table_2 = table_1 + (embedding.shape[0] - 1) * embedding.shape[1] * ROW
    first_input = scratch[H:Z]
    newest, predicted = 0, np.float32(0)
    for row in range(codes.shape[0]):
        rate, least = inverse_temperature.ctypes.data + 4 * row, min_p.ctypes.data + 4 * row
        code, older = previous[row, 0], previous[row, 1]
        frames = row if table.shape[0] > 1 else 0
        rules = row if prediction.shape[0] > 1 else 0
        for i in range(codes.shape[1]):
            t = position + i
            condition = table[frames, t // hop - first_frame].ctypes.data
            if KEPT > 0:
                newest = KEPT - 1 - t % KEPT
            if ORDER > 0:
                predicted = predict(prediction[rules, t // hop - first_frame], history[row], newest)
                embed_excitation(embedding, older, code_of(thresholds, predicted), code, first_input)
            else:
                embed(table_1 + code * ROW, table_2 + older * ROW, h)
            if TAPS > 0:
                project(w, history[row].ctypes.data + 4 * newest, h)
            if TANH:
                squash(h)
            ring = rings[row].ctypes.data
            layer = w + INPUT
            for index in range(LAYERS):
                length, slot = PAST * dilations[index], cursors[row, index]
                read = slot
                for tap in range(PAST):
                    copy(ring + read * ROW, x + tap * ROW)
                    read += dilations[index]
                    if read >= length:
                        read -= length
                if index < LAYERS - 1:
                    # Since a sample ago these have left the cache; the next layer waits for them first.
                    fetch(ring + (length + cursors[row, index + 1]) * ROW)
                    fetch(condition + 2 * ROW)
                    fetch(condition + 3 * ROW)
                # The oldest tap has been read, and its slot now takes the newest input.
                copy(h, ring + slot * ROW)
                slot += 1
                cursors[row, index] = 0 if slot == length else slot
                ring += length * ROW
                gate(layer, x, condition, z + index * ROW)
                if index < LAYERS - 1:
                    residual(layer + GATE, z + index * ROW, factor, h)
                layer += LAYER
                condition += 2 * ROW
            skip(w + SKIP, z, s)
            output(w + OUTPUT, s, o)
            end(w + END, o, raw)
            if logits.shape[1] > 0:
                for c in range(logits.shape[2]):
                    logits[row, i, c] = scratch[LOGITS + (c % COUNT) * 16 + c // COUNT]
            older = code
            if forced.shape[1] > 0:
                code = forced[row, i]
            else:
                exponentials(raw, rate, least, e, sums)
                if uniforms.shape[1] > 0:
                    uniform = uniforms[row, i]
                else:
                    uniform = philox_uniform(seeds[row], streams[row], np.uint64(t))
                code = draw_code(exponential, lane_sums, COUNT, uniform)
            codes[row, i] = code
            sample = decode[code]
            if ORDER > 0:
                sample = follow(predicted, sample)
                older = code_of(thresholds, sample)
            if KEPT > 0:
                # Newest first, written twice, so that the window read next lies in one piece.
                newest = KEPT - 1 - (t + 1) % KEPT
                history[row, newest] = sample
                history[row, newest + KEPT] = sample
        previous[row, 0], previous[row, 1] = code, older
    return 0
