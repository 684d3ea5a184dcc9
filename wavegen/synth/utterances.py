"""A batch of utterances on their way from mel frames to samples, block by block.

    frames -> window -> rows of the conditioning, coefficients -> engine -> codes -> decoder -> match -> waveform

Everything here goes forward only: what came later never changes what was spoken, and how frames are cut into pieces
changes nothing at all. A block is a whole number of frames, counted from the start of the utterance.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.lpc import MelPredictor
from wavegen.audio.mel_match import MelMatch
from wavegen.audio.signal import SignalDecoder
from wavegen.audio.watch import LAGS, Watch
from wavegen.config import AudioConfig
from wavegen.engines import AbstractEngine, State
from wavegen.engines.base import Rows
from wavegen.engines.frames import FrameNetwork, FrameTable
from wavegen.errors import BadInputError
from wavegen.synth.guards import Guard, GuardReport

Floats = NDArray[np.float32]
BLOCK_SECONDS = 0.01  # a block is as many frames as last so long
FIRST_SECONDS = 0.02  # of audio, until which the time to the first audio counts
UNKNOWN = 2**62  # frames of an utterance whose end has not arrived


@dataclass(frozen=True, eq=False)
class Voice:
    """What all utterances of a vocoder share."""

    engine: AbstractEngine
    audio: AudioConfig
    network: FrameNetwork
    predictor: MelPredictor | None  # on the signal path lpc; gives the levels of `watch` besides
    hop_length: int
    basis: Floats  # of the mel

    @property
    def lookahead(self) -> int:
        """Frames after its own that a frame's samples depend on."""
        return max(self.network.lookahead, self.predictor.lookahead if self.predictor else 0)

    @property
    def lookback(self) -> int:
        """Frames before its own."""
        return max(self.network.context, self.predictor.lookback if self.predictor else 0)

    @property
    def row_length(self) -> int:
        """Samples of a row of the conditioning table."""
        return self.hop_length // self.network.upsampling

    @property
    def block_frames(self) -> int:
        """Frames of a block."""
        return max(1, -int(-BLOCK_SECONDS * self.audio.sample_rate // self.hop_length))


@dataclass
class Meter:
    """Work done for some utterances, and what came of it."""

    num_samples: int = 0
    wall_seconds: float = 0.0
    first_audio_seconds: float | None = None
    times_first: bool = False  # of a stream; a whole utterance is given when all of it is there
    guarded: GuardReport | None = None  # what the guard saw

    def count(self, num_samples: int, seconds: float, enough: int) -> None:
        """Add samples, and the seconds they took; the first audio is there from `enough` samples on."""
        self.num_samples += num_samples
        self.wall_seconds += seconds
        if self.times_first and self.first_audio_seconds is None and self.num_samples >= enough:
            self.first_audio_seconds = self.wall_seconds


class FrameWindow:
    """Of one utterance, the frames that are still needed; a copy shares its arrays, which are never written.

    Attributes:
        count: frames that arrived.
        ended: whether there will be no more.
    """

    def __init__(self, voice: Voice, base: Floats) -> None:
        self.voice, self.base = voice, base
        self.count, self.ended = 0, False
        self._first = 0  # number of the first frame kept
        self._frames = np.zeros((0, voice.network.n_mels), np.float32)
        self._lags = np.zeros((0, voice.predictor.order + 1 + LAGS if voice.predictor else 0))

    def push(self, features: Floats) -> None:
        """Take in frames (n_mels, n) as the model reads them.

        Raises:
            BadInputError: no prediction can be made from them.
        """
        if self.voice.predictor is not None:
            try:
                lags = self.voice.predictor.autocorrelation(features)
            except ValueError as error:
                raise BadInputError(f"frames {self.count} to {self.count + features.shape[1] - 1}: {error}") from None
            self._lags = np.concatenate([self._lags, lags])
        self._frames = np.concatenate([self._frames, features.T])
        self.count += features.shape[1]

    def ready(self) -> int:
        """Frames, from the first on, whose samples can be made; all that will ever be asked for, once it ended."""
        return UNKNOWN if self.ended else max(0, self.count - self.voice.lookahead)

    def rows(self, start: int, table: Floats, coefficients: Floats) -> None:
        """Write what the engine is told of the frames from `start` on: (n u, L, 2R) and (n u, order).

        u is the upsampling factor. Coefficients are held over the frame: the recordings were coded so.
        """
        count, factor = self.count if self.ended else UNKNOWN, self.voice.network.upsampling
        self.voice.network.rows(self._frames, self._first, count, start * factor, self.base, table)
        if self.voice.predictor is not None:
            stop = start + len(table) // factor
            held = self.voice.predictor.coefficients(self._lags, self._first, count, start, stop)
            coefficients[:] = held.repeat(factor, axis=0)

    def features(self, start: int, stop: int) -> Floats:
        """Frames [start, stop) as they arrived: float32 (n, n_mels); the last holds on."""
        return self._frames[self._places(start, stop)]

    def levels(self, start: int, stop: int, watch: Watch) -> NDArray[np.float64]:
        """`Watch.levels` of frames [start, stop): (n, LAGS); the last holds on."""
        if self.voice.predictor is None:
            return watch.levels(self.features(start, stop).T)
        if stop <= self.count:
            return self._lags[start - self._first : stop - self._first, -LAGS:]
        return self._lags[self._places(start, stop), -LAGS:]

    def _places(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.minimum(np.arange(start, stop), self.count - 1) - self._first

    def drop(self, start: int) -> None:
        """Forget what frames from `start` on do not depend on."""
        gone = max(0, min(start - self.voice.lookback, self.count - 1) - self._first)
        if gone:
            # A copy, so that what is forgotten is freed.
            self._frames, self._lags = self._frames[gone:].copy(), self._lags[gone:].copy()
            self._first += gone


@dataclass(frozen=True, eq=False)
class Spoken:
    """What comes next of every row.

    Attributes:
        codes: int64 (B, n), of the frames just spoken.
        waveforms: float32 (m,) of each row, the samples that are done; with matching they are of earlier frames.
    """

    codes: NDArray[np.int64]
    waveforms: list[Floats]


@dataclass(eq=False)
class Utterances:
    """A batch of rows that are spoken together; a value that can be copied at any time.

    Args:
        voice: of the vocoder.
        draws: how each row draws.
        bases: of each row, `FrameNetwork.base`.
        meter: counts what is done.
        guard: watches what is spoken; None speaks on whatever comes.
        matching: passes that bring what is spoken to the levels of its mel.
    """

    voice: Voice
    draws: Rows
    bases: Sequence[Floats]
    meter: Meter = field(default_factory=Meter)
    guard: Guard | None = None
    matching: int = 0

    def __post_init__(self) -> None:
        voice, size = self.voice, len(self.bases)
        self.windows = [FrameWindow(voice, base) for base in self.bases]
        self.position, self._over = 0, 0  # frames spoken, rows of which none are left
        order = voice.predictor.order if voice.predictor else 0
        self._told = FrameTable(voice.row_length, voice.network.columns, size, order)
        self._state: State | None = None
        self._decoder = SignalDecoder(voice.audio, size, self._told.prediction, voice.row_length)
        assert voice.audio.mel is not None
        self._matches = [MelMatch(voice.audio.mel, self.matching, voice.basis) for _ in self.bases]
        self._is_finished = False

    def copy(self) -> Utterances:
        """Independent utterances with the same future, if the same frames come."""
        other = copy.copy(self)
        other.meter, other._told = copy.copy(self.meter), self._told.copy()
        other.windows = [copy.copy(window) for window in self.windows]
        other._state = None if self._state is None else self._state.copy(other._told)
        other._decoder = self._decoder.copy(other._told.prediction)
        other.guard = None if self.guard is None else self.guard.copy()
        other._matches = [match.copy() for match in self._matches]
        return other

    def ready(self) -> int:
        """Frames that can be spoken now: whole blocks, and the rest once all rows have ended."""
        if all(window.ended for window in self.windows):
            return max(window.count for window in self.windows) - self.position
        frames = min(window.ready() for window in self.windows)
        return frames // self.voice.block_frames * self.voice.block_frames - self.position

    def speak(self, num_frames: int) -> Spoken:
        """The samples of the next frames, of no more than `ready` and of whole blocks."""
        begin = time.perf_counter()
        start, voice, size = self.position, self.voice, len(self.windows)
        rows = num_frames * voice.network.upsampling
        table = np.empty((size, rows, *voice.network.columns), np.float32)
        coefficients = np.empty((size, rows, self._told.order), np.float32)
        for row, window in enumerate(self.windows):
            window.rows(start, table[row], coefficients[row])
        self._told.hold(start * voice.network.upsampling, table, coefficients)
        if self._state is None:
            draws = self.draws
            self._state = voice.engine.start(
                size, self._told, draws.seeds.tolist(), draws.streams.tolist(), draws.temperature.tolist(),
                draws.min_p.tolist())
        kept = np.array([max(0, min(num_frames, window.count - start)) if window.ended else num_frames
                         for window in self.windows])
        if self.guard is None:
            codes = voice.engine.step(self._state, num_frames * voice.hop_length)
            waveform = self._decoder.decode(codes)
        else:
            # Without look-ahead a frame does not know the next one, however it arrives.
            stop = start + num_frames + min(1, voice.lookahead)
            levels = np.stack([window.levels(start, stop, self.guard.watch) for window in self.windows])
            spoken = self.guard.speak(voice.engine, self._state, self._decoder, levels, num_frames, kept)
            codes, waveform, self._state, self._decoder = spoken.codes, spoken.waveform, spoken.state, spoken.decoder
            seen = self.meter.guarded
            self.meter.guarded = spoken.report if seen is None else seen + spoken.report
        done = [match.push(waveform[row, : int(n) * voice.hop_length], window.features(start, start + int(n)))
                for row, (match, window, n) in enumerate(zip(self._matches, self.windows, kept, strict=True))]
        self.position += num_frames
        for window in self.windows:
            window.drop(self.position)
        over = [row for row, window in enumerate(self.windows) if window.ended and window.count <= self.position]
        if len(over) > self._over:  # rows end once
            self._over = len(over)
            voice.engine.retire(self._state, over)
        self._count(done, begin)
        return Spoken(codes, done)

    def finish(self) -> Spoken | None:
        """The samples that were waiting for what follows them, once all frames are spoken; None if that is done."""
        if self._is_finished or not all(window.ended for window in self.windows):
            return None
        begin = time.perf_counter()
        done = [match.finish() for match in self._matches]
        self._is_finished = True
        self._count(done, begin)
        return Spoken(np.zeros((len(self.windows), 0), np.int64), done)

    def _count(self, done: Sequence[Floats], begin: float) -> None:
        self.meter.count(sum(map(len, done)), time.perf_counter() - begin,
                         int(FIRST_SECONDS * self.voice.audio.sample_rate))


def take(utterances: Utterances, most: int) -> Iterator[Spoken]:
    """What is ready, in stretches of at most `most` frames, and at the end the rest."""
    while (ready := utterances.ready()) > 0:
        yield utterances.speak(min(ready, most))
    rest = utterances.finish()
    if rest is not None:
        yield rest
