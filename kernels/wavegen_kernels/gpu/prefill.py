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

from wavegen_kernels.gpu.batch import dilated_gate, output_layers_ref
from wavegen_kernels.gpu.blocks import dot, gate, output_layers, tanh_exact
from wavegen_kernels.gpu.memory import Memory
from wavegen_kernels.gpu.pack import Packed

SCRATCH_BYTES = 1 << 29  # of gated outputs held at a time


@triton.jit(do_not_specialize=["num_samples"])
def embed_kernel(codes, decoded, embedding, taps, h_out, num_samples: tl.int32, R: tl.constexpr, CODES: tl.constexpr,
                 EMBEDDINGS: tl.constexpr, TAPS: tl.constexpr, SQUASH: tl.constexpr, ROWS: tl.constexpr):
    """h = E_0[code[t-1]] + E_1[code[t-2]] + x[t-1 .. t-n] W_in for ROWS steps t of one utterance."""
    steps = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = steps < num_samples
    row = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, R)
    latest = codes + row * (num_samples + 2) + steps  # the codes begin with the two before the first step
    h = tl.load(embedding + tl.load(latest + 1, mask=exists, other=0)[:, None] * R + channels[None, :])
    if EMBEDDINGS > 1:
        older = tl.load(latest, mask=exists, other=0)
        h += tl.load(embedding + CODES * R + older[:, None] * R + channels[None, :])
    if TAPS > 0:
        past = tl.arange(0, TAPS)
        place = decoded + row * (num_samples + TAPS) + steps[:, None] + (TAPS - 1 - past)[None, :]
        window = tl.load(place, mask=exists[:, None], other=0.0)
        h = dot(window, tl.load(taps + past[:, None] * R + channels[None, :]), h)
    if SQUASH:
        h = tanh_exact(h)
    tl.store(h_out + (row * num_samples + steps[:, None]) * R + channels[None, :], h, mask=exists[:, None])


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
        u = tl.zeros((ROWS, R // PARTS), tl.float32) + tl.load(frame + part * (R // PARTS))
        v = tl.zeros((ROWS, R // PARTS), tl.float32) + tl.load(frame + R + part * (R // PARTS))
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
            logits: Tensor | None = None, rows: int = 16, parts: int = 1, fast: bool = False, warps: int = 8,
            stages: int = 2) -> None:
    """Feed codes int32 (B, n) to every row of `memory`; the arguments are those of `batch.generate`.

    Args:
        logits: float32 (B, n, CODES), is filled if given: those that predict the codes.
        rows: time steps of a tile; equal to the batch kernel's, the numbers are the same to the bit.
    """
    sizes, (batch, total) = packed.sizes, codes.shape
    per_step = batch * sizes.residual * (sizes.layers * packed.gate.element_size() + 8)
    block = max(rows, SCRATCH_BYTES // per_step // rows * rows)
    for start in range(0, total, block):
        _prefill_block(packed, memory, table, hop, position + start, codes[:, start:start + block], logits, start,
                       rows, parts, fast, warps, stages)


def _prefill_block(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
                   logits: Tensor | None, start: int, rows: int, parts: int, fast: bool, warps: int,
                   stages: int) -> None:
    sizes, (batch, count) = packed.sizes, codes.shape
    channels, layers = sizes.residual, sizes.layers
    grid = (triton.cdiv(count, rows), batch)
    known, decoded = inputs_of(packed, memory, position, codes)
    h, h_next = torch.empty(2, batch, count, channels, device=codes.device)
    z = torch.empty(batch, layers, count, channels, dtype=packed.dtype, device=codes.device)
    embed_kernel[grid](known, decoded, packed.embedding, packed.taps, h, count, R=channels, CODES=sizes.codes,
                       EMBEDDINGS=sizes.embeddings, TAPS=sizes.taps, SQUASH=sizes.input_tanh, ROWS=rows)
    frame_start = (position - memory.table_origin).to(torch.int32)
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
    remember(packed, memory, position, known, decoded)


def inputs_of(packed: Packed, memory: Memory, position: int, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The codes and decoded samples that predict `codes`: those in memory, then themselves, oldest first.

    Returns:
        int32 (B, 2 + n), and (B, TAPS + n) in the dtype of the histories.
    """
    known = torch.cat([memory.previous.flip(1), codes], 1).contiguous()
    taps = packed.sizes.taps
    newest = taps - 1 - position % taps if taps else 0
    before = memory.history[:, newest:newest + taps].flip(1)
    return known, torch.cat([before, packed.decoded[codes.long()].to(before.dtype)], 1).contiguous()


def store_inputs(ring: Tensor, h: Tensor, position: int) -> None:
    """Put the last inputs h (B, n, R) of a layer into its ring (length, B, R)."""
    count = min(len(ring), h.shape[1])
    ticks = torch.arange(position + h.shape[1] - count, position + h.shape[1], device=h.device)
    ring[ticks % len(ring)] = h[:, h.shape[1] - count:].transpose(0, 1).to(ring.dtype)


def remember(packed: Packed, memory: Memory, position: int, known: Tensor, decoded: Tensor) -> None:
    """Leave the latest codes and decoded samples in memory."""
    memory.previous[:] = known[:, -2:].flip(1)
    taps = packed.sizes.taps
    if taps:
        # At tick m, x[m - 1 - j] lies at TAPS - 1 - m % TAPS + j, and TAPS further or before.
        end = position + known.shape[1] - 2
        places = (taps - 1 - end % taps + torch.arange(taps, device=known.device)) % taps
        latest = decoded[:, -taps:].flip(1)
        memory.history[:, places] = latest
        memory.history[:, places + taps] = latest


def prefill_ref(packed: Packed, memory: Memory, table: Tensor, hop: int, position: int, codes: Tensor,
                logits: Tensor | None = None) -> None:
    """`prefill` in plain torch, with the same roundings of what enters a product."""
    sizes, (batch, count) = packed.sizes, codes.shape
    width = sizes.residual
    known, decoded = inputs_of(packed, memory, position, codes)
    h = sum(packed.embedding[k][known[:, 1 - k:1 - k + count].long()] for k in range(sizes.embeddings))
    if sizes.taps:
        h = h + decoded[:, :sizes.taps + count - 1].unfold(1, sizes.taps, 1).flip(2).float() @ packed.taps.float()
    h = torch.tanh(h) if sizes.input_tanh else h
    steps = torch.arange(count, device=codes.device)
    frame = table[memory.table_row.long()[:, None], ((position - memory.table_origin)[:, None] + steps) // hop]
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
    remember(packed, memory, position, known, decoded)
