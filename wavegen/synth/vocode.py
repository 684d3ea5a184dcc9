"""From a vocoder to files and pipes: one utterance while it is spoken, or a folder of them that can be continued.

    mel file, recording, stream of frames  ->  vocoder  ->  wav, flac, bare samples
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wavegen.audio import io, levels
from wavegen.audio.mel import num_frames
from wavegen.audio.mel_files import FrameReader, load_mel
from wavegen.audio.mel_formats import MelConverter, mel_spec
from wavegen.audio.streams import PipeWriter, file_writer
from wavegen.config import MelSpec
from wavegen.engines.base import make_rows
from wavegen.errors import BadInputError, WavegenError
from wavegen.synth.files import WINDOW_CLIPS, WINDOW_SAMPLES, Delivery, Progress, Written, is_disk_full
from wavegen.synth.manifest import Ledger, Utterance, file_digest
from wavegen.synth.mel_input import read_clips
from wavegen.synth.plan import speaker_name
from wavegen.synth.synthesizer import Report
from wavegen.synth.vocoder import Vocoder, VocoderStream

STANDARD = Path("-")  # as a file name: stdin
PIPE_SECONDS = 0.05  # of audio that go into a pipe together: a player hears no gap, and the first come soon
FILE_SECONDS = 1.0  # of audio that go into a file together
LONG_SAMPLES = 2**19  # what is longer is not spoken together with others: they would have to be padded to it
PEAK = 0.9  # where recipes put it

Write = Callable[[np.ndarray], None]
First = Callable[[float], None]  # told seconds


@dataclass(frozen=True)
class Options:
    """What is said once for all utterances; an `Utterance` may say otherwise.

    Attributes:
        mel_spec: preset of the mels given; None is what the model reads.
        layout: of arrays, "CT" or "TC"; None tells by the shape.
        normalize: bring recordings to a peak of 0.9 first.
        check: refuse mels whose values look wrong.
        guard: speak bursts again (`wavegen.synth.guards`).
        speaker, seed: of the draws.
        temperature, min_p, matching: None is what the model does best with.
    """

    mel_spec: str | None = None
    layout: str | None = None
    normalize: bool = False
    check: bool = True
    guard: bool = True
    speaker: str | None = None
    seed: int = 0
    temperature: float | None = None
    min_p: float | None = None
    matching: int | None = None


@dataclass(frozen=True)
class Draws:
    """How one utterance is drawn, and brought to the levels of its mel; everything decided."""

    speaker: str | None
    seed: int
    stream: int
    temperature: float
    min_p: float
    matching: int


@dataclass(frozen=True, eq=False)
class Source:
    """The frames of an utterance.

    Attributes:
        features: real numbers (n_mels, F).
        spec: what they are.
        num_samples: of its audio.
        original: the recording the frames were computed from, float32 (num_samples,) at the model's rate, or None.
    """

    features: NDArray[Any]
    spec: MelSpec
    num_samples: int
    original: np.ndarray | None = None


def open_source(vocoder: Vocoder, utterance: Utterance, options: Options) -> Source:
    """Read the mel or the recording of an utterance, and refuse what the vocoder would.

    The audio of a recording has the recording's length, that of a mel of F frames F * hop_length samples.

    Raises:
        BadInputError, ConfigError: see `load_mel` and `Vocoder.__call__`.
    """
    if utterance.like is None:
        features = load_mel(utterance.source, vocoder.n_mels, options.layout)
        source = Source(features, _spec(vocoder, options), features.shape[1] * vocoder.hop_length)
    else:
        original = load_recording(vocoder, utterance.like, options.normalize)
        source = Source(_mel_over(vocoder, original), vocoder.spec, len(original), original)
    try:
        (clip,) = read_clips([source.features], None, "BCT", source.spec)
        clip.check(source.spec, options.check and utterance.like is None, -1)
    except BadInputError as error:
        raise BadInputError(f"{utterance.source}: {error}") from None
    return source


def choose_draws(vocoder: Vocoder, utterance: Utterance, options: Options, stream: int = 0) -> Draws:
    """How an utterance is drawn: what it says itself, else the options, else the model.

    Raises:
        ConfigError: a value out of range, or a speaker the model lacks or needs.
    """
    usual = vocoder.folder.sampling

    def first(*values: Any) -> Any:
        return next(value for value in values if value is not None)

    draws = Draws(
        speaker_name(options.speaker if utterance.speaker is None else utterance.speaker, vocoder.folder),
        first(utterance.seed, options.seed), stream, first(utterance.temperature, options.temperature,
                                                           usual.temperature),
        first(utterance.min_p, options.min_p, usual.min_p), first(options.matching, usual.matching))
    make_rows(1, draws.seed, [stream], draws.temperature, draws.min_p)  # refuses what is out of range
    return draws


def vocode_file(vocoder: Vocoder, utterance: Utterance, options: Options, frames: Source | FrameReader, path: Path,
                progress: Progress | None = None, hear: Write | None = None) -> Delivery:
    """Speak one utterance into a wav or flac file; memory does not grow with its length.

    Args:
        frames: from `open_source`, or a stream of frames.
        hear: given a copy of every piece.

    Raises:
        WavegenError: bad frames, or the file cannot be written; nothing is left then. Of a stream that ends inside
            a frame what came before is written all the same, before `BadInputError` is raised.
    """
    draws = choose_draws(vocoder, utterance, options)
    with file_writer(path, vocoder.sample_rate) as write:
        report = _speak(vocoder, frames, draws, options, write, FILE_SECONDS, progress, None, hear)
    return _delivery(vocoder, utterance, options, draws, frames, str(path), report)


def vocode_stream(vocoder: Vocoder, utterance: Utterance, options: Options, frames: Source | FrameReader,
                  file: BinaryIO, kind: str = "wav", progress: Progress | None = None, first: First | None = None,
                  hear: Write | None = None) -> Delivery:
    """Speak one utterance into an open file or pipe while its frames come, a few hundredths of a second at a time.

    Args:
        frames, hear: as of `vocode_file`.
        kind: "wav", "flac" or "raw", see `PipeWriter`.
        first: told once how long after the first frames the first audio was written.

    Raises:
        WavegenError: bad frames; the audio before them has been written.
    """
    draws = choose_draws(vocoder, utterance, options)
    known = frames.num_samples if isinstance(frames, Source) else None
    writer = PipeWriter(file, vocoder.sample_rate, kind, known)
    try:
        report = _speak(vocoder, frames, draws, options, writer.write, PIPE_SECONDS, progress, first, hear)
    except BadInputError:
        writer.close()
        raise
    writer.close()
    return _delivery(vocoder, utterance, options, draws, frames, "-", report)


def vocode_folder(vocoder: Vocoder, utterances: Sequence[Utterance], folder: Path, options: Options,
                  overwrite: bool = False, progress: Progress | None = None) -> Delivery:
    """Speak each utterance into its own wav file in `folder`, beside a manifest with a JSON line each.

    What is there already, was asked for in the same words and is whole is left as it is. An utterance that cannot be
    spoken is reported in its row and the others go on; a full disk ends the batch (`files.check_delivery` raises what
    it ends with). What is done before an interruption stays.

    Args:
        overwrite: speak also what is there already.
        progress: told of each utterance that is done with.

    Raises:
        MelMismatch, ConfigError: `options.mel_spec` is not what the model reads, or there is no such preset.
        WavegenError: the folder cannot be used.
    """
    return _Batch(vocoder, folder, options, overwrite, progress).run(utterances)


@dataclass(frozen=True, eq=False)
class _Order:
    """An utterance that is to be spoken."""

    place: int
    utterance: Utterance
    draws: Draws
    source: Source


class _Batch:
    """One run of `vocode_folder`."""

    def __init__(self, vocoder: Vocoder, folder: Path, options: Options, overwrite: bool,
                 progress: Progress | None) -> None:
        MelConverter(_spec(vocoder, options), vocoder.spec)  # refuses what no utterance could be spoken with
        self._vocoder, self._folder, self._options, self._overwrite = vocoder, folder, options, overwrite
        self._progress = progress
        self._written: dict[int, Written] = {}
        self._report = replace(vocoder.report, num_samples=0, wall_seconds=0.0, first_audio_seconds=None,
                               guarded=None)
        self._is_full = False
        self._kept = 0

    def run(self, utterances: Sequence[Utterance]) -> Delivery:
        self._ledger = Ledger(self._folder)
        window: list[_Order] = []
        try:
            for place, utterance in enumerate(utterances):
                order = self._order(place, utterance)
                if order is not None and order.source.num_samples > LONG_SAMPLES:
                    self._write(order, None)
                elif order is not None:
                    samples = sum(waiting.source.num_samples for waiting in [*window, order])
                    if window and (len(window) == WINDOW_CLIPS or samples > WINDOW_SAMPLES):
                        self._speak(window)
                        window = []
                    window.append(order)
                if self._is_full:
                    break
            self._speak([] if self._is_full else window)
        finally:
            self._ledger.close([utterance.id for utterance in utterances])
        return Delivery([self._written[place] for place in sorted(self._written)], self._report, self._kept)

    def _order(self, place: int, utterance: Utterance) -> _Order | None:
        """What is to be done for an utterance; None if it is done, or cannot be."""
        try:
            if utterance.error is not None:
                raise utterance.error
            draws = choose_draws(self._vocoder, utterance, self._options, utterance.stream)
            asked = _asked(self._vocoder, utterance, self._options, draws)
            row = None if self._overwrite else self._ledger.verified(utterance.id, asked)
            if row is None:
                return _Order(place, utterance, draws, open_source(self._vocoder, utterance, self._options))
            self._note(place, Written(row), is_new=False)
        except (WavegenError, OSError) as error:
            self._fail(place, utterance, error)
        return None

    def _speak(self, window: Sequence[_Order]) -> None:
        """Speak together; where that fails each alone, so that one cannot spoil the others."""
        if len(window) > 1:
            try:
                clips = self._generate(window)
            except WavegenError:
                for order in window:
                    self._speak([order])
                return
            for order, waveform in zip(window, clips, strict=True):
                self._write(order, waveform)
        elif window:
            self._write(window[0], None)

    def _generate(self, window: Sequence[_Order]) -> list[np.ndarray]:
        mels = [MelConverter(order.source.spec, self._vocoder.spec)(np.asarray(order.source.features, np.float32))
                for order in window]
        draws = [order.draws for order in window]
        speakers = None if draws[0].speaker is None else [str(one.speaker) for one in draws]
        audio = self._vocoder(mels, seed=[one.seed for one in draws], temperature=[one.temperature for one in draws],
                              min_p=[one.min_p for one in draws], speaker=speakers, check=False,
                              streams=[one.stream for one in draws], guard=self._options.guard,
                              matching=draws[0].matching)
        self._report += self._vocoder.report
        return [audio.waveform[row, : order.source.num_samples] for row, order in enumerate(window)]

    def _write(self, order: _Order, waveform: np.ndarray | None) -> None:
        """Write a clip, or speak it into its file."""
        if self._is_full:
            return
        path = self._folder / order.utterance.file_name
        try:
            with file_writer(path, self._vocoder.sample_rate) as write:
                if waveform is not None:
                    write(waveform)
                else:
                    self._report += _speak(self._vocoder, order.source, order.draws, self._options, write, FILE_SECONDS)
            row = _row(self._vocoder, order.utterance, self._options, order.draws, order.source.num_samples, path.name)
            row["sha256"] = file_digest(path)
            self._note(order.place, Written(row))
        except (WavegenError, OSError) as error:
            self._fail(order.place, order.utterance, error)

    def _fail(self, place: int, utterance: Utterance, error: WavegenError | OSError) -> None:
        self._is_full = self._is_full or is_disk_full(error)
        self._note(place, Written({"id": utterance.id, "error": str(error)}, error))

    def _note(self, place: int, written: Written, is_new: bool = True) -> None:
        self._written[place] = written
        if is_new:
            self._ledger.add(written.row)
        else:
            self._kept += 1
        if self._progress:
            self._progress(1)


def _speak(vocoder: Vocoder, frames: Source | FrameReader, draws: Draws, options: Options, write: Write, seconds: float,
           progress: Progress | None = None, first: First | None = None, hear: Write | None = None) -> Report:
    """Speak frames as they come, so many seconds of audio at a time."""
    is_whole = isinstance(frames, Source)  # and has been judged as such: a stretch of it may look odd
    source = frames.spec if isinstance(frames, Source) else _spec(vocoder, options)
    left = frames.num_samples if isinstance(frames, Source) else None
    stream = vocoder.stream(spec=source, seed=draws.seed, temperature=draws.temperature, min_p=draws.min_p,
                            speaker=draws.speaker, check=options.check and not is_whole, streams=draws.stream,
                            guard=options.guard, matching=draws.matching)
    piece = max(1, round(seconds * vocoder.sample_rate / vocoder.hop_length))
    done = 0
    for waveform, begin in _spoken(stream, [frames.features] if isinstance(frames, Source) else frames, piece):
        waveform = waveform if left is None else waveform[: left - done]
        if len(waveform) == 0:
            continue
        write(waveform)
        if first and not done:
            first(time.perf_counter() - begin)
        if hear:
            hear(waveform)
        if progress:
            progress(len(waveform))
        done += len(waveform)
    return stream.report


def _spoken(stream: VocoderStream, blocks: Iterable[NDArray[Any]], piece: int) -> Iterator[tuple[np.ndarray, float]]:
    """The samples of frames in pieces, and when the first frames had come."""
    begin = 0.0
    for block in blocks:
        begin = begin or time.perf_counter()
        for start in range(0, block.shape[1], piece):
            yield stream.push(block[:, start : start + piece]), begin
    yield stream.finish(), begin


def _spec(vocoder: Vocoder, options: Options) -> MelSpec:
    """What the mels given are."""
    return vocoder.spec if options.mel_spec is None else mel_spec(options.mel_spec)


def load_recording(vocoder: Vocoder, path: Path, normalize: bool) -> np.ndarray:
    """A recording of any format and rate at the model's rate: float32 (T,).

    What is louder than full scale is scaled down to it; with `normalize` the peak is brought to 0.9, but for silence.

    Raises:
        AudioError: names the file and the reason.
    """
    waveform, _ = io.load(path, vocoder.sample_rate)
    peak = float(np.abs(waveform).max())
    if peak > 1 or (normalize and peak > levels.SILENCE):
        waveform, _ = levels.normalize_peak(waveform, PEAK if normalize else 1.0)
    return np.clip(waveform, -1.0, 1.0)


def _mel_over(vocoder: Vocoder, waveform: np.ndarray) -> NDArray[np.float32]:
    """The mel of a recording, with as many frames as its audio needs to be as long."""
    # Where frames are not centred the last one may begin too early: silence brings another.
    missing = math.ceil(len(waveform) / vocoder.hop_length) - num_frames(len(waveform), vocoder.spec)
    return vocoder.mel(np.pad(waveform, (0, max(0, missing) * vocoder.hop_length)))


def _delivery(vocoder: Vocoder, utterance: Utterance, options: Options, draws: Draws, frames: Source | FrameReader,
              path: str, report: Report) -> Delivery:
    """What became of the one utterance.

    Raises:
        BadInputError: its stream of frames ended too early.
    """
    if isinstance(frames, FrameReader):
        frames.check_whole()
    samples = frames.num_samples if isinstance(frames, Source) else frames.num_frames * vocoder.hop_length
    return Delivery([Written(_row(vocoder, utterance, options, draws, samples, path))], report)


def _asked(vocoder: Vocoder, utterance: Utterance, options: Options, draws: Draws) -> dict[str, Any]:
    """All that decides the bytes of a clip: one that was made of the same need not be spoken again."""
    if utterance.like is None:
        told: dict[str, Any] = {"kind": "mel", "mel_spec": options.mel_spec, "layout": options.layout}
    else:
        told = {"kind": "like", "normalize": options.normalize}
    digest = None if utterance.source == STANDARD else file_digest(utterance.source)
    return {**told, "input_sha256": digest, "weights_sha256": vocoder.folder.weights_sha256,
            "precision": vocoder.engine.precision, "guard": options.guard, **asdict(draws)}


def _row(vocoder: Vocoder, utterance: Utterance, options: Options, draws: Draws, num_samples: int, path: str,
         ) -> dict[str, Any]:
    """The line of a clip in a manifest."""
    text = {} if utterance.text is None else {"text": utterance.text}
    return {"id": utterance.id, "path": path, "input": os.fsencode(utterance.source).decode(errors="replace"), **text,
            "model": vocoder.folder.name, "num_samples": num_samples, "sample_rate": vocoder.sample_rate,
            "seconds": round(num_samples / vocoder.sample_rate, 6), "engine": vocoder.engine.name,
            **_asked(vocoder, utterance, options, draws)}
