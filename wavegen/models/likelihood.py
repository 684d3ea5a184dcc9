"""Probability of mu-law codes under a continuous decoder, exact bin by bin.

    P(c) = sigmoid((y_c + d - m) / s) - sigmoid((y_c - d - m) / s),     y_c = 2 c / (Q - 1) - 1,  d = 1 / (Q - 1)

The first and the last code take the tails, so the probabilities of all codes add up to 1 and the
bits of a decoder can be compared with those of any other model of the same codes.

Reference: discretised logistic of PixelCNN++, arXiv:1701.05517, section 2.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def logistic_nats(codes: Tensor, location: Tensor, log_scale: Tensor, quantization_channels: int) -> Tensor:
    """Negative log-probability of codes, in nats.

    Args:
        codes: int64 (...) in [0, Q).
        location, log_scale: float (...), of the logistic distribution of the companded amplitude.
    """
    top = quantization_channels - 1
    centre, half = codes.to(location.dtype) * (2.0 / top) - 1.0, 1.0 / top
    inverse = torch.exp(-log_scale)
    distance = centre - location
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of nearly equal numbers.
    below = functional.logsigmoid((distance + half) * inverse)
    above = functional.logsigmoid((half - distance) * inverse)
    width = torch.log(-torch.expm1(-2 * half * inverse))
    first, last = codes == 0, codes == top
    inside = below + above + width
    return -torch.where(first, below, torch.where(last, above, inside))


def expand(companded: Tensor, quantization_channels: int) -> Tensor:
    """Waveform of companded amplitudes in [-1, 1], differentiable; `wavegen.audio.mulaw.decode` without codes."""
    mu = quantization_channels - 1
    return torch.sign(companded) * torch.expm1(companded.abs() * math.log1p(mu)) / mu
