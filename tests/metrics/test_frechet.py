import numpy as np
import pytest

from wavegen.metrics.frechet import frechet_distance


def cloud(count, width, seed=0, mean=0.0, spread=1.0):
    return mean + spread * np.random.default_rng(seed).standard_normal((count, width))


def test_equal_sets_are_at_distance_zero():
    features = cloud(50, 8)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_distance_is_symmetric():
    first, second = cloud(50, 8), cloud(70, 8, seed=1, mean=0.5, spread=2.0)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


def test_a_shift_counts_with_its_square():
    features = cloud(40, 5)
    assert frechet_distance(features + 2.0, features) == pytest.approx(5 * 4.0, rel=1e-9)


def test_one_dimension_has_a_closed_form():
    first, second = cloud(40, 1), cloud(60, 1, seed=1, mean=1.0, spread=3.0)
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    whitened, _ = np.linalg.qr(rng.standard_normal((60, 4)) - 0.0)
    whitened = whitened - whitened.mean(0)
    basis = np.linalg.cholesky(np.linalg.inv(whitened.T @ whitened / 59))
    white = whitened @ basis  # mean 0, covariance the identity
    scales = np.array([1.0, 2.0, 3.0, 0.5])
    assert frechet_distance(white * scales, white) == pytest.approx(((scales - 1) ** 2).sum(), rel=1e-8)


def test_fewer_clips_than_columns_stay_finite():
    distance = frechet_distance(cloud(5, 64), cloud(7, 64, seed=1))
    assert np.isfinite(distance) and distance > 0


def test_a_constant_column_is_fine():
    features = cloud(20, 3) * [1.0, 0.0, 1.0]
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "at least two rows"),
        (np.zeros((4, 3)), np.zeros((4, 2)), "equal width"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "NaN"),
    ],
)
def test_sets_that_have_no_distance_are_refused(first, second, match):
    with pytest.raises(ValueError, match=match):
        frechet_distance(first, second)
