"""A loaded model that speaks: whole clips, chunk by chunk, or many clips at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, overload

import numpy as np
import torch

from wavegen.audio import io, levels, mulaw
from wavegen.audio.signal import SignalDecoder
from wavegen.checkpoint import LoadedModel
from wavegen.config import ModelFolder
from wavegen.engines import AbstractEngine, ModelConditioning, build_engine
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs
from wavegen.synth.guards import GuardReport
from wavegen.synth.one_pass import OnePassEngine, draw_latents
from wavegen.synth.plan import (
    Blend,
    Near,
    Plan,
    Request,
    clip_samples,
    is_one_pass,
    pause_samples,
    plan_clip,
    window_samples,
)

BLOCK_SAMPLES = 4096  # an engine call: long enough to cost nothing, short enough to interrupt
CUT_FADE_MS = 10.0  # where a window is not given to its end
Towards = tuple[Request, float]  # a request that another is mixed with, and its share


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """A stretch of audio; a whole clip is one chunk that starts at 0 and is the last.

    Attributes:
        waveform: float32 (T,) in [-1, 1].
        sample_rate: Hz.
        start_sample: where in its clip the chunk begins.
        is_last: whether the clip ends with it.
    """

    waveform: np.ndarray
    sample_rate: int
    start_sample: int = 0
    is_last: bool = True

    @property
    def num_samples(self) -> int:
        return len(self.waveform)

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate

    def save(self, path: str | Path) -> None:
        """Write a 16-bit wav file (or flac, by the name's ending); whole or not at all."""
        io.save(path, self.waveform, self.sample_rate)


@dataclass(frozen=True)
class Report:
    """How fast a synthesis was; the time is the engine's, without files and loading."""

    num_samples: int
    wall_seconds: float
    sample_rate: int
    engine: str
    precision: str
    choice: str = ""  # why this precision, where it was not asked for by name
    first_audio_seconds: float | None = None  # of work until a vocoder's first 20 ms were there; None before that
    guarded: GuardReport | None = None  # what a vocoder's guard saw; None without one

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.num_samples / self.sample_rate

    @property
    def samples_per_second(self) -> float:
        return self.num_samples / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def times_realtime(self) -> float:
        """Seconds of audio made in a second; higher is better."""
        return self.samples_per_second / self.sample_rate

    @property
    def arithmetic(self) -> str:
        """The precision and why it was taken: "precision i8x15 (auto: KL 4e-4 under 1e-3)"."""
        return f"precision {self.precision} ({self.choice})" if self.choice else f"precision {self.precision}"

    def __add__(self, other: Report) -> Report:
        """Both together, one after the other."""
        guarded = self.guarded or other.guarded
        if self.guarded is not None and other.guarded is not None:
            guarded = self.guarded + other.guarded
        return replace(
            self,
            num_samples=self.num_samples + other.num_samples,
            wall_seconds=self.wall_seconds + other.wall_seconds,
            guarded=guarded,
        )

    def __str__(self) -> str:
        first = ""
        if self.first_audio_seconds is not None:
            first = f", first audio after {1e3 * self.first_audio_seconds:.1f} ms"
        bursts = f", {self.guarded}" if self.guarded is not None and self.guarded.bursts + self.guarded.silences else ""
        return (
            f"{self.seconds:.2f} s of audio in {self.wall_seconds:.2f} s: "
            f"{self.samples_per_second:,.0f} samples/s, "
            f"{self.times_realtime:.2f} times real time{first}{bursts} (engine {self.engine}, {self.arithmetic})"
        )


class Synthesizer:
    """Speaks with one model on one engine; made by `wavegen.load` of any model but a vocoder.

    A draw depends on seed, clip number and sample only: neither the chunking nor the company in
    a batch changes a sample. `generate(count=n)[i]` is `generate(clip=i)`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        engine: str = "auto",
        precision: str = "auto",
        device: str | None = None,
        threads: int | str = 1,
    ) -> None:
        self.spec: ModelFolder = loaded.spec
        self.model: Any = loaded.model
        # A vae may speak through a WaveNet: the engine then runs that, told the latents as features.
        one_pass = is_one_pass(loaded.spec.model)
        self._network = loaded.model.decoder if loaded.spec.model.family == "vae" and not one_pass else loaded.model
        self.engine: AbstractEngine | OnePassEngine
        if one_pass:
            channels = loaded.spec.audio.quantization_channels
            self.engine = OnePassEngine(loaded.model, channels, engine, precision, device)
        else:
            self.engine = build_engine(
                self._network, engine, precision, device, loaded.ranges, threads, loaded.spec.calibration
            )
        self._report = self.no_report()

    def __call__(self, mel: Any, *args: Any, **options: Any) -> NoReturn:
        """For vocoders alone (`wavegen.synth.Vocoder`).

        Raises:
            ConfigError: always: this model is not told a mel.
        """
        told = "a label" if self.labels else "nothing of the kind"
        raise ConfigError(f'model "{self.spec.name}" is no vocoder: it is told {told}, not a mel; '
                          "call generate(...), or load a vocoder")

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model can say; empty if it is not told a label."""
        return self.spec.vocabulary.labels if self.spec.model.conditioning.label else ()

    @property
    def speakers(self) -> tuple[str, ...]:
        """In whose voice; empty if the model is not told a speaker."""
        return self.spec.vocabulary.speakers if self.spec.model.conditioning.speaker else ()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.spec.audio.sample_rate

    @property
    def report(self) -> Report:
        """Speed of the latest synthesis, of a running stream so far."""
        return self._report

    @overload
    def generate(
        self,
        label: str | int | Sequence[str | int] | None = ...,
        speaker: str | int | None = ...,
        seconds: float | None = ...,
        *,
        count: None = ...,
        seed: int = ...,
        clip: int = ...,
        temperature: float = ...,
        min_p: float = ...,
        near: Near | None = ...,
    ) -> AudioChunk: ...

    @overload
    def generate(
        self,
        label: str | int | Sequence[str | int] | None = ...,
        speaker: str | int | None = ...,
        seconds: float | None = ...,
        *,
        count: int,
        seed: int = ...,
        clip: int = ...,
        temperature: float = ...,
        min_p: float = ...,
        near: Near | None = ...,
    ) -> list[AudioChunk]: ...

    def generate(
        self,
        label: str | int | Sequence[str | int] | None = None,
        speaker: str | int | None = None,
        seconds: float | None = None,
        *,
        count: int | None = None,
        seed: int = 0,
        clip: int = 0,
        temperature: float = 1.0,
        min_p: float = 0.0,
        near: Near | None = None,
    ) -> AudioChunk | list[AudioChunk]:
        """One clip, or with `count` a list of that many.

        Args:
            label: what to say; a sequence such as ["3", "1", "4"] is said with short pauses.
            speaker: in whose voice.
            seconds: intended length of each label; None draws one usual for label and speaker.
            count: None for one clip; else clips `clip` to `clip + count - 1`.
            seed, clip, temperature, min_p, near: see `Request`.

        Raises:
            ConfigError: names the argument, what was found and what would fit.
        """
        first = Request(label, speaker, seconds, seed, clip, temperature, min_p, near)
        if count is None:
            return self.generate_batch([first])[0]
        return self.generate_batch(numbered(first, count))

    def generate_batch(self, requests: Iterable[Request]) -> list[AudioChunk]:
        """A clip for each request, in their order; the same clips as one by one."""
        clips = [plan_clip(request, self.spec) for request in requests]
        rows = [(number, place) for number, plans in enumerate(clips) for place in range(len(plans))]
        # Rows of like length share a batch: the engine runs each batch as long as its longest row.
        rows.sort(key=lambda row: clips[row[0]][row[1]].num_samples)
        spoken: dict[tuple[int, int], np.ndarray] = {}
        self._report = self.no_report()
        for begin in range(0, len(rows), self.engine.batch_rows):
            batch = rows[begin : begin + self.engine.batch_rows]
            plans = [clips[number][place] for number, place in batch]
            blocks = list(self._blocks(plans, BLOCK_SAMPLES))
            for place, (row, plan) in enumerate(zip(batch, plans, strict=True)):
                spoken[row] = np.concatenate([block[place] for block in blocks])[: plan.num_samples]
        return [
            self._assemble([spoken.pop((number, place)) for place in range(len(plans))])
            for number, plans in enumerate(clips)
        ]

    def decode(self, latents: Sequence[torch.Tensor], requests: Sequence[Request],
               num_samples: Sequence[int] | None = None, towards: Sequence[Towards | None] | None = None,
               ) -> list[AudioChunk]:
        """The clip of each request, from latents that are given instead of drawn.

        Args:
            latents: float (Z,), or (C, F) whose F says how long the clip is, on the CPU; one for each request.
            requests: with one label each; `seconds` and the seed of the latents play no part.
            num_samples: length of each clip; None is all the latents describe.
            towards: another request for each, whose label and speaker are mixed in, and its share.

        Raises:
            ConfigError: a request does not fit the model, or the model has no latents.
            BadInputError: latents of another shape, or not finite.
        """
        if self.spec.model.family not in ("wgan", "vae"):
            raise ConfigError(f'model "{self.spec.name}" is a {self.spec.model.family}, which has no latents to decode')
        clips = []
        self._report = self.no_report()
        for place, (given, request) in enumerate(zip(latents, requests, strict=True)):
            (plan,) = plan_clip(replace(request, seconds=None), self.spec)
            # A sequence of latents may be several windows long.
            windows = given.shape[1] / self.model.latent_shape[1] if given.ndim == 2 else 1
            whole = round(self.spec.model.num_samples * windows)
            length = whole if num_samples is None else min(whole, num_samples[place])
            plan = replace(plan, intended_samples=length, num_samples=length)
            if towards is not None and (other := towards[place]) is not None:
                (target,) = plan_clip(replace(other[0], seconds=None), self.spec)
                plan = replace(plan, blend=Blend(target.label_id, target.speaker_id, other[1]))
            blocks = list(self._blocks([plan], BLOCK_SAMPLES, [given[None].float()]))
            clips.append(AudioChunk(np.concatenate([block[0] for block in blocks]), self.sample_rate))
        return clips

    def stream(
        self,
        label: str | int | Sequence[str | int] | None = None,
        speaker: str | int | None = None,
        seconds: float | None = None,
        *,
        chunk_samples: int | None = None,
        seed: int = 0,
        clip: int = 0,
        temperature: float = 1.0,
        min_p: float = 0.0,
        near: Near | None = None,
    ) -> Iterator[AudioChunk]:
        """The clip `generate` would give, chunk by chunk as it is spoken, whatever its length.

        Args:
            chunk_samples: samples of each chunk but the last; it does not change the audio. None: 4096, or the
                whole clip of a model that gives it at once.

        Raises:
            ConfigError: at the call, not at the first chunk.
        """
        request = Request(label, speaker, seconds, seed, clip, temperature, min_p, near)
        return self.stream_request(request, chunk_samples)

    def stream_request(self, request: Request, chunk_samples: int | None = None) -> Iterator[AudioChunk]:
        """`stream` of a request."""
        if chunk_samples is None:
            chunk_samples = window_samples(self.spec.model) if isinstance(self.engine, OnePassEngine) else None
            chunk_samples = chunk_samples or BLOCK_SAMPLES
        if isinstance(chunk_samples, bool) or not isinstance(chunk_samples, int) or chunk_samples < 1:
            raise ConfigError(f"chunk_samples must be a whole number of at least 1, found {chunk_samples!r}")
        plans = plan_clip(request, self.spec)
        self._report = self.no_report()
        return self._chunks(plans, chunk_samples)

    def _chunks(self, plans: Sequence[Plan], chunk_samples: int) -> Iterator[AudioChunk]:
        total, start = clip_samples(plans, self.spec), 0
        held = np.zeros(0, np.float32)
        for piece in self._pieces(plans, chunk_samples):
            held = piece if len(held) == 0 else np.concatenate([held, piece])
            while len(held) >= chunk_samples or (len(held) and start + len(held) == total):
                waveform, held = held[:chunk_samples], held[chunk_samples:]
                yield AudioChunk(waveform, self.sample_rate, start, start + len(waveform) == total)
                start += len(waveform)

    def _pieces(self, plans: Sequence[Plan], block_samples: int) -> Iterator[np.ndarray]:
        """The waveform of a clip in blocks, each label and each pause beginning a new one."""
        for place, plan in enumerate(plans):
            if place:
                yield self._pause()
            for block in self._blocks([plan], block_samples):
                yield block[0]

    def _blocks(self, plans: Sequence[Plan], block_samples: int,
                latents: Sequence[torch.Tensor] | None = None) -> Iterator[np.ndarray]:
        """Waveforms float32 (B, n) of the rows, n adding up to the longest row; `latents` (1, ...) are else drawn."""
        if isinstance(self.engine, OnePassEngine):
            yield self._at_once(self.engine, plans, latents)
            return
        self.engine.prepare(len(plans))  # no part of the speed: it happens once, the first clip would look slow
        begin = time.perf_counter()
        conditioning = self._conditioning(plans, latents)
        decode = self._decoder(len(plans), conditioning)
        state = self.engine.start(
            batch_size=len(plans),
            conditioning=conditioning,
            seeds=[plan.seed for plan in plans],
            streams=[plan.stream for plan in plans],
            temperature=[plan.temperature for plan in plans],
            min_p=[plan.min_p for plan in plans],
        )
        remaining = max(plan.num_samples for plan in plans)
        done = 0
        while remaining > 0:
            num_samples = min(block_samples, remaining)
            waveforms = decode(self.engine.step(state, num_samples))
            kept = sum(min(num_samples, max(0, plan.num_samples - done)) for plan in plans)
            self._report += replace(self.no_report(), num_samples=kept, wall_seconds=time.perf_counter() - begin)
            yield waveforms
            over = [row for row, plan in enumerate(plans) if done < plan.num_samples <= done + num_samples]
            done, remaining = done + num_samples, remaining - num_samples
            if over and remaining:
                self.engine.retire(state, over)
            begin = time.perf_counter()

    def _at_once(self, engine: OnePassEngine, plans: Sequence[Plan],
                 latents: Sequence[torch.Tensor] | None) -> np.ndarray:
        """The clips of a one-pass model: float32 (B, the longest), silence behind the shorter ones."""
        begin = time.perf_counter()
        waveforms = np.zeros((len(plans), max(plan.num_samples for plan in plans)), np.float32)
        for row, plan in enumerate(plans):
            given = latents[row] if latents else draw_latents(self.model, plan.seed, plan.stream, plan.temperature,
                                                              plan.near)
            window = engine.generate(given, self._named([plan]))
            clip = window[: plan.num_samples]
            if len(clip) < len(window) and latents is None:  # what is decoded ends where its original did
                clip = levels.fade(clip, self.sample_rate, 0.0, CUT_FADE_MS)
            waveforms[row, : len(clip)] = clip
        self._report += replace(self.no_report(), num_samples=sum(plan.num_samples for plan in plans),
                                wall_seconds=time.perf_counter() - begin)
        return waveforms

    def _conditioning(self, plans: Sequence[Plan],
                      latents: Sequence[torch.Tensor] | None) -> ModelConditioning | None:
        told = self.spec.model.conditioning
        if not (told.label or told.speaker or told.progress_steps or self._network is not self.model):
            return None
        features = None
        if self._network is not self.model:
            # The temperature is that of the codes.
            drawn = latents or [draw_latents(self.model, plan.seed, plan.stream, near=plan.near) for plan in plans]
            features = self.model.features(torch.cat([*drawn]), self._named(plans))
        lengths = torch.tensor([plan.intended_samples for plan in plans])
        return ModelConditioning(self._network, replace(self._named(plans), num_samples=lengths, features=features))

    def conditions(self, request: Request) -> ConditioningInputs:
        """Label and speaker of a request of one label, as the model is told them.

        Raises:
            ConfigError: a label or speaker the model lacks, or needs and was not given.
        """
        (plan,) = plan_clip(replace(request, seconds=None), self.spec)
        return self._named([plan])

    def _named(self, plans: Sequence[Plan]) -> ConditioningInputs:
        """Label and speaker of each row, as numbers, or as shares where a row is a mixture."""
        vocabulary, told = self.spec.vocabulary, self.spec.model.conditioning

        def column(ids: list[Any], others: list[Any], count: int) -> torch.Tensor:
            if all(plan.blend is None for plan in plans):
                return torch.tensor(ids)
            shares = torch.zeros(len(plans), count)
            for row, plan in enumerate(plans):
                share = plan.blend.share if plan.blend else 0.0
                shares[row, ids[row]] += 1 - share
                shares[row, others[row]] += share
            return shares

        blends = [plan.blend or Blend(plan.label_id, plan.speaker_id, 0.0) for plan in plans]
        return ConditioningInputs(
            label=column([plan.label_id for plan in plans], [blend.label_id for blend in blends],
                         len(vocabulary.labels)) if told.label else None,
            speaker=column([plan.speaker_id for plan in plans], [blend.speaker_id for blend in blends],
                           len(vocabulary.speakers)) if told.speaker else None,
        )

    def _decoder(self, batch_size: int, conditioning: ModelConditioning | None) -> Callable[[np.ndarray], np.ndarray]:
        """Codes (B, n) to waveforms (B, n), block after block."""
        told = conditioning or ModelConditioning(self._network)
        return SignalDecoder(self.spec.audio, batch_size, told.prediction, told.hop_length).decode

    def _pause(self) -> np.ndarray:
        channels = self.spec.audio.quantization_channels
        return mulaw.decode(np.full(pause_samples(self.spec), mulaw.silence_code(channels)), channels)

    def _assemble(self, spoken: Sequence[np.ndarray]) -> AudioChunk:
        pieces = [spoken[0]]
        for waveform in spoken[1:]:
            pieces += [self._pause(), waveform]
        return AudioChunk(np.concatenate(pieces), self.sample_rate)

    def no_report(self) -> Report:
        """The report of nothing yet."""
        return Report(0, 0.0, self.sample_rate, self.engine.name, self.engine.precision, self.engine.choice)


def numbered(first: Request, count: int) -> list[Request]:
    """The request and its successors, which differ by clip number only."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"count must be a whole number of at least 1, found {count!r}")
    return [replace(first, clip=first.clip + number) for number in range(count)]
