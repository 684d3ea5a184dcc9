"""The generation loop for one row on two threads, over the micro-kernels of `loop_vector.py`.

    generate    the chain: from layer to layer, then output and draw. It is complete in itself.
    assist      beside it: skip sums, and the past taps of the next sample

    sample           t                                      t + 1
    generate  | layer 1 | layer 2 | .. | layer L | out, draw | layer 1 | ..
                  z_1 \\    z_2 \\          z_L-1 \\   ^ sums
    assist          skip 1    skip 2 ..        skip L-1   |  past taps of t + 1, wherever there is time

Whatever the partner computes is a pure function of what the chain has written, in the same order of
summation. So the chain may use a result or compute it itself, and the samples are the same bit for
bit: sums of past taps that are not there in time it computes at once, and where the skip sums do not
come within `TURNS` looks it makes them from the z it holds and goes on alone. A partner that was
stopped in the middle may still write: only into its own part of the memory, which nobody reads
until it has said that it is back.

Words of `control`, `sync.WORD` apart; each is written by one side:

    EPOCH    chain: number of this call and of the partnership in it, 0 between calls
    READY    partner: the epoch it is ready for, 0 when it rests
    GO       chain: the epoch in which the partner takes part, from sample FIRST on
    FIRST, LAST, SHARE   chain: first sample together, the end of this call, see below
    CHAIN    chain: t * L + l + 1 when z and ring of layer l are written
    SUMMED   partner: t + 1 when the skip sums of sample t are there, all but the last layer's
    DONE + l partner: t when the past taps of sample t in layer l are summed

The past taps of the first SHARE layers the chain sums itself, while it waits for skip sums or when
it gets there. It takes one more where the partner was late, and one less after a quiet time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from wavegen_kernels.cpu.draw import draw_code, philox_uniform
from wavegen_kernels.cpu.layout import Shape
from wavegen_kernels.cpu.micro import make_kernels
from wavegen_kernels.cpu.pair import (
    BACKOFF,
    CALL_BITS,
    CHAIN,
    DONE,
    EPOCH,
    FIRST,
    GO,
    LAST,
    PATIENCE,
    QUIET,
    READY,
    RETRY,
    RETRY_MOST,
    SHARE,
    SUMMED,
    TRUSTED,
    pair_places,
    patience_of_chain,
    row_distance,
    sums_distance,
)
from wavegen_kernels.cpu.predict import code_of, embed_excitation, follow, predict
from wavegen_kernels.cpu.signature import ASSIST_SIGNATURE, PAIR_SIGNATURE
from wavegen_kernels.cpu.sync import WORD, pause, read, write

SHAPE = Shape(1, 16, 16, 16, 16, 2, 2, 0, False, 4, 0)

_kernels = make_kernels(SHAPE)
embed, project, squash = (_kernels[name] for name in ("embed", "project", "squash"))
enter, fetch, past, more = (_kernels[name] for name in ("enter", "fetch", "past", "more"))
gate, residual, begin, skip = (_kernels[name] for name in ("gate", "residual", "begin", "skip"))
rectify, output, end, exponentials = (_kernels[name] for name in ("rectify", "output", "end", "exponentials"))

LAYERS, TAPS, PAST, TANH = SHAPE.num_layers, SHAPE.input_taps, SHAPE.kernel_size - 1, SHAPE.input_tanh
CODES, COUNT, ORDER, KEPT = SHAPE.codes, SHAPE.codes // 16, SHAPE.order, SHAPE.history
TURNS = patience_of_chain(SHAPE)
SLICES = LAYERS - 1  # skip slices the partner adds
# Bytes: of a slot of a ring, of one layer's conditioning; places in the weights, in a layer, in the memory.
ROW, FRAME = SHAPE.row_bytes, 8 * SHAPE.residual
INPUT, LAYER, SKIP = SHAPE.input_bytes, SHAPE.layer_bytes, SHAPE.skip_place
OUTPUT, END, TAP = SHAPE.output_place, SHAPE.end_place, SHAPE.tap_bytes
CURRENT, RESIDUAL, SLICE = SHAPE.current_place, SHAPE.residual_place, SHAPE.slice_place
_scratch, _shared = SHAPE.scratch, pair_places(SHAPE)
H, A, SUMS, S, O = (_scratch[name] for name in ("h", "a", "sums", "s", "o"))  # noqa: E741
LOGITS, E, LANE_SUMS = (_scratch[name] for name in ("logits", "e", "lane_sums"))
Z, AHEAD, BESIDE, TOTALS = (_shared[name] for name in ("z", "ahead", "beside", "sums"))
Z_DISTANCE, TOTALS_DISTANCE = row_distance(SHAPE), sums_distance(SHAPE)


@njit(nogil=True, error_model="numpy")
def sum_past(layer: Any, ring: Any, dilation: Any, t: Any, condition: Any, following: Any, a: Any) -> None:
    """a = condition + the products of a layer's past taps for sample t."""
    length = PAST * dilation
    place = t % length
    past(layer, following if PAST == 1 else layer + TAP, ring + place * ROW, condition, a, 0, 0)
    for tap in range(1, PAST):
        place += dilation
        if place >= length:
            place -= length
        more(layer + tap * TAP, following if tap == PAST - 1 else layer + (tap + 1) * TAP, ring + place * ROW, a, 0)


@njit(nogil=True, error_model="numpy")
def add_slice(layer: Any, index: Any, following: Any, z: Any, sums: Any) -> None:
    """sums += a layer's skip product; `following` is what this thread is likely to read next."""
    skip(layer + (SLICE if index < LAYERS - 1 else RESIDUAL), following, z, sums)


@njit(PAIR_SIGNATURE, nogil=True, cache=True, error_model="numpy")
def generate(sizes: Any, weights: Any, embedding: Any, decode: Any, thresholds: Any, dilations: Any, scale: Any,
             rings: Any, cursors: Any, history: Any, previous: Any, table: Any, prediction: Any, hop: Any,
             first_frame: Any, position: Any, seeds: Any, streams: Any, inverse_temperature: Any, min_p: Any,
             uniforms: Any, forced: Any, codes: Any, logits: Any, scratch: Any, shared: Any, control: Any,
             call: Any) -> Any:
    """Advance the row by codes.shape[1] samples; see `signature.py` for the arguments.

    Returns the number of samples made together.
    """
    w, base, factor = weights.ctypes.data, scratch.ctypes.data, scale.ctypes.data
    h, a, sums = base + H, base + A, base + SUMS
    s, o, raw = base + S, base + O, base + LOGITS
    own = scratch[0]
    logit, exponential = own[LOGITS:LOGITS + 4 * CODES].view(np.float32), own[E:E + 4 * CODES].view(np.float32)
    lane_sums, first_input = own[LANE_SUMS:LANE_SUMS + 64].view(np.float32), own[H:H + FRAME // 2].view(np.float32)
    table_1 = embedding.ctypes.data
    table_2 = table_1 + (embedding.shape[0] - 1) * embedding.shape[1] * (FRAME // 2)
    z, ahead_at, beside = shared.ctypes.data + Z, shared.ctypes.data + AHEAD, shared.ctypes.data + BESIDE
    totals, words = shared.ctypes.data + TOTALS, control.ctypes.data
    code, older, predicted = previous[0, 0], previous[0, 1], np.float32(0)
    last = position + codes.shape[1]
    epoch, share, backoff = (call << CALL_BITS) + 1, read(words + SHARE), read(words + BACKOFF)
    write(words + LAST, last)
    write(words + EPOCH, epoch)
    together, alone_until, first, quiet, ahead, count = False, position, position, 0, 0, 0
    for i in range(codes.shape[1]):
        t = position + i
        condition = table[0, t // hop - first_frame].ctypes.data
        newest = KEPT - 1 - t % KEPT if KEPT > 0 else 0
        if ORDER > 0:
            predicted = predict(prediction[0, t // hop - first_frame], history[0], newest)
            embed_excitation(embedding, older, code_of(thresholds, predicted), code, first_input)
        else:
            embed(table_1 + code * (FRAME // 2), table_2 + older * (FRAME // 2), h)
        if TAPS > 0:
            project(w, history[0].ctypes.data + 4 * newest, h)
        if TANH:
            squash(h)
        if not together and t >= alone_until and read(words + READY) == epoch:
            together, first = True, t
            write(words + FIRST, t)
            write(words + CHAIN, t * LAYERS)
            write(words + GO, epoch)
        if not together:
            begin(w + SKIP, sums)
        late = False
        ring, layer = rings.ctypes.data, w + INPUT
        for index in range(LAYERS):
            dilation = dilations[index]
            so_far = a
            if index < ahead:
                so_far = ahead_at + index * FRAME
            elif together and index >= share and read(words + DONE + index * WORD) == t:
                so_far = beside + index * FRAME
            else:
                late = late or index >= share
                sum_past(layer, ring, dilation, t, condition, layer + CURRENT, a)
            x, gated = ring + t % (PAST * dilation) * ROW, z + index * Z_DISTANCE
            # The oldest tap has been read, and its slot now takes the newest input.
            enter(layer + CURRENT, h, x)
            gate(layer + CURRENT, layer + RESIDUAL, x, so_far, condition, gated, 0, 0)
            if together:
                write(words + CHAIN, t * LAYERS + index + 1)
            if index < LAYERS - 1:
                following = layer + LAYER + CURRENT if together and index + 1 >= share else layer + LAYER
                residual(layer + RESIDUAL, following, gated, factor, h)
            if not together:
                add_slice(layer, index, layer + LAYER, gated, sums)
            ring += PAST * dilation * ROW
            layer += LAYER
            condition += FRAME
        total, ahead = sums, 0
        if together:
            count += 1
            # Past taps of the next sample, for as long as the partner adds up.
            ring, layer = rings.ctypes.data, w + INPUT
            turns = 0
            while read(words + SUMMED) <= t and turns < TURNS:
                if ahead < share and t + 1 < last:
                    condition = table[0, (t + 1) // hop - first_frame].ctypes.data + ahead * FRAME
                    sum_past(layer, ring, dilations[ahead], t + 1, condition, layer + LAYER, ahead_at + ahead * FRAME)
                    ring += PAST * dilations[ahead] * ROW
                    layer += LAYER
                    ahead += 1
                else:
                    pause()
                    turns += 1
            if read(words + SUMMED) > t:
                total = totals + t % 2 * TOTALS_DISTANCE
                add_slice(w + INPUT + SLICES * LAYER, SLICES, w + OUTPUT, z + SLICES * Z_DISTANCE, total)
                if late and t > first:
                    share, quiet = min(share + 1, LAYERS), 0
                    write(words + SHARE, share)
                else:
                    quiet += 1
                    if quiet == QUIET:
                        share, quiet = max(share - 1, 0), 0
                        write(words + SHARE, share)
            else:
                # The partner does not run. Its sums may be anything; z is here.
                begin(w + SKIP, sums)
                for index in range(LAYERS):
                    layer = w + INPUT + index * LAYER
                    add_slice(layer, index, layer + LAYER, z + index * Z_DISTANCE, sums)
                together = False
                epoch += 1
                write(words + EPOCH, epoch)
                backoff = RETRY if t - first > TRUSTED else min(4 * backoff, RETRY_MOST)
                alone_until = t + backoff
        rectify(w + SKIP, total, s)
        output(w + OUTPUT, w + END, s, o)
        end(w + END, w + INPUT, o, raw)
        if logits.shape[1] > 0:
            for c in range(logits.shape[2]):
                logits[0, i, c] = logit[(c % COUNT) * 16 + c // COUNT]
        if ORDER == 0:
            older = code
        if forced.shape[1] > 0:
            code = forced[0, i]
        else:
            exponentials(raw, inverse_temperature.ctypes.data, min_p.ctypes.data, base + E, base + LANE_SUMS)
            given = uniforms.shape[1] > 0
            uniform = uniforms[0, i] if given else philox_uniform(seeds[0], streams[0], np.uint64(t))
            code = draw_code(exponential, lane_sums, COUNT, uniform)
        codes[0, i] = code
        sample = decode[code]
        if ORDER > 0:
            sample = follow(predicted, sample)
            older = code_of(thresholds, sample)
        if KEPT > 0:
            # Newest first, written twice, so that the window read next lies in one piece.
            place = KEPT - 1 - (t + 1) % KEPT
            history[0, place] = sample
            history[0, place + KEPT] = sample
    previous[0, 0], previous[0, 1] = code, older
    write(words + BACKOFF, backoff)
    write(words + EPOCH, 0)
    return count


@njit(ASSIST_SIGNATURE, nogil=True, cache=True, error_model="numpy")
def assist(weights: Any, dilations: Any, rings: Any, table: Any, hop: Any, first_frame: Any, shared: Any,
           control: Any, call: Any) -> Any:
    """Be the partner of one call of `generate`; 0 when it has ended, 1 to rest a while and call again."""
    w, words = weights.ctypes.data, control.ctypes.data
    z, beside, totals = shared.ctypes.data + Z, shared.ctypes.data + BESIDE, shared.ctypes.data + TOTALS
    while True:
        epoch = read(words + EPOCH)
        if epoch >> CALL_BITS != call:
            return 0
        write(words + READY, epoch)
        idle = 0
        while read(words + GO) != epoch and read(words + EPOCH) == epoch and idle < PATIENCE:
            pause()
            idle += 1
        if read(words + GO) == epoch:
            idle = 0
        elif idle < PATIENCE:
            continue
        # Sample and layer of the next skip slice, and of the next sum of past taps.
        t, last, index = read(words + FIRST), read(words + LAST), 0
        later, further = t + 1, read(words + SHARE)
        sums = totals + t % 2 * TOTALS_DISTANCE
        begin(w + SKIP, sums)
        while idle < PATIENCE:
            chain = read(words + CHAIN)
            if index < SLICES and chain > t * LAYERS + index:
                add_slice(w + INPUT + index * LAYER, index, w + INPUT + min(further, SLICES) * LAYER,
                          z + index * Z_DISTANCE, sums)
                index, idle = index + 1, 0
            elif index == SLICES and chain > t * LAYERS:
                write(words + SUMMED, t + 1)
                t, index, idle = t + 1, 0, 0
                sums = totals + t % 2 * TOTALS_DISTANCE
                begin(w + SKIP, sums)
            elif later < last and further < LAYERS and chain > (later - 1) * LAYERS + further:
                # What the chain has passed, or is about to need, it sums itself.
                reached = chain - later * LAYERS
                if reached >= further:
                    further = reached + 1
                if further < LAYERS:
                    ring = rings.ctypes.data
                    for below in range(further):
                        ring += PAST * dilations[below] * ROW
                    layer = w + INPUT + further * LAYER
                    condition = table[0, later // hop - first_frame].ctypes.data + further * FRAME
                    # By then the chain has mostly written the next z, and a skip slice has the right of way.
                    following = w + INPUT + index * LAYER + SLICE if index < SLICES and chain < later * LAYERS else (
                        layer + LAYER)
                    sum_past(layer, ring, dilations[further], later, condition, following, beside + further * FRAME)
                    write(words + DONE + further * WORD, later)
                    further, idle = further + 1, 0
            elif further >= LAYERS and later < last and chain >= later * LAYERS:
                later, further = later + 1, read(words + SHARE)
            elif read(words + EPOCH) != epoch:
                break
            else:
                pause()
                idle += 1
        if idle == PATIENCE:
            # The chain has not moved for a while, or has not wanted a partner.
            write(words + READY, 0)
            return 1
