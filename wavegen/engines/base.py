"""What every engine is: `start` gives a state, `step` advances it and returns codes.

    state = engine.start(batch_size=2, conditioning=conditioning, seeds=[1, 2])
    codes = engine.step(state, num_samples)         int64 (B, num_samples)

A state is a value: copy it, keep it, drop it. Rows are independent: a row's samples never depend
on which other rows share the batch, on the chunking, or on when a state was copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavegen.engines.sampling import uniform
from wavegen.errors import ConfigError

WORD = 2**64  # seeds and streams are below this
BLOCK_SAMPLES = 8192  # samples a block of frames is fetched for
MAX_BLOCK_FRAMES = 256


class Conditioning(ABC):
    """Bias of the dilated convolutions at frame rate, produced as it is needed.

    Attributes:
        hop_length: samples one frame is held for; sample t uses frame t // hop_length.
        batch_size: rows; 1 serves a batch of any size.
    """

    hop_length: int
    batch_size: int

    def block(self, frame: int) -> tuple[int, int]:
        """Which frames are fetched together with a frame: [start, stop), with start <= frame < stop.

        A conditioning that cannot give frames ahead of time says here how far it reaches.
        """
        count = max(1, min(MAX_BLOCK_FRAMES, BLOCK_SAMPLES // self.hop_length))
        start = frame // count * count
        return start, start + count

    @abstractmethod
    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as float32 (batch_size, stop - start, L, columns), C-contiguous."""

    def prediction(self, start: int, stop: int) -> NDArray[np.float32] | None:
        """Coefficients of the signal path lpc for frames [start, stop): float32 (batch_size or 1, stop - start, order).

        What a frame holds must not depend on which frames are asked for together. None where the
        model speaks the signal itself.
        """
        return None


@dataclass(frozen=True, eq=False)
class Rows:
    """How each row draws: arrays of shape (B,)."""

    seeds: NDArray[np.uint64]
    streams: NDArray[np.uint64]
    temperature: NDArray[np.float64]
    min_p: NDArray[np.float64]

    def uniforms(self, position: int, num_samples: int) -> NDArray[np.float32]:
        """float32 (B, num_samples) for samples position .. position + num_samples."""
        return uniform(self.seeds[:, None], self.streams[:, None],
                       np.arange(position, position + num_samples, dtype=np.uint64))


class State(ABC):
    """Where a generation stands."""

    position: int  # samples generated so far
    batch_size: int
    rows: Rows

    @abstractmethod
    def copy(self, conditioning: Conditioning | None = None) -> State:
        """An independent state with the same future.

        Args:
            conditioning: what the copy asks for its frames from the next block on; None shares.
        """

    def save(self, place: State | None = None) -> State:
        """A copy, written over an earlier one of this state's past that is no longer needed, if there is one."""
        return self.copy()

    def redraw(self, streams: Sequence[int] | None = None, temperature: float | Sequence[float] | None = None) -> None:
        """Give the rows another future: from the next sample on they draw like this.

        A row whose stream and temperature stay as they are goes on as it would have. Copies made before keep
        drawing as they did.

        Args:
            streams, temperature: as in `AbstractEngine.start`; None keeps what there is.

        Raises:
            ConfigError: a number out of range, or not one for each row.
        """
        kept = self.rows
        self.rows = make_rows(
            self.batch_size, kept.seeds.tolist(), kept.streams.tolist() if streams is None else streams,
            kept.temperature.tolist() if temperature is None else temperature, kept.min_p.tolist())


def make_rows(batch_size: int, seeds: int | Sequence[int], streams: Sequence[int] | None,
              temperature: float | Sequence[float], min_p: float | Sequence[float]) -> Rows:
    """Check the options of `AbstractEngine.start` and spread them over the rows.

    Raises:
        ConfigError: names the option, the value found and what it must be.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, found {batch_size!r}")
    streams = list(range(batch_size)) if streams is None else streams
    heat = _numbers("temperature", temperature, batch_size)
    if not (np.isfinite(heat).all() and (heat > 0).all()):
        raise ConfigError(f"temperature must be above 0, found {temperature}; 1 leaves the model as it is")
    least = _numbers("min_p", min_p, batch_size)
    if not ((least >= 0) & (least <= 1)).all():
        raise ConfigError(f"min_p must lie in [0, 1], found {min_p}; 0 drops no code")
    return Rows(_words("seeds", seeds, batch_size), _words("streams", streams, batch_size), heat, least)


def inverse_temperature(rows: Rows) -> NDArray[np.float32]:
    """What the fused engines multiply logits by: float32 (B,)."""
    return (1 / rows.temperature).clip(max=1e30).astype(np.float32)


def _words(name: str, values: int | Sequence[int], batch_size: int) -> NDArray[np.uint64]:
    numbers = [values] * batch_size if isinstance(values, (int, np.integer)) else list(values)
    if len(numbers) != batch_size:
        raise ConfigError(f"{name} has {len(numbers)} entries for a batch of {batch_size}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number < WORD:
            raise ConfigError(f"{name} must be whole numbers in [0, 2**64), found {number!r}")
    return np.array([int(number) for number in numbers], np.uint64)


def _numbers(name: str, values: float | Sequence[float], batch_size: int) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be a number or one per row, found {values!r}") from None
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != batch_size):
        raise ConfigError(f"{name} has shape {numbers.shape} for a batch of {batch_size}")
    return np.array(np.broadcast_to(numbers, batch_size))


def check_conditioning(conditioning: Conditioning, batch_size: int) -> None:
    """Raise ConfigError unless the conditioning fits the batch."""
    if conditioning.batch_size not in (1, batch_size):
        raise ConfigError(f"the conditioning has {conditioning.batch_size} rows, the batch {batch_size}; "
                          f"give one row for each, or a single one for all")
    if conditioning.hop_length < 1:
        raise ConfigError(f"a conditioning frame must be held for at least 1 sample, "
                          f"found hop_length {conditioning.hop_length}")


def rows_of(state: State, rows: Sequence[int]) -> NDArray[np.int64]:
    """Numbers of different rows of a batch, or ConfigError."""
    index, size = np.asarray(list(rows), None if len(rows) else np.int64), state.batch_size
    if index.dtype.kind not in "iu" or len(set(index.tolist())) != len(index) or not (
            (index >= 0) & (index < size)).all():
        raise ConfigError(f"rows must be different whole numbers in [0, {size}), found {list(rows)}")
    return index.astype(np.int64)


def check_num_samples(num_samples: Any) -> int:
    """The count as an int, or ConfigError."""
    if isinstance(num_samples, bool) or not isinstance(num_samples, (int, np.integer)) or num_samples < 0:
        raise ConfigError(f"num_samples must be a whole number of at least 0, found {num_samples!r}")
    return int(num_samples)


def check_uniforms(uniforms: ArrayLike, batch_size: int, num_samples: int) -> NDArray[np.float32]:
    """float32 (B, num_samples) in [0, 1), or ConfigError."""
    array = np.ascontiguousarray(uniforms, np.float32)
    if array.shape != (batch_size, num_samples):
        raise ConfigError(f"uniforms must have shape {(batch_size, num_samples)}, found {array.shape}")
    if not ((array >= 0) & (array < 1)).all():
        raise ConfigError("uniforms must lie in [0, 1)")
    return array


def check_codes(codes: ArrayLike, quantization_channels: int) -> NDArray[np.int64]:
    """int64 (B, T) in [0, Q), or ConfigError."""
    array = np.ascontiguousarray(codes)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ConfigError(f"codes must be integers of shape (B, T), found {array.dtype} {array.shape}")
    if array.size and not (array.min() >= 0 and array.max() < quantization_channels):
        raise ConfigError(f"codes must lie in [0, {quantization_channels}), found "
                          f"{array.min()} to {array.max()}")
    return array.astype(np.int64)


class AbstractEngine(ABC):
    """Generates codes with one model.

    Attributes:
        name: "reference", "numba" or "triton".
        precision: arithmetic used, such as "f32".
        choice: why this precision, where it was not asked for by name.
        batch_rows: the rows of a batch that is neither too small for its speed nor too large for memory.
        company: utterances that share a batch should have at least this share of its longest one's length.
    """

    name: str
    precision: str
    choice: str = ""
    batch_rows: int = 16
    company: float = 0.5

    def threads_for(self, batch_size: int) -> int:
        """Threads of its own that a batch of this size is spoken with."""
        return 1

    def prepare(self, batch_size: int) -> None:  # noqa: B027  (an engine may have nothing to prepare)
        """Compile, or load, what a batch of so many rows needs, where `start` would otherwise do it."""

    @abstractmethod
    def start(self, batch_size: int = 1, conditioning: Conditioning | None = None,
              seeds: int | Sequence[int] = 0, streams: Sequence[int] | None = None,
              temperature: float | Sequence[float] = 1.0, min_p: float | Sequence[float] = 0.0) -> State:
        """The state before the first sample.

        Args:
            batch_size: rows B.
            conditioning: None for a model without conditions.
            seeds, streams: in [0, 2^64). The draw of sample t is a function of (seed, stream, t);
                streams default to 0 .. B - 1.
            temperature: above 0; logits are divided by it.
            min_p: codes less probable than this times the most probable are never drawn.

        Raises:
            ConfigError: an option out of range, or a condition the model needs is missing.
        """

    def retire(self, state: State, rows: Sequence[int]) -> None:
        """Say that no one listens to these rows any more; the others go on as they would have.

        What the rows give is silence from then on where the engine leaves them out, and anything where it does not.

        Raises:
            ConfigError: a row that is not in the batch.
        """
        rows_of(state, rows)

    @abstractmethod
    def step(self, state: State, num_samples: int, uniforms: ArrayLike | None = None) -> NDArray[np.int64]:
        """Generate the next samples; the state is advanced in place.

        Args:
            state: from this engine's `start`.
            num_samples: how many, n.
            uniforms: float32 (B, n) in [0, 1) to draw with instead of Philox.

        Returns:
            int64 (B, n) codes.

        Raises:
            BadInputError: NaN or infinity in the conditioning.
        """

    @abstractmethod
    def logits(self, codes: ArrayLike, conditioning: Conditioning | None = None) -> NDArray[Any]:
        """Teacher-forced logits: entry t is the prediction of codes[t] from the codes before it.

        Args:
            codes: integers (B, T).
            conditioning: as in `start`.

        Returns:
            float (B, T, Q) in the engine's precision, computed sample by sample by the same kernels
            that generate.
        """
