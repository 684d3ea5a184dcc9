"""Frechet distance between two sets of features, each taken for a Gaussian.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)

It depends on how many clips there are (few clips look further apart), so it is only compared
with distances between sets of the same sizes; real training clips give the floor.

Reference: Heusel et al., arXiv:1706.08500, section 3.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Squared Frechet distance between the Gaussian fits of two sets of features.

    Args:
        features: float (N, C).
        reference: float (M, C).

    Returns:
        At least 0; 0 for equal sets. Symmetric.

    Raises:
        ValueError: fewer than two rows, unequal numbers of columns, or values that are not finite.
    """
    first, second = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    for one in (first, second):
        if one.ndim != 2 or len(one) < 2 or one.shape[1] != first.shape[1]:
            raise ValueError("a Frechet distance needs two sets of at least two rows and equal width, "
                             f"found shapes {first.shape} and {second.shape}")
        if not np.isfinite(one).all():
            raise ValueError("features hold NaN or infinite values; a Frechet distance needs finite ones")
    shift = first.mean(0) - second.mean(0)
    one, two = _covariance(first), _covariance(second)
    root = _root(one)
    # root @ two @ root is symmetric, so its square root has real eigenvalues: unlike that of one @ two,
    # which numerical noise turns complex when there are fewer clips than columns.
    crossed = _eigenvalues(root @ two @ root)
    distance = float(shift @ shift + np.trace(one) + np.trace(two) - 2 * np.sqrt(crossed).sum())
    return max(0.0, distance)


def _covariance(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.eigvalsh((matrix + matrix.T) / 2), 0.0)
