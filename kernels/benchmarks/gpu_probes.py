"""Small kernels that measure what the designs of the GPU kernels rest on; see `gpu_check.py`."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from wavegen_kernels.gpu.latency import receive, send


@triton.jit(do_not_specialize=["rounds", "patience"])
def hop_kernel(mail, abort, rounds: tl.int32, patience: tl.int32, WIDTH: tl.constexpr):
    """Two programs send WIDTH packets to and fro."""
    columns = tl.arange(0, WIDTH)
    everything = columns >= 0
    there, back = mail + columns, mail + WIDTH + columns
    if tl.program_id(0) == 0:
        values = columns.to(tl.float32)
        for step in range(rounds):
            send(there, values, step, everything)
            values = receive(back, step, everything, abort, patience)
    else:
        for step in range(rounds):
            send(back, receive(there, step, everything, abort, patience), step, everything)


@triton.jit(do_not_specialize=["tiles", "rounds"])
def read_kernel(source, out, tiles: tl.int32, rounds: tl.int32, TILE: tl.constexpr):
    """Every program reads the same `tiles` tiles, `rounds` times, past the first-level cache."""
    columns = tl.arange(0, TILE)
    total = tl.zeros((TILE,), tl.float32)
    for _ in range(rounds):
        for tile in range(tiles):
            total += tl.load(source + tile * TILE + columns, cache_modifier=".cg")
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


def packet_hop(rounds: int = 20_000) -> dict[str, Any]:
    """Seconds of one hop of a packet: stored by one multiprocessor, seen by another."""
    found: dict[str, Any] = {}
    for width in (32, 512):
        def run(width: int = width) -> float:
            mail = torch.zeros(2 * width, dtype=torch.int64, device="cuda")
            abort = torch.zeros(1, dtype=torch.int32, device="cuda")
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            hop_kernel[(2,)](mail, abort, rounds, 1 << 22, WIDTH=width, num_warps=8, launch_cooperative_grid=True)
            end.record()
            end.synchronize()
            if int(abort):
                raise RuntimeError("one of two programs waited in vain for the other")
            return begin.elapsed_time(end) / 1e3

        run()
        found[f"seconds_{width}_packets"] = sorted(run() for _ in range(5))[2] / (2 * rounds)
    return found


def l2_read(megabytes: float = 1.75) -> dict[str, Any]:
    """Bytes per second that one program, and one on each multiprocessor, read of an array in the second-level cache."""
    tile, multiprocessors = 4096, torch.cuda.get_device_properties(0).multi_processor_count
    tiles = int(megabytes * 1e6 / 4 / tile)
    source = torch.zeros(tiles * tile, device="cuda")
    found = {}
    for programs in (1, multiprocessors):
        out = torch.zeros(programs, device="cuda")

        def run(rounds: int, programs: int = programs, out: Any = out) -> float:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            read_kernel[(programs,)](source, out, tiles, rounds, TILE=tile, num_warps=8)
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3

        run(2)
        seconds = sorted(run(200) for _ in range(5))[2]
        found[f"gigabytes_per_second_{programs}_programs"] = programs * 200 * source.numel() * 4 / seconds / 1e9
    return found
