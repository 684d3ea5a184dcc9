"""From a WaveNet's parameters to the buffer the CPU kernels read; weight layout is decided here alone.

`wavegen_kernels/cpu/layout.py` says where the parts lie; this module fills them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.mulaw import decode_table, thresholds
from wavegen.config import WaveNetConfig
from wavegen.engines.ranges import ActivationRanges
from wavegen.errors import EngineUnavailableError, ModelFileError
from wavegen_kernels.cpu import host
from wavegen_kernels.cpu.lanes import WIDTH
from wavegen_kernels.cpu.layout import Shape, make_shape

Floats = NDArray[np.float32]
IMPOSSIBLE = np.float32(-1e30)  # logit of the codes that pad Q to whole panels


@dataclass(frozen=True, eq=False)
class Network:
    """A WaveNet as plain arrays, biases filled in: what an engine needs and nothing else.

    `parameters` has the names and shapes of `wavegen.models.WaveNet`, input-major, float32.
    """

    parameters: Mapping[str, Floats]
    dilations: tuple[int, ...]
    residual_scale: float = 1.0
    skip_scale: float = 1.0
    input_tanh: bool = False
    lpc_order: int = 0  # coefficients of the signal path lpc, 0 on the path direct

    @property
    def num_layers(self) -> int:
        return len(self.dilations)

    @property
    def residual_channels(self) -> int:
        return int(self.parameters["embedding"].shape[2])

    @property
    def quantization_channels(self) -> int:
        return int(self.parameters["embedding"].shape[1])

    @property
    def input_kernel_size(self) -> int:
        """Rows of the embedding: the last codes, or on the path lpc the codes of s[t-1], p[t] and e[t-1]."""
        return int(self.parameters["embedding"].shape[0])

    @property
    def kernel_size(self) -> int:
        return int(self.parameters["dilated_weight"].shape[1])

    @property
    def input_taps(self) -> int:
        return len(self.parameters["input_projection"]) if "input_projection" in self.parameters else 0

    @property
    def decoded(self) -> Floats:
        """Companded value of each code, float32 (Q,)."""
        return np.asarray(decode_table(self.quantization_channels), np.float32)


def make_network(parameters: Mapping[str, Any], config: WaveNetConfig) -> Network:
    """Gather the arrays of a network, zeros for absent biases.

    Raises:
        ModelFileError: a parameter is missing, has the wrong shape, or holds NaN or infinity.
    """
    layers, kernel = config.num_layers, config.kernel_size
    channels, skip, hidden = config.residual_channels, config.skip_channels, config.output_channels
    codes = np.shape(parameters["embedding"])[1] if "embedding" in parameters else 0
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (3 if config.signal_path == "lpc" else config.input_kernel_size, codes, channels),
        "dilated_weight": (layers, kernel, channels, 2 * channels), "dilated_bias": (layers, 2 * channels),
        "residual_weight": (layers - 1, channels, channels), "residual_bias": (layers - 1, channels),
        "skip_weight": (layers * channels, skip), "skip_bias": (skip,),
        "output_weight": (skip, hidden), "output_bias": (hidden,),
        "end_weight": (hidden, codes), "end_bias": (codes,)}
    if config.input_taps:
        shapes["input_projection"] = (config.input_taps, channels)
    arrays = {}
    for name, shape in shapes.items():
        if name not in parameters and name.endswith("_bias"):
            arrays[name] = np.zeros(shape, np.float32)
            continue
        if name not in parameters:
            raise ModelFileError(f'the model has no parameter "{name}"')
        array = np.ascontiguousarray(parameters[name], np.float32)
        if array.shape != shape:
            raise ModelFileError(f'parameter "{name}" is {array.shape}, the configuration needs {shape}')
        if not np.isfinite(array).all():
            raise ModelFileError(f'parameter "{name}" holds NaN or infinity; the training has diverged, '
                                 f'use an earlier checkpoint')
        arrays[name] = array
    return Network(arrays, config.dilations, config.residual_scale, config.skip_scale, config.input_tanh,
                   config.lpc_order if config.signal_path == "lpc" else 0)


def network_of(model: Any) -> Network:
    """The network of a `wavegen.models.WaveNet`."""
    values = {name: value.detach().to("cpu").float().numpy() for name, value in model.named_parameters()}
    return make_network(values, model.config)


@dataclass(frozen=True, eq=False)
class PackedWaveNet:
    """Arrays in the form the generation loops take them; see `wavegen_kernels/cpu/signature.py`."""

    shape: Shape
    sizes: NDArray[np.int64]
    weights: Floats
    embedding: Floats
    decode: Floats
    thresholds: Floats
    dilations: NDArray[np.int64]
    scale: Floats

    @property
    def ring_floats(self) -> int:
        """Floats of the rings of one row."""
        return int((self.shape.kernel_size - 1) * self.dilations.sum() * self.shape.residual)


def pack(network: Network, registers: int, prefetch: int = 0, precision: str = "f32",
         ranges: ActivationRanges | None = None) -> PackedWaveNet:
    """Lay the weights out in execution order.

    Args:
        network: arrays in float32.
        registers, prefetch: see `wavegen_kernels.cpu.host.Target`.
        precision: one of `wavegen_kernels.cpu.layout.PRECISIONS`.
        ranges: of the activations; the integer precisions need them.
    """
    if precision != "f32":
        raise EngineUnavailableError(f"the numba engine cannot run in {precision} yet; use precision=\"f32\"")
    p = network.parameters
    channels = network.residual_channels
    shape = make_shape(network.num_layers, channels, p["skip_bias"].size, p["output_bias"].size,
                       network.quantization_channels, network.kernel_size, network.input_kernel_size,
                       network.input_taps, network.input_tanh, registers, prefetch, precision, network.lpc_order)
    size, layers = shape.residual, network.num_layers
    scale = np.float32(network.residual_scale)
    parts = []
    if shape.input_taps:
        parts.append(_panels(_pad(p["input_projection"], shape.input_taps, size), shape.width(size)))
    for layer in range(layers):
        parts.append(_gate(p["dilated_weight"][layer], shape))
        if layer < layers - 1:
            # h = (h + W z + b) scale: the kernel scales h, so W and b are scaled here.
            parts.append(_pad(p["residual_bias"][layer] * scale, size))
            parts.append(_panels(_pad(p["residual_weight"][layer] * scale, size, size), shape.width(size)))
    # relu(scale x) = scale relu(x) for a positive scale, so it moves into the weights.
    stacked = _pad(p["skip_weight"].reshape(layers, channels, -1), layers, size, shape.skip)
    stacked = stacked.reshape(layers * size, shape.skip) * np.float32(network.skip_scale)
    parts += [_pad(p["skip_bias"] * np.float32(network.skip_scale), shape.skip),
              _panels(stacked, shape.width(shape.skip))]
    parts += [_pad(p["output_bias"], shape.output),
              _panels(_pad(p["output_weight"], shape.skip, shape.output), shape.width(shape.output))]
    order = code_order(shape.codes)
    end_bias = np.full(shape.codes, IMPOSSIBLE, np.float32)
    end_bias[:network.quantization_channels] = p["end_bias"]
    end = _pad(p["end_weight"], shape.output, shape.codes)[:, order]
    parts += [end_bias[order], _panels(end, shape.width(shape.codes))]

    weights = host.floats(shape.total_floats)
    start = 0
    for part in parts:
        weights[start:start + part.size] = part.ravel()
        start += part.size
    assert start == weights.size, (start, weights.size)
    embedding = host.floats(network.input_kernel_size, network.quantization_channels, size)
    embedding[:, :, :channels] = p["embedding"]
    return PackedWaveNet(shape, np.array(shape.sizes, np.int64), weights,
                         embedding, np.array(network.decoded, np.float32),
                         np.array(thresholds(network.quantization_channels)),
                         np.array(network.dilations, np.int64), np.array([scale], np.float32))


def pack_frames(frames: Floats, size: int) -> Floats:
    """Pad both halves of a conditioning table (B, F, L, 2R) to `size` columns each."""
    batch, count, layers, columns = frames.shape
    if columns == 2 * size:
        return np.ascontiguousarray(frames)
    halves = _pad(frames.reshape(batch, count, layers, 2, columns // 2), batch, count, layers, 2, size)
    return halves.reshape(batch, count, layers, 2 * size)


def code_order(codes: int) -> NDArray[np.int64]:
    """Code at each position of the packed logits: lane i holds the i-th sixteenth of the codes."""
    return np.arange(codes).reshape(WIDTH, -1).T.ravel()


def _gate(weight: Floats, shape: Shape) -> Floats:
    """One layer's dilated weight (K, R, 2R): taps oldest first, u and v of sixteen channels side by side."""
    kernel, channels, _ = weight.shape
    size = shape.residual
    halves = _pad(weight[::-1].reshape(kernel, channels, 2, channels), kernel, size, 2, size)
    side_by_side = halves.reshape(kernel * size, 2, size // WIDTH, WIDTH).transpose(0, 2, 1, 3)
    return _panels(side_by_side.reshape(kernel * size, 2 * size), 2 * shape.gate_pairs)


def _panels(matrix: Floats, width: int) -> Floats:
    """(inputs, outputs) to (panels, inputs, width * 16)."""
    inputs, outputs = matrix.shape
    return matrix.reshape(inputs, outputs // (width * WIDTH), width * WIDTH).transpose(1, 0, 2)


def _pad(array: Floats, *shape: int) -> Floats:
    """The array with zeros behind it along every axis."""
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, length) for length in array.shape)] = array
    return out
