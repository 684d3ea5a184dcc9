"""Whether clips are copies of the training set: distances to the nearest training clip.

A distance is the root mean square difference of two log-mel pictures (`wavegen.metrics.hearing`), in nats of power.
What an unseen recording has to its nearest training clip is the measure: copies lie far nearer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK_ROWS = 256


def nearest_distances(clips: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each clip to the nearest of the others: float64 (N,).

    Args:
        clips: float (N, ...), one picture a row.
        others: float (M, ...), M at least 1.
    """
    _check(clips, others)
    if len(others) == 0:
        raise ValueError("there is no clip to be near to")
    first, second = _flat(clips), _flat(others)
    found = np.empty(len(first))
    for begin in range(0, len(first), BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        nearest = _squares(first[block], second).argmin(1)
        # The difference itself, once the neighbour is known: the products above lose what is nearly equal.
        found[block] = np.sqrt(np.mean((first[block] - second[nearest]) ** 2, axis=1))
    return found


def neighbour_report(clips: np.ndarray, unseen: np.ndarray, training: np.ndarray) -> dict[str, Any]:
    """How near clips come to the training set, beside how near unseen recordings come.

    Args:
        clips, unseen, training: float (N, ...), pictures of generated clips, of recordings the model has not
            seen and of those it was trained on.

    Returns:
        `generated`, `unseen`: median distance to the nearest training clip; `ratio`: the first over the second,
        near 1 for a model as new as new recordings, far below 1 for one that copies; `ratio_of_nearest`: the same
        for the nearest tenth of both, which shows a few copies among many clips.
    """
    found, expected = nearest_distances(clips, training), nearest_distances(unseen, training)
    medians = float(np.median(found)), float(np.median(expected))
    tenths = float(np.quantile(found, 0.1)), float(np.quantile(expected, 0.1))
    return {"generated": medians[0], "unseen": medians[1], "ratio": _ratio(*medians),
            "ratio_of_nearest": _ratio(*tenths)}


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of every two rows."""
    products = first @ second.T
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * products
    return np.maximum(squares, 0.0)


def _flat(clips: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(clips, np.float32).reshape(len(clips), -1)


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"pictures must be of one size, found {first.shape[1:]} and {second.shape[1:]}")


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference > 0 else None
