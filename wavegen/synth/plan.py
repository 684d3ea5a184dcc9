"""What is to be spoken: a request as the user wrote it, a plan as the engine needs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from wavegen.config import ModelConfig, ModelFolder
from wavegen.engines import uniform
from wavegen.errors import ConfigError

TAIL_SECONDS = 0.06  # spoken after the intended length, so that a clip ends by itself
PAUSE_SECONDS = 0.08  # of silence between the labels of a sequence
MAX_SECONDS = 24 * 3600.0
LABEL_STREAM = 2**32  # the k-th label of clip i draws from stream i + k * LABEL_STREAM
NEAR_STREAM = 2**40  # what a clip adds to one it is near to is drawn so far on, for each step from a free draw
LENGTH_STREAM = 2**63  # streams from here on draw lengths, those below draw samples


@dataclass(frozen=True)
class Near:
    """Where the latents of a clip lie: not anywhere in the prior, but near those of another clip.

        sqrt(1 - spread^2) those of the other + spread drawn anew

    which is as likely under the prior as what is drawn freely, at every spread.

    Attributes:
        seed, stream, temperature: of the other clip's draw.
        near: what that lay near to itself.
        spread: in [0, 1]: 0 is the other clip, 1 is any clip.
    """

    seed: int
    stream: int
    temperature: float = 1.0
    near: Near | None = None
    spread: float = 0.3

    def __post_init__(self) -> None:
        _number("spread", self.spread, "in [0, 1]", lambda value: 0 <= value <= 1)

    @property
    def depth(self) -> int:
        """Steps from a free draw."""
        return 1 + (self.near.depth if self.near else 0)


@dataclass(frozen=True)
class Request:
    """One clip as a user asks for it.

    Attributes:
        label: what is said; a sequence of labels is said one after the other. None for a model
            without labels.
        speaker: None for a model without speakers.
        seconds: intended length (of each label); None draws a usual one. A model of fixed windows gives
            the beginning of one, and without it a whole one.
        seed: in [0, 2**64); the same request gives the same samples.
        clip: number of the clip; clips of one seed differ by it and by nothing else.
        temperature: above 0; below 1 is safer and duller. A one-pass model scales its noise with it.
        min_p: in [0, 1); codes less likely than this share of the likeliest are never drawn. 0 for a
            one-pass model, which draws no codes.
        near: another clip that this one is to be like; of a model that has latents (wgan, vae).
    """

    label: str | int | Sequence[str | int] | None = None
    speaker: str | int | None = None
    seconds: float | None = None
    seed: int = 0
    clip: int = 0
    temperature: float = 1.0
    min_p: float = 0.0
    near: Near | None = None


@dataclass(frozen=True)
class Blend:
    """Where a row's label and speaker are on the way to: each is a mixture, of this share the other's."""

    label_id: int | None
    speaker_id: int | None
    share: float


@dataclass(frozen=True)
class Plan:
    """One label of one clip, checked and measured: a row of an engine's batch."""

    label: str | None
    speaker: str | None
    label_id: int | None
    speaker_id: int | None
    intended_samples: int  # drives the progress clock
    num_samples: int  # intended_samples and the tail
    seed: int
    stream: int
    temperature: float
    min_p: float
    blend: Blend | None = None
    near: Near | None = None


def plan_clip(request: Request, spec: ModelFolder) -> tuple[Plan, ...]:
    """The labels of one clip in the order they are spoken.

    The intended length of a label is `request.seconds`, or else lies between the quartiles of the
    label's and speaker's training clips, drawn by (seed, clip). A model with a progress clock is
    given `TAIL_SECONDS` more, in which it ends.

    Raises:
        ConfigError: a label or speaker the model lacks, or needs and was not given; a value out of
            range.
    """
    _check(request)
    labels = _labels(request.label, spec)
    speaker = speaker_name(request.speaker, spec)
    return tuple(_plan_label(request, spec, label, speaker, place) for place, label in enumerate(labels))


def is_one_pass(config: ModelConfig) -> bool:
    """Whether a model gives a clip at once, and not code after code."""
    return config.family == "wgan" or (config.family == "vae" and config.decoder.family == "conv")


def window_samples(config: ModelConfig) -> int | None:
    """Length of the windows of a model that knows no other; None for one that speaks on."""
    return config.num_samples if config.family in ("wgan", "vae") else None


def split_labels(text: str | None, known: Sequence[str]) -> str | list[str] | None:
    """A label as typed: one of the known ones as it stands, else a sequence with commas between.

    >>> split_labels("3,1,4", ["1", "3", "4"])
    ['3', '1', '4']
    """
    if text is None or text in known or "," not in text:
        return text
    return [part.strip() for part in text.split(",")]


def pause_samples(spec: ModelFolder) -> int:
    """Samples of silence between two labels of a sequence."""
    return round(PAUSE_SECONDS * spec.audio.sample_rate)


def clip_samples(plans: Sequence[Plan], spec: ModelFolder) -> int:
    """Length of a whole clip, pauses included."""
    return sum(plan.num_samples for plan in plans) + pause_samples(spec) * (len(plans) - 1)


def _plan_label(request: Request, spec: ModelFolder, label: str | None, speaker: str | None, place: int) -> Plan:
    vocabulary, conditioning = spec.vocabulary, spec.model.conditioning
    label_id = None if label is None else vocabulary.label_id(label)
    speaker_id = None if speaker is None else vocabulary.speaker_id(speaker)
    seed, stream = int(request.seed), int(request.clip) + place * LABEL_STREAM
    window, rate = window_samples(spec.model), spec.audio.sample_rate
    if request.seconds is not None:
        intended = round(request.seconds * rate)
    elif window is not None and not conditioning.progress_steps:
        intended = window
    else:
        intended = min(_usual_samples(spec, label_id, speaker_id, seed, stream), window or 2**63)
    tail = round(TAIL_SECONDS * spec.audio.sample_rate) if conditioning.progress_steps else 0
    if window is not None:
        tail = max(0, min(tail, window - intended))
    if window is not None and intended > window:
        raise ConfigError(f'seconds is {request.seconds}, but the clips of model "{spec.name}" are {window / rate:g} s '
                          f"({window} samples) long; ask for no more")
    if request.min_p and is_one_pass(spec.model):
        raise ConfigError(f'min_p is {request.min_p}, but model "{spec.name}" gives a clip at once and draws no codes; '
                          "leave it out")
    if request.near is not None and window is None:
        raise ConfigError(f'model "{spec.name}" is a {spec.model.family}, which has no latents to draw near to: '
                          "take another seed, or a lower temperature")
    if intended < 1:
        raise ConfigError(f"seconds is {request.seconds}, less than one sample at {spec.audio.sample_rate} Hz")
    return Plan(
        label,
        speaker,
        label_id,
        speaker_id,
        intended,
        intended + tail,
        seed,
        stream,
        float(request.temperature),
        float(request.min_p),
        near=request.near,
    )


def _usual_samples(spec: ModelFolder, label_id: int | None, speaker_id: int | None, seed: int, stream: int) -> int:
    durations = spec.vocabulary.durations
    if not durations:
        raise ConfigError(f'model "{spec.name}" knows no usual length; say how many seconds')
    # What the model is not told is averaged over.
    rows = durations if label_id is None else durations[label_id : label_id + 1]
    cells = [cell for row in rows for cell in (row if speaker_id is None else row[speaker_id : speaker_id + 1])]
    shortest, longest = (sum(cell[quartile] for cell in cells) // len(cells) for quartile in (0, 2))
    share = float(uniform(seed, LENGTH_STREAM + stream, 0))
    return max(1, min(longest, shortest + int(share * (longest - shortest + 1))))


def _labels(label: str | int | Sequence[str | int] | None, spec: ModelFolder) -> list[str | None]:
    known = spec.vocabulary.labels
    if not spec.model.conditioning.label:
        if label is not None:
            raise ConfigError(f'model "{spec.name}" has no labels, found label "{label}"; leave it out')
        return [None]
    given = [] if label is None else [label] if isinstance(label, (str, int, Integral)) else [*label]
    if not given:
        raise ConfigError(f'model "{spec.name}" needs a label: one of {", ".join(known)}')
    return [known[spec.vocabulary.label_id(name)] for name in given]


def speaker_name(speaker: str | int | None, spec: ModelFolder) -> str | None:
    """The name of a speaker of the model, given by name or number; None for a model without speakers.

    Raises:
        ConfigError: one the model lacks, or none where it needs one.
    """
    known = spec.vocabulary.speakers
    if not spec.model.conditioning.speaker:
        if speaker is not None:
            raise ConfigError(f'model "{spec.name}" has no speakers, found speaker "{speaker}"; leave it out')
        return None
    if speaker is None:
        raise ConfigError(f'model "{spec.name}" needs a speaker: one of {", ".join(known)}')
    return known[spec.vocabulary.speaker_id(speaker)]


def _check(request: Request) -> None:
    if request.seconds is not None:
        _number(
            "seconds",
            request.seconds,
            "above 0 and at most 86400 (24 hours)",
            lambda value: 0 < value <= MAX_SECONDS,
        )
    _number("temperature", request.temperature, "above 0", lambda value: value > 0)
    _number("min_p", request.min_p, "in [0, 1)", lambda value: 0 <= value < 1)
    for name, value, limit in (("seed", request.seed, 2**64), ("clip", request.clip, LABEL_STREAM)):
        if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < limit:
            raise ConfigError(f"{name} must be a whole number in [0, {limit}), found {value!r}")


def _number(name: str, value: object, wanted: str, fits: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or not fits(float(value)):
        raise ConfigError(f"{name} must be a number {wanted}, found {value!r}")
