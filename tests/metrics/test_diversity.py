"""Diversity: none in copies, and only pairs of one group count."""

from __future__ import annotations

import numpy as np
import pytest

from wavegen.metrics.diversity import diversity


def test_copies_have_none_and_noise_has_some():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((6, 800)).astype(np.float32)
    assert diversity(np.repeat(noise[:1], 6, axis=0)) == pytest.approx(0, abs=1e-5)
    assert diversity(noise) > 0.5


def test_only_pairs_of_a_group_count():
    rng = np.random.default_rng(0)
    clips = np.repeat(rng.standard_normal((2, 800)), 3, axis=0)
    assert diversity(clips, np.repeat([0, 1], 3)) == pytest.approx(0, abs=1e-5)
    assert diversity(clips, np.array([0, 1, 2, 0, 1, 2])) > 0.5
    assert np.isnan(diversity(clips[:2], np.array([0, 1])))


def test_a_clip_shorter_than_a_frame():
    assert diversity(np.array([[0.0, 1.0], [1.0, 0.0]])) >= 0
