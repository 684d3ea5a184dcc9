"""How kernels are launched: which tile and how much at once, for a model, a batch and a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from wavegen_kernels.gpu.latency import Spread
from wavegen_kernels.gpu.pack import Sizes

TILES = (16, 32, 64, 128)
ACCUMULATORS = 40_960  # float32 sums of a tile; a multiprocessor has 65,536 registers


@dataclass(frozen=True)
class Plan:
    """How the batch kernel is launched; the numbers it gives do not depend on it but by `rows` and `fast`.

    Attributes:
        rows: height of a tile.
        parts: in which a layer is worked on, see `batch.generate`.
        fast: the approximate tanh of the hardware.
        warps, stages: of a program; layers' weights in flight.
        spread: of the latency kernel, which then generates in place of the batch kernel; its numbers
            differ in the last bits.
    """

    rows: int = 16
    parts: int = 1
    fast: bool = False
    warps: int = 8
    stages: int = 2
    spread: Spread | None = None


@dataclass(frozen=True)
class Limits:
    """What a device offers.

    Attributes:
        programs: that run at the same time, one to a multiprocessor.
        shared_bytes: shared memory of a program.
        tallest: the tile for which the compiler finds instructions that do not run out of registers.
    """

    programs: int
    shared_bytes: int
    tallest: int


def find_limits(device: torch.device) -> Limits:
    """Of a CUDA device; elsewhere, where kernels are interpreted, of one that is small."""
    if device.type != "cuda":
        return Limits(1, 1 << 18, TILES[0])
    facts: Any = torch.cuda.get_device_properties(device)
    # Without warp-group products (Hopper), 64 rows spill thousands of bytes of registers.
    tallest = 128 if facts.major in (9, 10) else 32
    return Limits(facts.multi_processor_count, facts.shared_memory_per_block_optin, tallest)


def choose_plan(sizes: Sizes, batch_size: int, itemsize: int, limits: Limits) -> Plan:
    """The plan for a model, a batch and a device.

    The least tile that needs no more programs than run at once: each program reads all weights for
    every sample, so tiles grow before the reading starts over. Then as few parts as let the weights
    of one be copied while those of another are used.

    Args:
        sizes: of the model.
        batch_size: rows.
        itemsize: bytes of a weight.
        limits: of the device.
    """
    sums = sizes.residual + sizes.skips * sizes.chunk
    tiles = [rows for rows in TILES if rows <= limits.tallest and rows * sums <= ACCUMULATORS] or TILES[:1]
    rows = next((rows for rows in tiles if -(-batch_size // rows) <= limits.programs), tiles[-1])
    plan = Plan(rows=rows)
    while plan.parts < most_parts(sizes) and _in_flight(sizes, plan, itemsize) > limits.shared_bytes:
        plan = replace(plan, parts=2 * plan.parts)
    return plan if _in_flight(sizes, plan, itemsize) <= limits.shared_bytes else replace(plan, stages=1)


def most_parts(sizes: Sizes) -> int:
    """Parts of 32 channels; thinner ones waste the tensor cores."""
    return max(1, sizes.residual // 32)


def _in_flight(sizes: Sizes, plan: Plan, itemsize: int) -> int:
    """Bytes of shared memory the layer loop or the output loop needs, about; too few only lead to `_more_modest`."""
    width, wide = sizes.residual // plan.parts, sizes.skips * sizes.chunk
    layer = width * ((2 * sizes.kernel_size + 1) * sizes.residual + wide)
    inputs = plan.rows * sizes.residual * (sizes.kernel_size + 2)
    output = sizes.chunk * (wide + sizes.codes) + plan.rows * wide
    # Warp-group products take their inputs from shared memory too. The factor is of compiled kernels.
    return itemsize * max(layer + inputs, output) * (17 if plan.rows >= 64 else 10) // 10


def more_modest(sizes: Sizes, plan: Plan) -> Plan | None:
    """The next plan to try where the device lacks room for this one."""
    if plan.spread is not None:
        return replace(plan, spread=None)
    if plan.parts < most_parts(sizes):
        return replace(plan, parts=2 * plan.parts)
    if plan.stages > 1:
        return replace(plan, stages=1)
    if plan.rows > TILES[0]:
        return replace(plan, rows=plan.rows // 2)
    return None
