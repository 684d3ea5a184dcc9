"""The one-sample shift between input and target, and the loss in bits."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor
from torch.nn import functional

Nats = TypeVar("Nats", float, Tensor)


def shift(codes: Tensor, silence: int) -> Tensor:
    """The code before each sample: (B, T) moved right by one, silence first.

        codes     a b c d
        previous  - a b c
    """
    return functional.pad(codes[:, :-1], (1, 0), value=silence)


def nats(logits: Tensor, codes: Tensor) -> Tensor:
    """Negative log-likelihood (B, T) in nats of codes (B, T) under logits (B, T, Q)."""
    # The logits of a time-major network are a transposed view; flattening them in memory order
    # keeps cross_entropy from copying a (B, T, Q) tensor.
    flat = functional.cross_entropy(logits.transpose(0, 1).flatten(0, 1), codes.t().reshape(-1), reduction="none")
    return flat.view(codes.shape[1], codes.shape[0]).t()


def bits(total_nats: Nats, count: float) -> Nats:
    """Bits per sample from a sum of nats, a number or a tensor of one."""
    return total_nats / max(count, 1.0) / math.log(2)
