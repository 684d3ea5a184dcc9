"""Many utterances at once: one program holds a tile of rows and runs all layers for many samples.

    h      = E_0[code[t-1]] + E_1[code[t-2]] + x[t-1 .. t-n] W_in
    a      = cond[frame] + sum_{k>0} h[t - k d] W_k + h W_0
    z      = tanh(a[:R]) sigmoid(a[R:])
    skip  += z W_skip
    h      = h scale + z W_res + b
    logits = W_end relu(W_out relu(skip) + b) + b,    code[t] = draw(softmax(logits), uniform)

Weights stream from L2 through the software pipeliner, once per tile and sample; a tile of 16 to 128
rows shares each of them. Past inputs lie in rings in global memory: the oldest tap is read, then its
slot takes the newest input.

A row's numbers do not depend on the other rows of its tile, so neither on the batch. They may depend
in the last bit on the height of the tile, which decides the tensor-core instruction.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wavegen_kernels.gpu.blocks import dot, draw, gate, output_layers, philox_uniform, tanh_exact
from wavegen_kernels.gpu.memory import Memory
from wavegen_kernels.gpu.pack import Packed


@triton.jit
def dilated_gate(u, v, x, weights, TAP: tl.constexpr, R: tl.constexpr):
    """Both halves (u, v) plus the product of one tap x (ROWS, R) with W_TAP."""
    channels = tl.arange(0, R)
    square = TAP * (2 * R * R) + channels[:, None] * R + channels[None, :]
    u = dot(x, tl.load(weights + square), u)
    v = dot(x, tl.load(weights + R * R + square), v)
    return u, v


@triton.jit(do_not_specialize=["position", "num_samples", "batch", "frames", "hop"])
def generate_kernel(
    embedding, taps, gate_weight, residual, residual_bias, skip_weight, skip_bias,
    output_weight, output_bias, end_weight, end_bias, decoded, dilation,
    ring_start, ring_mask, rings, history, previous, active, origin, table,
    table_row, table_origin, seeds, streams, inverse_temperature, min_p,
    uniforms, codes_out, logits_out,
    residual_scale: float, position: tl.int64, num_samples: tl.int32, batch: tl.int32, frames: tl.int32,
    hop: tl.int32,
    LAYERS: tl.constexpr, KERNEL: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, SKIPS: tl.constexpr,
    OUTPUTS: tl.constexpr, CODES: tl.constexpr, EMBEDDINGS: tl.constexpr, TAPS: tl.constexpr,
    SQUASH: tl.constexpr, ROWS: tl.constexpr, SHARED_TABLE: tl.constexpr, DRAW: tl.constexpr,
    LOGITS: tl.constexpr, FAST: tl.constexpr, STAGES: tl.constexpr,
):
    """Advance ROWS rows by `num_samples`; see `generate` for the arguments."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = rows < batch
    live = exists & (tl.load(active + rows, mask=exists, other=0) != 0)
    if tl.max(live.to(tl.int32), 0) == 0:
        return
    channels, columns, code_columns = tl.arange(0, R), tl.arange(0, CHUNK), tl.arange(0, CODES)
    square = channels[:, None] * R + channels[None, :]
    tall = channels[:, None] * CHUNK + columns[None, :]
    dtype = gate_weight.dtype.element_ty
    wide_batch = batch.to(tl.int64)
    wide_rows = rows.to(tl.int64)

    code = tl.load(previous + rows * 2, mask=exists, other=0)
    older = tl.load(previous + rows * 2 + 1, mask=exists, other=0)
    seed = tl.load(seeds + rows, mask=exists, other=0)
    stream = tl.load(streams + rows, mask=exists, other=0)
    rate = tl.load(inverse_temperature + rows, mask=exists, other=1.0)
    least = tl.load(min_p + rows, mask=exists, other=0.0)
    start = position - tl.load(origin + rows, mask=exists, other=0)  # own time of each row
    frame_start = (position - tl.load(table_origin + rows, mask=exists, other=0)).to(tl.int32)
    shared_start = (position - tl.load(table_origin)).to(tl.int32)
    row_table = table + tl.load(table_row + rows, mask=exists, other=0).to(tl.int64) * frames * (LAYERS * 2 * R)
    tick = position.to(tl.int32)  # its low bits find slots, so that it may wrap

    for i in range(num_samples):
        h = tl.load(embedding + code[:, None] * R + channels[None, :])
        if EMBEDDINGS > 1:
            h += tl.load(embedding + CODES * R + older[:, None] * R + channels[None, :])
        if TAPS > 0:
            past = tl.arange(0, TAPS)
            newest = TAPS - 1 - ((tick + i) & (TAPS - 1))
            window = tl.load(history + rows[:, None] * (2 * TAPS) + newest + past[None, :], mask=exists[:, None],
                             other=0.0)
            h = dot(window, tl.load(taps + past[:, None] * R + channels[None, :]), h)
        if SQUASH:
            h = tanh_exact(h)
        if SHARED_TABLE:
            frame = table + ((shared_start + i) // hop) * (LAYERS * 2 * R) + channels[None, :]
        else:
            # A row beyond the batch reads the first frame, so that no address leaves the table.
            offset = tl.where(exists, (frame_start + i) // hop, 0).to(tl.int64)
            frame = (row_table + offset * (LAYERS * 2 * R))[:, None] + channels[None, :]

        skip = ()
        for j in tl.static_range(SKIPS):
            skip = skip + (tl.zeros((ROWS, CHUNK), tl.float32) + tl.load(skip_bias + j * CHUNK + columns)[None, :],)
        for layer in tl.range(0, LAYERS, num_stages=STAGES):
            distance, mask = tl.load(dilation + layer), tl.load(ring_mask + layer)
            ring = rings + tl.load(ring_start + layer) * wide_batch * R
            place = wide_rows[:, None] * R + channels[None, :]
            x = h.to(dtype)
            u = tl.zeros((ROWS, R), tl.float32) + tl.load(frame + layer * (2 * R))
            v = tl.zeros((ROWS, R), tl.float32) + tl.load(frame + layer * (2 * R) + R)
            weights = gate_weight + layer * (KERNEL * 2 * R * R)
            for j in tl.static_range(KERNEL - 1):
                slot = (tick + i - (KERNEL - 1 - j) * distance) & mask
                tap = tl.load(ring + slot.to(tl.int64) * wide_batch * R + place, mask=exists[:, None], other=0.0)
                u, v = dilated_gate(u, v, tap, weights, KERNEL - 1 - j, R)
            # The oldest tap has been read: where it fills the ring, its slot takes the newest input.
            slot = (tick + i) & mask
            tl.store(ring + slot.to(tl.int64) * wide_batch * R + place, x, mask=exists[:, None])
            u, v = dilated_gate(u, v, x, weights, 0, R)
            z = gate(u, v, FAST).to(dtype)
            sums = ()
            for j in tl.static_range(SKIPS):
                weight = tl.load(skip_weight + (layer * SKIPS + j) * (R * CHUNK) + tall)
                sums = sums + (dot(z, weight, skip[j]),)
            skip = sums
            h = h * residual_scale + tl.load(residual_bias + layer * R + channels)[None, :]
            h = dot(z, tl.load(residual + layer * (R * R) + square), h)

        logits = output_layers(skip, output_weight, output_bias, end_weight, end_bias, CHUNK, SKIPS, OUTPUTS, CODES)
        place_out = wide_rows * num_samples + i
        if LOGITS:
            tl.store(logits_out + place_out[:, None] * CODES + code_columns[None, :], logits, mask=exists[:, None])
        older = code
        if DRAW == "forced":
            code = tl.load(codes_out + place_out, mask=exists, other=0)
        else:
            if DRAW == "given":
                uniform = tl.load(uniforms + place_out, mask=exists, other=0.0)
            else:
                uniform = philox_uniform(seed, stream, start + i)
            code = draw(logits, uniform, rate, least, CODES)
            tl.store(codes_out + place_out, code, mask=live)
        if TAPS > 0:
            value = tl.load(decoded + code).to(dtype)
            newest = TAPS - 1 - ((tick + i + 1) & (TAPS - 1))
            tl.store(history + rows * (2 * TAPS) + newest, value, mask=exists)
            tl.store(history + rows * (2 * TAPS) + newest + TAPS, value, mask=exists)
        # What some threads of the program have stored, others read in the next step.
        tl.debug_barrier()
    tl.store(previous + rows * 2, code, mask=exists)
    tl.store(previous + rows * 2 + 1, older, mask=exists)


def generate(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
             logits: Tensor | None = None, uniforms: Tensor | None = None, forced: bool = False, rows: int = 16,
             fast: bool = False, warps: int = 8, stages: int = 2) -> None:
    """Advance every row of `memory` by codes.shape[1] samples, all on `packed.device`.

    Args:
        table: float32 (P, frames, L, 2R), conditioning frames that hold for `hop` samples each; row
            `memory.table_row[b]` from tick `memory.table_origin[b]` on. P = 1 promises that all rows are
            at the same frame.
        position: the tick of the first sample.
        codes: int32 (B, n), is filled; rows that are not active keep what it holds.
        logits: float32 (B, n, CODES), is filled if given.
        uniforms: float32 (B, n) in [0, 1), drawn with instead of Philox.
        forced: take the codes as given instead of drawing them.
        rows: height of a tile: 16, 32, 64 or 128.
        fast: the approximate tanh of the hardware, off by 2^-11.
        warps, stages: of a program; layers' weights in flight.
    """
    sizes, batch = packed.sizes, memory.batch_size
    assert codes.shape[0] == batch and codes.dtype == torch.int32 and codes.is_contiguous()
    assert table.dtype == torch.float32 and table.is_contiguous() and table.shape[2:] == (
        sizes.layers, 2 * sizes.residual)
    if codes.shape[1] == 0:
        return
    draw_with = "forced" if forced else "philox" if uniforms is None else "given"
    nothing = memory.min_p  # a pointer that is not read
    generate_kernel[(triton.cdiv(batch, rows),)](
        packed.embedding, packed.taps, packed.gate, packed.residual, packed.residual_bias, packed.skip,
        packed.skip_bias, packed.output, packed.output_bias, packed.end, packed.end_bias, packed.decoded,
        packed.dilation, packed.ring_start, packed.ring_mask, memory.rings, memory.history, memory.previous,
        memory.active, memory.origin, table, memory.table_row, memory.table_origin, memory.seeds, memory.streams,
        memory.inverse_temperature, memory.min_p, nothing if uniforms is None else uniforms, codes,
        nothing if logits is None else logits, packed.residual_scale, position, codes.shape[1], batch,
        table.shape[1], hop, **sizes.constants, ROWS=rows, SHARED_TABLE=table.shape[0] == 1, DRAW=draw_with,
        LOGITS=logits is not None, FAST=fast, STAGES=stages, num_warps=warps)
