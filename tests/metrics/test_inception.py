"""Inception scores of probabilities whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from wavegen.metrics.inception import inception_score, modified_inception_score


def one_hot(labels, count):
    return np.eye(count)[labels]


@pytest.mark.parametrize("score", [inception_score, modified_inception_score])
def test_clips_heard_alike_score_1(score):
    assert score(np.tile([0.1, 0.7, 0.2], (20, 1))) == pytest.approx(1.0)
    assert score(np.full((5, 4), 0.25)) == pytest.approx(1.0)


def test_sure_and_balanced_clips_score_the_number_of_labels():
    assert inception_score(one_hot(np.arange(30) % 6, 6)) == pytest.approx(6.0)


def test_labels_never_heard_are_missing_from_the_score():
    assert inception_score(one_hot(np.arange(30) % 3, 6)) == pytest.approx(3.0)


def test_the_score_of_two_halves_follows_the_formula():
    heard = np.array([[0.9, 0.1], [0.1, 0.9]])
    divergence = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert inception_score(heard) == pytest.approx(np.exp(divergence))
    pair = 0.9 * np.log(9) + 0.1 * np.log(1 / 9)  # half of the pairs are of a clip with itself
    assert modified_inception_score(heard) == pytest.approx(np.exp(pair / 2))


def test_the_modified_score_is_at_least_the_other_and_equal_to_its_double_sum():
    heard = np.random.default_rng(0).dirichlet(np.full(5, 0.3), 40)
    pairs = [(a * np.log(a / b)).sum() for a in heard for b in heard]
    assert modified_inception_score(heard) == pytest.approx(np.exp(np.mean(pairs)))
    assert modified_inception_score(heard) > inception_score(heard)


@pytest.mark.parametrize("heard", [np.zeros((0, 3)), np.zeros(3), np.full((2, 3), 0.5), [[1.5, -0.5]], [[np.nan, 1]]])
def test_what_are_no_probabilities_is_refused(heard):
    with pytest.raises(ValueError, match="probabilities"):
        inception_score(np.asarray(heard))
