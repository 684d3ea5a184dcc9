"""Adaptive linear prediction inside each clip: what is left for a network once the linear part is gone.

    x̂[t] = w · (x[t-1] .. x[t-n])           e = x[t] - x̂[t]
    k = P h / (λ + h · P h)    w += k e      P = (P - k (P h)^T) / λ       (recursive least squares)
    p(c) = Σ_e m_e (F((edge[c+1] - x̂) / s_e) - F((edge[c] - x̂) / s_e))     m = fixed-share posterior

x are the decoded codes, h the last n of them, λ forgets. Nothing is trained: w, P and the weights m
of the experts (Gaussian, Laplace and Student-t noise at several scales s, and the uniform code)
start anew in every clip and learn from its past only. The intervals between the code edges tile the
real line, so that p is a proper distribution over the codes.

References: Haykin, "Adaptive Filter Theory", chapter 10; Herbster and Warmuth, "Tracking the best
expert", Machine Learning 32, 1998 (fixed share).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from wavegen.audio import mulaw

REGULARISATION = 1e-3  # P starts as the identity over this
SHARE = 0.01  # of the experts' weight that is dealt out evenly after each sample
SCALES = np.geomspace(3e-4, 0.3, 14)  # of the prediction error, full scale 1
MAX_TRACE = 1e9  # of P; beyond it nothing more is forgotten, or silence would make P overflow
NUM_SHAPES = 3

_JIT = {"cache": True, "nogil": True}


def linear_prediction_bits(clips: Sequence[np.ndarray], order: int, forgetting: float = 0.999,
                           quantization_channels: int = 256) -> np.ndarray:
    """Bits of each clip under an adaptive linear predictor.

    Args:
        clips: integer codes (T,) of each clip.
        order: past samples n the prediction is made of.
        forgetting: λ in (0, 1]; the predictor remembers about 1 / (1 - λ) samples.
        quantization_channels: number of codes Q.

    Returns:
        float64 (N,), bits of each whole clip.
    """
    if order < 0 or not 0 < forgetting <= 1:
        raise ValueError(f"order must be at least 0 and forgetting in (0, 1], found {order} and {forgetting}")
    lengths = np.array([len(clip) for clip in clips], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    codes = np.concatenate([np.zeros(0, np.int64), *(np.asarray(clip, np.int64) for clip in clips)])
    values = mulaw.decode_table(quantization_channels).astype(np.float64)
    silence = values[mulaw.silence_code(quantization_channels)]
    return _clip_bits(codes, starts, values, silence, code_edges(quantization_channels), order, forgetting,
                      SCALES, SHARE, REGULARISATION)


def code_edges(quantization_channels: int = 256) -> np.ndarray:
    """Amplitudes between which a code is chosen: float64 (Q + 1,), from -inf to inf.

    Code c is chosen for amplitudes in [edges[c], edges[c + 1]).
    """
    mu = quantization_channels - 1
    companded = (np.arange(1, quantization_channels) - 0.5) / mu * 2 - 1
    inner = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu
    return np.concatenate([[-np.inf], inner, [np.inf]])


@njit(**_JIT)
def _cumulative(shape, x):  # type: ignore[no-untyped-def]
    """Distribution function of unit-scale noise: 0 Gaussian, 1 Laplace, 2 Student-t with 4 degrees."""
    if shape == 0:
        return 0.5 * math.erfc(-x * 0.7071067811865476)
    if shape == 1:
        return 0.5 * math.exp(x) if x < 0 else 1.0 - 0.5 * math.exp(-x)
    if math.isinf(x):
        return 0.0 if x < 0 else 1.0
    s = x / math.sqrt(x * x + 4.0)
    return 0.5 + 0.25 * s * (3.0 - s * s)


@njit(**_JIT)
def _clip_bits(  # type: ignore[no-untyped-def]
    codes, starts, values, silence, edges, order, forgetting, scales, share, regularisation
):
    num_codes, num_clips = len(values), len(starts) - 1
    num_experts = len(scales) * NUM_SHAPES + 1
    bits = np.zeros(num_clips)
    likelihood = np.empty(num_experts)
    projected = np.empty(order)  # P h
    for clip in range(num_clips):
        weights = np.zeros(order)
        inverse = np.eye(order) / regularisation  # P
        past = np.full(order, silence)
        belief = np.full(num_experts, 1.0 / num_experts)
        for t in range(starts[clip], starts[clip + 1]):
            code = codes[t]
            prediction = 0.0
            for i in range(order):
                prediction += weights[i] * past[i]
            low, high = edges[code] - prediction, edges[code + 1] - prediction
            if low > 0:  # noise is symmetric, and the lower tail keeps its digits
                low, high = -high, -low
            likelihood[num_experts - 1] = 1.0 / num_codes
            total = belief[num_experts - 1] * likelihood[num_experts - 1]
            for expert in range(num_experts - 1):
                scale, shape = scales[expert // NUM_SHAPES], expert % NUM_SHAPES
                inside = _cumulative(shape, high / scale) - _cumulative(shape, low / scale)
                likelihood[expert] = max(0.0, inside)
                total += belief[expert] * likelihood[expert]
            bits[clip] -= math.log2(total)
            for expert in range(num_experts):
                posterior = belief[expert] * likelihood[expert] / total
                belief[expert] = (1.0 - share) * posterior + share / num_experts
            _adapt(weights, inverse, past, projected, values[code] - prediction, forgetting)
            for i in range(order - 1, 0, -1):
                past[i] = past[i - 1]
            if order > 0:
                past[0] = values[code]
    return bits


@njit(**_JIT)
def _adapt(weights, inverse, past, projected, error, forgetting):  # type: ignore[no-untyped-def]
    """One step of recursive least squares, in place."""
    order = len(weights)
    gain = forgetting
    trace = 0.0
    for i in range(order):
        total = 0.0
        for j in range(order):
            total += inverse[i, j] * past[j]
        projected[i] = total
        gain += total * past[i]
        trace += inverse[i, i]
    forget = forgetting if trace < MAX_TRACE else 1.0
    for i in range(order):
        weights[i] += projected[i] / gain * error
        for j in range(i + 1):
            value = (inverse[i, j] - projected[i] * projected[j] / gain) / forget
            inverse[i, j] = value
            inverse[j, i] = value
