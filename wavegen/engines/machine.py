"""What this machine could do at most, and its name: for benchmarks above the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wavegen.engines.packing import Network
from wavegen_kernels.cpu import host, roofline

__all__ = ["Floor", "describe", "synthesis_floor"]


@dataclass(frozen=True)
class Floor:
    """The least time one core can take for a sample in float32.

    Every weight is read once a sample, from the cache level the weights live in, and takes part
    in one multiply-add.
    """

    weight_bytes: int
    multiply_adds: int
    read_bandwidth: float  # bytes per second of a buffer as large as the weights
    multiply_add_peak: float  # per second

    @property
    def seconds(self) -> float:
        return max(self.weight_bytes / self.read_bandwidth, self.multiply_adds / self.multiply_add_peak)


def synthesis_floor(network: Network) -> Floor:
    """Measure the machine for a network; takes about a second."""
    # A row of the embedding is looked up, not multiplied; the dilated bias arrives with the conditioning.
    read = [array for name, array in network.parameters.items() if name not in ("embedding", "dilated_bias")]
    num_bytes = sum(array.nbytes for array in read)
    products = sum(array.size for array in read if array.ndim > 1 and array is not
                   network.parameters["residual_bias"])
    return Floor(num_bytes, products, roofline.read_bandwidth(num_bytes), roofline.multiply_add_peak())


def describe() -> dict[str, Any]:
    """Processor and versions."""
    return host.describe()
