"""Whether a model says one thing only: how different clips of one label are, beside recordings of that label."""

from __future__ import annotations

import numpy as np

from wavegen.metrics.neighbours import mean_pairwise_distance


def diversity(clips: np.ndarray, labels: np.ndarray, recordings: np.ndarray, recorded_labels: np.ndarray,
              ) -> float | None:
    """Mean distance between clips of one label, over that between recordings of the label, averaged over labels.

    Args:
        clips, recordings: float (N, ...), log-mel pictures (`wavegen.metrics.hearing`) or any other features.
        labels, recorded_labels: int (N,), what each is; all equal for a model without labels.

    Returns:
        near 1 for a model as diverse as recordings, near 0 for one that has collapsed; None where no label has
        two clips and two recordings.
    """
    found = []
    for label in np.unique(labels):
        ours, theirs = clips[labels == label], recordings[recorded_labels == label]
        if min(len(ours), len(theirs)) > 1 and (expected := mean_pairwise_distance(theirs)) > 0:
            found.append(mean_pairwise_distance(ours) / expected)
    return float(np.mean(found)) if found else None
