"""Bits per sample, added up over clips and over the clips of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BitsPerSample:
    """How many bits a model needs for a sample, averaged over samples inside the clips only.

    Silence after a clip costs a model next to nothing, so averaging it in would flatter everyone.

    Attributes:
        mean: over all samples.
        groups: the same for the clips of each group, such as a speaker.
        num_clips: clips averaged over.
        num_samples: samples averaged over.
    """

    mean: float
    groups: Mapping[str, float] = field(default_factory=dict)
    num_clips: int = 0
    num_samples: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def tally(bits: np.ndarray, lengths: np.ndarray, group_ids: np.ndarray | None = None,
          groups: Sequence[str] = ()) -> BitsPerSample:
    """Add up the bits of clips.

    Args:
        bits: float (N,), bits of each whole clip.
        lengths: int (N,), samples of each clip.
        group_ids: int (N,), index into `groups`; negative for none.
        groups: names; a group without clips is left out.

    Raises:
        ValueError: if there is no sample to average over.
    """
    bits, lengths = np.asarray(bits, np.float64), np.asarray(lengths, np.int64)
    num_samples = int(lengths.sum())
    if num_samples == 0:
        raise ValueError("no samples to average over: the clips are empty")
    by_group = {}
    for number, name in enumerate(groups if group_ids is not None else ()):
        chosen = np.asarray(group_ids) == number
        if lengths[chosen].sum() > 0:
            by_group[name] = float(bits[chosen].sum() / lengths[chosen].sum())
    return BitsPerSample(float(bits.sum() / num_samples), by_group, len(bits), num_samples)
