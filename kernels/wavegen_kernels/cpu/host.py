"""What the host offers: the instruction set Numba compiles for, and aligned memory."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE = 1 << 21
LINE = 64


@dataclass(frozen=True)
class Target:
    """An instruction set the vector kernels have been laid out for."""

    name: str
    registers: int  # sixteen-lane accumulators that stay in registers
    prefetch: int = 0  # bytes of weights to fetch ahead; 0 leaves it to the hardware


# AVX2 and NEON hold a lane vector in two and four registers; what is left is for weights and input.
# Eight accumulators hide the latency of a multiply-add; with sixteen, AVX-512 gained nothing.
TARGETS = {"avx512": Target("avx512", 8), "avx2": Target("avx2", 4), "neon": Target("neon", 4)}
# Zen's second-level cache gives half its bandwidth to plain loads: 128 GB/s without, 180 to 240 GB/s
# with a fetch this far ahead (Zen 5). On Emerald Rapids it gained nothing.
ZEN_PREFETCH = 4096


@cache
def machine() -> tuple[str, str, str]:
    """(triple, CPU name, features) that Numba compiles for; honours NUMBA_CPU_NAME and _FEATURES."""
    from numba.core.registry import cpu_target

    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return str(triple), str(name), str(features)


def vector_target() -> Target | None:
    """The vector instruction set kernels may use here, None where only plain loops are safe.

    An instruction the host lacks makes LLVM abort the process, so only features that Numba
    itself was told of count.
    """
    if not _has_opaque_pointers():
        return None
    triple, name, features = machine()
    present = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if triple.startswith(("aarch64", "arm64")) and "neon" in present:
        return TARGETS["neon"]
    if triple.startswith("x86_64") and {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= present:
        target = TARGETS["avx512"]
    elif triple.startswith("x86_64") and {"avx2", "fma"} <= present:
        target = TARGETS["avx2"]
    else:
        return None
    return replace(target, prefetch=ZEN_PREFETCH) if name.startswith("znver") else target


@cache
def integer_products() -> str:
    """Instructions for integer products: "vnni", "avx512bw", "avx2", or "generic" multiplications.

    Like `vector_target`, it believes only what Numba was told: an instruction the host lacks would
    abort the process.
    """
    triple, _, features = machine()
    present = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if not triple.startswith("x86_64"):
        return "generic"
    if {"avx512f", "avx512bw"} <= present:
        return "vnni" if "avx512vnni" in present else "avx512bw"
    return "avx2" if "avx2" in present else "generic"


def _has_opaque_pointers() -> bool:
    """Whether this llvmlite speaks the intermediate language the kernels are written in: 0.45 on."""
    import llvmlite

    return tuple(int(part) for part in llvmlite.__version__.split(".")[:2]) >= (0, 45)


def aligned(num_bytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes whose address is a multiple of 64, of 2 MB and on huge pages when large.

    The weights are read once per sample: with 4 KB pages the walk over them misses the TLB.
    """
    alignment = HUGE_PAGE if num_bytes >= HUGE_PAGE // 8 else LINE
    size = -(-num_bytes // alignment) * alignment
    whole = np.empty(size + alignment, np.uint8)
    start = -whole.ctypes.data % alignment
    buffer = whole[start:start + size]
    if alignment == HUGE_PAGE and sys.platform == "linux":
        advice = getattr(mmap, "MADV_HUGEPAGE", 14)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(buffer.ctypes.data), ctypes.c_size_t(size), advice)
    buffer[:] = 0
    return buffer[:num_bytes]


def buffer(*shape: int) -> NDArray[np.uint8]:
    """Zeroed aligned bytes."""
    return aligned(int(np.prod(shape, dtype=np.int64))).reshape(shape)


def floats(*shape: int) -> NDArray[np.float32]:
    """Zeroed aligned float32 array."""
    count = int(np.prod(shape, dtype=np.int64))
    array: NDArray[np.float32] = aligned(4 * count).view(np.float32).reshape(shape)
    return array


@cache
def cache_bytes(level: int) -> int | None:
    """Bytes of a core's data cache of this level, None where the system does not tell."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if int((folder / "level").read_text()) == level and (folder / "type").read_text().strip() != "Instruction":
                size = (folder / "size").read_text().strip()
                return int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
        except (OSError, ValueError):
            continue
    return None


def cpu_name() -> str:
    """The processor's model name, for results that name their machine."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Machine and versions, for benchmark rows."""
    import llvmlite
    import numba

    return {"cpu": cpu_name(), "llvm_cpu": machine()[1], "python": platform.python_version(),
            "numpy": np.__version__, "numba": numba.__version__, "llvmlite": llvmlite.__version__}
