"""Calibrates a model on recordings: how large its activations grow, what each precision costs.

The ranges come from training clips and the figures from clips of another split where there is one,
so that the figures count what the ranges did not foresee.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.checkpoint import load_model, model_card, save_model
from wavegen.checkpoint.folder import CARD
from wavegen.config import Calibration, ModelFolder
from wavegen.data.store import Store
from wavegen.engines import PRECISIONS, ModelConditioning, build_engine
from wavegen.engines.calibration import MAX_CLIP, Clip, divergences, ranges_of_clips
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError, EngineUnavailableError, StoreError
from wavegen.metrics.bits import conditioning_inputs

logger = logging.getLogger(__name__)

RANGE_SAMPLES = 120_000  # of training clips
FIGURE_SAMPLES = 60_000  # of clips the ranges have not seen
MIN_CLIPS = 4  # however long they are

Progress = Callable[[str, int, int], None]  # what is done, how many, of how many


def calibrate(model: str | Path, store: str | Path, out: str | Path, name: str | None = None,
              limit: float | None = None, progress: Progress | None = None) -> ModelFolder:
    """Write a model folder that knows its activation ranges and what each precision costs.

    Args:
        model: name of a bundled model, or the path of a model folder.
        store: folder that `wavegen prepare` wrote with the model's recipe.
        out: model folder to write; may be the model itself.
        name: of what is written; None keeps the model's.
        limit: the mean KL per sample that `--precision auto` puts up with; None keeps the model's.

    Returns:
        What was written: `calibration` has the figures.

    Raises:
        ConfigError: a model that no integer precision runs, or a store without clips.
        ModelFileError, StoreError: model or store is missing, damaged, or they do not fit.
    """
    loaded, data = load_model(model), Store.open(store)
    spec = loaded.spec
    if spec.model.family != "wavenet":
        raise ConfigError(f'calibration is for WaveNet, whose precision can be chosen; "{spec.name}" is of family '
                          f"{spec.model.family}")
    if limit is not None and not 0 < limit < math.inf:
        raise ConfigError(f"the limit of the divergence must be above 0, found {limit}")
    check_store(spec, data)
    ranges_split, split = _splits(data)
    network = network_of(loaded.model)
    ranges = ranges_of_clips(network, excerpt(loaded.model, data, ranges_split, RANGE_SAMPLES))
    engines = {}
    for precision in PRECISIONS["numba"][1:]:
        try:
            engines[precision] = build_engine(loaded.model, "numba", precision, ranges=ranges)
        except EngineUnavailableError as error:
            logger.warning("precision %s is not measured: %s", precision, error)
    clips = excerpt(loaded.model, data, split, FIGURE_SAMPLES)
    figures = divergences(engines, network, clips,
                          lambda done: progress("calibrating", done, len(clips)) if progress else None)
    old = spec.calibration
    kept = {} if old is None else {"limit": old.limit}
    calibration = Calibration(
        store_digest=data.digest, ranges_split=ranges_split, split=split, clips=len(clips),
        samples=sum(min(len(codes), MAX_CLIP) for codes, _ in clips),
        precisions={name: value.model_copy(update={key: float(f"{number:.6g}") for key, number in value})
                    for name, value in figures.items()},
        **(kept if limit is None else {"limit": limit}))
    written = spec.model_copy(update={"calibration": calibration, "name": name or spec.name})
    card = (loaded.path / CARD).read_text(encoding="utf-8") if (loaded.path / CARD).is_file() else None
    save_model(out, loaded.model, written, None if card == model_card(spec) else card, loaded.dtype, asdict(ranges))
    return written


def summary(spec: ModelFolder) -> str:
    """What `wavegen export --calibrate` prints."""
    measured = spec.calibration
    assert measured is not None
    lines = [f'calibrated "{spec.name}" on {measured.clips} clips of split {measured.split} '
             f"({measured.samples:,} samples), teacher-forced against float64:"]
    for name, figures in measured.precisions.items():
        verdict = "" if figures.kl <= measured.limit else f", over the limit of {measured.limit:g}"
        lines.append(f"  {name}: KL {figures.kl:.1e} per sample, {figures.bits_change:+.5f} bits per sample{verdict}")
    return "\n".join(lines)


def check_store(spec: ModelFolder, data: Store) -> None:
    """Raise StoreError unless store and model agree on the audio and on what its clips are called."""
    told = spec.model.conditioning
    reads_mel = spec.is_vocoder or spec.audio.signal_path == "lpc"
    facts: tuple[tuple[str, Any, Any], ...] = (
        ("sample_rate", data.audio.sample_rate, spec.audio.sample_rate),
        ("quantization_channels", data.audio.quantization_channels, spec.audio.quantization_channels),
        ("signal_path", data.audio.signal_path, spec.audio.signal_path),
        ("preemphasis", data.audio.preemphasis, spec.audio.preemphasis),
        ("mel", data.audio.mel, spec.audio.mel if reads_mel else data.audio.mel),
        ("labels", data.labels, spec.vocabulary.labels if told.label else data.labels),
        ("speakers", data.speakers, spec.vocabulary.speakers if told.speaker else data.speakers))
    for name, found, wanted in facts:
        if found != wanted:
            raise StoreError(f'store {data.path} has {name} {_text(found)}, the model "{spec.name}" was trained with '
                             f"{_text(wanted)}; prepare a store with the model's recipe")


def excerpt(model: Any, data: Store, split: str, max_samples: int) -> list[Clip]:
    """Clips spread evenly over a split, together about `max_samples` long or `MIN_CLIPS`: codes and conditioning."""
    rows = data.rows(split)
    if len(rows) == 0:
        raise ConfigError(f'split "{split}" of store {data.path} has no clips to calibrate on')
    mean = float(data.lengths[rows].clip(max=MAX_CLIP).mean())
    # One long clip says little: the pauses of a sentence may be all that is heard of it.
    count = int(min(len(rows), max(MIN_CLIPS, max_samples // max(1.0, mean))))
    return [_clip(model, data, int(rows[place])) for place in np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _clip(model: Any, data: Store, row: int) -> Clip:
    return data.codes(row).astype(np.int64), ModelConditioning(model, conditioning_inputs(data, np.array([row])))


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _splits(data: Store) -> tuple[str, str]:
    """Whose clips set the ranges, and whose give the figures."""
    filled = [name for name in data.splits if len(data.rows(name))]
    if not filled:
        raise ConfigError(f"store {data.path} has no clips to calibrate on")
    first = "train" if "train" in filled else filled[0]
    others = [name for name in filled if name != first]
    return first, "test" if "test" in others else others[0] if others else first
