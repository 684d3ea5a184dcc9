"""Context models: what the last few codes tell about the next one. A floor for every network.

    p_k(x | c_k) = (n(c_k x) + u(c_k) p_{k-1}(x | c_{k-1})) / (n(c_k) + u(c_k)),    p_{-1} = 1 / Q

n counts occurrences in the training clips, u(c) the distinct codes seen after context c, and
c_k is the last k codes; a context never seen passes the question on to the shorter one.

Reference: Witten and Bell, "The zero-frequency problem", IEEE Trans. Inf. Theory 37(4), 1991.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wavegen.audio import mulaw


class ContextModel:
    """Witten-Bell model of codes given the last `order` codes, silence before the first.

    Args:
        clips: integer codes (T,) of each training clip.
        order: length of the longest context.
        quantization_channels: number of codes Q.

    Raises:
        ValueError: if Q ** (order + 1) does not fit 63 bits, or there is nothing to count.
    """

    def __init__(self, clips: Sequence[np.ndarray], order: int, quantization_channels: int = 256) -> None:
        if order < 0 or quantization_channels ** (order + 1) >= 2**63:
            raise ValueError("a context model needs an order of at least 0 and Q ** (order + 1) below 2**63, "
                             f"found order {order} and Q = {quantization_channels}")
        if not any(len(clip) for clip in clips):
            raise ValueError("a context model needs at least one training sample")
        self.order = order
        self.quantization_channels = quantization_channels
        self._tables = [self._count(clips, context) for context in range(order + 1)]

    def bits(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Bits of each whole clip under every order: float64 (order + 1, N)."""
        lengths = np.array([len(clip) for clip in clips], np.int64)
        ends = np.cumsum(lengths)
        totals = np.zeros((self.order + 1, len(clips)))
        if not len(clips) or ends[-1] == 0:
            return totals
        probability = np.full(ends[-1], 1.0 / self.quantization_channels)
        for context, (keys, counts, contexts, totals_seen, distinct) in enumerate(self._tables):
            wanted = self._keys(clips, context)
            count = _lookup(keys, counts, wanted)
            before = wanted // self.quantization_channels
            seen, different = _lookup(contexts, totals_seen, before), _lookup(contexts, distinct, before)
            mixed = (count + different * probability) / np.maximum(seen + different, 1)
            probability = np.where(seen > 0, mixed, probability)
            running = np.concatenate([[0.0], np.cumsum(-np.log2(probability))])
            totals[context] = running[ends] - running[ends - lengths]
        return totals

    def _count(self, clips: Sequence[np.ndarray], context: int) -> tuple[np.ndarray, ...]:
        keys, counts = np.unique(self._keys(clips, context), return_counts=True)
        contexts, first = np.unique(keys // self.quantization_channels, return_index=True)
        distinct = np.diff(np.append(first, len(keys)))
        return keys, counts, contexts, np.add.reduceat(counts, first), distinct

    def _keys(self, clips: Sequence[np.ndarray], context: int) -> np.ndarray:
        """(code[t-k] .. code[t-1] code[t]) of every sample as one number: int64 (sum of T,)."""
        base, silence = self.quantization_channels, mulaw.silence_code(self.quantization_channels)
        pieces = []
        for clip in clips:
            codes = np.concatenate([np.full(context, silence, np.int64), np.asarray(clip, np.int64)])
            keys = np.zeros(len(clip), np.int64)
            for place in range(context + 1):
                keys = keys * base + codes[place : place + len(clip)]
            pieces.append(keys)
        return np.concatenate(pieces)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where there is none; `keys` is sorted."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: np.ndarray = np.where(keys[place] == wanted, values[place], 0)
    return found
