"""Many utterances at once: one program holds a tile of rows and runs all layers for many samples.

    h      = E_0[code[t-1]] + E_1[code[t-2]] + x[t-1 .. t-n] W_in            signal path direct
             E_0[code(s[t-1])] + E_1[code(p[t])] + E_2[e[t-1]] + s[t-1 .. t-n] W_in      path lpc
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

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from wavegen_kernels import philox
from wavegen_kernels.gpu.blocks import (
    code_of,
    dot,
    draw,
    follow,
    gate,
    output_layers,
    output_layers_by_memory,
    philox_uniform,
    predict,
    tanh_exact,
)
from wavegen_kernels.gpu.memory import Memory
from wavegen_kernels.gpu.pack import Packed


@triton.jit
def dilated_gate(u, v, x, weights, TAP: tl.constexpr, R: tl.constexpr, PARTS: tl.constexpr):
    """Both halves (u, v) of a part of the gate plus the product of one tap x (ROWS, R) with W_TAP."""
    block = TAP * (2 * R * R) + tl.arange(0, R)[:, None] * R + tl.arange(0, R // PARTS)[None, :]
    u = dot(x, tl.load(weights + block), u)
    v = dot(x, tl.load(weights + R * R + block), v)
    return u, v


@triton.jit(do_not_specialize=["position", "num_samples", "batch", "frames", "hop"])
def generate_kernel(
    embedding, taps, gate_weight, residual, residual_bias, skip_weight, skip_bias,
    output_weight, output_bias, end_weight, end_bias, decoded, thresholds, dilation,
    ring_start, ring_mask, rings, history, previous, active, origin, table,
    prediction, table_row, table_origin, seeds, streams, inverse_temperature, min_p,
    uniforms, codes_out, logits_out, scratch,
    residual_scale: float, position: tl.int64, num_samples: tl.int32, batch: tl.int32, frames: tl.int32,
    hop: tl.int32,
    LAYERS: tl.constexpr, KERNEL: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, SKIPS: tl.constexpr,
    OUTPUTS: tl.constexpr, CODES: tl.constexpr, EMBEDDINGS: tl.constexpr, TAPS: tl.constexpr,
    ORDER: tl.constexpr, KEPT: tl.constexpr, SQUASH: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
    SHARED_TABLE: tl.constexpr, DRAW: tl.constexpr,
    LOGITS: tl.constexpr, FAST: tl.constexpr, STAGES: tl.constexpr, BY_MEMORY: tl.constexpr,
):
    """Advance ROWS rows by `num_samples`; see `generate` for the arguments."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = rows < batch
    live = exists & (tl.load(active + rows, mask=exists, other=0) != 0)
    if tl.max(live.to(tl.int32), 0) == 0:
        return
    channels, columns, code_columns = tl.arange(0, R), tl.arange(0, CHUNK), tl.arange(0, CODES)
    inner = tl.arange(0, R // PARTS)
    tall = inner[:, None] * CHUNK + columns[None, :]
    flat = inner[:, None] * R + channels[None, :]
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
    row_frames = tl.load(table_row + rows, mask=exists, other=0).to(tl.int64) * frames
    tick = position.to(tl.int32)  # its low bits find slots, so that it may wrap

    for i in range(num_samples):
        if SHARED_TABLE:
            at = ((shared_start + i) // hop).to(tl.int64)
            frame = table + at * (LAYERS * 2 * R) + inner[None, :]
        else:
            # A row beyond the batch reads the first frame, so that no address leaves the table.
            at = row_frames + tl.where(exists, (frame_start + i) // hop, 0)
            frame = (table + at * (LAYERS * 2 * R))[:, None] + inner[None, :]
        if KEPT > 0:
            newest = history + rows * (2 * KEPT) + KEPT - 1 - ((tick + i) & (KEPT - 1))
        if ORDER > 0:
            predicted = predict(prediction + at * ORDER + 0 * rows, newest, exists, ORDER)
            about = code_of(thresholds, predicted, CODES)
            h = tl.load(embedding + older[:, None] * R + channels[None, :])
            h += tl.load(embedding + CODES * R + about[:, None] * R + channels[None, :])
            h += tl.load(embedding + 2 * CODES * R + code[:, None] * R + channels[None, :])
        else:
            h = tl.load(embedding + code[:, None] * R + channels[None, :])
            if EMBEDDINGS > 1:
                h += tl.load(embedding + CODES * R + older[:, None] * R + channels[None, :])
        if TAPS > 0:
            past = tl.arange(0, TAPS)
            window = tl.load(newest[:, None] + past[None, :], mask=exists[:, None], other=0.0).to(dtype)
            h = dot(window, tl.load(taps + past[:, None] * R + channels[None, :]), h)
        if SQUASH:
            h = tanh_exact(h)

        skip = ()
        for j in tl.static_range(SKIPS):
            skip = skip + (tl.zeros((ROWS, CHUNK), tl.float32) + tl.load(skip_bias + j * CHUNK + columns)[None, :],)
        x = h.to(dtype)
        for step in tl.range(0, LAYERS * PARTS, num_stages=STAGES):
            layer, part = step // PARTS, step % PARTS
            distance, mask = tl.load(dilation + layer), tl.load(ring_mask + layer)
            ring = rings + tl.load(ring_start + layer) * wide_batch * R
            place = wide_rows[:, None] * R + channels[None, :]
            if PARTS == 1 or part == 0:
                x = h.to(dtype)
                h = h * residual_scale + tl.load(residual_bias + layer * R + channels)[None, :]
            u = tl.broadcast_to(tl.load(frame + layer * (2 * R) + part * (R // PARTS)), (ROWS, R // PARTS))
            v = tl.broadcast_to(tl.load(frame + layer * (2 * R) + R + part * (R // PARTS)), (ROWS, R // PARTS))
            weights = gate_weight + layer * (KERNEL * 2 * R * R) + part * (R // PARTS)
            for j in tl.static_range(KERNEL - 1):
                slot = (tick + i - (KERNEL - 1 - j) * distance) & mask
                tap = tl.load(ring + slot.to(tl.int64) * wide_batch * R + place, mask=exists[:, None], other=0.0)
                u, v = dilated_gate(u, v, tap, weights, KERNEL - 1 - j, R, PARTS)
            if STAGES == 1:
                tl.debug_barrier()  # other threads may store a tap than loaded it; copies ahead are waited for anyway
            # The oldest tap has been read by all parts: where it fills the ring, its slot takes the newest input.
            slot = (tick + i) & mask
            tl.store(ring + slot.to(tl.int64) * wide_batch * R + place, x,
                     mask=exists[:, None] & (part == PARTS - 1))
            u, v = dilated_gate(u, v, x, weights, 0, R, PARTS)
            z = gate(u, v, FAST).to(dtype)
            sums = ()
            for j in tl.static_range(SKIPS):
                weight = tl.load(skip_weight + ((layer * SKIPS + j) * R + part * (R // PARTS)) * CHUNK + tall)
                sums = sums + (dot(z, weight, skip[j]),)
            skip = sums
            h = dot(z, tl.load(residual + (layer * R + part * (R // PARTS)) * R + flat), h)

        if BY_MEMORY:
            own = scratch + tl.program_id(0).to(tl.int64) * (ROWS * CHUNK * max(SKIPS, OUTPUTS))
            logits = output_layers_by_memory(skip, own, output_weight, output_bias, end_weight, end_bias, CHUNK, SKIPS,
                                             OUTPUTS, CODES, STAGES)
        else:
            logits = output_layers(skip, output_weight, output_bias, end_weight, end_bias, CHUNK, SKIPS, OUTPUTS, CODES,
                                   STAGES)
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
            code = tl.maximum(code, 0)  # no code where numbers have overflowed, but no address may leave a table
        if KEPT > 0:
            sample = tl.load(decoded + code)
            if ORDER > 0:
                sample = follow(predicted, sample)
                older = code_of(thresholds, sample, CODES)
            newest = history + rows * (2 * KEPT) + KEPT - 1 - ((tick + i + 1) & (KEPT - 1))
            tl.store(newest, sample, mask=exists)
            tl.store(newest + KEPT, sample, mask=exists)
        # What some threads of the program have stored, others read in the next step.
        tl.debug_barrier()
    tl.store(previous + rows * 2, code, mask=exists)
    tl.store(previous + rows * 2 + 1, older, mask=exists)


def generate(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
             logits: Tensor | None = None, uniforms: Tensor | None = None, forced: bool = False,
             prediction: Tensor | None = None, rows: int = 16, parts: int = 1, fast: bool = False, warps: int = 8,
             stages: int = 2, by_memory: bool = False) -> None:
    """Advance every row of `memory` by codes.shape[1] samples, all on `packed.device`.

    Args:
        table: float32 (P, frames, L, 2R), conditioning frames that hold for `hop` samples each; row
            `memory.table_row[b]` from tick `memory.table_origin[b]` on. P = 1 promises that all rows are
            at the same frame.
        position: the tick of the first sample.
        codes: int32 (B, n), is filled, with -1 where numbers have overflowed; rows that are not active keep
            what it holds.
        logits: float32 (B, n, CODES), is filled if given.
        uniforms: float32 (B, n) in [0, 1), drawn with instead of Philox.
        forced: take the codes as given instead of drawing them.
        prediction: float32 (P, frames, order), coefficients of the signal path lpc beside the table's frames.
        rows: height of a tile: 16, 32, 64 or 128.
        parts: in which a layer's channels are worked on, so that fewer weights are in flight.
        fast: the approximate tanh of the hardware, off by 2^-11.
        warps, stages: of a program; layers' weights in flight.
        by_memory: what enters the output layers waits in memory, so that a tall tile's logits find registers.
    """
    sizes, batch = packed.sizes, memory.batch_size
    assert codes.shape[0] == batch and codes.dtype == torch.int32 and codes.is_contiguous()
    assert table.dtype == torch.float32 and table.is_contiguous() and table.shape[2:] == (
        sizes.layers, 2 * sizes.residual)
    if codes.shape[1] == 0:
        return
    draw_with = "forced" if forced else "philox" if uniforms is None else "given"
    nothing = memory.min_p  # a pointer that is not read
    programs, scratch = triton.cdiv(batch, rows), nothing
    if by_memory:
        scratch = torch.empty(programs * rows * sizes.chunk * max(sizes.skips, sizes.outputs), dtype=packed.dtype,
                              device=codes.device)
    generate_kernel[(programs,)](
        packed.embedding, packed.taps, packed.gate, packed.residual, packed.residual_bias, packed.skip,
        packed.skip_bias, packed.output, packed.output_bias, packed.end, packed.end_bias, packed.decoded,
        packed.thresholds, packed.dilation, packed.ring_start, packed.ring_mask, memory.rings, memory.history,
        memory.previous, memory.active, memory.origin, table, nothing if prediction is None else prediction,
        memory.table_row, memory.table_origin, memory.seeds, memory.streams, memory.inverse_temperature, memory.min_p,
        nothing if uniforms is None else uniforms, codes, nothing if logits is None else logits,
        scratch, packed.residual_scale, position, codes.shape[1], batch, table.shape[1], hop, **sizes.constants,
        ROWS=rows, PARTS=parts, SHARED_TABLE=table.shape[0] == 1, DRAW=draw_with,
        LOGITS=logits is not None, FAST=fast, STAGES=stages, BY_MEMORY=by_memory, num_warps=warps)


def generate_ref(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
                 logits: Tensor | None = None, uniforms: Tensor | None = None, forced: bool = False,
                 prediction: Tensor | None = None) -> None:
    """`generate` in plain torch, with the same roundings of what enters a product; advances inactive rows as well."""
    sizes, width = packed.sizes, packed.sizes.residual
    own = position - memory.origin
    if uniforms is None:
        seeds, streams = (tensor.cpu().numpy().view(np.uint64)[:, None] for tensor in (memory.seeds, memory.streams))
        times = own.cpu().numpy()[:, None] + np.arange(codes.shape[1])
        uniforms = torch.from_numpy(philox.uniform(seeds, streams, times)).to(codes.device)
    frame_start, row = position - memory.table_origin, memory.table_row.long()
    for i in range(codes.shape[1]):
        at = (frame_start + i) // hop
        frame, predicted = table[row, at], None
        if prediction is not None:
            predicted = predict_ref(packed, memory, position + i, prediction[row, at])
        h = embed_ref(packed, memory, position + i, predicted)
        skip = packed.skip_bias.expand(len(codes), -1)
        for layer, dilation in enumerate(packed.dilations):
            ring = packed.ring(memory.rings, layer)
            x, a = h.to(packed.dtype), frame[:, layer]
            for k in reversed(range(sizes.kernel_size)):
                tap = ring[(position + i - k * dilation) % len(ring)] if k else x
                a = a + torch.cat([tap.float() @ half.float() for half in packed.gate[layer, k]], 1)
            ring[(position + i) % len(ring)] = x
            z = (torch.tanh(a[:, :width]) * torch.sigmoid(a[:, width:])).to(packed.dtype).float()
            skip = skip + torch.cat([z @ chunk.float() for chunk in packed.skip[layer]], 1)
            h = h * packed.residual_scale + packed.residual_bias[layer] + z @ packed.residual[layer].float()
        result = output_layers_ref(packed, skip)
        if logits is not None:
            logits[:, i] = result
        if not forced:
            drawn = draw_ref(result, uniforms[:, i], memory.inverse_temperature, memory.min_p)
            codes[:, i] = torch.where(memory.active != 0, drawn, codes[:, i])
        remember_ref(packed, memory, position + i, codes[:, i], predicted)


def predict_ref(packed: Packed, memory: Memory, tick: int, coefficients: Tensor) -> Tensor:
    """`blocks.predict`: p[t] float32 (B,) from coefficients (B, order)."""
    newest = packed.sizes.kept - 1 - tick % packed.sizes.kept
    total = torch.zeros_like(coefficients[:, 0])
    for i in range(packed.sizes.order):
        total = total + coefficients[:, i] * memory.history[:, newest + i]
    return total.clamp(-1, 1)


def code_of_ref(packed: Packed, x: Tensor) -> Tensor:
    """`blocks.code_of`: int32 (B,), the number of thresholds <= x."""
    return torch.bucketize(x.contiguous(), packed.thresholds, right=True, out_int32=True)


def embed_ref(packed: Packed, memory: Memory, tick: int, predicted: Tensor | None) -> Tensor:
    """What enters the first layer at a tick, float32 (B, R)."""
    sizes = packed.sizes
    codes = list(memory.previous.long().T)
    if predicted is not None:
        codes = [codes[1], code_of_ref(packed, predicted).long(), codes[0]]
    h = torch.stack([packed.embedding[k][codes[k]] for k in range(sizes.embeddings)]).sum(0)
    if sizes.taps:
        newest = sizes.kept - 1 - tick % sizes.kept
        window = memory.history[:, newest:newest + sizes.taps].to(packed.dtype)
        h = h + window.float() @ packed.taps.float()
    return torch.tanh(h) if sizes.input_tanh else h


def output_layers_ref(packed: Packed, skip: Tensor) -> Tensor:
    """Logits float32 (..., CODES) from skip sums (..., SKIPS * CHUNK)."""
    sizes = packed.sizes
    weight = packed.output.float().transpose(1, 2).reshape(sizes.skips * sizes.chunk, sizes.outputs * sizes.chunk)
    hidden = torch.relu(torch.relu(skip).to(packed.dtype).float() @ weight + packed.output_bias)
    return hidden.to(packed.dtype).float() @ packed.end.float().flatten(0, 1) + packed.end_bias


def draw_ref(logits: Tensor, uniforms: Tensor, inverse_temperature: Tensor, min_p: Tensor) -> Tensor:
    """`blocks.draw`: codes int32 (B,) from logits (B, CODES)."""
    p = torch.exp((logits - logits.amax(1, keepdim=True)) * inverse_temperature[:, None])
    p = torch.where(p < min_p[:, None], 0.0, p)
    beyond = (p.cumsum(1) > (uniforms * p.sum(1))[:, None]) & (p > 0)
    last = p.shape[1] - 1 - (p > 0).flip(1).int().argmax(1)
    drawn = torch.where(beyond.any(1), beyond.int().argmax(1), last)
    return torch.where(p.sum(1) > 0, drawn, -1).int()


def remember_ref(packed: Packed, memory: Memory, tick: int, codes: Tensor, predicted: Tensor | None) -> None:
    """Let the codes of a tick be the latest."""
    older, kept, samples = memory.previous[:, 0], packed.sizes.kept, packed.decoded[codes.long()]
    if predicted is not None:
        samples = (predicted + samples).clamp(-1, 1)
        older = code_of_ref(packed, samples)
    memory.previous[:] = torch.stack([codes, older], 1)
    if kept:
        newest = kept - 1 - (tick + 1) % kept
        memory.history[:, [newest, newest + kept]] = samples[:, None]
