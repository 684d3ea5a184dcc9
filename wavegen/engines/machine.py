"""What this machine could do at most, and its name: for benchmarks above the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wavegen.engines.numba_engine import NumbaEngine
from wavegen_kernels.cpu import host, roofline

__all__ = ["Floor", "describe", "levels", "synthesis_floor"]

USUAL = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}  # bytes of a cache where the system does not tell
# Products behind a multiply-add, and how often they are needed: i8x15 multiplies a high and a low byte.
PRODUCTS = {"f32": ("f32", 1), "i16": ("i16", 1), "i8x15": ("i8", 2), "i8": ("i8", 1)}


@dataclass(frozen=True)
class Floor:
    """The least time a sample can take.

    Every weight is read once a sample, from the cache level the weights live in, and takes part
    in one multiply-add. Threads that share a stream read a part of the weights each; threads that
    have rows of their own all read all of them, once for all their rows.
    """

    weight_bytes: int
    multiply_adds: int
    batch: int
    threads: int
    read_bandwidth: float  # bytes per second of each thread, from a buffer as large as its part of the weights
    multiply_add_peak: float  # per second, of each thread

    @property
    def seconds(self) -> float:
        """Per sample of one row; with more rows their samples come at this rate together."""
        parts = self.threads if self.batch == 1 else 1
        rows = -(-self.batch // self.threads)
        step = max(self.weight_bytes / parts / self.read_bandwidth,
                   rows * self.multiply_adds / parts / self.multiply_add_peak)
        return step / self.batch


def synthesis_floor(engine: NumbaEngine, batch: int = 1, threads: int = 1) -> Floor:
    """Measure the machine for an engine; takes about a second.

    Args:
        batch: rows.
        threads: that speak them.
    """
    # A row of the embedding is looked up, not multiplied; the dilated bias arrives with the conditioning.
    p = engine.network.parameters
    products = sum(array.size for name, array in p.items() if name != "embedding" and not name.endswith("_bias"))
    kind, times = PRODUCTS[engine.precision]
    part = engine.weight_bytes // (threads if batch == 1 else 1)
    return Floor(engine.weight_bytes, products, batch, threads, roofline.read_bandwidth(part, threads),
                 roofline.multiply_add_peak(kind, threads) / times)


def levels() -> dict[str, float]:
    """This core's limits: bytes per second from each cache level, multiply-adds per second in registers."""
    found = {f"read_l{level}": roofline.read_bandwidth(_within(level)) for level in (1, 2, 3)}
    return found | {f"peak_{kind}": roofline.multiply_add_peak(kind) for kind in roofline.GROUPS}


def _within(level: int) -> int:
    """Bytes of a buffer that lies in this cache and not in a smaller one."""
    size = host.cache_bytes(level) or USUAL[level]
    below = host.cache_bytes(level - 1) or USUAL[level - 1] if level > 1 else 0
    # The last level is shared, so a few times the level below is as much as one may count on.
    return size * 3 // 4 if level < 3 else min(size // 2, 4 * below)


def describe() -> dict[str, Any]:
    """Processor and versions."""
    return host.describe()
