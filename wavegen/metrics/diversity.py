"""How different the clips of a set are from each other: 0 when a generator has collapsed to one clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FRAME, FLOOR = 256, 0.1  # samples; of a magnitude, so that silence is as good as silence


def diversity(waveforms: Sequence[np.ndarray] | np.ndarray, groups: np.ndarray | None = None) -> float:
    """Mean distance between two clips: root mean square of the difference of their log-spectra, in nats.

    Compare it with that of as many recordings of the same groups; a ratio far below 1 is collapse.

    Args:
        waveforms: N clips of one length, float (T,) each.
        groups: int (N,); only pairs of one group count. None: all pairs.

    Returns:
        The mean over pairs; NaN if no two clips share a group.
    """
    clips = np.asarray(waveforms, np.float32)
    pad = max(0, FRAME - clips.shape[1])
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(clips, ((0, 0), (0, pad))), FRAME, axis=1)
    spectra = np.log(np.abs(np.fft.rfft(frames[:, :: FRAME // 2] * np.hanning(FRAME + 1)[:-1])) + FLOOR)
    flat = spectra.reshape(len(clips), -1).astype(np.float64)
    flat = flat - flat.mean(0)  # smaller numbers, same differences
    squares = (flat**2).sum(1)
    distances = np.sqrt(np.maximum(0.0, squares[:, None] + squares - 2 * flat @ flat.T) / flat.shape[1])
    same = np.ones(distances.shape, bool) if groups is None else np.equal.outer(groups, groups)
    pairs = np.triu(same, 1)
    return float(distances[pairs].mean()) if pairs.any() else float("nan")
