"""A loaded vocoder: log-mel spectrograms in, audio out; whole, in batches, or while the mel is still arriving.

    voc = wavegen.load("kathleen")
    audio = voc(mel)                                    mel (B, n_mels, F)  ->  waveform (B, F * hop_length)
    for chunk in voc.stream(frames): play(chunk.waveform)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, overload

import numpy as np
import torch
from numpy.typing import NDArray

from wavegen.audio import io
from wavegen.audio.lpc import MelPredictor
from wavegen.audio.mel import log_mel, matching_delay, mel_basis
from wavegen.audio.mel_formats import MelConverter, mel_spec
from wavegen.audio.mulaw import silence_code
from wavegen.audio.watch import LAGS
from wavegen.checkpoint import LoadedModel
from wavegen.config import MelSpec, ModelFolder
from wavegen.engines import AbstractEngine, build_engine
from wavegen.engines.base import Rows, make_rows
from wavegen.engines.frames import FrameNetwork
from wavegen.errors import BadInputError, ConfigError
from wavegen.synth.guards import Guard
from wavegen.synth.mel_input import MelClip, MelReader, pieces_of, read_clips
from wavegen.synth.plan import speaker_name
from wavegen.synth.synthesizer import AudioChunk, Report
from wavegen.synth.utterances import Meter, Utterances, Voice, take

Floats = NDArray[np.float32]
SPAN_SAMPLES = 2048  # of all rows, an engine call: long enough to cost nothing, short enough to interrupt
MAX_MATCHING = 8

Speakers = str | int | Sequence[str | int] | None


@dataclass(frozen=True, eq=False)
class Audio:
    """Utterances of a batch; arrays of numpy, or tensors where the mel was one.

    Attributes:
        waveform: float32 (B, T) in [-1, 1]; zeros behind a row's end.
        lengths: int64 (B,), samples of each row.
        sample_rate: Hz.
    """

    waveform: Any
    lengths: Any
    sample_rate: int

    def __len__(self) -> int:
        return len(self.waveform)

    def __getitem__(self, row: int) -> AudioChunk:
        """One utterance without its padding, as an array."""
        waveform = self.waveform[row, : int(self.lengths[row])]
        if isinstance(waveform, torch.Tensor):
            waveform = waveform.cpu().numpy()
        return AudioChunk(waveform, self.sample_rate)

    def save(self, path: str | Path) -> None:
        """Write the one utterance there is as a 16-bit wav file (or flac, by the name's ending).

        Raises:
            ConfigError: there are several; `audio[row].save(path)` writes one of them.
        """
        if len(self) != 1:
            raise ConfigError(f"there are {len(self)} utterances to save; write each with audio[row].save(path)")
        io.save(path, self[0].waveform, self.sample_rate)


class VocoderStream:
    """One utterance that is spoken while its mel arrives; from `Vocoder.stream()`.

    It is a value: a copy has the same future, and goes its own way if other frames are pushed to it.
    """

    def __init__(self, vocoder: Vocoder, reader: MelReader, utterance: Utterances) -> None:
        self._vocoder, self._reader, self._utterance = vocoder, reader, utterance
        self._finished, self._given = False, 0

    @property
    def num_frames(self) -> int:
        """Frames pushed so far."""
        return self._reader.num_frames

    @property
    def num_samples(self) -> int:
        """Samples given so far."""
        return self._given

    @property
    def report(self) -> Report:
        """Speed of this stream so far; the time between two pushes is not counted."""
        return self._vocoder._report_of(self._utterance.meter)

    def push(self, frames: Any) -> Floats:
        """Take in the next frames and give the samples that can now be made.

        Args:
            frames: real numbers (n_mels, n), or as the stream's layout says; n may be 0. One axis is a single frame.

        Returns:
            float32 (m,). After `lookahead_frames` frames it is `hop_length` samples for each frame.

        Raises:
            BadInputError: not what the spec says; nothing is taken in, and the stream stands where it stood.
            ConfigError: the stream is finished.
        """
        if self._finished:
            raise ConfigError("this stream is finished; open another with stream()")
        begin = time.perf_counter()
        self._vocoder._meter = self._utterance.meter
        # Of two that read the same piece either both or neither take it in.
        reader = self._reader.copy()
        self._utterance.windows[0].push(reader.read(frames))
        self._reader = reader
        self._utterance.meter.wall_seconds += time.perf_counter() - begin
        return self._speak()

    def finish(self) -> Floats:
        """No more frames: the samples that were waiting for what comes after them, float32 (m,).

        Raises:
            BadInputError: no frame was pushed, or the mel as a whole is not what its spec says.
            ConfigError: it is finished already.
        """
        if self._finished:
            raise ConfigError("this stream is finished; open another with stream()")
        self._reader.finish()
        self._finished = self._utterance.windows[0].ended = True
        return self._speak()

    def copy(self) -> VocoderStream:
        """An independent stream that has been given the same frames and has spoken the same samples."""
        other = VocoderStream(self._vocoder, self._reader.copy(), self._utterance.copy())
        other._finished, other._given = self._finished, self._given
        return other

    def _speak(self) -> Floats:
        spoken = [part.waveforms[0] for part in take(self._utterance, self._vocoder._span_frames(1))]
        waveform = np.concatenate(spoken) if spoken else np.zeros(0, np.float32)
        self._given += len(waveform)
        return waveform


class Vocoder:
    """Speaks log-mel spectrograms with one model on one engine; made by `wavegen.load` of a vocoder.

    The samples depend on the mel, the seed and the speaker alone: neither the company in a batch nor the pieces in
    which a mel arrives change one of them.

    Attributes:
        folder: what the model's config.json says.
        engine: what makes the samples.
        spec: the mel the model reads.
    """

    def __init__(self, loaded: LoadedModel, engine: str = "auto", precision: str = "auto", device: str | None = None,
                 threads: int | str = 1) -> None:
        folder = loaded.spec
        told, spec = folder.model.conditioning, folder.audio.mel
        assert spec is not None, "a vocoder has a mel"
        if told.label or told.progress_steps:
            raise ConfigError(f'model "{folder.name}" is told a mel and besides a label or a progress clock; a vocoder '
                              "is told a mel and perhaps a speaker: train it without them")
        if told.feature_hop_length != spec.hop_length:
            raise ConfigError(f'model "{folder.name}" takes frames of {told.feature_hop_length} samples, its mel '
                              f"has one each {spec.hop_length}; they must be equal")
        self.folder: ModelFolder = folder
        self.model: Any = loaded.model
        self.spec: MelSpec = spec
        self.engine: AbstractEngine = build_engine(loaded.model, engine, precision, device, loaded.ranges, threads,
                                                   folder.calibration)
        self._basis = mel_basis(spec)
        predictor = None
        if folder.audio.signal_path == "lpc":
            predictor = MelPredictor(spec, folder.audio.lpc_order, folder.audio.preemphasis, self._basis, LAGS)
        self._voice = Voice(self.engine, folder.audio, FrameNetwork(loaded.model), predictor, spec.hop_length,
                            self._basis)
        self._meter = Meter()
        self._is_warm = False

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.folder.audio.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples of a mel frame."""
        return self.spec.hop_length

    @property
    def n_mels(self) -> int:
        """Bands of a mel frame."""
        return self.spec.n_mels

    @property
    def lookahead_frames(self) -> int:
        """Frames that must have arrived after a frame before its samples are given, at the usual matching."""
        return self._voice.lookahead + matching_delay(self.spec, self.folder.sampling.matching)

    @property
    def speakers(self) -> tuple[str, ...]:
        """In whose voice; empty if the model is not told a speaker."""
        return self.folder.vocabulary.speakers if self.folder.model.conditioning.speaker else ()

    @property
    def report(self) -> Report:
        """Speed of the latest synthesis, of a running stream so far."""
        return self._report_of(self._meter)

    def __call__(self, mel: Any, lengths: Any = None, spec: MelSpec | str | None = None, layout: str = "BCT",
                 seed: int | Sequence[int] = 0, temperature: float | Sequence[float] | None = None,
                 min_p: float | Sequence[float] | None = None, speaker: Speakers = None, check: bool = True,
                 streams: int | Sequence[int] = 0, guard: bool = True, matching: int | None = None) -> Audio:
        """The audio of a batch of mels. A row is the same as the same mel alone.

        Args:
            mel: real numbers in `layout`, of any float type and memory order: array, tensor or nested lists; or a list
                of utterances of different lengths, each in `layout` without its B.
            lengths: frames of each utterance, integers (B,); what lies behind is padding. None: all.
            spec: what the mel is, a `MelSpec` or the name of a preset such as "tacotron2"; None: what the model reads.
            layout: "BCT" (n_mels before frames), "BTC", or "CT" and "TC" of one utterance, which "BCT" and "BTC" of an
                array of two axes are taken for.
            seed: in [0, 2^64), one for all rows or one for each.
            temperature: above 0, below 1 is safer; None: what the model does best with. Also one for each row.
            min_p: in [0, 1], codes less likely than this share of the likeliest are never drawn; None as above.
            speaker: name, for all rows or a list with one for each; for a model with speakers.
            check: refuse values that cannot be what `spec` says. What is not finite is always refused.
            streams: in [0, 2^64), one for all rows or one for each: draws differ by seed and stream.
            guard: speak bursts again and silence at a lower temperature (`wavegen.synth.guards`).
            matching: passes that bring the audio to the levels of its mel (`wavegen.audio.mel_match`); 0: as drawn;
                None: what the model does best with.

        Returns:
            F * hop_length samples for F frames of each row.

        Raises:
            MelMismatch: the mel is of another kind than the model reads; names each field that differs.
            BadInputError: empty, NaN, a wrong number of bands, swapped axes, another logarithm: says
                what it looks like.
            ConfigError: an option out of range, an unknown preset, layout or speaker.
        """
        clips, parts = self._begin(mel, lengths, spec, layout, seed, temperature, min_p, speaker, check, streams,
                                   guard, matching)
        length = self._lengths(clips)
        waveform, done = np.zeros((len(clips), int(length.max())), np.float32), np.zeros(len(clips), np.int64)
        for row, _, samples in parts:
            waveform[row, done[row] : done[row] + len(samples)] = samples
            done[row] += len(samples)
        return Audio(_like(waveform, mel), _like(length, mel), self.sample_rate)

    def codes(self, mel: Any, lengths: Any = None, spec: MelSpec | str | None = None, layout: str = "BCT",
              seed: int | Sequence[int] = 0, temperature: float | Sequence[float] | None = None,
              min_p: float | Sequence[float] | None = None, speaker: Speakers = None, check: bool = True,
              streams: int | Sequence[int] = 0, guard: bool = True) -> Any:
        """The mu-law codes the network speaks, int64 (B, T); silence behind a row's end. Arguments as of a call.

        On the signal path lpc they are codes of the excitation, not of the waveform.
        """
        clips, parts = self._begin(mel, lengths, spec, layout, seed, temperature, min_p, speaker, check, streams,
                                   guard, 0)
        silence = silence_code(self.folder.audio.quantization_channels)
        codes, done = np.full((len(clips), int(self._lengths(clips).max())), silence, np.int64), [0] * len(clips)
        for row, spoken, _ in parts:
            codes[row, done[row] : done[row] + len(spoken)] = spoken
            done[row] += len(spoken)
        return _like(codes, mel)

    @overload
    def stream(self, frames: None = ..., spec: MelSpec | str | None = ..., layout: str = ..., seed: int = ...,
               temperature: float | None = ..., min_p: float | None = ..., speaker: str | int | None = ...,
               check: bool = ..., streams: int = ..., guard: bool = ..., matching: int | None = ...,
               ) -> VocoderStream: ...

    @overload
    def stream(self, frames: Any, spec: MelSpec | str | None = ..., layout: str = ..., seed: int = ...,
               temperature: float | None = ..., min_p: float | None = ..., speaker: str | int | None = ...,
               check: bool = ..., streams: int = ..., guard: bool = ..., matching: int | None = ...,
               ) -> Iterator[AudioChunk]: ...

    def stream(self, frames: Any = None, spec: MelSpec | str | None = None, layout: str = "CT", seed: int = 0,
               temperature: float | None = None, min_p: float | None = None, speaker: str | int | None = None,
               check: bool = True, streams: int = 0, guard: bool = True, matching: int | None = None) -> Any:
        """One utterance while its mel arrives: the same samples as a call gives of the whole mel.

        Args:
            frames: an iterable of pieces (n_mels, n), or of single frames (n_mels,), or a whole mel; None for a
                `VocoderStream` to push frames to.
            layout: "CT" of pieces (n_mels, n), "TC" of pieces (n, n_mels); with a B in front pieces have one row.
            spec, seed, temperature, min_p, speaker, check, streams, guard, matching: as of a call. Every piece is
                checked as it comes; a logarithm of another base may only show after `JUDGED_FRAMES` frames. A pass of
                matching makes a stream wait for `matching_delay` more frames.

        Returns:
            With frames an iterator of `AudioChunk`, a block as soon as the look-ahead allows; the last one, which may
            be empty, has `is_last`. Without, a `VocoderStream`.

        Raises:
            MelMismatch, ConfigError: at the call, as of a call.
            BadInputError: at the piece that is wrong. An error of the iterable itself comes through as it is; the
                audio of the frames before it has then been given.
        """
        source = self.spec if spec is None else mel_spec(spec)
        reader = MelReader(source, self.spec, layout, check)
        draws = self._draws(1, seed, temperature, min_p, streams)
        self._meter = Meter(times_first=True)
        stream = VocoderStream(self, reader, Utterances(self._voice, draws, self._bases(speaker, 1), self._meter,
                                                        self._guard(draws, guard), self._matching(matching)))
        self._warm_up()
        return stream if frames is None else self._chunks(stream, pieces_of(frames, layout, self._voice.block_frames))

    def mel(self, waveform: Any, sample_rate: int | None = None) -> Floats:
        """The log-mel spectrogram of a recording as the model reads it: for copy synthesis.

        Args:
            waveform: float (T,), array or tensor.
            sample_rate: Hz; another than the model's is resampled. None: the model's.

        Returns:
            float32 (n_mels, F). Its audio may be up to a frame longer than the recording.

        Raises:
            BadInputError: not one channel of finite samples.
        """
        samples = waveform.detach().to("cpu").numpy() if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
        if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind not in "fiu":
            raise BadInputError(f"a recording is float samples (T,), found {samples.dtype} {samples.shape}")
        samples = np.asarray(samples, np.float32)
        if not np.isfinite(samples).all():
            raise BadInputError("the recording holds NaN or infinity")
        if sample_rate is not None:
            samples = io.resample(samples, sample_rate, self.sample_rate)
        return np.asarray(log_mel(samples, self.spec, self._basis), np.float32)

    def generate(self, *args: Any, **options: Any) -> NoReturn:
        """For models that are told what to say (`wavegen.synth.Synthesizer`).

        Raises:
            ConfigError: always: a vocoder is told a mel.
        """
        raise ConfigError(f'model "{self.folder.name}" is a vocoder: it turns a mel into audio and is told no label or '
                          "length; call it with a mel, or stream(frames)")

    generate_batch = generate

    def _span_frames(self, rows: int) -> int:
        """Frames of an engine call, whole blocks: fewer of many rows, whose guard goes back when one of them fails."""
        block = self._voice.block_frames
        return max(1, SPAN_SAMPLES // (rows * block * self.hop_length)) * block

    def _begin(self, mel: Any, lengths: Any, spec: MelSpec | str | None, layout: str, seed: Any, temperature: Any,
               min_p: Any, speaker: Speakers, check: bool, streams: Any,
               guard: bool, matching: int | None) -> tuple[list[MelClip], Iterator[Any]]:
        """The utterances of a call and what comes next of them: row, codes (n,), waveform (m,)."""
        convert = MelConverter(self.spec if spec is None else spec, self.spec)
        clips = read_clips(mel, lengths, layout, convert.source)
        draws = self._draws(len(clips), seed, temperature, min_p, streams)
        bases = self._bases(speaker, len(clips))
        for row, clip in enumerate(clips):
            clip.check(convert.source, check, row if len(clips) > 1 else -1)
        self._meter = Meter()
        return clips, self._spoken(clips, convert, draws, bases, guard, self._matching(matching))

    def _spoken(self, clips: Sequence[MelClip], convert: MelConverter, draws: Rows, bases: Sequence[Floats],
                guard: bool, matching: int) -> Iterator[tuple[int, NDArray[np.int64], Floats]]:
        hop = self.hop_length
        for rows in group_rows([clip.num_frames for clip in clips], self.engine.batch_rows, self.engine.company):
            # What lasts as long for many rows as for one is called for longer stretches, unless a guard may go back.
            span = self._span_frames(len(rows) if guard or self.engine.company else 1)
            some = Rows(*(getattr(draws, name)[rows] for name in ("seeds", "streams", "temperature", "min_p")))
            utterances = Utterances(self._voice, some, [bases[row] for row in rows], self._meter,
                                    self._guard(some, guard), matching)
            for start in range(0, clips[rows[0]].num_frames, span):
                for row, window in zip(rows, utterances.windows, strict=True):
                    if not window.ended:
                        window.push(convert(clips[row].read(start, start + span)))
                        window.ended = window.count == clips[row].num_frames
                begin = utterances.position * hop
                for part in take(utterances, span):
                    for place, row in enumerate(rows):
                        left = max(0, clips[row].num_frames * hop - begin)
                        yield row, part.codes[place, :left], part.waveforms[place]
                    begin += part.codes.shape[1]

    def _chunks(self, stream: VocoderStream, pieces: Iterator[Any]) -> Iterator[AudioChunk]:
        start = 0
        for piece in pieces:
            waveform = stream.push(piece)
            if len(waveform):
                yield AudioChunk(waveform, self.sample_rate, start, False)
                start += len(waveform)
        yield AudioChunk(stream.finish(), self.sample_rate, start, True)

    def _lengths(self, clips: Sequence[MelClip]) -> NDArray[np.int64]:
        return np.array([clip.num_frames * self.hop_length for clip in clips], np.int64)

    def _draws(self, batch_size: int, seed: Any, temperature: Any, min_p: Any, streams: Any) -> Rows:
        usual = self.folder.sampling
        every: Any = [streams] * batch_size if isinstance(streams, (int, np.integer)) else list(streams)
        return make_rows(batch_size, seed, every, usual.temperature if temperature is None else temperature,
                         usual.min_p if min_p is None else min_p)

    def _matching(self, passes: int | None) -> int:
        passes = self.folder.sampling.matching if passes is None else passes
        if isinstance(passes, bool) or not isinstance(passes, int) or not 0 <= passes <= MAX_MATCHING:
            raise ConfigError(f"matching must be a whole number of passes from 0 to {MAX_MATCHING}, found {passes!r}")
        return passes

    def _guard(self, draws: Rows, wanted: bool) -> Guard | None:
        return Guard(self.spec, draws, self._basis, self._voice.block_frames) if wanted else None

    def _bases(self, speaker: Speakers, batch_size: int) -> list[Floats]:
        given = [speaker] * batch_size if speaker is None or isinstance(speaker, (str, int, np.integer)) else [*speaker]
        if len(given) != batch_size:
            raise ConfigError(f"speaker has {len(given)} entries for a batch of {batch_size}")
        names = [speaker_name(name, self.folder) for name in given]
        ids = [None if name is None else self.folder.vocabulary.speaker_id(name) for name in names]
        return [self._voice.network.base(speaker=number) for number in ids]

    def _warm_up(self) -> None:
        """Compile and load everything a stream needs before its first frame comes."""
        if self._is_warm:
            return
        bases = self._bases(self.speakers[0] if self.speakers else None, 1)
        draws = make_rows(1, 0, [0], 1.0, 0.0)
        utterance = Utterances(self._voice, draws, bases, guard=self._guard(draws, True))
        silence = np.log(self.spec.floor) / (1.0 if self.spec.log_base == "e" else np.log(10.0))
        frames = np.full((self.n_mels, self._voice.block_frames), silence, np.float32)
        mean, scale = (np.array(values, np.float32)[:, None] for values in (self.spec.mean, self.spec.scale))
        utterance.windows[0].push((frames - mean) / scale)
        utterance.windows[0].ended = True
        utterance.speak(utterance.ready())
        self._is_warm = True

    def _report_of(self, meter: Meter) -> Report:
        return Report(meter.num_samples, meter.wall_seconds, self.sample_rate, self.engine.name, self.engine.precision,
                      self.engine.choice, meter.first_audio_seconds, meter.guarded)


def group_rows(lengths: Sequence[int], most: int, company: float) -> list[list[int]]:
    """Rows that are spoken together, at most so many: the longest first, none below a share of its group's longest.

    Those that end together lie together: what ends first is the end of a batch, which an engine can leave out.

    >>> group_rows([3, 100, 40, 90, 4], 16, 0.5)
    [[1, 3], [2], [4, 0]]
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and len(groups[-1]) < most and lengths[row] >= company * lengths[groups[-1][0]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _like(array: Any, mel: Any) -> Any:
    """A tensor where the mel was one, on its device."""
    first = mel[0] if isinstance(mel, (list, tuple)) and len(mel) else mel
    return torch.from_numpy(array).to(first.device) if isinstance(first, torch.Tensor) else array
