"""How the weights of a WaveNet lie in GPU memory: k-major, padded to the tiles the kernels work on.

    gate      (L, K, 2, R, R)             tap, then half: u (tanh), v (sigmoid); inputs, then outputs
    fused     (L, 2, R, R)                W_res of the layer before times W of the newest tap; empty unless asked for
    residual  (L, R, R)                   the scale folded in; zeros for the last layer
    skip      (L, SKIPS, R, CHUNK)        the scale folded in
    output    (SKIPS, OUTPUTS, CHUNK, CHUNK)
    end       (OUTPUTS, CHUNK, CODES)     the logits of codes that only pad are -1e30
    taps      (TAPS, R)                   over decoded samples, the newest first

A tile's sides are powers of two of at least 16: R is padded to one, skip and output channels to
whole chunks of 16, 32 or 64, whichever costs least.

    ring of layer l: slots start_l .. start_l + length_l of (slots, B, R), length_l the least power of
    two that holds (K - 1) d_l inputs; h[t] lies in slot t mod length_l
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNIT = 16  # least side of a tensor-core tile
CHUNKS = (64, 32, 16)
IMPOSSIBLE = -1e30

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """Padded sizes a kernel is compiled for."""

    layers: int
    kernel_size: int
    residual: int
    chunk: int  # columns of a tile of skip or output channels
    skips: int  # such tiles
    outputs: int
    codes: int
    embeddings: int  # codes that are embedded
    taps: int  # past samples that enter linearly; 0 where there are none
    order: int  # coefficients of the signal path lpc; 0 on the path direct
    kept: int  # past samples a row remembers
    input_tanh: bool

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernels name them."""
        return {"LAYERS": self.layers, "KERNEL": self.kernel_size, "R": self.residual, "CHUNK": self.chunk,
                "SKIPS": self.skips, "OUTPUTS": self.outputs, "CODES": self.codes, "EMBEDDINGS": self.embeddings,
                "TAPS": self.taps, "ORDER": self.order, "KEPT": self.kept, "SQUASH": self.input_tanh}

    @property
    def weights(self) -> int:
        """Weights read for every sample, padding included."""
        per_layer = (2 * self.kernel_size + 1) * self.residual ** 2 + self.residual * self.skips * self.chunk
        return (self.taps * self.residual + self.layers * per_layer
                + self.outputs * self.chunk * (self.skips * self.chunk + self.codes))


@dataclass(frozen=True, eq=False)
class Packed:
    """The arrays the kernels read, on one device."""

    sizes: Sizes
    dilations: tuple[int, ...]
    residual_scale: float
    embedding: Tensor  # float32 (EMBEDDINGS, CODES, R)
    taps: Tensor
    gate: Tensor
    fused: Tensor
    residual: Tensor
    residual_bias: Tensor  # float32 (L, R)
    skip: Tensor
    skip_bias: Tensor  # float32 (SKIPS * CHUNK,)
    output: Tensor
    output_bias: Tensor  # float32 (OUTPUTS * CHUNK,)
    end: Tensor
    end_bias: Tensor  # float32 (CODES,)
    decoded: Tensor  # float32 (CODES,), the companded value of each code
    thresholds: Tensor  # float32 (CODES,), the least value of each code but the first; infinite behind
    dilation: Tensor  # int32 (L,)
    ring_start: Tensor  # int64 (L,)
    ring_mask: Tensor  # int32 (L,), length - 1

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, rings and the inputs of products; all sums are float32."""
        return self.gate.dtype

    @property
    def device(self) -> torch.device:
        return self.gate.device

    @property
    def ring_lengths(self) -> list[int]:
        return ring_lengths(self.dilations, self.sizes.kernel_size)

    def ring(self, rings: Tensor, layer: int) -> Tensor:
        """A layer's view (length, B, R) of the rings of all layers."""
        lengths = self.ring_lengths
        start = sum(lengths[:layer])
        return rings[start:start + lengths[layer]]


def power_of_two(value: int, least: int = 1) -> int:
    """The least power of two not below either."""
    return max(least, 1 << max(0, value - 1).bit_length())


def ring_lengths(dilations: Sequence[int], kernel_size: int) -> list[int]:
    """Slots of each layer's ring; powers of two, so that a slot is found by a mask."""
    return [power_of_two((kernel_size - 1) * dilation) for dilation in dilations]


def make_sizes(layers: int, kernel_size: int, residual: int, skip: int, output: int, codes: int,
               embeddings: int = 2, taps: int = 0, input_tanh: bool = False, order: int = 0) -> Sizes:
    """Padded sizes of a network from its true ones."""
    channels, columns = power_of_two(residual, UNIT), power_of_two(codes, UNIT)

    def cost(chunk: int) -> int:
        wide, deep = -(-skip // chunk) * chunk, -(-output // chunk) * chunk
        return layers * channels * wide + deep * (wide + columns)

    chunk = min(CHUNKS, key=cost)
    return Sizes(layers, kernel_size, channels, chunk, -(-skip // chunk), -(-output // chunk), columns, embeddings,
                 power_of_two(taps, UNIT) if taps else 0, order,
                 power_of_two(max(taps, order), UNIT) if taps or order else 0, input_tanh)


def pack(parameters: Mapping[str, Floats], dilations: Sequence[int], decoded: Floats, thresholds: Floats,
         residual_scale: float = 1.0, skip_scale: float = 1.0, input_tanh: bool = False, lpc_order: int = 0,
         dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu", fused: bool = False) -> Packed:
    """Lay out the weights of a WaveNet.

    Args:
        parameters: float32, input-major, named and shaped as those of `wavegen.models.WaveNet`.
        dilations: of each layer.
        decoded: float32 (Q,), the companded value of each code.
        thresholds: float32 (Q - 1,), the least value of each code but the first.
        lpc_order: coefficients of the signal path lpc, 0 on the path direct.
        dtype: float16, bfloat16 or float32.
        fused: whether the latency kernel may run fused, see `latency.Spread`.
    """
    embeddings, codes, channels = parameters["embedding"].shape
    layers, kernel, _, _ = parameters["dilated_weight"].shape
    taps = parameters.get("input_projection", np.zeros((0, channels), np.float32))
    sizes = make_sizes(layers, kernel, channels, parameters["skip_bias"].size, parameters["output_bias"].size, codes,
                       embeddings, len(taps), input_tanh, lpc_order)
    size, chunk = sizes.residual, sizes.chunk
    wide, deep = sizes.skips * chunk, sizes.outputs * chunk

    halves = padded(parameters["dilated_weight"].reshape(layers, kernel, channels, 2, channels),
                    layers, kernel, size, 2, size)
    # relu(scale x) = scale relu(x) for a positive scale, so it moves into the weights.
    skip = padded(parameters["skip_weight"].reshape(layers, channels, -1) * np.float32(skip_scale), layers, size, wide)
    output = padded(parameters["output_weight"], wide, deep)
    end_bias = np.full(sizes.codes, IMPOSSIBLE, np.float32)
    end_bias[:codes] = parameters["end_bias"]
    bounds = np.full(sizes.codes, np.inf, np.float32)
    bounds[:codes - 1] = thresholds
    lengths = ring_lengths(dilations, kernel)

    def tensor(array: Any, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=kind)

    scale = np.float32(residual_scale)
    residual = padded(parameters["residual_weight"] * scale, layers, size, size)
    through = np.zeros((layers if fused else 0, 2, size, size))
    if fused:
        through[1:] = residual[:-1, None].astype(np.float64) @ halves[1:, 0].transpose(0, 2, 1, 3)
    return Packed(
        sizes=sizes, dilations=tuple(dilations), residual_scale=float(scale),
        embedding=tensor(padded(parameters["embedding"], embeddings, sizes.codes, size)),
        taps=tensor(padded(taps, max(sizes.taps, 1), size), dtype),
        gate=tensor(halves.transpose(0, 1, 3, 2, 4), dtype),
        fused=tensor(through, dtype), residual=tensor(residual, dtype),
        residual_bias=tensor(padded(parameters["residual_bias"] * scale, layers, size)),
        skip=tensor(skip.reshape(layers, size, sizes.skips, chunk).transpose(0, 2, 1, 3), dtype),
        skip_bias=tensor(padded(parameters["skip_bias"] * np.float32(skip_scale), wide)),
        output=tensor(output.reshape(sizes.skips, chunk, sizes.outputs, chunk).transpose(0, 2, 1, 3), dtype),
        output_bias=tensor(padded(parameters["output_bias"], deep)),
        end=tensor(padded(parameters["end_weight"], deep, sizes.codes).reshape(sizes.outputs, chunk, sizes.codes),
                   dtype),
        end_bias=tensor(end_bias), decoded=tensor(padded(decoded, sizes.codes)), thresholds=tensor(bounds),
        dilation=tensor(np.array(dilations), torch.int32),
        ring_start=tensor(np.cumsum([0, *lengths[:-1]]), torch.int64),
        ring_mask=tensor(np.array(lengths) - 1, torch.int32))


def padded(array: Floats, *shape: int) -> Floats:
    """The array with zeros behind it along every axis."""
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, length) for length in array.shape)] = array
    return out


def pack_frames(frames: Floats, residual: int) -> Floats:
    """Pad both halves of a conditioning table (B, F, L, 2R) to `residual` columns each."""
    batch, count, layers, columns = frames.shape
    if columns == 2 * residual:
        return np.ascontiguousarray(frames)
    halves = padded(frames.reshape(batch, count, layers, 2, columns // 2), batch, count, layers, 2, residual)
    return halves.reshape(batch, count, layers, 2 * residual)
