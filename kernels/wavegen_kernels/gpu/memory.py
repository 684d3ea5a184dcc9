"""What the rows of a batch carry from sample to sample, on the device.

A row has its own time: sample t of a row is made at tick `origin + t` of the batch. Slots of rings and
histories follow the tick, draws and conditioning frames the row's own time; so a row may begin while
others are under way, and its samples are those it would have had alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegen_kernels.gpu.pack import Packed


@dataclass(eq=False)
class Memory:
    """Tensors of a batch of B rows.

    Attributes:
        rings: (slots, B, R) past inputs of all layers; see `pack.py` for the slots.
        history: float32 (B, 2 KEPT) past samples, each twice, so that a window of the newest KEPT is contiguous:
            at tick m, x[m - 1 - j] lies at KEPT - 1 - m % KEPT + j.
        previous: int32 (B, 2), the latest code and the one before; on the signal path lpc the latest code and
            the code of the latest sample.
        active: int32 (B,), 0 for rows that are finished.
        origin: int64 (B,), the tick of a row's sample 0.
        table_row: int32 (B,), the row's row in the conditioning table.
        table_origin: int64 (B,), the tick at which the table's first frame begins for this row.
        seeds, streams: int64 (B,), the bits of numbers below 2^64.
        inverse_temperature, min_p: float32 (B,).
    """

    rings: Tensor
    history: Tensor
    previous: Tensor
    active: Tensor
    origin: Tensor
    table_row: Tensor
    table_origin: Tensor
    seeds: Tensor
    streams: Tensor
    inverse_temperature: Tensor
    min_p: Tensor

    @property
    def batch_size(self) -> int:
        return len(self.previous)

    def copy(self) -> Memory:
        """Independent tensors of the same values."""
        return Memory(*(getattr(self, field.name).clone() for field in fields(self)))

    def begin(self, packed: Packed, rows: list[int], tick: int, silence: int, seeds: NDArray[np.uint64],
              streams: NDArray[np.uint64], temperature: NDArray[np.float64], min_p: NDArray[np.float64]) -> None:
        """Let these rows begin anew at `tick`, as if nothing had been before."""
        index = torch.tensor(rows, device=self.previous.device)

        def put(tensor: Tensor, values: Any) -> None:
            tensor[index] = torch.as_tensor(values, device=tensor.device).to(tensor.dtype)

        self.rings[:, index] = 0
        self.history[index] = 0.0 if packed.sizes.order else packed.decoded[silence]
        self.previous[index] = silence
        self.active[index] = 1
        self.origin[index] = tick
        put(self.seeds, seeds.view(np.int64))
        put(self.streams, streams.view(np.int64))
        put(self.inverse_temperature, (1 / temperature).clip(max=1e30).astype(np.float32))
        put(self.min_p, min_p.astype(np.float32))

    def draw(self, streams: NDArray[np.uint64], inverse_temperature: NDArray[np.float32]) -> None:
        """Let all rows draw from these streams and at these temperatures from now on."""
        self.streams.copy_(torch.from_numpy(streams.view(np.int64)))
        self.inverse_temperature.copy_(torch.from_numpy(inverse_temperature))


def make_memory(packed: Packed, batch_size: int) -> Memory:
    """Zeros; each row is to `begin` before it is advanced."""
    device, slots = packed.device, sum(packed.ring_lengths)

    def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    wide = torch.int64
    return Memory(
        rings=zeros(slots, batch_size, packed.sizes.residual, dtype=packed.dtype),
        history=zeros(batch_size, 2 * packed.sizes.kept, dtype=torch.float32),
        previous=zeros(batch_size, 2), active=zeros(batch_size), origin=zeros(batch_size, dtype=wide),
        table_row=zeros(batch_size), table_origin=zeros(batch_size, dtype=wide), seeds=zeros(batch_size, dtype=wide),
        streams=zeros(batch_size, dtype=wide), inverse_temperature=zeros(batch_size, dtype=torch.float32),
        min_p=zeros(batch_size, dtype=torch.float32))
