"""After the training of a vocoder: does what it says have anything to do with its mel?

A loss that looks well does not tell: a network may have learned to predict recordings and, left to itself, fall
silent, stick to one code or burst into noise. So it speaks a few held-out clips from their own mel.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from wavegen.data.store import Store
from wavegen.metrics.bursts import MelCheck, check_against_mel
from wavegen.training.copies import speak_rows

logger = logging.getLogger(__name__)

MAX_SECONDS = 4.0  # of a clip
MANY_BURSTS = 0.5  # a second: one the guard of a vocoder can still deal with


def warn_of_collapse(model: Any, store: Store, split: str, num_clips: int) -> list[str]:
    """Speak held-out clips and log a warning for whatever is wrong with them.

    Args:
        model: a vocoder's network.
        store, split: where the clips are.
        num_clips: how many, evenly spread over the split.

    Returns:
        the warnings; none if all is well.
    """
    rows = store.rows(split)
    rows = rows[np.linspace(0, len(rows) - 1, min(num_clips, len(rows))).round().astype(int)]
    spec = store.audio.mel
    assert spec is not None, "a vocoder's store has a mel"
    spoken = speak_rows(model, store, rows, max_seconds=MAX_SECONDS)
    checks = []
    for row, waveform in zip(rows, spoken, strict=True):
        features = store.features(int(row))
        assert features is not None
        checks.append(check_against_mel(waveform, features.T.astype(np.float32), spec))
    warnings = what_is_wrong(checks)
    for line in warnings:
        logger.warning(line)
    return warnings


def what_is_wrong(checks: list[MelCheck]) -> list[str]:
    """In words, with what to do."""
    count, seconds = len(checks), sum(check.seconds for check in checks)
    said = []
    stuck, silent = sum(check.is_constant for check in checks), sum(check.is_silent for check in checks)
    if silent:
        how = "hold one value throughout" if stuck == silent else "fall silent where their mel speaks"
        said.append(f"{silent} of {count} held-out clips, spoken from their own mel after the training, {how}: the "
                    "network has collapsed or learned little. Train longer, or with lower rates (training.optimizer); "
                    "if the recordings hold digital silence, set prepare.dither")
    bursts = sum(check.bursts for check in checks)
    if bursts > MANY_BURSTS * seconds:
        said.append(f"{bursts} bursts of noise in {seconds:.1f} s of held-out clips, spoken from their own mel after "
                    "the training: more than a vocoder's guard can put right. Train longer, or with lower rates "
                    "(training.optimizer); on the signal path lpc raise training.code_noise towards 1")
    return said
