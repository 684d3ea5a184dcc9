"""Copies of recordings beside the recordings: every figure of a pair, and their means with standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from wavegen.metrics.cepstral import mel_cepstral_distortion
from wavegen.metrics.perception import pesq, stoi, unavailable
from wavegen.metrics.pitch import pitch_error
from wavegen.metrics.spectral import log_mel_distance, stft_distance

FIGURES = ("stoi", "pesq", "mcd", "f0_cents", "f0_hertz", "voicing_error", "log_mel", "stft")
QUICK = ("stoi", "log_mel")  # what a training judges by: a tenth of the time

Figures = dict[str, float | None]


def compare(estimate: np.ndarray, target: np.ndarray, sample_rate: int,
            figures: Sequence[str] = FIGURES) -> Figures:
    """Measure a copy against its recording; the longer of the two is cut.

    Args:
        estimate, target: float32 (T,), aligned from the first sample on.
        sample_rate: Hz.
        figures: some of `FIGURES`.

    Returns:
        a number for each figure, None where it is not defined or its package is missing:

        - `stoi`, `pesq`: see `wavegen.metrics.perception`; higher is better;
        - `mcd`: mel-cepstral distortion, dB;
        - `f0_cents`, `f0_hertz`, `voicing_error`: see `wavegen.metrics.pitch.PitchError`;
        - `log_mel`: mean absolute difference of log-mel magnitudes, nats;
        - `stft`: multi-resolution STFT distance.
    """
    size = min(len(estimate), len(target))
    estimate, target = (np.ascontiguousarray(waveform[:size], np.float32) for waveform in (estimate, target))
    missing, found = unavailable(), Figures()
    wanted = set(figures)
    rows = torch.from_numpy(estimate)[None], torch.from_numpy(target)[None]
    for name, measure in (("stoi", stoi), ("pesq", pesq)):
        if name in wanted:
            found[name] = None if name in missing else measure(estimate, target, sample_rate)
    if "mcd" in wanted:
        found["mcd"] = mel_cepstral_distortion(estimate, target, sample_rate)
    if wanted & {"f0_cents", "f0_hertz", "voicing_error"}:
        error = pitch_error(estimate, target, sample_rate)
        found |= {"f0_cents": error.cents, "f0_hertz": error.hertz, "voicing_error": error.voicing}
    if "log_mel" in wanted:
        found["log_mel"] = float(log_mel_distance(*rows, sample_rate))
    if "stft" in wanted:
        found["stft"] = float(stft_distance(*rows))
    return {name: found[name] for name in FIGURES if name in wanted}


def means(clips: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean and standard error of each figure over the clips that have it.

    Returns:
        {figure: {"mean", "standard_error", "clips"}}; the mean is None where no clip has the figure, the
        error where fewer than two do.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in clips[0] if clips else ():
        values = np.array([clip[name] for clip in clips if clip[name] is not None], np.float64)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        table[name] = {"mean": float(values.mean()) if len(values) else None, "standard_error": error,
                       "clips": len(values)}
    return table
