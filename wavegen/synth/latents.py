"""Clips as latents of a variational auto-encoder: encode, decode, and the way from one clip to another.

    waveform -> codes -> companded -> encoder -> latents (C, F)    -> decoder -> waveform
                                                 .npz on disk
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.audio import io, mulaw
from wavegen.audio.atomic import atomic_write
from wavegen.config import VAEConfig
from wavegen.errors import BadInputError, ConfigError
from wavegen.models import ConditioningInputs
from wavegen.synth.plan import Request
from wavegen.synth.synthesizer import AudioChunk, Synthesizer

ENDING = ".npz"
MAX_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Latents:
    """A clip as its model sees it.

    Attributes:
        values: float32 (C, F), means of the posterior.
        num_samples: of the clip, at the model's rate.
        label, speaker: what is said and by whom, if that is known; a decoder may have to be told.
        model: name of the model, for messages.
        weights_sha256: of the model's weights: the latents mean nothing to any other.
    """

    values: np.ndarray
    num_samples: int
    label: str | None
    speaker: str | None
    model: str
    weights_sha256: str

    def save(self, path: str | Path) -> None:
        """Write an .npz file, whole or not at all; the same latents give the same bytes.

        Raises:
            ConfigError: another ending.
            WavegenError: the file cannot be written.
        """
        check_latents_place(Path(path))
        facts: dict[str, Any] = {"latents": self.values, "num_samples": np.int64(self.num_samples),
                                 "label": np.str_(self.label or ""), "speaker": np.str_(self.speaker or ""),
                                 "model": np.str_(self.model), "weights_sha256": np.str_(self.weights_sha256)}
        with atomic_write(path) as file:
            np.savez(file, **facts)


def check_latents_place(path: Path) -> None:
    """Fail before the work is done rather than after it: ConfigError."""
    if path.suffix.lower() != ENDING:
        raise ConfigError(f'cannot write latents to "{path}": give a name that ends in {ENDING}')
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")


def load_latents(path: str | Path) -> Latents:
    """Read what `Latents.save` wrote.

    Raises:
        BadInputError: missing, damaged, or not a file of latents.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path} does not exist; `wavegen encode MODEL A.wav -o {path.stem}.npz` makes one")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            values = np.asarray(file["latents"], np.float32)
            number = int(file["num_samples"])
            texts = {name: str(file[name]) for name in ("label", "speaker", "model", "weights_sha256")}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} does not hold latents of `wavegen encode`: {error}") from error
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise BadInputError(f"{path} holds latents of shape {values.shape}; they must be finite and (channels, frames)")
    if number < 1:
        raise BadInputError(f"{path} holds a clip of {number} samples; it must be at least 1")
    return Latents(values, number, texts["label"] or None, texts["speaker"] or None, texts["model"],
                   texts["weights_sha256"])


def encode(synthesizer: Synthesizer, waveform: np.ndarray, sample_rate: int, label: str | None = None,
           speaker: str | None = None, normalize: bool = False) -> Latents:
    """The latents of a clip of any length; a clip longer than a window becomes several windows.

    Args:
        synthesizer: from `wavegen.load`, of a model of family `vae`.
        waveform: float32 (T,), T >= 1; louder than full scale is scaled down.
        sample_rate: Hz; another rate than the model's is resampled.
        label, speaker: kept with the latents for a decoder that must be told; needed where the prior depends on them.
        normalize: bring the peak to 0.9, where recipes put it; silence stays silence.

    Raises:
        ConfigError: the model has no encoder, knows no such label or speaker, or needs them and was not told.
        BadInputError: the clip is empty or not finite.
    """
    check_encodes(synthesizer)
    spec = synthesizer.spec
    for name, kind, known in ((label, "label", synthesizer.labels), (speaker, "speaker", synthesizer.speakers)):
        if name is not None and not known:
            raise ConfigError(f'model "{spec.name}" has no {kind}s, found {kind} "{name}"; leave it out')
        if name is not None:
            getattr(spec.vocabulary, f"{kind}_id")(name)
    told = _told(synthesizer, label, speaker)
    clip = _prepared(waveform, sample_rate, synthesizer.sample_rate, normalize)
    channels = spec.audio.quantization_channels
    companded = mulaw.to_companded(mulaw.encode(clip, channels), channels)
    with torch.inference_mode():
        device = next(synthesizer.model.parameters()).device
        posterior = synthesizer.model.encode(torch.from_numpy(companded)[None].to(device), told.to(device))
    return Latents(posterior.mean[0].cpu().numpy(), len(clip), label, speaker, spec.name, spec.weights_sha256)


def decode(synthesizer: Synthesizer, latents: Latents, label: str | None = None, speaker: str | None = None,
           seed: int = 0, temperature: float = 1.0, min_p: float = 0.0) -> AudioChunk:
    """The clip of latents: the reconstruction, if they come from `encode`.

    Args:
        label, speaker: None takes those kept with the latents.
        seed, temperature, min_p: of a wavenet decoder, which draws; a conv decoder has nothing to draw.

    Raises:
        ConfigError: latents of another model, or a label or speaker is missing or unknown.
        BadInputError: latents of another shape.
    """
    check_encodes(synthesizer)
    _check_model(synthesizer, latents)
    request = Request(label or latents.label, speaker or latents.speaker, seed=seed, temperature=temperature,
                      min_p=min_p)
    (clip,) = synthesizer.decode([torch.from_numpy(latents.values)], [request], [latents.num_samples])
    return clip


def morph(synthesizer: Synthesizer, first: Latents, second: Latents, steps: int = 9, seed: int = 0,
          temperature: float = 1.0) -> Iterator[AudioChunk]:
    """The way from one clip to another in `steps` clips; the first and the last are the reconstructions.

    Latents go along the arc of a great circle, where the prior has them, their norm and the length
    of the clip in proportion; label and speaker are mixed. The shorter clip is taken to be followed
    by silence.

    Raises:
        ConfigError: fewer than two steps, or latents that do not fit the model.
    """
    check_encodes(synthesizer)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= MAX_STEPS:
        raise ConfigError(f"steps must be a whole number in [2, {MAX_STEPS}], found {steps!r}")
    for clip in (first, second):
        _check_model(synthesizer, clip)
    begin, end = (Request(clip.label, clip.speaker, seed=seed, temperature=temperature) for clip in (first, second))
    one, two = _of_one_length(synthesizer, first, second)
    for step in range(steps):
        share = step / (steps - 1)
        at_an_end = step in (0, steps - 1)
        nearest = (first, second)[round(share)]
        values = nearest.values if at_an_end else arc(one, two, share)
        length = nearest.num_samples if at_an_end else round(
            (1 - share) * first.num_samples + share * second.num_samples)
        request = (begin, end)[round(share)] if at_an_end else begin
        towards = None if at_an_end else (end, share)
        yield synthesizer.decode([torch.from_numpy(values)], [request], [length], [towards])[0]


def joined(clips: list[AudioChunk]) -> AudioChunk:
    """Clips one after the other, as one."""
    return replace(clips[0], waveform=np.concatenate([clip.waveform for clip in clips]))


def arc(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The point float32 (C, F) a share of the way along the great circle from one (C, F) to another.

    Directions turn evenly, norms change in proportion; window for window the same. Where there is no
    arc (opposite or vanishing latents) the way is straight.

    Reference: White, "Sampling generative networks", arXiv:1609.04468, section 2.1.
    """
    norms = np.linalg.norm(first.astype(np.float64)), np.linalg.norm(second.astype(np.float64))
    straight = (1 - share) * first + share * second
    if min(norms) < 1e-6:
        return np.asarray(straight, np.float32)
    one, two = first / norms[0], second / norms[1]
    angle = np.arccos(np.clip((one * two).sum(dtype=np.float64), -1, 1))
    if np.sin(angle) < 1e-4:
        return np.asarray(straight, np.float32)
    direction = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
    return np.asarray(direction * ((1 - share) * norms[0] + share * norms[1]), np.float32)


def check_encodes(synthesizer: Synthesizer) -> None:
    """Raise ConfigError unless the model has an encoder."""
    family = synthesizer.spec.model.family
    if family != "vae":
        raise ConfigError(f'model "{synthesizer.spec.name}" is a {family}, which has no encoder; '
                          "encode, decode and morph are for the family vae, such as the bundled model notes")


def _prepared(waveform: np.ndarray, sample_rate: int, wanted_rate: int, normalize: bool) -> np.ndarray:
    clip = np.asarray(waveform, np.float32)
    if clip.ndim != 1 or len(clip) == 0:
        raise BadInputError(f"a clip is one channel of at least one sample, found shape {clip.shape}")
    if not np.isfinite(clip).all():
        raise BadInputError("the clip holds NaN or infinite samples and was not encoded")
    clip = io.resample(clip, sample_rate, wanted_rate)
    if len(clip) == 0:
        raise BadInputError(f"nothing is left of the clip at {wanted_rate} Hz: it is too short to be encoded")
    peak = float(np.abs(clip).max())
    if normalize and peak > 0:
        clip = clip * np.float32(0.9 / peak)
    elif peak > 1:
        clip = clip / np.float32(peak)
    return np.clip(clip, -1.0, 1.0)


def _check_model(synthesizer: Synthesizer, latents: Latents) -> None:
    spec = synthesizer.spec
    if latents.weights_sha256 != spec.weights_sha256:
        raise ConfigError(f'these latents are of model "{latents.model}" ({latents.weights_sha256[:12]}), not of '
                          f'"{spec.name}" ({spec.weights_sha256[:12]}): encode the clip again with this model')


def _told(synthesizer: Synthesizer, label: str | None, speaker: str | None) -> ConditioningInputs:
    """What the encoder is told: nothing, unless the prior depends on it."""
    if synthesizer.model.prior is None:
        return ConditioningInputs()
    return synthesizer.conditions(Request(label, speaker))


def _of_one_length(synthesizer: Synthesizer, first: Latents, second: Latents) -> tuple[np.ndarray, np.ndarray]:
    """The values of both with as many windows as the longer: windows of silence follow the shorter."""
    frames, config = max(first.values.shape[1], second.values.shape[1]), synthesizer.spec.model
    assert isinstance(config, VAEConfig)
    if first.values.shape[1] == second.values.shape[1]:
        return first.values, second.values
    channels = synthesizer.spec.audio.quantization_channels
    quiet = mulaw.to_companded(np.full((1, config.num_samples), mulaw.silence_code(channels)), channels)

    def longer(clip: Latents) -> np.ndarray:
        with torch.inference_mode():
            told = _told(synthesizer, clip.label, clip.speaker)
            window = synthesizer.model.encode(torch.from_numpy(quiet), told).mean[0].numpy()
        missing = (frames - clip.values.shape[1]) // window.shape[1]
        return np.concatenate([clip.values, np.tile(window, (1, missing))], axis=1)

    return longer(first), longer(second)
