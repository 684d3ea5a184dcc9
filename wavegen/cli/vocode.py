"""wavegen synth of a vocoder: mels and recordings to audio files, frames from stdin to a player."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.cli.options import STANDARD, note, progress_bar
from wavegen.config import ModelFolder
from wavegen.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from wavegen.synth.files import Delivery
    from wavegen.synth.manifest import Utterance
    from wavegen.synth.vocode import Options
    from wavegen.synth.vocoder import Vocoder


@dataclass(frozen=True)
class Told:
    """The options a vocoder understands and other models do not, as they were given."""

    mel: list[Path] | None
    like: list[Path] | None
    manifest: Path | None
    mel_spec: str | None
    layout: str | None
    normalize: bool
    no_check: bool
    no_guard: bool
    overwrite: bool
    matching: int | None

    def given(self) -> list[str]:
        """The names of those that were given."""
        return ["--" + name.replace("_", "-") for name, value in vars(self).items()
                if value is not None and value is not False]


@dataclass(frozen=True)
class Place:
    """Where the audio goes."""

    output: Path | None
    out: Path | None
    kind: str
    plot: Path | None


def check(told: Told, spec: ModelFolder, place: Place) -> None:
    """Refuse what cannot work before the model is loaded: ConfigError, or MelMismatch."""
    from wavegen.audio.mel_formats import MelConverter

    sources = [name for name in ("mel", "like", "manifest") if getattr(told, name)]
    if len(sources) != 1:
        raise ConfigError(f'model "{spec.name}" is a vocoder: give {"only " if sources else ""}one of --mel (a mel '
                          "spectrogram), --like (a recording to speak again) and --manifest (a list of either)")
    (source,) = sources
    paths = told.mel or told.like or []
    several = source == "manifest" or len(paths) > 1 or any(path.is_dir() for path in paths)
    if several and place.out is None:
        raise ConfigError(f"--{source} names several clips: give --out DIR instead of -o")
    if STANDARD in paths and (source == "like" or place.out is not None or len(paths) > 1):
        raise ConfigError("- reads frames from stdin, for one clip: --mel - -o OUT")
    if STANDARD in paths and (sys.stdin is None or sys.stdin.isatty()):
        state = "closed" if sys.stdin is None else "a terminal"
        raise ConfigError(f"--mel - reads frames from stdin, which is {state}: pipe them in")
    for name, useless in (("--overwrite", told.overwrite and place.out is None),
                          ("--normalize", told.normalize and source == "mel"),
                          ("--mel-spec", told.mel_spec and source == "like"),
                          ("--layout", told.layout and source == "like"),
                          ("--no-check", told.no_check and source == "like")):
        if useless:
            wanted = "--out DIR" if name == "--overwrite" else "--like" if name == "--normalize" else "--mel"
            raise ConfigError(f"{name} is for {wanted}; leave it out")
    if told.mel_spec is not None:
        assert spec.audio.mel is not None
        MelConverter(told.mel_spec, spec.audio.mel)


def speak(vocoder: Vocoder, told: Told, options: Options, place: Place) -> tuple[Delivery, int]:
    """Speak what was asked for; what became of it, and of how many clips."""
    if place.out is None:
        return _one(vocoder, told, options, place), 1
    from wavegen.synth.manifest import from_files, read_manifest
    from wavegen.synth.vocode import vocode_folder

    if told.manifest is not None:
        utterances = read_manifest(told.manifest)
    else:
        utterances = from_files(told.mel or told.like or [], "mel" if told.mel else "like")
    with progress_bar(len(utterances), "speaking") as progress:
        delivery = vocode_folder(vocoder, utterances, place.out, options, told.overwrite, progress)
    if delivery.kept:
        note(f"{delivery.kept} of {len(utterances)} clips were there already; --overwrite speaks them anew")
    if place.plot is not None:
        _plot_folder(vocoder, utterances, delivery, options, place.out, place.plot)
    return delivery, len(utterances)


def _one(vocoder: Vocoder, told: Told, options: Options, place: Place) -> Delivery:
    from wavegen.audio.mel_files import FrameReader
    from wavegen.synth.manifest import Utterance, from_files
    from wavegen.synth.spectrogram import Excerpt, plot_pairs
    from wavegen.synth.vocode import Source, open_source, vocode_file, vocode_stream

    assert place.output is not None
    frames: Source | FrameReader
    if told.mel == [STANDARD]:
        utterance = Utterance("-", mel=STANDARD)
        frames = FrameReader(sys.stdin.buffer, vocoder.n_mels, options.layout)
    else:
        (utterance,) = from_files(told.mel or told.like or [], "mel" if told.mel else "like")
        frames = open_source(vocoder, utterance, options)
    heard = Excerpt(vocoder.sample_rate) if place.plot is not None else None

    def first(seconds: float) -> None:
        note(f"first audio written {1e3 * seconds:.0f} ms after the first frames came")

    with progress_bar(frames.num_samples, "speaking") if isinstance(frames, Source) else nullcontext() as progress:
        if place.output == STANDARD:
            delivery = vocode_stream(vocoder, utterance, options, frames, sys.stdout.buffer, place.kind, progress,
                                     first, heard)
        else:
            delivery = vocode_file(vocoder, utterance, options, frames, place.output, progress, heard)
    if place.plot is not None and heard is not None:
        original = frames.original if isinstance(frames, Source) else None
        plot_pairs(place.plot, [(utterance.id, original, heard.waveform)], vocoder.sample_rate)
    return delivery


def _plot_folder(vocoder: Vocoder, utterances: list[Utterance], delivery: Delivery, options: Options, folder: Path,
                 plot: Path) -> None:
    from wavegen.audio import io
    from wavegen.synth.spectrogram import MAX_CLIPS, plot_pairs
    from wavegen.synth.vocode import load_recording

    pairs: list[tuple[str, np.ndarray | None, np.ndarray]] = []
    for utterance, clip in zip(utterances, delivery.clips, strict=False):
        if clip.error is None and len(pairs) < MAX_CLIPS:
            original = load_recording(vocoder, utterance.like, options.normalize) if utterance.like else None
            pairs.append((utterance.id, original, io.load(folder / clip.row["path"])[0]))
    if pairs:
        plot_pairs(plot, pairs, vocoder.sample_rate)
