"""The generation loop over vector micro-kernels, specialised for one shape and number of rows.

`jit.load_vector` copies this file, puts the shape of a network and the rows in the lines that start
with SHAPE and ROWS, and imports the copy; as it stands it serves the smallest shape.
`loop_plain.py` and `loop_integer.py` are the twins.
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
ROWS = 1

_kernels = make_kernels(SHAPE, ROWS)
embed, project, squash = (_kernels[name] for name in ("embed", "project", "squash"))
enter, fetch, past, more = (_kernels[name] for name in ("enter", "fetch", "past", "more"))
gate, residual, begin, skip = (_kernels[name] for name in ("gate", "residual", "begin", "skip"))
rectify, output, end, exponentials = (_kernels[name] for name in ("rectify", "output", "end", "exponentials"))

LAYERS, TAPS, PAST, TANH = SHAPE.num_layers, SHAPE.input_taps, SHAPE.kernel_size - 1, SHAPE.input_tanh
CODES, COUNT = SHAPE.codes, SHAPE.codes // 16
ORDER, KEPT = SHAPE.order, SHAPE.history
# Bytes: of a slot of a ring, of one layer's conditioning; places in the weights, in a layer, in the scratch.
ROW, FRAME = SHAPE.row_bytes, 8 * SHAPE.residual
INPUT, LAYER, SKIP = SHAPE.input_bytes, SHAPE.layer_bytes, SHAPE.skip_place
OUTPUT, END, TOTAL = SHAPE.output_place, SHAPE.end_place, SHAPE.total_bytes
TAP, CURRENT, RESIDUAL, SLICE = SHAPE.tap_bytes, SHAPE.current_place, SHAPE.residual_place, SHAPE.slice_place
_scratch = SHAPE.scratch
H, A, Z, SUMS = (_scratch[name] for name in ("h", "a", "z", "sums"))
S, O, LOGITS = (_scratch[name] for name in ("s", "o", "logits"))  # noqa: E741
E, LANE_SUMS, PREDICTED, STRIDE = (_scratch[name] for name in ("e", "lane_sums", "predicted", "total"))


@njit(SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, thresholds: Any, dilations: Any, scale: Any,
             rings: Any, cursors: Any, history: Any, previous: Any, table: Any, prediction: Any, hop: Any,
             first_frame: Any, position: Any, seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any,
             uniforms: Any, forced: Any, codes: Any, logits: Any, scratch: Any) -> Any:
    """Advance every row by codes.shape[1] samples; see `signature.py` for the arguments."""
    w, base, factor = weights.ctypes.data, scratch.ctypes.data, scale.ctypes.data
    h, a, z, sums = base + H, base + A, base + Z, base + SUMS
    s, o, raw = base + S, base + O, base + LOGITS
    table_1 = embedding.ctypes.data
    table_2 = table_1 + (embedding.shape[0] - 1) * embedding.shape[1] * (FRAME // 2)
    ring_distance = rings.shape[1]
    # One row of conditioning may serve all rows.
    condition_distance = table.shape[1] * LAYERS * FRAME if table.shape[0] > 1 else 0
    for index in range(LAYERS):
        cursors[index] = position % (PAST * dilations[index])
    for i in range(codes.shape[1]):
        t = position + i
        condition = table[0, t // hop - first_frame].ctypes.data
        newest = KEPT - 1 - t % KEPT if KEPT > 0 else 0
        for row in range(ROWS):
            if ORDER > 0:
                coefficients = prediction[row if prediction.shape[0] > 1 else 0, t // hop - first_frame]
                predicted = predict(coefficients, history[row], newest)
                scratch[row, PREDICTED:PREDICTED + 4].view(np.float32)[0] = predicted
                embed_excitation(embedding, previous[row, 1], code_of(thresholds, predicted), previous[row, 0],
                                 scratch[row, H:H + FRAME // 2].view(np.float32))
            else:
                embed(table_1 + previous[row, 0] * (FRAME // 2), table_2 + previous[row, 1] * (FRAME // 2),
                      h + row * STRIDE)
            if TAPS > 0:
                project(w, history[row].ctypes.data + 4 * newest, h + row * STRIDE)
            if TANH:
                squash(h + row * STRIDE)
            begin(w + SKIP, sums + row * STRIDE)
        ring, layer = rings.ctypes.data, w + INPUT
        for index in range(LAYERS):
            dilation, slot = dilations[index], cursors[index]
            length, read = PAST * dilation, slot
            past(layer, layer + TAP if PAST > 1 else layer + CURRENT, ring + read * ROW, condition, a, ring_distance,
                 condition_distance)
            for tap in range(1, PAST):
                read += dilation
                if read >= length:
                    read -= length
                more(layer + tap * TAP, layer + (tap + 1) * TAP, ring + read * ROW, a, ring_distance)
            for row in range(ROWS):
                if index < LAYERS - 1:
                    # Since a sample ago this has left the cache; the next layer waits for it first.
                    fetch(ring + (length + cursors[index + 1]) * ROW + row * ring_distance)
                # The oldest tap has been read, and its slot now takes the newest input.
                enter(layer + CURRENT, h + row * STRIDE, ring + slot * ROW + row * ring_distance)
            if index < LAYERS - 1:
                fetch(condition + FRAME)
                fetch(condition + FRAME + FRAME // 2)
            gate(layer + CURRENT, layer + RESIDUAL, ring + slot * ROW, a, condition, z, ring_distance,
                 condition_distance)
            cursors[index] = 0 if slot + 1 == length else slot + 1
            place = layer + RESIDUAL
            if index < LAYERS - 1:
                residual(place, layer + SLICE, z, factor, h)
                place = layer + SLICE
            skip(place, layer + LAYER if index < LAYERS - 1 else w + OUTPUT, z, sums)
            ring += length * ROW
            layer += LAYER
            condition += FRAME
        for row in range(ROWS):
            rectify(w + SKIP, sums + row * STRIDE, s + row * STRIDE)
        output(w + OUTPUT, w + END, s, o)
        end(w + END, w + INPUT, o, raw)
        for row in range(ROWS):
            own = scratch[row]
            if logits.shape[1] > 0:
                found = own[LOGITS:LOGITS + 4 * CODES].view(np.float32)
                for c in range(logits.shape[2]):
                    logits[row, i, c] = found[(c % COUNT) * 16 + c // COUNT]
            if forced.shape[1] > 0:
                code = forced[row, i]
            else:
                exponentials(raw + row * STRIDE, inverse_temperature.ctypes.data + 4 * row, min_p.ctypes.data + 4 * row,
                             base + E + row * STRIDE, base + LANE_SUMS + row * STRIDE)
                if uniforms.shape[1] > 0:
                    uniform = uniforms[row, i]
                else:
                    uniform = philox_uniform(seeds[row], streams[row], np.uint64(t))
                code = draw_code(own[E:E + 4 * CODES].view(np.float32), own[LANE_SUMS:LANE_SUMS + 64].view(np.float32),
                                 COUNT, uniform)
            sample, older = decode[code], previous[row, 0]
            if ORDER > 0:
                sample = follow(own[PREDICTED:PREDICTED + 4].view(np.float32)[0], sample)
                older = code_of(thresholds, sample)
            codes[row, i] = code
            previous[row, 0], previous[row, 1] = code, older
            if KEPT > 0:
                # Newest first, written twice, so that the window read next lies in one piece.
                following = KEPT - 1 - (t + 1) % KEPT
                history[row, following] = sample
                history[row, following + KEPT] = sample
    return 0
