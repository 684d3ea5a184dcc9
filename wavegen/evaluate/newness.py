"""Whether clips are new and differ from each other, beside recordings; needs no judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wavegen.audio.mel import mel_basis
from wavegen.data.store import Store
from wavegen.evaluate.clips import recordings
from wavegen.metrics.diversity import diversity
from wavegen.metrics.hearing import Ear, ear_mel, hear
from wavegen.metrics.neighbours import neighbour_report

MAX_TRAINING_CLIPS = 20_000
MAX_FRAMES = 200
USUAL = 0.95  # share of the training clips that are heard to their end


def newness(waveforms: Sequence[np.ndarray], store: Store, unseen: np.ndarray) -> dict[str, Any]:
    """How near clips come to the training split, beside how near unseen recordings come.

    Args:
        waveforms: float (T,) each.
        store: whose training split the model has seen.
        unseen: rows it has not.

    Returns:
        see `wavegen.metrics.neighbours.neighbour_report`.
    """
    rows = store.rows("train")
    lengths, hop = store.lengths[rows], round(0.01 * store.audio.sample_rate)
    num_frames = min(MAX_FRAMES, max(8, math.ceil(float(np.quantile(lengths, USUAL)) / hop)))
    ear = Ear(mel=ear_mel(store.audio.sample_rate), num_frames=num_frames)
    basis = mel_basis(ear.mel)
    step = -(-len(rows) // MAX_TRAINING_CLIPS)
    training, test = (np.concatenate([hear(group, ear, basis) for group in recordings(store, chosen)])
                      for chosen in (rows[::step], unseen))
    return neighbour_report(hear(waveforms, ear, basis), test, training)


def diversity_beside(waveforms: Sequence[np.ndarray], labels: np.ndarray, recorded: Sequence[np.ndarray],
                     recorded_labels: np.ndarray) -> dict[str, Any] | None:
    """How different clips of one label are, beside recordings of that label.

    Returns:
        `generated`, `recordings`: `wavegen.metrics.diversity` of each; `ratio` of the two. None where no label
        has two clips of both.
    """
    size = max(map(len, [*waveforms, *recorded]))
    found, expected = (diversity(np.stack([np.pad(clip, (0, size - len(clip))) for clip in clips]), groups)
                       for clips, groups in ((waveforms, labels), (recorded, recorded_labels)))
    if not (math.isfinite(found) and math.isfinite(expected) and expected > 0):
        return None
    return {"generated": found, "recordings": expected, "ratio": found / expected}
