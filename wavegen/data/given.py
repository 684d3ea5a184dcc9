"""Features that are given beside the recordings, in place of those computed from them: `prepare --features DIR`.

An acoustic model that is told the true durations ("teacher forced", "ground-truth aligned") emits frames that
lie over the recording and have the model's own errors. A vocoder fine-tuned on them learns to speak from what it
will be given. One `.npy` an utterance, named by its id.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wavegen.audio.mel_formats import convert_mel, mel_spec
from wavegen.config import MelSpec, Recipe
from wavegen.data.plan import Item
from wavegen.errors import AudioError, BadInputError, ConfigError

logger = logging.getLogger(__name__)

TOLERANCE = 5  # frames more or fewer than the recording has: cut, or the last one held
MAX_SHIFT = 6  # frames by which features are looked for beside their place
SHIFTED = 0.8  # a place is another one if the distance falls to this share there
LEVEL_DB, FAR_NATS = 1.5, 1.7  # medians that are worth a warning; strangers' spectrograms are 2 nats apart and more


class Fit(NamedTuple):
    """How given features lie over those of the recording."""

    shift: int  # frames they come late; 0 is in place
    level_db: float  # how much louder they are
    distance: float  # mean absolute difference in nats, in place


@dataclass(frozen=True)
class GivenFeatures:
    """A folder of features and what they are.

    Attributes:
        folder: holds ID.npy for each utterance, (n_mels, F) or (F, n_mels).
        spec: how they were computed.
    """

    folder: Path
    spec: MelSpec

    def file(self, name: str) -> Path:
        """Where the features of an utterance lie; an id that is a file's path may go without its ending."""
        whole = self.folder / f"{name}.npy"
        bare = (self.folder / name).with_suffix(".npy")
        return bare if bare.is_file() and not whole.is_file() else whole

    def fingerprint(self, items: Iterable[Item], with_time: bool) -> str:
        """Equal for equal folders and specs; `with_time` also notices a file written again."""
        digest = hashlib.sha256(self.spec.model_dump_json().encode())
        for item in items:
            try:
                found = self.file(item.id).stat()
                described = [item.id, found.st_size, found.st_mtime_ns if with_time else 0]
            except (OSError, ValueError):
                described = [item.id, -1, 0]
            digest.update(json.dumps(described).encode())
        return digest.hexdigest()


def given_features(folder: str | Path, spec: MelSpec | str | None, recipe: Recipe) -> GivenFeatures:
    """Check that features of a folder can stand in for those of a recipe.

    Args:
        spec: what they are, a preset's name or a spec; None says they are as the recipe's own.

    Raises:
        BadInputError: there is no such folder.
        MelMismatch: the spec differs from the recipe's in what cannot be converted.
        ConfigError: an unknown preset, or a recipe whose features could not be replaced.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInputError(f"there is no folder {folder}; --features names the folder with one ID.npy an utterance")
    wanted, config = recipe.audio.mel, recipe.prepare
    if wanted is None:
        raise ConfigError("--features stand in for a mel spectrogram, and the recipe has none: describe it in "
                          "audio.mel")
    if config.trim is not None or config.crop_seconds is not None:
        raise ConfigError("--features are of whole recordings: set prepare.trim and prepare.crop_seconds to null, so "
                          "that frames and samples begin together")
    source = wanted if spec is None else mel_spec(spec)
    convert_mel(np.zeros((1, source.n_mels, 1)), source, wanted, check=False)  # raises now, not once a file
    return GivenFeatures(folder, source)


def read_given(file: Path, source: MelSpec, own: np.ndarray, target: MelSpec) -> tuple[np.ndarray, Fit]:
    """The features of one utterance, as long as its recording.

    Args:
        file: `.npy`, (n_mels, F) or (F, n_mels), an axis of 1 before it allowed.
        source: what they are.
        own: float (n_mels, F), those of the recording by `target`.
        target: what is wanted.

    Returns:
        float32 (n_mels, F), and how they lie over `own`.

    Raises:
        AudioError: no such file, not an array, or one that cannot be the features of this recording.
    """
    if not file.is_file():
        raise AudioError(f"it has no features: there is no {file}")
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise AudioError(f"its features {file} cannot be read: {error}") from error
    try:
        values = _convert(np.asarray(values), source, target, own)
    except BadInputError as error:
        reason = str(error).partition(". If it is right")[0]  # which a store is not asked about
        raise AudioError(f"its features {file} cannot be used: {reason}") from error
    missing = own.shape[1] - values.shape[1]
    if abs(missing) > TOLERANCE:
        raise AudioError(f"its features {file} have {values.shape[1]} frames, the recording has {own.shape[1]}; at "
                         f"most {TOLERANCE} may differ")
    values = np.pad(values[:, : own.shape[1]], ((0, 0), (0, max(0, missing))), mode="edge")
    return values, _fit(values, own, target)


def _convert(values: np.ndarray, source: MelSpec, target: MelSpec, own: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2:
        raise BadInputError(f"features are ({source.n_mels}, frames) or (frames, {source.n_mels}), found shape "
                            f"{values.shape}")
    layouts = [layout for layout, axis in (("CT", 0), ("TC", 1)) if values.shape[axis] == source.n_mels]
    ways = [convert_mel(values, source, target, layout)[0] for layout in layouts or ["CT"]]
    # As many frames as bands: the way round that looks like the recording.
    frames = min(own.shape[1], ways[0].shape[1])
    return min(ways, key=lambda way: float(np.abs(way[:, :frames] - own[:, :frames]).mean()))


def _fit(values: np.ndarray, own: np.ndarray, spec: MelSpec) -> Fit:
    unit = np.log(10.0) if spec.log_base == "10" else 1.0
    nats = (values.astype(np.float64) - own) * np.array(spec.scale)[:, None] * unit
    distance, frames = float(np.abs(nats).mean()), own.shape[1]
    shift = 0
    if frames > 4 * MAX_SHIFT:
        # What is compared has the same frames of the recording in every place.
        inner = own[:, MAX_SHIFT : frames - MAX_SHIFT]
        distances = {lag: float(np.abs(values[:, MAX_SHIFT + lag : frames - MAX_SHIFT + lag] - inner).mean())
                     for lag in range(-MAX_SHIFT, MAX_SHIFT + 1)}
        best = min(distances, key=lambda lag: distances[lag])
        shift = best if distances[best] < SHIFTED * distances[0] else 0
    return Fit(shift, float(np.median(nats)) * 20 / np.log(10.0) / spec.power, distance)


@dataclass
class FitReport:
    """Collects how features lie over the recordings and says what looks wrong."""

    fits: list[Fit] = field(default_factory=list)

    def add(self, fit: Fit | None) -> None:
        if fit is not None:
            self.fits.append(fit)

    def warnings(self) -> list[str]:
        """What should be looked at before a training; empty if nothing."""
        if not self.fits:
            return []
        lines = []
        shift, count = Counter(fit.shift for fit in self.fits).most_common(1)[0]
        level = float(np.median([fit.level_db for fit in self.fits]))
        distance = float(np.median([fit.distance for fit in self.fits]))
        if shift and 2 * count > len(self.fits):
            lines.append(f"the features come {abs(shift)} frames too {'late' if shift > 0 else 'early'} in {count} of "
                         f"{len(self.fits)} clips: the vocoder would learn the delay; move them, or make them anew "
                         "from recordings with the same silence at the beginning")
        if abs(level) > LEVEL_DB:
            lines.append(f"the features are {abs(level):.1f} dB {'louder' if level > 0 else 'quieter'} than the "
                         "recordings as prepared: prepare.normalize should be what the acoustic model was trained with")
        if distance > FAR_NATS:
            lines.append(f"the features are {distance:.2f} nats from those of the recordings, as far as any two "
                         "sentences: are they named by the right ids, and teacher-forced?")
        return lines
