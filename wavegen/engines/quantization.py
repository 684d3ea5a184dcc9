"""From floats to the integers of the CPU engine: rates of the activations, scales of the weights.

`wavegen_kernels/cpu/layout.py` states the arithmetic; here its constants are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.engines.ranges import ActivationRanges
from wavegen_kernels.cpu.lanes import ROUND
from wavegen_kernels.cpu.layout import Format

Doubles = NDArray[np.float64]

# Beyond the calibrated range an activation is clipped. A format with few steps leaves it little room.
HEADROOM = {"i16": 2.0, "i8x15": 2.0, "i8": 1.05}
# A channel that was quiet during calibration keeps this share of the range of its layer.
LEAST_SHARE = 1 / 8
# How far rates follow the ranges of their channels. 1 is best for the activations, 0 for the weights, which take up
# what the rates leave. KL on digits: i8 2.5e-3 at 1, 2.7e-3 at 1/2, 3.3e-3 at 0; i8x15 4.3e-4, 3.4e-4, 3.2e-4.
EVENNESS = 0.5
LIMIT = 2**31 - 1  # of an int32 sum


@dataclass(frozen=True, eq=False)
class Quantizer:
    """q = round(v * rate + zero), one rate and zero for each channel; zero is an integer, so 0 stays exact."""

    form: Format
    rate: Doubles
    zero: Doubles

    @property
    def largest(self) -> Doubles:
        """Bound of |q - zero| of each channel."""
        return np.maximum(self.form.highest - self.zero, self.zero - self.form.lowest)

    def values(self, q: NDArray[Any]) -> NDArray[np.float32]:
        """What stored integers (..., channels) stand for."""
        result: NDArray[np.float32] = ((q - self.zero) / np.maximum(self.rate, 1e-30)).astype(np.float32)
        return result

    def padded(self, channels: int) -> Quantizer:
        """With channels behind it that always hold zero."""
        more = channels - len(self.rate)
        return Quantizer(self.form, np.pad(self.rate, (0, more)), np.pad(self.zero, (0, more), mode="edge"))

    def constants(self) -> list[NDArray[np.float32]]:
        """Rate and zero as kernels read them: ROUND is part of the zero, see `Lanes.quantize`."""
        return [self.rate.astype(np.float32), (self.zero + ROUND).astype(np.float32)]


def channel_quantizer(form: Format, lowest: NDArray[Any], highest: NDArray[Any]) -> Quantizer:
    """One rate a channel, over its calibrated range and some more."""
    low, high = (HEADROOM[form.name] * np.asarray(edge, np.float64) for edge in (lowest, highest))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    if form.lowest < 0:
        span = _spread(np.maximum(-low, high))
        return Quantizer(form, form.highest / span, np.zeros(len(span)))
    span = _spread(high - low)
    rate = form.highest / span
    # What a quiet channel's range is widened by lies on both sides.
    zero = np.round((-low + (span - (high - low)) / 2 * (low < 0)) * rate)
    return Quantizer(form, rate, np.clip(zero, form.lowest, form.highest))


def positive_quantizer(form: Format, highest: NDArray[Any]) -> Quantizer:
    """One rate a channel for what has been rectified."""
    span = _spread(HEADROOM[form.name] * np.asarray(highest, np.float64))
    return Quantizer(form, form.highest / span, np.zeros(len(span)))


def layer_quantizer(form: Format, ranges: NDArray[Any], amplitude: int) -> Quantizer:
    """One rate for all gated outputs of a layer; they lie within -1 and 1.

    Args:
        form: of the stored values.
        ranges: (R, 2), lowest and highest of each channel.
        amplitude: the largest |q - zero|.
    """
    peak = min(1.0, HEADROOM[form.name] * float(np.abs(ranges).max()) or 1.0)
    zero = 0.0 if form.lowest < 0 else float((form.highest + 1) // 2)
    count = len(ranges)
    return Quantizer(form, np.full(count, amplitude / peak), np.full(count, zero))


def gate_amplitude(form: Format) -> int:
    """The largest |q - zero| of a gated output."""
    return form.highest if form.lowest < 0 else form.highest // 2


def _spread(span: Doubles) -> Doubles:
    """The range each rate is made for."""
    most = float(span.max())
    if most == 0:
        return np.ones_like(span)
    return np.maximum(span, LEAST_SHARE * most) ** EVENNESS * most ** (1 - EVENNESS)


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """weights[k, j] * scale[j] stands for w[k, j] / rate[k]: with sums of q * weights, w is applied to v."""

    form: Format
    weights: NDArray[np.int64]
    scale: Doubles
    offset: NDArray[np.int64]  # what zero adds to each sum

    @property
    def shift(self) -> Doubles:
        """What zero adds to each result."""
        return self.offset * self.scale


def integer_matrix(form: Format, w: NDArray[Any], inputs: Quantizer, centred: bool = False) -> IntegerMatrix:
    """Round a matrix (inputs, outputs) to integers, one scale an output.

    Args:
        form: of the weights.
        w: float.
        inputs: of the activations it is applied to.
        centred: the zeros are taken off the sum in integers, so only q - zero must fit.
    """
    rated = np.divide(np.asarray(w, np.float64), inputs.rate[:, None], out=np.zeros(np.shape(w)),
                      where=inputs.rate[:, None] > 0)
    most = 2.0 ** (8 * form.weight_bytes - 1) - 1
    bound = inputs.largest if centred else np.maximum(inputs.largest, np.abs(float(inputs.form.highest)))
    # Rounding may add half a step to every weight.
    room = LIMIT - 0.5 * bound.sum()
    scale = np.maximum(np.abs(rated).max(0) / most, (np.abs(rated) * bound[:, None]).sum(0) / room)
    used = np.where(scale > 0, scale, 1.0)
    weights = np.rint(rated / used).astype(np.int64)
    offset = (weights * inputs.zero.astype(np.int64)[:, None]).sum(0)
    return IntegerMatrix(form, weights, scale, offset)


def to_bytes(q: NDArray[Any], form: Format) -> NDArray[np.uint8]:
    """Stored activations (..., channels) as bytes (..., form.vector(channels))."""
    if form.name == "i16":
        return np.ascontiguousarray(q, np.int16).view(np.uint8)
    if form.planes == 2:
        whole = np.asarray(q, np.int64)
        return np.concatenate([whole & 255, whole >> 8], axis=-1).astype(np.uint8)
    return np.asarray(q).astype(np.uint8)


def from_bytes(stored: NDArray[np.uint8], form: Format) -> NDArray[np.int64]:
    """Twin of `to_bytes`."""
    if form.name == "i16":
        return np.ascontiguousarray(stored).view(np.int16).astype(np.int64)
    if form.planes == 2:
        low, high = np.split(stored.astype(np.int64), 2, axis=-1)
        return low + 256 * high
    return stored.astype(np.int64)


def quantizers(form: Format, end_form: Format, ranges: ActivationRanges, skip: int, output: int,
               residual: int) -> tuple[list[Quantizer], list[Quantizer], Quantizer, Quantizer]:
    """Of the inputs of each layer, the gated outputs of each layer, s and o, padded to these channels."""
    hidden = [channel_quantizer(form, *both.T).padded(residual) for both in ranges.hidden]
    gated = [layer_quantizer(form, both, gate_amplitude(form)).padded(residual) for both in ranges.gated]
    return (hidden, gated, positive_quantizer(form, ranges.skip).padded(skip),
            positive_quantizer(end_form, ranges.output).padded(output))
