"""Copies are near, new clips are as far as unseen recordings."""

from __future__ import annotations

import numpy as np
import pytest

from wavegen.metrics.neighbours import nearest_distances, neighbour_report


def pictures(count, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((count, 6, 5)).astype(np.float32)


def test_distances_are_root_mean_squares_to_the_nearest():
    clips, others = pictures(7), pictures(300, seed=1)
    expected = [min(np.sqrt(np.mean((clip - other) ** 2)) for other in others) for clip in clips]
    assert nearest_distances(clips, others) == pytest.approx(expected, rel=1e-4)
    assert nearest_distances(clips, np.concatenate([others, clips])) == pytest.approx(np.zeros(7), abs=1e-6)


def test_copies_show_as_a_ratio_far_below_1():
    training, unseen = pictures(50), pictures(20, seed=1)
    copied = neighbour_report(training[:20] + pictures(20, seed=2, scale=0.02), unseen, training)
    new = neighbour_report(pictures(20, seed=3), unseen, training)
    assert copied["ratio"] < 0.05 and new["ratio"] == pytest.approx(1.0, abs=0.15)
    assert copied["unseen"] == new["unseen"] and copied["generated"] == pytest.approx(0.02, abs=0.01)


def test_a_few_copies_show_in_the_nearest_tenth():
    training, unseen = pictures(50), pictures(40, seed=1)
    found = neighbour_report(np.concatenate([training[:6], pictures(34, seed=3)]), unseen, training)
    assert found["ratio"] > 0.8 and found["ratio_of_nearest"] < 0.1


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match="one size"):
        nearest_distances(pictures(3), np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match="no clip"):
        nearest_distances(pictures(3), pictures(0))
