"""How sure a judge is of clips, and how different they are: inception score and modified inception score.

Both are read from the label probabilities of a judge. Neither knows what a clip was meant to be, and a judge trained
on smoothed labels is never quite sure: compare them with those of recordings heard by the same judge.
"""

from __future__ import annotations

import numpy as np

FLOOR = 1e-12  # of a probability, before its logarithm


def inception_score(probabilities: np.ndarray) -> float:
    """exp of the mean divergence of a clip's labels from those of all clips: exp(E_x KL(p(y|x) || p(y))).

    Args:
        probabilities: float (N, K), each row adds up to 1.

    Returns:
        1 where every clip is heard the same, K where all are sure and all labels are equally often heard.

    Reference: Salimans et al., arXiv:1606.03498, section 4.
    """
    heard = _checked(probabilities)
    marginal = heard.mean(0)
    return float(np.exp((heard * (_log(heard) - _log(marginal))).sum(1).mean()))


def modified_inception_score(probabilities: np.ndarray) -> float:
    """exp of the mean divergence between the labels of two clips: exp(E_x E_x' KL(p(y|x) || p(y|x'))).

    Larger than the inception score, and it grows also where clips of one label are heard with different
    confidence: it adds the diversity within a label.

    Args:
        probabilities: float (N, K), each row adds up to 1.

    Returns:
        1 where every clip is heard the same; without an upper end.

    Reference: Gurumurthy et al., arXiv:1706.02071, section 4.2, over all pairs as in arXiv:2202.09729.
    """
    heard = _checked(probabilities)
    logs = _log(heard)
    # The mean over pairs of sum p (log p - log p') is that of p log p minus the product of the two means.
    return float(np.exp((heard * logs).sum(1).mean() - heard.mean(0) @ logs.mean(0)))


def _checked(probabilities: np.ndarray) -> np.ndarray:
    heard = np.asarray(probabilities, np.float64)
    if heard.ndim != 2 or 0 in heard.shape:
        raise ValueError(f"probabilities must be of shape (clips, labels), at least one of each, found {heard.shape}")
    if not (np.isfinite(heard).all() and (heard >= 0).all() and np.allclose(heard.sum(1), 1.0, atol=1e-3)):
        raise ValueError("each row of probabilities must be at least 0 and add up to 1")
    return heard


def _log(probabilities: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(probabilities, FLOOR))
    return logs
