"""The conditioning of a vocoder, computed frame by frame while its mel arrives.

    features of frames f - c .. f + c  ->  hidden, hidden  ->  row f of the table (L, 2R)

With an upsampling factor u a frame has u rows, between it and the next frame (`wavegen.models.conditioning`).

A matrix product of torch rounds differently for another number of rows. Here every output is summed in one fixed
order, so a row of the table has the same bits whichever frames it is computed together with: a stream is the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.compiled import compiled
from wavegen.engines.base import Conditioning
from wavegen.errors import ConfigError

Floats = NDArray[np.float32]


class FrameNetwork:
    """The conditioning network of a model told features (and perhaps a label and a speaker), as plain arrays.

    Attributes:
        n_mels: channels of a feature frame.
        context: frames before its own that a row of the table depends on.
        lookahead: frames after its own.
        upsampling: rows of a feature frame.
        columns: layers and columns of a row.

    Args:
        model: a `wavegen.models.WaveNet`; the weights are copied.

    Raises:
        ConfigError: the model is told no features, or has a progress clock, which needs the length beforehand.
    """

    def __init__(self, model: Any) -> None:
        told = model.config.conditioning
        if not told.features or told.progress_steps:
            raise ConfigError("frames are computed one by one for models that are told features and no progress; this "
                              f"one has features {told.features}, progress_steps {told.progress_steps}")
        network = model.conditioning
        self.n_mels, self.context, self.lookahead = told.features, told.context_frames, told.lookahead_frames
        self.upsampling = told.upsampling
        self.mean, self.scale = np.float32(told.feature_mean), np.float32(told.feature_scale)
        self.columns = (model.config.num_layers, 2 * model.config.residual_channels)
        self._tables = {kind: _array(table) for kind, table in network.tables.items()}
        self._features = _array(network.feature_weight), _array(network.feature_bias)
        self._hidden = _array(network.hidden.weight.t()), _array(network.hidden.bias)
        bias = getattr(model, "dilated_bias", None)
        rows = self.columns[0] * self.columns[1]
        self._table = (_array(model.conditioning_weight),
                       np.zeros(rows, np.float32) if bias is None else _array(bias).reshape(-1))

    def base(self, label: int | None = None, speaker: int | None = None) -> Floats:
        """What label and speaker add to each hidden frame: float32 (C,).

        Raises:
            ConfigError: one of them is missing.
        """
        total = np.zeros(len(self._features[1]), np.float32)
        for kind, number in (("label", label), ("speaker", speaker)):
            if kind not in self._tables:
                continue
            if number is None:
                raise ConfigError(f"this model is conditioned on a {kind}; none was given")
            total = total + self._tables[kind][number]
        return total

    def rows(self, frames: Floats, first: int, count: int, start: int, base: Floats, out: Floats) -> None:
        """Rows start, start + 1, .. of the table, as many as `out` holds; row r is of feature frame r // upsampling.

        Args:
            frames: float32 (n, n_mels), feature frames `first` to first + n - 1: all that the rows depend on, up to
                the last there is.
            first: number of the first of them.
            count: frames of the whole clip, or any larger number while that is not known. The first and the last
                frame hold on beyond the ends.
            base: from `base`.
            out: float32 (rows, L, 2R), is written.
        """
        _rows(frames, first, count, start, self.upsampling, self.context, self.mean, self.scale, base,
              *self._features, *self._hidden, *self._table, out.reshape(len(out), -1))


class FrameTable(Conditioning):
    """Rows that were computed elsewhere, a span at a time: what an engine is told of the frames it is to speak next.

    Args:
        hop_length: samples a row is held for.
        columns: layers and columns of a row.
        batch_size: rows of the batch.
        order: coefficients of the signal path lpc, 0 on the path direct.
    """

    def __init__(self, hop_length: int, columns: tuple[int, int], batch_size: int, order: int = 0) -> None:
        self.hop_length, self.columns, self.batch_size, self.order = hop_length, columns, batch_size, order
        self._first = 0
        self._frames = np.zeros((batch_size, 0, *columns), np.float32)
        self._coefficients = np.zeros((batch_size, 0, order), np.float32)

    def hold(self, first: int, frames: Floats, coefficients: Floats) -> None:
        """Let the rows be these from frame `first` on: (B, n, L, 2R) and (B, n, order); the latter may be empty."""
        self._first, self._frames, self._coefficients = first, frames, coefficients

    def copy(self) -> FrameTable:
        """An independent table with the same rows; arrays are shared, as they are never written."""
        other = object.__new__(FrameTable)
        other.__dict__.update(self.__dict__)
        return other

    def block(self, frame: int) -> tuple[int, int]:
        return self._first, self._first + self._frames.shape[1]

    def frames(self, start: int, stop: int) -> Floats:
        return np.ascontiguousarray(self._frames[:, self._span(start, stop)])

    def prediction(self, start: int, stop: int) -> Floats | None:
        return np.ascontiguousarray(self._coefficients[:, self._span(start, stop)]) if self.order else None

    def _span(self, start: int, stop: int) -> slice:
        assert self._first <= start < stop <= self._first + self._frames.shape[1], "frames that are not held"
        return slice(start - self._first, stop - self._first)


def _array(tensor: Any) -> Floats:
    array: Floats = np.ascontiguousarray(tensor.detach().to("cpu").float().numpy())
    return array


@compiled
def _add_product(x: Any, weight: Any, out: Any) -> None:
    """out (n, C) += x (n, K) @ weight (K, C): each output summed over K in order, whatever n is."""
    inputs = weight.shape[0]
    fours = inputs // 4 * 4
    for k in range(0, fours, 4):
        # Four at a time, one after the other: the sums stay in registers for longer.
        for row in range(out.shape[0]):
            a, b, c, d = x[row, k], x[row, k + 1], x[row, k + 2], x[row, k + 3]
            for column in range(out.shape[1]):
                total = out[row, column] + a * weight[k, column]
                total = total + b * weight[k + 1, column]
                total = total + c * weight[k + 2, column]
                out[row, column] = total + d * weight[k + 3, column]
    for k in range(fours, inputs):
        for row in range(out.shape[0]):
            for column in range(out.shape[1]):
                out[row, column] += x[row, k] * weight[k, column]


@compiled
def _rows(frames: Any, first: Any, count: Any, start: Any, factor: Any, context: Any, mean: Any, scale: Any, base: Any,
          feature_weight: Any, feature_bias: Any, hidden_weight: Any, hidden_bias: Any, table_weight: Any,
          table_bias: Any, out: Any) -> None:
    rows, bands, channels = out.shape[0], frames.shape[1], base.shape[0]
    lowest = start // factor
    spanned = (start + rows - 1) // factor - lowest + (1 if factor == 1 else 2)
    seen = np.zeros((spanned, feature_weight.shape[0]), np.float32)
    for place in range(spanned):
        for step in range(2 * context + 1):
            frame = min(max(lowest + place - context + step, 0), count - 1) - first
            for band in range(bands):
                seen[place, step * bands + band] = (frames[frame, band] - mean) / scale
    hidden, deeper = np.zeros((spanned, channels), np.float32), np.zeros((rows, channels), np.float32)
    _add_product(seen, feature_weight, hidden)
    if factor > 1:
        drawn = np.zeros((rows, channels), np.float32)
        for row in range(rows):
            lower = (start + row) // factor - lowest
            weight = np.float32(((start + row) % factor + 0.5) / factor)
            for channel in range(channels):
                drawn[row, channel] = hidden[lower, channel] + weight * (
                    hidden[lower + 1, channel] - hidden[lower, channel])
        hidden = drawn
    for row in range(rows):
        for channel in range(channels):
            hidden[row, channel] = np.tanh(base[channel] + (hidden[row, channel] + feature_bias[channel]))
    _add_product(hidden, hidden_weight, deeper)
    for row in range(rows):
        for channel in range(channels):
            deeper[row, channel] = np.tanh(deeper[row, channel] + hidden_bias[channel])
    out[:] = 0
    _add_product(deeper, table_weight, out)
    for row in range(rows):
        for column in range(out.shape[1]):
            out[row, column] += table_bias[column]
