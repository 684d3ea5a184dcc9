"""How kernels are launched: which tile and how much at once, for a model, a batch and a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from wavegen_kernels.gpu.latency import Spread
from wavegen_kernels.gpu.pack import Sizes

TILES = (16, 32, 64, 128)
ACCUMULATORS = 40_960  # float32 sums of a tile; a multiprocessor has 65,536 registers
OUTPUT_REGISTERS = 208  # of a thread; with more the compiler lets one warp-group product wait for the other


@dataclass(frozen=True)
class Plan:
    """How the batch kernel is launched; the numbers it gives do not depend on it but by `rows` and `fast`.

    Attributes:
        rows: height of a tile.
        parts: in which a layer is worked on, see `batch.generate`.
        fast: the approximate tanh of the hardware.
        warps, stages: of a program; layers' weights in flight.
        by_memory: what enters the output layers waits in memory, see `batch.generate`.
        spread: of the latency kernel, which then generates in place of the batch kernel; its numbers
            differ in the last bits.
    """

    rows: int = 16
    parts: int = 1
    fast: bool = False
    warps: int = 8
    stages: int = 2
    by_memory: bool = False
    spread: Spread | None = None

    @property
    def prefill_options(self) -> dict[str, Any]:
        """Of `prefill.prefill`."""
        return {"rows": self.rows, "parts": self.parts, "fast": self.fast, "warps": self.warps, "stages": self.stages}

    @property
    def batch_options(self) -> dict[str, Any]:
        """Of `batch.generate`."""
        return self.prefill_options | {"by_memory": self.by_memory}


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
    of one be copied while those of another are used; where none do, a smaller tile.

    Args:
        sizes: of the model.
        batch_size: rows.
        itemsize: bytes of a weight.
        limits: of the device.
    """
    sums = sizes.residual + sizes.skips * sizes.chunk
    tiles = [rows for rows in TILES if rows <= limits.tallest and rows * sums <= ACCUMULATORS] or TILES[:1]
    rows = next((rows for rows in tiles if -(-batch_size // rows) <= limits.programs), tiles[-1])
    plans = [_divided(sizes, Plan(rows=tile), itemsize, limits) for tile in reversed(TILES) if tile <= rows]
    plan = next((plan for plan in plans if plan.stages > 1), plans[0])
    # Hidden outputs, logits and what becomes of them, in the registers of a thread.
    numbers = plan.rows * (sizes.skips * sizes.chunk * itemsize // 4 + sizes.codes + sizes.chunk)
    return replace(plan, by_memory=numbers // (32 * plan.warps) > OUTPUT_REGISTERS)


def _divided(sizes: Sizes, plan: Plan, itemsize: int, limits: Limits) -> Plan:
    """The plan with the parts its tile needs; with one stage where no number of them lets two find room."""
    while plan.parts < most_parts(sizes) and _in_flight(sizes, plan, itemsize) > limits.shared_bytes:
        plan = replace(plan, parts=2 * plan.parts)
    return plan if _in_flight(sizes, plan, itemsize) <= limits.shared_bytes else replace(plan, stages=1)


def most_parts(sizes: Sizes) -> int:
    """Parts of 32 channels; thinner ones waste the tensor cores."""
    return max(1, sizes.residual // 32)


def _in_flight(sizes: Sizes, plan: Plan, itemsize: int) -> int:
    """Bytes of shared memory the layer loop or the output loop needs, about; too few only lead to `more_modest`.

    As the compiler lays it out: warp-group products read weights, and inputs that come from memory,
    where copies put them, so two of each are held; smaller tiles take them to registers first.
    """
    width, wide = sizes.residual // plan.parts, sizes.skips * sizes.chunk
    layer = width * ((2 * sizes.kernel_size + 1) * sizes.residual + wide)
    taps, x = plan.rows * sizes.residual * (sizes.kernel_size - 1), plan.rows * sizes.residual
    output = sizes.chunk * (wide + sizes.codes)
    if plan.rows < 64:
        return itemsize * max(layer + taps + 3 * x, output + plan.rows * wide)
    inputs = 2 * plan.rows * sizes.chunk if plan.by_memory else 0
    return 1024 + itemsize * max(2 * (layer + taps) + 2 * x, 2 * output + inputs)


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
