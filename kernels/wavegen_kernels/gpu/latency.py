"""Few utterances, fast: one network spread over many multiprocessors, its weights resident in them.

    program          holds                         waits for           sends
    core g           layers of group g             input of the group  input of the next, gated outputs
    skip q           nothing (streams its slab)    gated outputs       relu of some skip sums
    output q         some rows of W_out            all skip sums       some hidden outputs
    end q            some rows of W_end            all hidden outputs  some logits
    core 0 as well   the embedding                 all logits          the code it draws, by starting anew

The formulas are those of `batch.py`, and so are the arrays: a state may pass from one kernel to the
other between two calls. Products are transposed, W (outputs, inputs) times x (inputs, rows), because
the 8 rows of a small batch are the narrow side of a tensor-core instruction.

What travels is a packet: one 64-bit word of the step's number and a float32. A word is stored and
loaded whole, so that a reader who sees the number has the value, and needs no flag, fence or clearing.
Two slots, used in turns, are enough: no program begins step t + 2 before the code of step t is drawn,
and that code needed every packet of step t.

All programs must run at once, which a cooperative launch grants or refuses. Whoever waits too long sets
the abort word, and whoever waits looks at it: then all leave, and the host raises an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from wavegen_kernels.gpu.blocks import (
    INTERPRETED,
    code_of,
    dot,
    draw,
    follow,
    gate,
    philox_uniform,
    predict,
    tanh_exact,
)
from wavegen_kernels.gpu.memory import Memory
from wavegen_kernels.gpu.pack import Packed, Sizes

ROWS = tl.constexpr(8)  # the width of the narrowest tensor-core product; batches of up to so many rows
MOST_LAYERS = 10  # of a core: its loop over them is unrolled
MOST_CODES = 1024
MOST_STEPS = 4096  # of a launch
SLICE_BYTES = tl.constexpr(16_384)  # of past weights that pass through shared memory at once
MARGIN = 16_384  # bytes of shared memory for what the compiler keeps besides the weights of a linear program


@triton.jit
def send(packets, values, step, mask):
    """Store float32 values, each in one word with the number of its step, counted from 1."""
    bits = values.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    tl.store(packets, ((tl.zeros_like(bits) + step + 1) << 32) | bits, mask=mask)


@triton.jit
def agreed(late):
    """The number 1 if any thread of the warp has one that is not 0; to the assembler, too, it is one for all.

    Without it a wait is a branch that threads of a warp may take or not, and the assembler lets each
    warp-group product wait for the one before it, in the whole kernel.
    """
    if INTERPRETED:
        return late
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $1, 0; vote.sync.any.pred p, p, 0xffffffff; selp.s32 $0, 1, 0, p; }",
            "=r,r", [late], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def receive(packets, step, mask, abort, patience):
    """The float32 values of a step, 0 where masked; waits until all of them are there.

    Once the abort word is set, or after `patience` tries, whatever is there.
    """
    words = tl.load(packets, mask=mask, other=0, volatile=True)
    late = agreed(tl.max(tl.where(mask & ((words >> 32) != step + 1), 1, 0)))
    tries = 0
    # A plain loop over a tile: its result has one layout, so the load is not repeated for another
    # (Triton 3.6 does that to inline assembly).
    while late > 0:
        # At the first try too: after an abort the steps that are left pass in microseconds each. One warp may find
        # the word set and another not yet: it enters the maximum, so that all leave the loop or none.
        stop = 0
        if (tries & 255) == 0:
            stop = tl.load(abort, volatile=True)
        if tries > patience:
            tl.atomic_max(abort, 1, sem="relaxed")
            stop = 1
        words = tl.load(packets, mask=mask, other=0, volatile=True)
        late = agreed(tl.max(tl.where(mask & ((words >> 32) != step + 1) & (stop == 0), 1, 0)))
        tries += 1
    return (words & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def slot(section, step, row, batch, WIDTH: tl.constexpr):
    """Packets of a step and row in a section of two slots (2, batch, WIDTH)."""
    return section + ((step & 1) * batch + row) * WIDTH


@triton.jit
def linear_program(part, first, last, weights, bias, source, target, abort,
                   patience, batch,
                   INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
                   PART: tl.constexpr, RELU: tl.constexpr):
    """PART outputs of one layer, its weights resident.

    Args:
        weights: (INPUTS / CHUNK, OUTPUTS / BLOCK, CHUNK, BLOCK).
    """
    PADDED: tl.constexpr = triton.next_power_of_2(INPUTS)
    rows, inputs, outputs = tl.arange(0, ROWS), tl.arange(0, PADDED), part * PART + tl.arange(0, PART)
    place = (inputs // CHUNK * (OUTPUTS // BLOCK) * CHUNK + inputs % CHUNK)[None, :] * BLOCK
    place += (outputs // BLOCK * (CHUNK * BLOCK) + outputs % BLOCK)[:, None]
    weight = tl.load(weights + place, mask=(inputs < INPUTS)[None, :], other=0.0)
    start = tl.zeros((PART, ROWS), tl.float32) + tl.load(bias + outputs)[:, None]
    live = (rows < batch)[None, :]
    wanted = live & (inputs < INPUTS)[:, None]
    for step in range(first, last):
        x = receive(slot(source, step, rows[None, :], batch, INPUTS) + inputs[:, None], step, wanted, abort, patience)
        y = dot(weight, x.to(weight.dtype), start)
        if RELU:
            y = tl.maximum(y, 0.0)
        send(slot(target, step, rows[None, :], batch, OUTPUTS) + outputs[:, None], y, step, live)


@triton.jit
def skip_program(part, first, last, weights, bias, source, target, abort,
                 patience, batch,
                 LAYERS: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, SKIPS: tl.constexpr,
                 PART: tl.constexpr, AT_ONCE: tl.constexpr):
    """relu of PART skip sums, AT_ONCE layers at a time as they come from the cores.

    The weights are read anew for each step, while the gated outputs they wait for are being made.
    """
    INPUTS: tl.constexpr = AT_ONCE * R
    rows, inputs, outputs = tl.arange(0, ROWS), tl.arange(0, INPUTS), part * PART + tl.arange(0, PART)
    place = (inputs // R * (SKIPS * R) + inputs % R)[None, :] * CHUNK
    place += (outputs // CHUNK * (R * CHUNK) + outputs % CHUNK)[:, None]
    start = tl.zeros((PART, ROWS), tl.float32) + tl.load(bias + outputs)[:, None]
    live = (rows < batch)[None, :]
    for step in range(first, last):
        total = start
        for layer in range(0, LAYERS, AT_ONCE):
            real = inputs < (LAYERS - layer) * R
            weight = tl.load(weights + layer * (SKIPS * R * CHUNK) + place, mask=real[None, :], other=0.0)
            packets = slot(source, step, rows[None, :], batch, LAYERS * R) + (layer * R + inputs)[:, None]
            z = receive(packets, step, live & real[:, None], abort, patience)
            total = dot(weight, z.to(weight.dtype), total)
        send(slot(target, step, rows[None, :], batch, SKIPS * CHUNK) + outputs[:, None], tl.maximum(total, 0.0), step,
             live)


@triton.jit
def newest_sample(history, tick, KEPT: tl.constexpr):
    """Pointers (ROWS,) to x[tick - 1], behind which the older samples lie."""
    return history + tl.arange(0, ROWS) * (2 * KEPT) + KEPT - 1 - (tick & (KEPT - 1))


@triton.jit
def next_sample(step, tick, at, code, older, codes_out, logits_out, uniforms, seed, stream, clock, rate, least, live,
                decoded, thresholds, prediction, history, packets, abort, patience, batch, num_samples,
                CODES: tl.constexpr, ORDER: tl.constexpr, KEPT: tl.constexpr, DRAW: tl.constexpr,
                LOGITS: tl.constexpr):
    """Wait for the logits of a step, draw and write its codes, remember its samples.

    Args:
        at: (ROWS,) frame of the step in the conditioning table; tick: of the step.
        code, older: int32 (ROWS,), as in `Memory.previous` before the step.

    Returns:
        code, older and the samples after it.
    """
    rows, codes = tl.arange(0, ROWS), tl.arange(0, CODES)
    exists = rows < batch
    sample = tl.zeros((ROWS,), tl.float32)
    if ORDER > 0:
        predicted = predict(prediction + at * ORDER, newest_sample(history, tick, KEPT), exists, ORDER)
    logits = receive(slot(packets, step, rows[:, None], batch, CODES) + codes[None, :], step, exists[:, None], abort,
                     patience)
    place = rows * num_samples + step
    if LOGITS:
        tl.store(logits_out + place.to(tl.int64)[:, None] * CODES + codes[None, :], logits, mask=exists[:, None])
    if DRAW == "forced":
        drawn = tl.load(codes_out + place, mask=exists, other=0)
    else:
        if DRAW == "given":
            uniform = tl.load(uniforms + place, mask=exists, other=0.0)
        else:
            uniform = philox_uniform(seed, stream, clock + step)
        drawn = draw(logits, uniform, rate, least, CODES)
        tl.store(codes_out + place, drawn, mask=live)
    # Where rows are missing or an abort has made numbers of anything, no address may leave a table.
    drawn = tl.where(exists, tl.minimum(tl.maximum(drawn, 0), CODES - 1), 0)
    older = code
    if KEPT > 0:
        sample = tl.load(decoded + drawn)
        if ORDER > 0:
            sample = follow(predicted, sample)
            older = code_of(thresholds, sample, CODES)
        newest = newest_sample(history, tick + 1, KEPT)
        tl.store(newest, sample, mask=exists)
        tl.store(newest + KEPT, sample, mask=exists)
    return drawn, older, sample


@triton.jit
def halves(a, R: tl.constexpr):
    """u and v (R, ROWS) of a product (2 R, ROWS) whose rows are 8 of u, 8 of v, and so on."""
    a = tl.permute(tl.reshape(a, (R // 8, 2, 8, ROWS)), (0, 2, 3, 1))
    u, v = tl.split(a)
    return tl.reshape(u, (R, ROWS)), tl.reshape(v, (R, ROWS))


@triton.jit
def core_program(
    group, first, last, pending, drain, embedding, taps, gate_weight, fused, residual,
    residual_bias, decoded, thresholds, dilation, ring_start, ring_mask, rings, history,
    previous, active, origin, table, prediction, table_row, table_origin, seeds, streams,
    inverse_temperature, min_p, uniforms, codes_out, logits_out, inputs_mail,
    gated_mail, logits_mail, abort, residual_scale, position, num_samples, batch,
    frames, hop, patience,
    LAYERS: tl.constexpr, KERNEL: tl.constexpr, R: tl.constexpr, CODES: tl.constexpr, EMBEDDINGS: tl.constexpr,
    TAPS: tl.constexpr, ORDER: tl.constexpr, KEPT: tl.constexpr, SQUASH: tl.constexpr, GROUPS: tl.constexpr,
    GROUP: tl.constexpr, SHARED_TABLE: tl.constexpr, DRAW: tl.constexpr, LOGITS: tl.constexpr, FAST: tl.constexpr,
    FUSED: tl.constexpr,
):
    """GROUP consecutive layers; group 0 also draws the codes.

    FUSED, with M = W_res of the layer before times W_0: each layer's residual is that of the layer before, and

        a = before + (h scale + b) W_0 + z M,    h = h scale + b + z W_res,    z = gate(a)

    so that from z to z there is one product; those with h follow beside it.
    """
    SLICE: tl.constexpr = R if 4 * R * R <= SLICE_BYTES else SLICE_BYTES // (4 * R)
    rows, channels = tl.arange(0, ROWS), tl.arange(0, R)
    exists = rows < batch
    live = exists & (tl.load(active + rows, mask=exists, other=0) != 0)
    wanted = exists[None, :] & (channels < R)[:, None]
    transposed = channels[None, :] * R + channels[:, None]  # (outputs, inputs) of a matrix stored inputs first
    # Rows of u and v by turns of 8: a thread of a tensor-core product holds rows 8 apart, so it has u and v
    # of the same channel and the gate moves nothing.
    pair = tl.arange(0, 2 * R)
    pair_channel, pair_half = pair // 16 * 8 + pair % 8, pair // 8 % 2
    both = (pair_half * (R * R) + pair_channel)[:, None] + channels[None, :] * R
    slice_channels = tl.arange(0, SLICE)
    slice_both = (pair_half * (R * R) + pair_channel)[:, None] + slice_channels[None, :] * R
    slice_place = rows[None, :] * R + slice_channels[:, None]
    slice_wanted = exists[None, :] & (slice_channels < R)[:, None]
    dtype = gate_weight.dtype.element_ty
    place = rows[None, :] * R + channels[:, None]
    tick = position.to(tl.int32)
    clock = position - tl.load(origin + rows, mask=exists, other=0)
    frame_start = (position - tl.load(table_origin + rows, mask=exists, other=0)).to(tl.int32)
    row_table = tl.zeros((ROWS,), tl.int64)
    if not SHARED_TABLE:
        row_table += tl.load(table_row + rows, mask=exists, other=0).to(tl.int64) * frames

    # Loaded before the time loop, these stay in shared memory for the whole launch. The time loop must
    # be a `for`: in a `while` the compiler would keep them in registers, which are too few.
    weight_a, weight_m, weight_r, bias_r, scale_r = (), (), (), (), ()
    for i in tl.static_range(GROUP):
        layer = tl.minimum(group * GROUP + i, LAYERS - 1)
        weight_a = weight_a + (tl.load(gate_weight + layer * (KERNEL * 2 * R * R) + both),)
        if FUSED:
            earlier = tl.maximum(layer - 1, 0)
            weight_m = weight_m + (tl.load(fused + layer * (2 * R * R) + both),)
            weight_r = weight_r + (tl.load(residual + earlier * (R * R) + transposed),)
            bias_r = bias_r + (tl.where(layer > 0, tl.load(residual_bias + earlier * R + channels), 0.0)[:, None],)
            scale_r = scale_r + (tl.where(layer > 0, residual_scale, 1.0),)
        else:
            weight_r = weight_r + (tl.load(residual + layer * (R * R) + transposed),)
            bias_r = bias_r + (tl.load(residual_bias + layer * R + channels)[:, None],)

    # Of group 0 only: at the end it writes them, and another program may not have begun by then.
    own = exists & (group == 0)
    code = tl.load(previous + rows * 2, mask=own, other=0)
    older = tl.load(previous + rows * 2 + 1, mask=own, other=0)
    seed = tl.load(seeds + rows, mask=exists, other=0)
    stream = tl.load(streams + rows, mask=exists, other=0)
    rate = tl.load(inverse_temperature + rows, mask=exists, other=1.0)
    least = tl.load(min_p + rows, mask=exists, other=0.0)

    for step in range(first, last):
        # What needs past inputs only, while the other programs are at the step before.
        at = row_table + tl.where(exists, (frame_start + step) // hop, 0)
        frame = table + (at * (LAYERS * 2 * R))[None, :] + (pair_half * R + pair_channel)[:, None]
        # Zero, but not for the compiler, which otherwise computes all addresses before the loop and spills them.
        zero = (step >> 30) * (2 * R * R)
        before = ()
        for i in tl.static_range(GROUP):
            layer = tl.minimum(group * GROUP + i, LAYERS - 1)
            a = tl.load(frame + layer * (2 * R), mask=exists[None, :] & (pair >= 0)[:, None], other=0.0)
            ring = rings + tl.load(ring_start + layer) * batch * R
            for j in tl.static_range(KERNEL - 1):
                distance = (KERNEL - 1 - j) * tl.load(dilation + layer)
                tap = (tick + step - distance) & tl.load(ring_mask + layer)
                weights = gate_weight + (layer * KERNEL + KERNEL - 1 - j) * (2 * R * R) + zero
                # In slices, as the weights pass through what shared memory the resident ones leave.
                for k in tl.static_range(0, R, SLICE):
                    x = tl.load(ring + tap.to(tl.int64) * batch * R + k + slice_place, mask=slice_wanted, other=0.0)
                    a = dot(tl.load(weights + k * R + slice_both), x, a)
            before = before + (a,)

        if group == 0:
            h = tl.zeros((R, ROWS), tl.float32)
            sample = tl.zeros((ROWS,), tl.float32)
            if KEPT > 0:
                sample = tl.load(newest_sample(history, tick + step, KEPT), mask=exists, other=0.0)
            if TAPS > 0:
                # All but the newest sample, which may not be drawn yet.
                past = tl.arange(0, TAPS)
                window = tl.load(newest_sample(history, tick + step, KEPT)[None, :] + past[:, None],
                                 mask=exists[None, :] & (past > 0)[:, None], other=0.0).to(dtype)
                h = dot(tl.load(taps + past[None, :] * R + channels[:, None]), window, h)
            if step > first or pending > 0:
                before_at = row_table + tl.where(exists, (frame_start + step - 1) // hop, 0)
                code, older, sample = next_sample(
                    step - 1, tick + step - 1, before_at, code, older, codes_out, logits_out, uniforms, seed, stream,
                    clock, rate, least, live, decoded, thresholds, prediction, history, logits_mail, abort, patience,
                    batch, num_samples, CODES, ORDER, KEPT, DRAW, LOGITS)
            if ORDER > 0:
                # The newest sample, too, is read from the history, and not by the thread that wrote it.
                tl.debug_barrier()
                predicted = predict(prediction + at * ORDER, newest_sample(history, tick + step, KEPT), exists, ORDER)
                about = code_of(thresholds, predicted, CODES)
                h += tl.load(embedding + older[None, :] * R + channels[:, None])
                h += tl.load(embedding + CODES * R + about[None, :] * R + channels[:, None])
                h += tl.load(embedding + 2 * CODES * R + code[None, :] * R + channels[:, None])
            else:
                h += tl.load(embedding + code[None, :] * R + channels[:, None])
                if EMBEDDINGS > 1:
                    h += tl.load(embedding + CODES * R + older[None, :] * R + channels[:, None])
            if TAPS > 0:
                h += tl.load(taps + channels).to(tl.float32)[:, None] * sample.to(dtype).to(tl.float32)[None, :]
            if SQUASH:
                h = tanh_exact(h)
        else:
            packets = slot(inputs_mail + group * (2 * R) * batch, step, rows[None, :], batch, R) + channels[:, None]
            h = receive(packets, step, wanted, abort, patience)

        # The critical path.
        inputs, gated = (), ()
        if FUSED:
            # mypy takes these for the empty tuples they begin as.
            h = h * scale_r[0] + bias_r[0]  # type: ignore[misc]
            a = dot(weight_a[0], h.to(dtype), before[0])  # type: ignore[misc]
            z = tl.zeros((R, ROWS), dtype)
            if group > 0:
                packets = slot(gated_mail, step, rows[None, :], batch, LAYERS * R) + (group * GROUP - 1) * R
                z = receive(packets + channels[:, None], step, wanted, abort, patience).to(dtype)
            for i in tl.static_range(GROUP):
                u, v = halves(dot(weight_m[i], z, a), R)
                h = dot(weight_r[i], z, h)
                inputs = inputs + (h.to(dtype),)
                if i < GROUP - 1:
                    h = h * scale_r[i + 1] + bias_r[i + 1]
                    a = dot(weight_a[i + 1], h.to(dtype), before[i + 1])
                z = gate(u, v, FAST).to(dtype)
                gated = gated + (z,)
            if group < GROUPS - 1:
                last_layer = group * GROUP + GROUP - 1
                packets = slot(gated_mail, step, rows[None, :], batch, LAYERS * R) + last_layer * R
                send(packets + channels[:, None], z.to(tl.float32), step, wanted)
                packets = slot(inputs_mail + (group + 1) * (2 * R) * batch, step, rows[None, :], batch, R)
                send(packets + channels[:, None], h, step, wanted)
        else:
            for i in tl.static_range(GROUP):
                x = h.to(dtype)
                u, v = halves(dot(weight_a[i], x, before[i]), R)
                z = gate(u, v, FAST).to(dtype)
                inputs, gated = inputs + (x,), gated + (z,)
                h = h * residual_scale + bias_r[i]
                if i < GROUP - 1:
                    h = dot(weight_r[i], z, h)
            if group < GROUPS - 1:
                h = dot(weight_r[GROUP - 1], gated[GROUP - 1], h)
                packets = slot(inputs_mail + (group + 1) * (2 * R) * batch, step, rows[None, :], batch, R)
                send(packets + channels[:, None], h, step, wanted)

        # Off it again, but for the last group.
        for i in tl.static_range(GROUP):
            layer = group * GROUP + i
            packets = slot(gated_mail, step, rows[None, :], batch, LAYERS * R) + layer * R + channels[:, None]
            # Fused, the next group has already been sent the last of them.
            unsent = layer < LAYERS if not FUSED or i < GROUP - 1 else group == GROUPS - 1 and layer < LAYERS
            send(packets, gated[i].to(tl.float32), step, wanted & unsent)
        for i in tl.static_range(GROUP):
            layer = group * GROUP + i
            clamped = tl.minimum(layer, LAYERS - 1)
            ring = rings + tl.load(ring_start + clamped) * batch * R + place
            newest_slot = (tick + step) & tl.load(ring_mask + clamped)
            tl.store(ring + newest_slot.to(tl.int64) * batch * R, inputs[i], mask=wanted & (layer < LAYERS))
        # What some threads of the program have stored, others read in the next step.
        tl.debug_barrier()

    if group == 0:
        if drain > 0:
            before_at = row_table + tl.where(exists, (frame_start + last - 1) // hop, 0)
            code, older, _ = next_sample(
                last - 1, tick + last - 1, before_at, code, older, codes_out, logits_out, uniforms, seed, stream, clock,
                rate, least, live, decoded, thresholds, prediction, history, logits_mail, abort, patience, batch,
                num_samples, CODES, ORDER, KEPT, DRAW, LOGITS)
        tl.store(previous + rows * 2, code, mask=exists)
        tl.store(previous + rows * 2 + 1, older, mask=exists)


@triton.jit(do_not_specialize=["first", "last", "pending", "drain", "position", "num_samples", "batch", "frames", "hop",
                               "patience"])
def latency_kernel(
    embedding, taps, gate_weight, fused, residual, residual_bias, skip_weight, skip_bias,
    output_weight, output_bias, end_weight, end_bias, decoded, thresholds, dilation,
    ring_start, ring_mask, rings, history, previous, active, origin, table, prediction,
    table_row, table_origin, seeds, streams, inverse_temperature, min_p,
    uniforms, codes_out, logits_out, mail, abort,
    residual_scale: float, first: tl.int32, last: tl.int32, pending: tl.int32, drain: tl.int32, position: tl.int64,
    num_samples: tl.int32, batch: tl.int32, frames: tl.int32, hop: tl.int32, patience: tl.int32,
    LAYERS: tl.constexpr, KERNEL: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, SKIPS: tl.constexpr,
    OUTPUTS: tl.constexpr, CODES: tl.constexpr, EMBEDDINGS: tl.constexpr, TAPS: tl.constexpr, ORDER: tl.constexpr,
    KEPT: tl.constexpr, SQUASH: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, AT_ONCE: tl.constexpr,
    SKIP_PART: tl.constexpr, OUTPUT_PART: tl.constexpr, END_PART: tl.constexpr, SHARED_TABLE: tl.constexpr,
    DRAW: tl.constexpr, LOGITS: tl.constexpr, FAST: tl.constexpr, FUSED: tl.constexpr,
):
    """Advance up to 8 rows from step `first` to before `last` of `num_samples`; see `generate` for the arguments.

    With `pending` the mail holds the logits of step `first - 1`; with `drain` core 0 waits for those of
    the last step. Both let the interpreter, which runs one program after the other, go step by step.
    """
    SKIP: tl.constexpr = SKIPS * CHUNK
    HIDDEN: tl.constexpr = OUTPUTS * CHUNK
    SKIP_PROGRAMS: tl.constexpr = SKIP // SKIP_PART
    OUTPUT_PROGRAMS: tl.constexpr = HIDDEN // OUTPUT_PART
    gated_mail = mail + GROUPS * (2 * R) * batch
    skip_mail = gated_mail + LAYERS * (2 * R) * batch
    hidden_mail = skip_mail + 2 * SKIP * batch
    logits_mail = hidden_mail + 2 * HIDDEN * batch
    role = tl.program_id(0)
    if role < GROUPS:
        core_program(role, first, last, pending, drain, embedding, taps, gate_weight, fused, residual, residual_bias,
                     decoded, thresholds, dilation, ring_start, ring_mask, rings, history, previous, active, origin,
                     table, prediction, table_row, table_origin, seeds, streams, inverse_temperature, min_p, uniforms,
                     codes_out, logits_out, mail, gated_mail, logits_mail, abort, residual_scale, position,
                     num_samples, batch, frames, hop, patience, LAYERS, KERNEL, R, CODES, EMBEDDINGS, TAPS, ORDER,
                     KEPT, SQUASH, GROUPS, GROUP, SHARED_TABLE, DRAW, LOGITS, FAST, FUSED)
    elif role < GROUPS + SKIP_PROGRAMS:
        skip_program(role - GROUPS, first, last, skip_weight, skip_bias, gated_mail, skip_mail, abort, patience,
                     batch, LAYERS, R, CHUNK, SKIPS, SKIP_PART, AT_ONCE)
    elif role < GROUPS + SKIP_PROGRAMS + OUTPUT_PROGRAMS:
        linear_program(role - GROUPS - SKIP_PROGRAMS, first, last, output_weight, output_bias, skip_mail, hidden_mail,
                       abort, patience, batch, SKIP, HIDDEN, CHUNK, CHUNK, OUTPUT_PART, True)
    else:
        linear_program(role - GROUPS - SKIP_PROGRAMS - OUTPUT_PROGRAMS, first, last, end_weight, end_bias,
                       hidden_mail, logits_mail, abort, patience, batch, HIDDEN, CODES, CODES, CHUNK, END_PART, False)


class LostProgramError(RuntimeError):
    """The latency kernel gave up; the rows it worked on are to begin anew."""


@dataclass(frozen=True)
class Spread:
    """How a network is spread over programs.

    Attributes:
        group: layers of a core program.
        groups: core programs.
        at_once: layers a skip program takes together.
        skip_part, output_part, end_part: channels of a skip, output and end program.
        programs: all of them.
        shared: bytes of shared memory of the largest, estimated from above.
        fused: the residual of a layer and the weights of the next one are multiplied beforehand, so that one
            product a layer is on the critical path; asks for `Packed.fused`.
    """

    group: int
    groups: int
    at_once: int
    skip_part: int
    output_part: int
    end_part: int
    programs: int
    shared: int
    fused: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernel names them."""
        return {"GROUPS": self.groups, "GROUP": self.group, "AT_ONCE": self.at_once, "SKIP_PART": self.skip_part,
                "OUTPUT_PART": self.output_part, "END_PART": self.end_part, "FUSED": self.fused}


def make_spread(sizes: Sizes, dtype: torch.dtype, batch_size: int, shared_limit: int,
                multiprocessors: int, fused: bool = False) -> Spread | str:
    """Spread a network over a device, or say why it cannot be.

    Args:
        shared_limit: bytes of shared memory a program may have.
        multiprocessors: of the device; each holds one program.
        fused: see `Spread`; a layer then takes 10 R^2 bytes of shared memory instead of 6 R^2.
    """
    if batch_size > ROWS.value:
        return f"a batch of {batch_size} rows, it takes up to {ROWS.value}"
    if dtype.itemsize != 2:
        return f"{dtype} weights, it takes 16-bit ones"
    if sizes.codes > MOST_CODES:
        return f"{sizes.codes} codes, it takes up to {MOST_CODES}"
    channels, skip, hidden = sizes.residual, sizes.skips * sizes.chunk, sizes.outputs * sizes.chunk
    resident = (10 if fused else 6) * channels ** 2  # bytes of a layer: both halves of the gate and the residual
    # A slice of past weights, and what goes from one product to the next; measured, and rounded up.
    passing = 4 * channels * min(channels, SLICE_BYTES.value // (4 * channels)) + 96 * channels + 1024
    group = min((shared_limit - passing) // resident, MOST_LAYERS, sizes.layers)
    if group < 1:
        return f"layers of {channels} channels, which do not fit the {shared_limit} bytes of shared memory of a program"
    groups = -(-sizes.layers // group)
    group = -(-sizes.layers // groups)
    at_once = max(1, min(256 // channels, triton.next_power_of_2(sizes.layers)))
    output_part, end_part = _part(hidden, skip, shared_limit), _part(sizes.codes, hidden, shared_limit)
    if not (output_part and end_part):
        return f"{skip} skip and {hidden} output channels, which do not fit the shared memory of a program"
    skip_part = _divisor(skip, 32)
    programs = groups + skip // skip_part + hidden // output_part + sizes.codes // end_part
    if programs > multiprocessors:
        return f"{programs} programs for a device of {multiprocessors} multiprocessors"
    shared = max(group * resident + passing, 2 * output_part * triton.next_power_of_2(skip) + MARGIN,
                 2 * end_part * triton.next_power_of_2(hidden) + MARGIN)
    return Spread(group, groups, at_once, skip_part, output_part, end_part, programs, shared, fused)


def _divisor(channels: int, most: int) -> int:
    """The largest power of two up to `most` that divides the channels."""
    return min(most, channels & -channels)


def _part(channels: int, inputs: int, shared_limit: int) -> int:
    """Outputs of a linear program, 0 if not even 16 fit."""
    part, wide = _divisor(channels, 64), triton.next_power_of_2(inputs)
    while part >= 16 and 2 * part * wide > min(65_536, shared_limit - MARGIN):
        part //= 2
    return part if part >= 16 and wide <= 2048 else 0


def generate(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
             logits: Tensor | None = None, uniforms: Tensor | None = None, forced: bool = False,
             prediction: Tensor | None = None, *, spread: Spread, fast: bool = False, warps: int = 8,
             patience: int = 1 << 22, abort: Tensor | None = None) -> None:
    """As `batch.generate`, for up to 8 rows, spread over `spread.programs` multiprocessors.

    Its twin in plain torch is that of the batch kernel, `batch.generate_ref`.

    Args:
        packed, memory, table, hop, position, codes, logits, uniforms, forced, prediction, fast: see `batch.generate`.
        spread: from `make_spread`.
        warps: of a program.
        patience: how often a program asks for a packet before it gives up, some half a microsecond each.
        abort: int32 (1,), 0; is set where a program gave up, and the caller looks at it, who then need not wait for
            the device twice. None: `LostProgramError`.

    Raises:
        OutOfResources: the device does not run so many programs at once; nothing has been done.
        LostProgramError: a program did not get what it waited for; what `memory` holds is void.
    """
    sizes, (batch, num_samples) = packed.sizes, codes.shape
    assert len(packed.fused) == sizes.layers or not spread.fused
    assert batch == memory.batch_size <= ROWS.value and codes.dtype == torch.int32 and codes.is_contiguous()
    assert table.dtype == torch.float32 and table.is_contiguous() and table.shape[2:] == (
        sizes.layers, 2 * sizes.residual)
    if num_samples == 0:
        return
    device, is_asked = codes.device, abort is not None
    abort = torch.zeros(1, dtype=torch.int32, device=device) if abort is None else abort
    arguments = (packed, memory, table, hop, position, codes, logits, uniforms, forced, prediction, spread, fast, warps,
                 patience)
    if INTERPRETED.value:  # one program after the other, so one step after the other
        mail = make_mail(sizes, spread, batch, device)
        for step in range(num_samples):
            launch(*arguments, mail, abort, (spread.programs,), step, step + 1, step > 0, False)
        launch(*arguments, mail, abort, (spread.programs,), num_samples, num_samples, True, True)
    else:
        for first in range(0, num_samples, MOST_STEPS):
            mail = make_mail(sizes, spread, batch, device)
            launch(*arguments, mail, abort, (spread.programs,), first, min(num_samples, first + MOST_STEPS))
    if not is_asked and int(abort) != 0:
        raise LostProgramError(lost_program(spread))


def lost_program(spread: Spread | None) -> str:
    """What an abort word that is set means."""
    programs = "programs" if spread is None else f"{spread.programs}"
    return (f"a program of the latency kernel waited in vain for another: not all of its {programs} ran at once, or "
            f"the device was held up for seconds")


def launch(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
           logits: Tensor | None, uniforms: Tensor | None, forced: bool, prediction: Tensor | None, spread: Spread,
           fast: bool, warps: int, patience: int, mail: Tensor, abort: Tensor, grid: tuple[int], first: int = 0,
           last: int | None = None, pending: bool = False, drain: bool = True) -> None:
    """One launch, of steps `first` to before `last`; see `generate` and `latency_kernel`."""
    sizes = packed.sizes
    nothing = memory.min_p  # a pointer that is not read
    try:
        latency_kernel[grid](
            packed.embedding, packed.taps, packed.gate, packed.fused, packed.residual, packed.residual_bias,
            packed.skip, packed.skip_bias, packed.output, packed.output_bias, packed.end, packed.end_bias,
            packed.decoded, packed.thresholds, packed.dilation, packed.ring_start, packed.ring_mask, memory.rings,
            memory.history, memory.previous, memory.active, memory.origin, table,
            nothing if prediction is None else prediction, memory.table_row, memory.table_origin, memory.seeds,
            memory.streams, memory.inverse_temperature, memory.min_p, nothing if uniforms is None else uniforms, codes,
            nothing if logits is None else logits, mail, abort, packed.residual_scale, first,
            codes.shape[1] if last is None else last, int(pending), int(drain), position, codes.shape[1],
            codes.shape[0], table.shape[1], hop, patience, **sizes.constants, **spread.constants,
            SHARED_TABLE=table.shape[0] == 1, DRAW="forced" if forced else "philox" if uniforms is None else "given",
            LOGITS=logits is not None, FAST=fast, num_warps=min(warps, most_warps(sizes)), launch_cooperative_grid=True)
    except RuntimeError as error:
        if "cooperative" not in str(error):
            raise
        raise OutOfResources(grid[0], "fewer", "programs at once") from error


def most_warps(sizes: Sizes) -> int:
    """Warps of a program that have a packet each to wait for, however few there are.

    Were a packet loaded by two warps, one could find it there and the other, a moment before, not yet.
    """
    least = min(sizes.residual, sizes.skips * sizes.chunk, sizes.outputs * sizes.chunk, sizes.codes)
    return ROWS.value * triton.next_power_of_2(least) // 32  # a tile is padded to a power of two


def make_mail(sizes: Sizes, spread: Spread, batch: int, device: torch.device) -> Tensor:
    """Packets of step 0, which nobody waits for: zeros, int64."""
    channels = ((spread.groups + sizes.layers) * sizes.residual + (sizes.skips + sizes.outputs) * sizes.chunk
                + sizes.codes)
    return torch.zeros(2 * batch * channels, dtype=torch.int64, device=device)
