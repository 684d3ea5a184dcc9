"""Watches a vocoder while it speaks: bursts are spoken again, silence is spoken at a lower temperature.

    state before a block -> block -> verdict of `wavegen.audio.watch` --well--> next block
                    \\------- another stream, somewhat cooler <--a fault--/

A block is a fixed number of whole frames from the start of the utterance. Many are spoken at once, and only where one
fails does the guard go back to it. What it decides for a row depends on that row's mel and samples alone, so the laws
of engines go on to hold bit for bit: whole equals stream, row equals batch, and a copy has the same future.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.compiled import compiled
from wavegen.audio.signal import SignalDecoder
from wavegen.audio.watch import Floats, Verdict, Watch
from wavegen.config import MelSpec
from wavegen.engines import AbstractEngine
from wavegen.engines.base import Rows, State

ATTEMPTS = 3  # more draws of a block that fails
MANY = 0.1  # share of the frames in faulty blocks, above which the mel is unlike what the model learned
COOLER = 0.85  # temperature of each further attempt over that of the one before
# A mel no recording could have makes every block a fault. Each attempt costs a credit; they come slowly.
CREDITS, CREDITS_PER_FRAME = 12.0, 1 / 32
MARGIN = 1.0  # dB below the limit, to which what stays too loud is turned down
STREAM_BITS = 56  # further attempts draw from streams that differ above this bit
# Mean power expected of the view "middle", dB of full scale: from the first on the temperature falls, to `COLDEST`
# of itself at the second. The pauses of a recording in a living room lie above the first.
QUIET_DB, SILENT_DB, COLDEST = -62.0, -78.0, 0.5
STEPS = 4  # temperatures between


@dataclass(frozen=True)
class GuardReport:
    """What a guard has seen; counts are of blocks.

    Attributes:
        frame_seconds: length of a frame.
        frames: watched, over all rows.
        bursts, silences: blocks whose first draw broke the mel's word, by being louder or by being silent.
        attempts: further draws.
        bursts_left, silences_left: blocks that stayed so; bursts are then turned down.
        quiet_frames: spoken at a lower temperature.
    """

    frame_seconds: float = 0.0
    frames: int = 0
    bursts: int = 0
    silences: int = 0
    attempts: int = 0
    bursts_left: int = 0
    silences_left: int = 0
    quiet_frames: int = 0

    @property
    def seconds(self) -> float:
        """Of audio, over all rows."""
        return self.frames * self.frame_seconds

    def __add__(self, other: GuardReport) -> GuardReport:
        """Both together."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return GuardReport(max(self.frame_seconds, other.frame_seconds), **counts)

    def per_1000_seconds(self) -> dict[str, float]:
        """Blocks, and attempts, over 1000 seconds of audio."""
        scale = 1000 / self.seconds if self.frames else 0.0
        return {name: round(getattr(self, name) * scale, 3)
                for name in ("bursts", "silences", "attempts", "bursts_left", "silences_left")}

    def __str__(self) -> str:
        if not self.bursts + self.silences:
            return "no bursts"
        left = self.bursts_left + self.silences_left
        told = f"bursts: {self.bursts + self.silences} blocks, {left} left after {self.attempts} more draws"
        if self.bursts + self.silences <= MANY * self.frames:
            return told
        return told + "; so many come of a mel unlike what the model learned: another voice, level, bandwidth or preset"


COUNTS = tuple(field.name for field in fields(GuardReport))[1:]


class Guarded(NamedTuple):
    """Some frames of every row, and where the generation stands behind them."""

    codes: NDArray[np.int64]  # (B, n)
    waveform: NDArray[np.float32]  # (B, n)
    state: State
    decoder: SignalDecoder
    burst: Floats  # (B, n frames), dB over the limit
    report: GuardReport


class Guard:
    """What speaks the frames of one batch; a value like the engine's state.

    Args:
        spec: of the mel.
        rows: how each row draws where all is well.
        basis: the mel basis if it is at hand.
        block_frames: frames that are spoken again together, counted from the start of the utterance.
        attempts: more draws of a block that fails, at most; 0 only counts.
        lower: whether silence is spoken at a lower temperature.
    """

    def __init__(self, spec: MelSpec, rows: Rows, basis: np.ndarray | None = None, block_frames: int = 1,
                 attempts: int = ATTEMPTS, lower: bool = True) -> None:
        self.spec, self.rows, self.block_frames, self.attempts, self.lower = spec, rows, block_frames, attempts, lower
        size = len(rows.seeds)
        self.watch = Watch(spec, size, basis)
        self._credits = np.full(size, CREDITS)
        self._gains = np.ones(size)  # of the latest frame
        self._spare: State | None = None  # memory for the next copy of the engine's state
        self._usual: Rows | None = None  # known to be how a row draws where all is well

    def copy(self) -> Guard:
        """An independent guard with the same past."""
        other = object.__new__(Guard)
        other.__dict__.update(self.__dict__)
        other.watch, other._credits, other._gains = self.watch.copy(), self._credits.copy(), self._gains.copy()
        other._spare = None
        return other

    def speak(self, engine: AbstractEngine, state: State, decoder: SignalDecoder, levels: Floats, frames: int,
              active: NDArray[np.int64]) -> Guarded:
        """Speak the next frames of every row.

        Args:
            engine, state, decoder: where the generation stands; they may be advanced in place, so go on with
                those that come back.
            levels: (B, frames or one more, LAGS), see `Watch.expected`. The frames are whole blocks, or the rest of
                all rows.
            frames: to be spoken, n.
            active: (B,), how many of them belong to the row; the rest is not judged.
        """
        expected = self.watch.expected(levels, frames)
        heat = self._temperatures(expected)
        parts: list[Guarded] = []
        start = 0
        while start < frames:
            # All that is left as if nothing could go wrong; then back to the first block that did.
            kept = state.save(self._spare), decoder.copy(), self.watch.copy()
            self._spare = None
            stretch, verdict = self._try(engine, state, decoder, self.watch, expected[:, start:], _part(heat, start))
            failed = self._first_fault(verdict, active - start)
            if failed < 0:
                self._spare = kept[0]
                self._credits = _earn(self._credits, frames - start)
                parts.append(stretch._replace(report=self._count(verdict, active - start, _part(heat, start))))
                break
            if failed:
                state, decoder, self.watch = kept
                upto = start + failed
                stretch, before = self._try(engine, state, decoder, self.watch, expected[:, start:upto],
                                            _part(heat, start, upto))
                self._credits = _earn(self._credits, failed)
                parts.append(stretch._replace(report=self._count(before, active - start, _part(heat, start, upto))))
                kept = state.copy(), decoder.copy(), self.watch.copy()
                start = upto
            stop = min(start + self.block_frames, frames)
            parts.append(self._again(engine, kept, expected[:, start:stop], _part(heat, start, stop), active - start,
                                     verdict.part(failed, failed + stop - start)))
            state, decoder, start = parts[-1].state, parts[-1].decoder, stop
        return self._turned_down(_joined(parts))

    def _turned_down(self, spoken: Guarded) -> Guarded:
        """What is still too loud, brought under the limit."""
        if spoken.burst.max(initial=-1.0) > 0 or self._gains.min() < 1:
            gains = np.where(spoken.burst > 0, 10 ** (-(spoken.burst + MARGIN) / 20), 1.0)
            _turn_down(spoken.waveform, gains, self._gains, self.spec.hop_length)
        return spoken

    def _first_fault(self, verdict: Verdict, active: NDArray[np.int64]) -> int:
        """The first frame of the first block that is to be spoken again; -1 if all is well."""
        if not self.attempts or verdict.worst <= 0:
            return -1
        faulty = (verdict.fault > 0) & (np.arange(verdict.fault.shape[1]) < active[:, None])
        if not faulty.any():
            return -1
        credits = self._credits.copy()
        for start in range(0, faulty.shape[1], self.block_frames):
            block = faulty[:, start : start + self.block_frames]
            credits = _earn(credits, block.shape[1])
            if (block.any(axis=1) & (credits >= 1)).any():
                return start
        return -1

    def _again(self, engine: AbstractEngine, kept: tuple[State, SignalDecoder, Watch], expected: Floats,
               heat: Floats | None, active: NDArray[np.int64], first: Verdict) -> Guarded:
        """A block that failed, spoken until it is well in every row, or with the least fault of all attempts."""
        frames = expected.shape[1]
        inside = np.arange(frames) < active[:, None]
        fault = _worst(first, inside)
        choice, tried = np.zeros(len(fault), np.int64), np.zeros(len(fault), np.int64)
        spoken_with, verdict, best = np.full(len(fault), -1), first, None
        self._credits = _earn(self._credits, frames)
        for attempt in range(1, self.attempts + 1):
            again = (fault > 0) & (self._credits >= 1)
            if not again.any():
                break
            spoken_with = np.where(again, attempt, choice)
            watch = kept[2].copy()
            best, verdict = self._try(engine, kept[0].copy(), kept[1].copy(), watch, expected, heat, spoken_with)
            found = _worst(verdict, inside)
            better = again & (found < fault)
            choice, fault = np.where(better, attempt, choice), np.where(better, found, fault)
            tried += again
            self._credits = self._credits - again
        if best is None or (spoken_with != choice).any():  # the last attempt was not the best of every row
            watch = kept[2]
            best, verdict = self._try(engine, kept[0], kept[1], watch, expected, heat, choice)
        self.watch = watch
        return best._replace(report=self._count(first, active, heat, verdict, int(tried.sum())))

    def _try(self, engine: AbstractEngine, state: State, decoder: SignalDecoder, watch: Watch, expected: Floats,
             heat: Floats | None, attempts: NDArray[np.int64] | None = None) -> tuple[Guarded, Verdict]:
        """Some frames with each row's attempt, 0 or None being the usual draw."""
        streams, frames, hop = self.rows.streams, expected.shape[1], self.spec.hop_length
        if heat is None and attempts is None:
            if state.rows is not self._usual:
                _redraw(state, streams, self.rows.temperature)
                self._usual = state.rows
            together = engine.step(state, frames * hop)
        else:
            cooler = np.ones(len(streams))
            if attempts is not None:
                streams = streams ^ (attempts.astype(np.uint64) << np.uint64(STREAM_BITS))
                cooler = np.power(COOLER, attempts)
            if heat is None:
                heat = self.rows.temperature[None].repeat(frames, axis=0)
            codes, begin = [], 0
            for frame in range(1, frames + 1):
                if frame < frames and (heat[frame] == heat[begin]).all():
                    continue
                _redraw(state, streams, heat[begin] * cooler)
                codes.append(engine.step(state, (frame - begin) * hop))
                begin = frame
            together = np.concatenate(codes, axis=1)
        waveform = decoder.decode(together)
        verdict = watch.judge(waveform, expected)
        return Guarded(together, waveform, state, decoder, verdict.burst, GuardReport()), verdict

    def _temperatures(self, expected: Floats) -> Floats | None:
        """Of each frame and row: (n, B); None where all are as is usual."""
        if not self.lower or _quietest(expected) >= 10 ** (QUIET_DB / 10):  # nearly always
            return None
        heat: Floats = silence_factor(expected).T * self.rows.temperature
        return heat

    def _count(self, first: Verdict, active: NDArray[np.int64], heat: Floats | None, final: Verdict | None = None,
               attempts: int = 0) -> GuardReport:
        """Of some frames; what came out in the end is `final`."""
        seconds, stretch = self.spec.hop_length / self.spec.sample_rate, first.burst.shape[1]
        frames = sum(max(0, min(count, stretch)) for count in active.tolist())
        if heat is None and final is None and first.worst <= 0:
            return GuardReport(seconds, frames)
        inside = np.arange(stretch) < active[:, None]
        cool = 0 if heat is None else int(((self.rows.temperature[:, None] > heat.T) & inside).sum())
        final = first if final is None else final
        burst, quiet = self._blocks((first.burst > 0) & inside), self._blocks((first.quiet > 0) & inside)
        loud, silent = self._blocks((final.burst > 0) & inside), self._blocks((final.quiet > 0) & inside)
        return GuardReport(seconds, frames, int(burst.sum()), int((quiet & ~burst).sum()), attempts, int(loud.sum()),
                           int((silent & ~loud).sum()), cool)

    def _blocks(self, frames: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether any frame of a block is: (B, n) to (B, blocks)."""
        return np.logical_or.reduceat(frames, np.arange(0, frames.shape[1], self.block_frames), axis=1)


def _part(heat: Floats | None, start: int, stop: int | None = None) -> Floats | None:
    return None if heat is None else heat[start:stop]


def _redraw(state: State, streams: NDArray[np.uint64], temperature: Floats) -> None:
    """Let the rows draw like this, if they do not yet."""
    if (state.rows.streams != streams).any() or (state.rows.temperature != temperature).any():
        state.redraw(streams.tolist(), temperature.tolist())


@compiled
def _quietest(expected: Any) -> Any:
    """The least power of the view "middle" in any frame, as `silence_factor` looks at it."""
    least = np.inf
    for row in range(expected.shape[0]):
        for f in range(expected.shape[1]):
            least = min(least, expected[row, f, 0, 1])
    return least


def _worst(verdict: Verdict, inside: NDArray[np.bool_]) -> Floats:
    """Fault of a block: (B,)."""
    result: Floats = np.where(inside, verdict.fault, -1e3).max(axis=1)
    return result


def _earn(credits: Floats, frames: int) -> Floats:
    return np.minimum(credits + frames * CREDITS_PER_FRAME, CREDITS)


def _joined(parts: list[Guarded]) -> Guarded:
    if len(parts) == 1:
        return parts[0]
    codes, waveform, burst = (np.concatenate([getattr(part, name) for part in parts], axis=1)
                              for name in ("codes", "waveform", "burst"))
    report = sum((part.report for part in parts), GuardReport())
    return Guarded(codes, waveform, parts[-1].state, parts[-1].decoder, burst, report)


@compiled
def _turn_down(waveform: Any, gains: Any, before: Any, hop: Any) -> None:
    """Multiply each frame by its gain: there in a sixteenth of the frame on the way down, in a half on the way up."""
    for row in range(waveform.shape[0]):
        for f in range(gains.shape[1]):
            last, gain = before[row], gains[row, f]
            if last < 1 or gain < 1:
                ramp = max(1, hop // 16 if gain < last else hop // 2)
                for i in range(hop):
                    share = min(1.0, (i + 1) / ramp)
                    waveform[row, f * hop + i] *= last + (gain - last) * share
            before[row] = gain


def silence_factor(expected: Floats) -> Floats:
    """What the temperature is multiplied by in each frame: 1, and less where the mel is at its floor.

    Args:
        expected: (B, n, 2, 3), from `Watch.expected`.

    Returns:
        (B, n), in steps, so that frames of one temperature are spoken together.
    """
    level = 10 * np.log10(expected[:, :, 0, 1] + 1e-12)
    depth = np.clip((QUIET_DB - level) / (QUIET_DB - SILENT_DB), 0, 1)
    result: Floats = 1 - (1 - COLDEST) * np.round(depth * STEPS) / STEPS
    return result
