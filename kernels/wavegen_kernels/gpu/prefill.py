"""Known codes, all time steps of a layer at once: teacher-forced logits, and a warm start from a prompt.

    a = cond[frame] + sum_{k>0} h[t - k d] W_k + h[t] W_0
    z = tanh(a[:R]) sigmoid(a[R:])
    h = h scale + z W_res + b                      one launch per layer: ROWS time steps of an utterance a program
    logits = W_end relu(W_out relu([z of all layers] W_skip + b) + b) + b             one launch for all layers

Inputs from before the first step come from the rings, and the last inputs of each layer go back into
them: rings, histories and latest codes are afterwards what the batch kernel, given the same codes,
would have left. Both kernels do the same operations in the same order, so with tiles of the same
height the numbers are the same to the last bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wavegen_kernels.gpu.batch import code_of_ref, dilated_gate, output_layers_ref
from wavegen_kernels.gpu.blocks import code_of, dot, follow, gate, output_layers, predict, tanh_exact
from wavegen_kernels.gpu.memory import Memory
from wavegen_kernels.gpu.pack import Packed

SCRATCH_BYTES = 1 << 29  # of gated outputs held at a time


@triton.jit(do_not_specialize=["num_samples", "batch", "frames", "hop"])
def follow_kernel(codes, signal, columns, previous, thresholds, decoded, prediction, table_row, frame_start,
                  num_samples: tl.int32, batch: tl.int32, frames: tl.int32, hop: tl.int32, KEPT: tl.constexpr,
                  ORDER: tl.constexpr, CODES: tl.constexpr, ROWS: tl.constexpr):
    """The signal path lpc: samples and codes that known excitations (B, n) give, one step after the other."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = rows < batch
    wide_rows = rows.to(tl.int64)
    latest = tl.load(previous + rows * 2, mask=exists, other=0)
    before = tl.load(previous + rows * 2 + 1, mask=exists, other=0)
    start = tl.load(frame_start + rows, mask=exists, other=0)
    row_frames = tl.load(table_row + rows, mask=exists, other=0).to(tl.int64) * frames
    layer = num_samples.to(tl.int64) * batch
    for t in range(num_samples):
        at = row_frames + tl.where(exists, (start + t) // hop, 0)
        newest = signal + wide_rows * (num_samples + KEPT) + (num_samples - t)
        predicted = predict(prediction + at * ORDER, newest, exists, ORDER)
        place = wide_rows * num_samples + t
        tl.store(columns + place, before, mask=exists)
        tl.store(columns + layer + place, code_of(thresholds, predicted, CODES), mask=exists)
        tl.store(columns + 2 * layer + place, latest, mask=exists)
        latest = tl.load(codes + place, mask=exists, other=0)
        sample = follow(predicted, tl.load(decoded + latest))
        before = code_of(thresholds, sample, CODES)
        tl.store(newest - 1, sample, mask=exists)
        # The thread that loads a sample in the next step need not be the one that stored it.
        tl.debug_barrier()


@triton.jit(do_not_specialize=["num_samples", "batch"])
def embed_kernel(columns, signal, embedding, taps, h_out, num_samples: tl.int32, batch: tl.int32, R: tl.constexpr,
                 CODES: tl.constexpr, EMBEDDINGS: tl.constexpr, TAPS: tl.constexpr, KEPT: tl.constexpr,
                 SQUASH: tl.constexpr, ROWS: tl.constexpr):
    """h = sum_k E_k[columns_k[t]] + x[t-1 .. t-n] W_in for ROWS steps t of one utterance."""
    steps = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = steps < num_samples
    row = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, R)
    place = row * num_samples + steps
    h = tl.load(embedding + tl.load(columns + place, mask=exists, other=0)[:, None] * R + channels[None, :])
    for k in tl.static_range(1, EMBEDDINGS):
        code = tl.load(columns + k * batch.to(tl.int64) * num_samples + place, mask=exists, other=0)
        h += tl.load(embedding + k * (CODES * R) + code[:, None] * R + channels[None, :])
    if TAPS > 0:
        past = tl.arange(0, TAPS)
        newest = signal + row * (num_samples + KEPT) + (num_samples - steps)
        window = tl.load(newest[:, None] + past[None, :], mask=exists[:, None], other=0.0).to(taps.dtype.element_ty)
        h = dot(window, tl.load(taps + past[:, None] * R + channels[None, :]), h)
    if SQUASH:
        h = tanh_exact(h)
    tl.store(h_out + place[:, None] * R + channels[None, :], h, mask=exists[:, None])


@triton.jit(do_not_specialize=["num_samples", "batch", "frames", "hop", "layer", "distance", "tick", "ring_mask"])
def layer_kernel(
    h_in, h_out, z_out, gate_weight, residual, residual_bias, ring, table, table_row, frame_start,
    residual_scale: float, num_samples: tl.int32, batch: tl.int32, frames: tl.int32, hop: tl.int32, layer: tl.int32,
    distance: tl.int32, tick: tl.int32, ring_mask: tl.int32,
    LAYERS: tl.constexpr, KERNEL: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
    FAST: tl.constexpr,
):
    """One layer for ROWS time steps of one utterance; see `prefill`."""
    steps = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = steps < num_samples
    row = tl.program_id(1).to(tl.int64)
    channels, inner = tl.arange(0, R), tl.arange(0, R // PARTS)
    flat = inner[:, None] * R + channels[None, :]
    dtype = gate_weight.dtype.element_ty
    own = (row * num_samples + steps[:, None]) * R + channels[None, :]
    h = tl.load(h_in + own, mask=exists[:, None], other=0.0)
    x = h.to(dtype)
    h = h * residual_scale + tl.load(residual_bias + layer * R + channels)[None, :]
    at = tl.where(exists, (tl.load(frame_start + row) + steps) // hop, 0).to(tl.int64)
    at += tl.load(table_row + row).to(tl.int64) * frames
    frame = (table + (at * LAYERS + layer) * (2 * R))[:, None] + inner[None, :]
    for part in tl.static_range(PARTS):
        u = tl.load(frame + part * (R // PARTS))
        v = tl.load(frame + R + part * (R // PARTS))
        weights = gate_weight + layer * (KERNEL * 2 * R * R) + part * (R // PARTS)
        for j in tl.static_range(KERNEL - 1):
            past = steps - (KERNEL - 1 - j) * distance
            slot = (tick + past) & ring_mask
            before = tl.load(ring + (slot.to(tl.int64) * batch + row)[:, None] * R + channels[None, :],
                             mask=(exists & (past < 0))[:, None], other=0.0)
            place = (row * num_samples + past[:, None]) * R + channels[None, :]
            inside = tl.load(h_in + place, mask=(exists & (past >= 0))[:, None], other=0.0).to(dtype)
            u, v = dilated_gate(u, v, tl.where((past < 0)[:, None], before, inside), weights, KERNEL - 1 - j, R, PARTS)
        u, v = dilated_gate(u, v, x, weights, 0, R, PARTS)
        z = gate(u, v, FAST).to(dtype)
        z_place = ((row * LAYERS + layer) * num_samples + steps[:, None]) * R + part * (R // PARTS) + inner[None, :]
        tl.store(z_out + z_place, z, mask=exists[:, None])
        h = dot(z, tl.load(residual + (layer * R + part * (R // PARTS)) * R + flat), h)
    tl.store(h_out + own, h, mask=exists[:, None])


@triton.jit(do_not_specialize=["num_samples", "stride", "start"])
def logits_kernel(
    z_in, skip_weight, skip_bias, output_weight, output_bias, end_weight, end_bias, logits_out,
    num_samples: tl.int32, stride: tl.int64, start: tl.int64,
    LAYERS: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, SKIPS: tl.constexpr, OUTPUTS: tl.constexpr,
    CODES: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, STAGES: tl.constexpr,
):
    """Skip product of all layers and output layers for ROWS time steps of one utterance."""
    steps = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = steps < num_samples
    row = tl.program_id(1).to(tl.int64)
    inner, columns, codes = tl.arange(0, R // PARTS), tl.arange(0, CHUNK), tl.arange(0, CODES)
    tall = inner[:, None] * CHUNK + columns[None, :]
    skip = ()
    for j in tl.static_range(SKIPS):
        skip = skip + (tl.zeros((ROWS, CHUNK), tl.float32) + tl.load(skip_bias + j * CHUNK + columns)[None, :],)
    for step in tl.range(0, LAYERS * PARTS, num_stages=STAGES):
        layer, part = step // PARTS, step % PARTS
        place = ((row * LAYERS + layer) * num_samples + steps[:, None]) * R + part * (R // PARTS) + inner[None, :]
        z = tl.load(z_in + place, mask=exists[:, None], other=0.0)
        sums = ()
        for j in tl.static_range(SKIPS):
            weight = tl.load(skip_weight + ((layer * SKIPS + j) * R + part * (R // PARTS)) * CHUNK + tall)
            sums = sums + (dot(z, weight, skip[j]),)
        skip = sums
    logits = output_layers(skip, output_weight, output_bias, end_weight, end_bias, CHUNK, SKIPS, OUTPUTS, CODES,
                           STAGES)
    place = (row * stride + start + steps[:, None]) * CODES + codes[None, :]
    tl.store(logits_out + place, logits, mask=exists[:, None])


def prefill(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
            logits: Tensor | None = None, prediction: Tensor | None = None, rows: int = 16, parts: int = 1,
            fast: bool = False, warps: int = 8, stages: int = 2) -> None:
    """Feed codes int32 (B, n) to every row of `memory`; the arguments are those of `batch.generate`.

    Args:
        logits: float32 (B, n, CODES), is filled if given: those that predict the codes.
        rows: time steps of a tile; equal to the batch kernel's, the numbers are the same to the bit.
    """
    sizes, (batch, total) = packed.sizes, codes.shape
    per_step = batch * sizes.residual * (sizes.layers * packed.gate.element_size() + 8)
    block = max(rows, SCRATCH_BYTES // per_step // rows * rows)
    for start in range(0, total, block):
        _prefill_block(packed, memory, table, hop, position + start, codes[:, start:start + block], logits, prediction,
                       start, rows, parts, fast, warps, stages)


def _prefill_block(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
                   logits: Tensor | None, prediction: Tensor | None, start: int, rows: int, parts: int, fast: bool,
                   warps: int, stages: int) -> None:
    sizes, (batch, count) = packed.sizes, codes.shape
    channels, layers = sizes.residual, sizes.layers
    grid = (triton.cdiv(count, rows), batch)
    frame_start = (position - memory.table_origin).to(torch.int32)
    columns, signal = inputs_of(packed, memory, position, codes)
    if prediction is not None:
        follow_kernel[(triton.cdiv(batch, rows),)](
            codes.contiguous(), signal, columns, memory.previous, packed.thresholds, packed.decoded, prediction,
            memory.table_row, frame_start, count, batch, table.shape[1], hop, KEPT=sizes.kept, ORDER=sizes.order,
            CODES=sizes.codes, ROWS=rows, num_warps=1)
    h, h_next = torch.empty(2, batch, count, channels, device=codes.device)
    z = torch.empty(batch, layers, count, channels, dtype=packed.dtype, device=codes.device)
    embed_kernel[grid](columns, signal, packed.embedding, packed.taps, h, count, batch, R=channels, CODES=sizes.codes,
                       EMBEDDINGS=sizes.embeddings, TAPS=sizes.taps, KEPT=sizes.kept, SQUASH=sizes.input_tanh,
                       ROWS=rows)
    for layer, dilation in enumerate(packed.dilations):
        ring = packed.ring(memory.rings, layer)
        layer_kernel[grid](
            h, h_next, z, packed.gate, packed.residual, packed.residual_bias, ring, table, memory.table_row,
            frame_start, packed.residual_scale, count, batch, table.shape[1], hop, layer, dilation,
            position % len(ring), len(ring) - 1, LAYERS=layers, KERNEL=sizes.kernel_size, R=channels, ROWS=rows,
            PARTS=parts, FAST=fast, num_warps=warps)
        store_inputs(ring, h, position)
        h, h_next = h_next, h
    if logits is not None:
        logits_kernel[grid](
            z, packed.skip, packed.skip_bias, packed.output, packed.output_bias, packed.end, packed.end_bias, logits,
            count, logits.shape[1], start, LAYERS=layers, R=channels, CHUNK=sizes.chunk, SKIPS=sizes.skips,
            OUTPUTS=sizes.outputs, CODES=sizes.codes, ROWS=rows, PARTS=parts, STAGES=stages, num_warps=warps)
    remember(packed, memory, position, codes, signal)


def inputs_of(packed: Packed, memory: Memory, position: int, codes: Tensor) -> tuple[Tensor, Tensor]:
    """What a network is told for each of `codes` (B, n), as far as memory and the codes themselves say it.

    Returns:
        int32 (EMBEDDINGS, B, n), the codes that are embedded; and float32 (B, n + KEPT), the samples of
        the codes and those from before, the newest first. Both are to be filled on the signal path lpc.
    """
    sizes, (batch, count) = packed.sizes, codes.shape
    newest = sizes.kept - 1 - position % sizes.kept if sizes.kept else 0
    samples = packed.decoded[codes.long()].flip(1)
    signal = torch.cat([samples, memory.history[:, newest:newest + sizes.kept]], 1)
    if sizes.order:
        return torch.empty(3, batch, count, dtype=torch.int32, device=codes.device), signal
    known = torch.cat([memory.previous.flip(1), codes], 1)
    return torch.stack([known[:, 1 - k:1 - k + count] for k in range(sizes.embeddings)]), signal


def store_inputs(ring: Tensor, h: Tensor, position: int) -> None:
    """Put the last inputs h (B, n, R) of a layer into its ring (length, B, R)."""
    count = min(len(ring), h.shape[1])
    ticks = torch.arange(position + h.shape[1] - count, position + h.shape[1], device=h.device)
    ring[ticks % len(ring)] = h[:, h.shape[1] - count:].transpose(0, 1).to(ring.dtype)


def remember(packed: Packed, memory: Memory, position: int, codes: Tensor, signal: Tensor) -> None:
    """Leave the latest codes and samples in memory."""
    kept, order = packed.sizes.kept, packed.sizes.order
    older = torch.cat([memory.previous[:, :1], codes], 1)[:, -2]
    if order:
        older = code_of_ref(packed, signal[:, 0])
    memory.previous[:] = torch.stack([codes[:, -1], older], 1)
    if kept:
        # At tick m, x[m - 1 - j] lies at KEPT - 1 - m % KEPT + j, and KEPT further or before.
        end = position + codes.shape[1]
        places = (kept - 1 - end % kept + torch.arange(kept, device=codes.device)) % kept
        memory.history[:, places] = memory.history[:, places + kept] = signal[:, :kept]


def prefill_ref(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
                logits: Tensor | None = None, prediction: Tensor | None = None) -> None:
    """`prefill` in plain torch, with the same roundings of what enters a product."""
    sizes, (batch, count) = packed.sizes, codes.shape
    width = sizes.residual
    steps = torch.arange(count, device=codes.device)
    row, at = memory.table_row.long(), ((position - memory.table_origin)[:, None] + steps) // hop
    frame = table[row[:, None], at]
    columns, signal = inputs_of(packed, memory, position, codes)
    if prediction is not None:
        follow_ref(packed, memory, codes, columns, signal, prediction[row[:, None], at])
    h = torch.stack([packed.embedding[k][columns[k].long()] for k in range(sizes.embeddings)]).sum(0)
    if sizes.taps:
        windows = signal.to(packed.dtype).unfold(1, sizes.taps, 1)[:, 1:count + 1].flip(1)
        h = h + windows.float() @ packed.taps.float()
    h = torch.tanh(h) if sizes.input_tanh else h
    skip = packed.skip_bias.expand(batch, count, -1)
    for layer, dilation in enumerate(packed.dilations):
        ring = packed.ring(memory.rings, layer)
        reach = (sizes.kernel_size - 1) * dilation
        before = ring[torch.arange(position - reach, position, device=codes.device) % len(ring)].transpose(0, 1)
        x = torch.cat([before, h.to(packed.dtype)], 1).float()
        a = frame[:, :, layer]
        for k in reversed(range(sizes.kernel_size)):
            tap = x[:, reach - k * dilation:reach - k * dilation + count]
            a = a + torch.cat([tap @ half.float() for half in packed.gate[layer, k]], 2)
        store_inputs(ring, h, position)
        z = (torch.tanh(a[..., :width]) * torch.sigmoid(a[..., width:])).to(packed.dtype).float()
        skip = skip + torch.cat([z @ chunk.float() for chunk in packed.skip[layer]], 2)
        h = h * packed.residual_scale + packed.residual_bias[layer] + z @ packed.residual[layer].float()
    if logits is not None:
        logits[:] = output_layers_ref(packed, skip)
    remember(packed, memory, position, codes, signal)


def follow_ref(packed: Packed, memory: Memory, codes: Tensor, columns: Tensor, signal: Tensor,
               coefficients: Tensor) -> None:
    """`follow_kernel`, given the coefficients (B, n, order) of every step."""
    count = codes.shape[1]
    latest, before = memory.previous.T
    for t in range(count):
        predicted = torch.zeros_like(signal[:, 0])
        for i in range(packed.sizes.order):
            predicted = predicted + coefficients[:, t, i] * signal[:, count - t + i]
        predicted = predicted.clamp(-1, 1)
        columns[:, :, t] = torch.stack([before, code_of_ref(packed, predicted), latest])
        latest = codes[:, t]
        signal[:, count - 1 - t] = (predicted + packed.decoded[latest.long()]).clamp(-1, 1)
        before = code_of_ref(packed, signal[:, count - 1 - t])
