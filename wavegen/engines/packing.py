"""From a WaveNet's parameters to the buffer the CPU kernels read; weight layout is decided here alone.

`wavegen_kernels/cpu/layout.py` says where the parts lie; this module fills them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.audio.mulaw import decode_table, thresholds
from wavegen.config import WaveNetConfig
from wavegen.engines.quantization import Quantizer, from_bytes, integer_matrix, quantizers, to_bytes
from wavegen.engines.ranges import ActivationRanges
from wavegen.errors import ConfigError, ModelFileError
from wavegen_kernels.cpu import host
from wavegen_kernels.cpu.lanes import WIDTH
from wavegen_kernels.cpu.layout import FORMATS, Format, Shape, make_shape

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


def make_network(parameters: Mapping[str, Any], config: WaveNetConfig, lpc_order: int = 0) -> Network:
    """Gather the arrays of a network, zeros for absent biases; `lpc_order` is 0 on the signal path direct.

    Raises:
        ModelFileError: a parameter is missing, has the wrong shape, or holds NaN or infinity.
    """
    layers, kernel = config.num_layers, config.kernel_size
    channels, skip, hidden = config.residual_channels, config.skip_channels, config.output_channels
    codes = np.shape(parameters["embedding"])[1] if "embedding" in parameters else 0
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (3 if lpc_order else config.input_kernel_size, codes, channels),
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
                   lpc_order)


def network_of(model: Any) -> Network:
    """The network of a `wavegen.models.WaveNet`."""
    values = {name: value.detach().to("cpu").float().numpy() for name, value in model.named_parameters()}
    return make_network(values, model.config, model.lpc_order)


@dataclass(frozen=True, eq=False)
class PackedWaveNet:
    """Arrays in the form the generation loops take them; see `wavegen_kernels/cpu/signature.py`.

    `silent` is what each layer's ring holds for an input of zeros, uint8 (L, row bytes); `shift` is
    added to the conditioning, float32 (L, 2R), and `hidden` gives meaning to stored inputs; both are
    None in float32.
    """

    shape: Shape
    sizes: NDArray[np.int64]
    weights: NDArray[np.uint8]
    embedding: Floats
    decode: Floats
    thresholds: Floats
    dilations: NDArray[np.int64]
    scale: Floats
    silent: NDArray[np.uint8]
    shift: Floats | None = None
    hidden: Sequence[Quantizer] | None = None

    def slots(self, layer: int) -> int:
        """Past inputs the ring of a layer holds."""
        return int((self.shape.kernel_size - 1) * self.dilations[layer])

    def make_rings(self, rows: int) -> NDArray[np.uint8]:
        """Rings (rows, bytes) before the first sample: every past input is zero."""
        start = np.concatenate([np.tile(silent, self.slots(layer)) for layer, silent in enumerate(self.silent)])
        rings = host.buffer(rows, start.size)
        rings[:] = start
        return rings

    def stored_inputs(self, rings: NDArray[np.uint8], layer: int, slot: int) -> Floats:
        """What a slot of a layer's rings stands for, (rows, R)."""
        form, size = self.shape.format, self.shape.row_bytes
        start = (sum(self.slots(i) for i in range(layer)) + slot) * size
        stored = np.ascontiguousarray(rings[:, start:start + size])
        return self.hidden[layer].values(from_bytes(stored, form)) if self.hidden else stored.view(np.float32)

    def pack_frames(self, frames: Floats) -> Floats:
        """A conditioning table (B, F, L, 2R), both halves padded, as the gate adds it."""
        batch, count, layers, columns = frames.shape
        size = self.shape.residual
        if columns != 2 * size:
            frames = _pad(frames.reshape(batch, count, layers, 2, columns // 2), batch, count, layers, 2, size)
            frames = frames.reshape(batch, count, layers, 2 * size)
        return np.ascontiguousarray(frames if self.shift is None else frames - self.shift)


def pack(network: Network, registers: int, prefetch: int = 0, precision: str = "f32",
         ranges: ActivationRanges | None = None) -> PackedWaveNet:
    """Lay the weights out in execution order.

    Args:
        network: arrays in float32.
        registers, prefetch: see `wavegen_kernels.cpu.host.Target`.
        precision: one of `wavegen_kernels.cpu.layout.PRECISIONS`.
        ranges: of the activations; the integer precisions need them.

    Raises:
        ConfigError: ranges missing, or of another network.
    """
    p = network.parameters
    channels, skip, output = network.residual_channels, p["skip_bias"].size, p["output_bias"].size
    shape = make_shape(network.num_layers, channels, skip, output, network.quantization_channels,
                       network.kernel_size, network.input_kernel_size, network.input_taps, network.input_tanh,
                       registers, prefetch, precision, network.lpc_order)
    parts: list[NDArray[Any]] = []
    if shape.input_taps:
        projection = _pad(p["input_projection"], shape.input_taps, shape.residual)
        parts.append(_matrix(projection, FORMATS["f32"], shape.width(shape.residual)))
    silent, shift, hidden = np.zeros((network.num_layers, shape.row_bytes), np.uint8), None, None
    if precision == "f32":
        parts += _float_parts(_padded_network(network, shape), shape)
    else:
        if ranges is None:
            raise ConfigError(f'precision "{precision}" needs the ranges of the activations; calibrate the model')
        ranges.check(network.num_layers, channels, skip, output)
        hidden, gated, s, o = quantizers(shape.format, shape.end_format, ranges, shape.skip, shape.output,
                                         shape.residual)
        integer, shift = _integer_parts(_padded_network(network, shape), shape, hidden, gated, s, o)
        parts += integer
        silent = np.stack([to_bytes(quantizer.zero, shape.format) for quantizer in hidden])

    weights = host.buffer(shape.total_bytes)
    start = 0
    for part in parts:
        whole = np.ascontiguousarray(part).view(np.uint8).ravel()
        weights[start:start + whole.size] = whole
        start += whole.size
    assert start == weights.size, (start, weights.size)
    embedding = host.floats(network.input_kernel_size, network.quantization_channels, shape.residual)
    embedding[:, :, :channels] = p["embedding"]
    return PackedWaveNet(shape, np.array(shape.sizes, np.int64), weights, embedding,
                         np.array(network.decoded, np.float32), np.array(thresholds(network.quantization_channels)),
                         np.array(network.dilations, np.int64), np.array([network.residual_scale], np.float32),
                         silent, shift, hidden)


def _padded_network(network: Network, shape: Shape) -> dict[str, Floats]:
    """The matrices and biases in the order of the kernels, padded with zeros to the sizes of the shape.

    "tap" (L, K, R, 2R) oldest first, u and v of sixteen channels side by side; the scales of residual
    and skip are part of the weights; the codes of "end" in `code_order`.
    """
    p, layers, kernel = network.parameters, network.num_layers, network.kernel_size
    channels, size = network.residual_channels, shape.residual
    taps = _pad(p["dilated_weight"][:, ::-1].reshape(layers, kernel, channels, 2, channels), layers, kernel, size, 2,
                size)
    scale, skip_scale = np.float32(network.residual_scale), np.float32(network.skip_scale)
    # relu(scale x) = scale relu(x) for a positive scale, so that of the skip moves into the weights.
    # h = (h + W z + b) scale: the kernel scales h, so W and b are scaled here.
    order = code_order(shape.codes)
    end_bias = np.full(shape.codes, IMPOSSIBLE, np.float32)
    end_bias[:network.quantization_channels] = p["end_bias"]
    return {
        "tap": side_by_side(taps.reshape(layers, kernel, size, 2 * size)),
        "residual": _pad(p["residual_weight"] * scale, layers - 1, size, size),
        "residual_bias": _pad(p["residual_bias"] * scale, layers - 1, size),
        "skip": _pad(p["skip_weight"].reshape(layers, channels, -1) * skip_scale, layers, size, shape.skip),
        "skip_bias": _pad(p["skip_bias"] * skip_scale, shape.skip),
        "output": _pad(p["output_weight"], shape.skip, shape.output),
        "output_bias": _pad(p["output_bias"], shape.output),
        "end": _pad(p["end_weight"], shape.output, shape.codes)[:, order], "end_bias": end_bias[order]}


def _float_parts(padded: Mapping[str, Floats], shape: Shape) -> list[NDArray[Any]]:
    """All parts behind the input projection, in float32."""
    form, size = shape.format, shape.residual
    parts = []
    for layer, taps in enumerate(padded["tap"]):
        parts += [_matrix(tap, form, 2 * shape.gate_pairs) for tap in taps]
        if layer < shape.num_layers - 1:
            parts += [padded["residual_bias"][layer], _matrix(padded["residual"][layer], form, shape.width(size))]
        parts.append(_matrix(padded["skip"][layer], form, shape.width(shape.skip)))
    parts.append(padded["skip_bias"])
    for name, outputs in (("output", shape.output), ("end", shape.codes)):
        parts += [padded[f"{name}_bias"], _matrix(padded[name], form, shape.width(outputs))]
    return parts


def _integer_parts(padded: Mapping[str, Floats], shape: Shape, hidden: Sequence[Quantizer],
                   gated: Sequence[Quantizer], s: Quantizer, o: Quantizer) -> tuple[list[NDArray[Any]], Floats]:
    """All parts behind the input projection, in integers, and the shift of the conditioning (L, 2R)."""
    form, end_form, size, kernel = shape.format, shape.end_format, shape.residual, shape.kernel_size
    # One scale a row of the skip for all layers, whose sums are added as integers.
    zs = Quantizer(form, np.concatenate([each.rate for each in gated]), np.concatenate([each.zero for each in gated]))
    skips = integer_matrix(form, padded["skip"].reshape(-1, shape.skip), zs, centred=True)
    parts: list[NDArray[Any]] = []
    shifts = []
    for layer, taps in enumerate(padded["tap"]):
        h, z = hidden[layer], gated[layer]
        every = Quantizer(form, np.tile(h.rate, kernel), np.tile(h.zero, kernel))
        gate = integer_matrix(form, taps.reshape(kernel * size, 2 * size), every)
        rows = gate.weights.reshape(kernel, size, 2 * size)
        shifts.append(one_after_another(gate.shift))
        parts += [_matrix(tap, form, 2 * shape.gate_pairs) for tap in rows[:-1]]
        parts += [*h.constants(), one_after_another(gate.scale).astype(np.float32),
                  *(np.full(WIDTH, constant[0], np.float32) for constant in z.constants()),
                  _matrix(rows[-1], form, 2 * shape.gate_pairs)]
        if layer < shape.num_layers - 1:
            square = integer_matrix(form, padded["residual"][layer], z)
            parts += [(padded["residual_bias"][layer] - square.shift).astype(np.float32),
                      square.scale.astype(np.float32), _matrix(square.weights, form, shape.width(size))]
        own = skips.weights[layer * size:(layer + 1) * size]
        parts.append(_matrix(own, form, shape.width(shape.skip)))
    start = (-skips.offset + 2**31) % 2**32 - 2**31  # sums wrap around, so the start may
    parts += [start.astype(np.int32), (skips.scale * s.rate).astype(np.float32),
              (padded["skip_bias"] * s.rate).astype(np.float32)]
    hidden_layer = integer_matrix(form, padded["output"], s)
    parts += [(hidden_layer.scale * o.rate).astype(np.float32), (padded["output_bias"] * o.rate).astype(np.float32),
              _matrix(hidden_layer.weights, form, shape.width(shape.output))]
    end = integer_matrix(end_form, padded["end"], o)
    parts += [end.scale.astype(np.float32), padded["end_bias"],
              _matrix(end.weights, end_form, shape.width(shape.codes))]
    return parts, np.stack(shifts).astype(np.float32)


def code_order(codes: int) -> NDArray[np.int64]:
    """Code at each position of the packed logits: lane i holds the i-th sixteenth of the codes."""
    return np.arange(codes).reshape(WIDTH, -1).T.ravel()


def side_by_side(gate: NDArray[Any]) -> NDArray[Any]:
    """(..., 2R), all u then all v, to u and v of sixteen channels beside each other."""
    *rest, columns = gate.shape
    return gate.reshape(*rest, 2, columns // 2 // WIDTH, WIDTH).swapaxes(-3, -2).reshape(gate.shape)


def one_after_another(gate: NDArray[Any]) -> NDArray[Any]:
    """Inverse of `side_by_side`."""
    *rest, columns = gate.shape
    return gate.reshape(*rest, columns // 2 // WIDTH, 2, WIDTH).swapaxes(-3, -2).reshape(gate.shape)


def _matrix(matrix: NDArray[Any], form: Format, width: int) -> NDArray[Any]:
    """(inputs, outputs) to (panels, inputs / group, width * 16, group), in the type of the form."""
    inputs, outputs = matrix.shape
    kinds = {"f32": np.float32, "i16": np.int16, "i8x15": np.int8, "i8": np.int8}
    panels = matrix.reshape(inputs // form.group, form.group, outputs // (width * WIDTH), width * WIDTH)
    return np.ascontiguousarray(panels.transpose(2, 0, 3, 1), kinds[form.name])


def _pad(array: Floats, *shape: int) -> Floats:
    """The array with zeros behind it along every axis."""
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, length) for length in array.shape)] = array
    return out
