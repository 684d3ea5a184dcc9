"""Where an engine's conditioning table comes from: a model and its inputs, or an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from wavegen.audio.lpc import MAX_COEFFICIENT
from wavegen.engines.base import Conditioning
from wavegen.errors import BadInputError, ConfigError
from wavegen.models import ConditioningInputs

Frames = NDArray[np.float32]


class ModelConditioning(Conditioning):
    """Frames computed by the model's conditioning network when they are needed."""

    def __init__(self, model: Any, inputs: ConditioningInputs | None = None) -> None:
        self.model = model
        self.inputs = inputs or ConditioningInputs()
        self.hop_length = int(model.hop_length)
        self.batch_size = self.inputs.batch_size

    def frames(self, start: int, stop: int) -> Frames:
        with torch.inference_mode(), _one_thread():
            device = next(self.model.parameters()).device
            table = self.model.conditioning_table(self.inputs.to(device), start, stop - start)
            table = table.expand(self.batch_size, *table.shape[1:])
            return np.ascontiguousarray(table.to("cpu", torch.float32).numpy())

    def prediction(self, start: int, stop: int) -> Frames | None:
        with torch.inference_mode():
            table = getattr(self.model, "prediction_table", lambda *_: None)(self.inputs, start, stop - start)
            return None if table is None else np.ascontiguousarray(table.to("cpu", torch.float32).numpy())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch work alone: each operation on a block of frames takes microseconds.

    A team of threads waits for its slowest at every operation. Where another process has one of the cores, that is a
    turn of the scheduler, milliseconds each time: more than the clip itself takes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TableConditioning(Conditioning):
    """Frames from an array (B, F, L, columns) or (F, L, columns); the last frame holds on.

    Args:
        table: the frames.
        hop_length: samples a frame is held for.
        coefficients: of the signal path lpc, (B or 1, F', order); the last frame holds on.
    """

    def __init__(self, table: ArrayLike, hop_length: int, coefficients: ArrayLike | None = None) -> None:
        array = np.asarray(table, np.float32)
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4 or 0 in array.shape:
            raise ConfigError(f"a conditioning table is (B, frames, layers, columns), found {array.shape}")
        self.table, self.hop_length, self.batch_size = array, int(hop_length), array.shape[0]
        self.coefficients = None if coefficients is None else np.asarray(coefficients, np.float32)

    def frames(self, start: int, stop: int) -> Frames:
        index = np.minimum(np.arange(start, stop), self.table.shape[1] - 1)
        return np.ascontiguousarray(self.table[:, index])

    def prediction(self, start: int, stop: int) -> Frames | None:
        if self.coefficients is None:
            return None
        index = np.minimum(np.arange(start, stop), self.coefficients.shape[1] - 1)
        return np.ascontiguousarray(self.coefficients[:, index])


class FrameBlocks:
    """Fetches a conditioning in the blocks it asks for, by default at multiples of a fixed length.

    So memory does not grow with the length of the audio, and which frames are computed together
    does not depend on the chunking. The latest block is kept; a copy shares it, as it is never
    written.

    Args:
        conditioning: where the frames come from.
        columns: layers and columns of a frame.
        convert: applied to each block.
        order: coefficients a frame of the signal path lpc has, 0 on the path direct.
    """

    def __init__(self, conditioning: Conditioning, columns: tuple[int, int],
                 convert: Callable[[Frames], Frames] = lambda frames: frames, order: int = 0) -> None:
        self.conditioning, self.columns, self.convert, self.order = conditioning, columns, convert, order
        self._first, self._block = 0, np.zeros((0, 0, 0, 0), np.float32)
        self.prediction: Frames = np.zeros((1, 0, 0), np.float32)

    def copy(self, conditioning: Conditioning | None = None) -> FrameBlocks:
        """The same blocks; those after the latest from another conditioning, if one is given."""
        other = object.__new__(FrameBlocks)
        other.__dict__.update(self.__dict__)
        other.conditioning = conditioning or self.conditioning
        return other

    def at(self, position: int) -> tuple[Frames, int, int]:
        """The block of frames of sample `position`, its first frame, and the first sample after it.

        `prediction` then holds the coefficients of the same frames, float32 (B or 1, frames, order).

        Raises:
            ConfigError: frames of another shape than the model's layers.
            BadInputError: NaN or infinity.
        """
        hop = self.conditioning.hop_length
        frame = position // hop
        if not self._first <= frame < self._first + self._block.shape[1]:
            first, stop = self.conditioning.block(frame)
            block = self.convert(self._checked(self.conditioning.frames(first, stop), first, stop - first))
            prediction = np.zeros((1, stop - first, 0), np.float32)
            if self.order:
                prediction = self._checked_prediction(self.conditioning.prediction(first, stop), first, stop - first)
            self._first, self._block, self.prediction = first, block, prediction
        return self._block, self._first, (self._first + self._block.shape[1]) * hop

    def _checked(self, frames: Frames, first: int, count: int) -> Frames:
        wanted = (self.conditioning.batch_size, count, *self.columns)
        if frames.shape != wanted:
            raise ConfigError(f"the conditioning gives frames {frames.shape}, the model needs {wanted}")
        if not np.isfinite(frames).all():
            row, frame, layer, _ = np.argwhere(~np.isfinite(frames))[0]
            raise BadInputError(f"the conditioning of row {row} is not finite at frame {first + frame}, "
                                f"layer {layer}; nothing was generated from it")
        return frames

    def _checked_prediction(self, coefficients: Frames | None, first: int, count: int) -> Frames:
        if coefficients is None:
            raise ConfigError("this model speaks what a linear prediction leaves over; the conditioning gives no "
                              "coefficients (Conditioning.prediction)")
        rows, wanted = self.conditioning.batch_size, (count, self.order)
        if coefficients.ndim != 3 or coefficients.shape[0] not in (1, rows) or coefficients.shape[1:] != wanted:
            raise ConfigError(f"the conditioning gives prediction coefficients {coefficients.shape}, the model needs "
                              f"{(rows, *wanted)}")
        good = np.abs(coefficients) <= MAX_COEFFICIENT
        if not good.all():
            row, frame, _ = np.argwhere(~good)[0]
            raise BadInputError(f"the prediction coefficients of row {row} are not finite, or absurdly large, at "
                                f"frame {first + frame}; nothing was generated from them")
        return np.ascontiguousarray(coefficients, np.float32)
