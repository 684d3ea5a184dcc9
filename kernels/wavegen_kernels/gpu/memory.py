"""What the rows of a batch carry from sample to sample, on the device.

A row has its own time: sample t of a row is made at tick `origin + t` of the batch. Slots of rings and
histories follow the tick, draws and conditioning frames the row's own time; so a row may begin while
others are under way, and its samples are those it would have had alone.

What only the host decides (who is active, how rows draw, where they stand) is kept on the host as well, as one piece of
bytes: it changes there, and goes to the device in one copy before the next launch.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegen_kernels.gpu.pack import Packed

TOLD = {"origin": np.int64, "table_origin": np.int64, "seeds": np.int64, "streams": np.int64, "active": np.int32,
        "table_row": np.int32, "inverse_temperature": np.float32, "min_p": np.float32}  # what the host decides
ALIGNED = 128  # bytes: where a part begins, a kernel must not have to be compiled anew for other addresses


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
        flat: uint8, what all of these but the rings lie in.
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
    flat: InitVar[Tensor | None] = None

    def __post_init__(self, flat: Tensor | None) -> None:
        self._flat = flat
        # Of the host: bytes, and an array of each name in them.
        self._bytes = np.zeros(_told_parts(self.batch_size)[1], np.uint8)
        self.told: dict[str, NDArray[Any]] = {}
        self._is_sent = True
        self._view_told()

    @property
    def batch_size(self) -> int:
        return len(self.previous)

    def copy(self) -> Memory:
        """Independent tensors of the same values."""
        assert self._flat is not None, "rows of another memory"
        other = _lay_out(self.rings.clone(), self._flat.clone(), self.batch_size, self.history.shape[1])
        other._bytes, other._is_sent = self._bytes.copy(), self._is_sent
        other._view_told()
        return other

    def begin(self, packed: Packed, rows: list[int], tick: int, silence: int, seeds: NDArray[np.uint64],
              streams: NDArray[np.uint64], temperature: NDArray[np.float64], min_p: NDArray[np.float64],
              fresh: bool = False) -> None:
        """Let these rows begin anew at `tick`, as if nothing had been before.

        Args:
            fresh: promises that they are all rows of a memory just made.
        """
        if fresh:
            index: Any = slice(None)
        else:
            index = torch.from_numpy(np.array(rows, np.int64)).to(self.previous.device)
            self.rings[:, index] = 0
        if packed.sizes.order:
            self.history[index] = 0.0
        elif packed.sizes.kept:
            self.history[index] = packed.decoded[silence]
        self.previous[index] = silence
        for name, values in (("active", 1), ("origin", tick), ("seeds", seeds.view(np.int64)),
                             ("streams", streams.view(np.int64)),
                             ("inverse_temperature", (1 / temperature).clip(max=1e30)), ("min_p", min_p)):
            self.told[name][rows] = values
        self._is_sent = False
        self.send()

    def draw(self, streams: NDArray[np.uint64], inverse_temperature: NDArray[np.float32]) -> None:
        """Let all rows draw from these streams and at these temperatures from now on."""
        self.told["streams"][:] = streams.view(np.int64)
        self.told["inverse_temperature"][:] = inverse_temperature
        self._is_sent = False

    def finish(self, rows: list[int]) -> None:
        """Let these rows be finished."""
        self.told["active"][rows] = 0
        self._is_sent = False

    def place(self, rows: Any, table_row: Any, table_origin: int) -> None:
        """Say where in the conditioning table these rows find their frames."""
        self.told["table_row"][rows], self.told["table_origin"][rows] = table_row, table_origin
        self._is_sent = False

    def send(self) -> None:
        """Bring what the host has decided to the device, if that is not there yet: one copy."""
        if not self._is_sent:
            assert self._flat is not None, "rows of another memory"
            # The copy has read an array of the host, which is not page-locked, before it returns.
            self._flat[:len(self._bytes)].copy_(torch.from_numpy(self._bytes), non_blocking=True)
            self._is_sent = True

    def _view_told(self) -> None:
        for name, (start, stop) in _told_parts(self.batch_size)[0].items():
            self.told[name] = self._bytes[start:stop].view(TOLD[name])


def make_memory(packed: Packed, batch_size: int) -> Memory:
    """Zeros; each row is to `begin` before it is advanced."""
    device, slots, kept = packed.device, sum(packed.ring_lengths), 2 * packed.sizes.kept
    rings = torch.zeros(slots, batch_size, packed.sizes.residual, dtype=packed.dtype, device=device)
    count = _told_parts(batch_size)[1] + _aligned(8 * batch_size) + 4 * batch_size * kept
    return _lay_out(rings, torch.zeros(count, dtype=torch.uint8, device=device), batch_size, kept)


def _lay_out(rings: Tensor, flat: Tensor, batch_size: int, kept: int) -> Memory:
    """Name the parts of `flat`: first what the host decides, then what only kernels write."""
    told, start = _told_parts(batch_size)
    parts = {name: flat[begin:end].view(getattr(torch, np.dtype(TOLD[name]).name))
             for name, (begin, end) in told.items()}
    stop = start + _aligned(8 * batch_size)
    previous = flat[start:start + 8 * batch_size].view(torch.int32).view(batch_size, 2)
    history = flat[stop:].view(torch.float32).view(batch_size, kept)
    return Memory(rings=rings, flat=flat, previous=previous, history=history, **parts)


def _told_parts(batch_size: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Where what the host decides begins and ends among the bytes, and where all of it ends."""
    parts, start = {}, 0
    for name, kind in TOLD.items():
        size = batch_size * np.dtype(kind).itemsize
        parts[name] = start, start + size
        start += _aligned(size)
    return parts, start


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
