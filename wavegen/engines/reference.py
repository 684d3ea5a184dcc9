"""The truth: plain torch, sample by sample, any device, float64 by default, with every layer to look at."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from wavegen.audio.mulaw import silence_code, thresholds
from wavegen.engines.base import (
    AbstractEngine,
    Conditioning,
    Rows,
    State,
    check_codes,
    check_conditioning,
    check_num_samples,
    check_uniforms,
    make_rows,
)
from wavegen.engines.conditioning import FrameBlocks
from wavegen.engines.packing import Network
from wavegen.engines.sampling import draw
from wavegen.errors import ConfigError, EngineUnavailableError, did_you_mean

DTYPES = {"f64": torch.float64, "f32": torch.float32}

Trace = dict[str, Tensor]


class Stepper(ABC):
    """One sample of a block of rows of one model family.

    Blocks always have `block_rows` rows: a matrix product rounds differently for other heights, and
    a row must not depend on how many share its batch.
    """

    block_rows: int
    columns: tuple[int, int]  # layers and columns of a conditioning frame
    order = 0  # coefficients of a linear prediction, 0 for a model that speaks the signal itself
    device: torch.device
    silence: int
    quantization_channels: int

    @abstractmethod
    def start(self) -> dict[str, Any]:
        """Memory of a block before the first sample: tensors and lists of tensors."""

    @abstractmethod
    def step(self, memory: dict[str, Any], previous: Tensor, frame: Tensor, prediction: Tensor, t: int,
             trace: Trace | None) -> Tensor:
        """Logits (block_rows, Q) of sample t.

        Args:
            memory: updated in place.
            previous: int64 (block_rows,), the code before.
            frame: (block_rows, layers, columns).
            prediction: float32 (block_rows, order), coefficients of the path lpc.
            trace: takes the intermediate results, if given.
        """


class WaveNetStepper(Stepper):
    """See `wavegen.models.WaveNet` for the formulas."""

    block_rows = 8  # for tests of a few rows

    def __init__(self, network: Network, dtype: torch.dtype, device: torch.device) -> None:
        self.network, self.device = network, device
        self.columns = (network.num_layers, 2 * network.residual_channels)
        self.quantization_channels = network.quantization_channels
        self.silence = silence_code(network.quantization_channels)
        self.p = {name: torch.tensor(value, dtype=dtype, device=device)
                  for name, value in network.parameters.items()}
        self.decoded = torch.tensor(network.decoded, device=device)
        self.thresholds = torch.tensor(thresholds(network.quantization_channels), device=device)
        self.order = network.lpc_order

    def start(self) -> dict[str, Any]:
        network, past = self.network, self.network.kernel_size - 1
        codes = max(network.input_kernel_size, network.input_taps)
        like = self.p["embedding"]
        memory: dict[str, Any] = {"codes": torch.full((self.block_rows, codes), self.silence, device=self.device)}
        if self.order:
            # The signal is float32 whatever the network computes in: every engine has the same.
            past_samples = max(self.order, network.input_taps)
            memory |= {"signal": torch.zeros(self.block_rows, past_samples, device=self.device),
                       "predicted": torch.zeros(self.block_rows, device=self.device)}
        rings = [like.new_zeros(past * dilation, self.block_rows, network.residual_channels)
                 for dilation in network.dilations]
        return memory | {"rings": rings}

    def step(self, memory: dict[str, Any], previous: Tensor, frame: Tensor, prediction: Tensor, t: int,
             trace: Trace | None) -> Tensor:
        network, p = self.network, self.p
        h = self._excitation(memory, previous, prediction, t) if self.order else self._codes(memory, previous)
        if network.input_tanh:
            h = torch.tanh(h)
        inputs, gated = [], []
        for layer, dilation in enumerate(network.dilations):
            inputs.append(h)
            z = self._gate(memory["rings"][layer], h, layer, dilation, frame[:, layer], t)
            gated.append(z)
            if layer < network.num_layers - 1:
                h = (h + z @ p["residual_weight"][layer] + p["residual_bias"][layer]) * network.residual_scale
        skip = torch.cat(gated, dim=1) @ p["skip_weight"] + p["skip_bias"]
        s = torch.relu(skip * network.skip_scale)
        o = torch.relu(s @ p["output_weight"] + p["output_bias"])
        if trace is not None:
            trace |= {"h": torch.stack(inputs, 1), "z": torch.stack(gated, 1), "s": s, "o": o}
        return o @ p["end_weight"] + p["end_bias"]

    def _codes(self, memory: dict[str, Any], previous: Tensor) -> Tensor:
        """Input of the first layer on the path direct."""
        network, p = self.network, self.p
        memory["codes"] = torch.cat([previous[:, None], memory["codes"][:, :-1]], dim=1)  # newest first
        h = p["embedding"][0][memory["codes"][:, 0]]
        if network.input_kernel_size > 1:
            h = h + p["embedding"][1][memory["codes"][:, 1]]
        if network.input_taps:
            decoded = self.decoded[memory["codes"][:, :network.input_taps]].to(h.dtype)
            h = h + decoded @ p["input_projection"]
        return h

    def _excitation(self, memory: dict[str, Any], previous: Tensor, prediction: Tensor, t: int) -> Tensor:
        """Input of the first layer on the path lpc; see `wavegen.audio.lpc`."""
        if t > 0:
            newest = (memory["predicted"] + self.decoded[previous]).clamp(-1, 1)
            memory["signal"] = torch.cat([newest[:, None], memory["signal"][:, :-1]], dim=1)
        signal, embedding = memory["signal"], self.p["embedding"]
        predicted = torch.zeros_like(memory["predicted"])
        for i in range(self.order):
            predicted = predicted + prediction[:, i] * signal[:, i]
        memory["predicted"] = predicted = predicted.clamp(-1, 1)
        before, about = (torch.bucketize(x.contiguous(), self.thresholds, right=True)
                         for x in (signal[:, 0], predicted))
        h = embedding[0][before] + embedding[1][about] + embedding[2][previous]
        if self.network.input_taps:
            h = h + signal[:, :self.network.input_taps].to(h.dtype) @ self.p["input_projection"]
        return h

    def _gate(self, ring: Tensor, h: Tensor, layer: int, dilation: int, bias: Tensor, t: int) -> Tensor:
        weight, length = self.p["dilated_weight"][layer], len(ring)
        a = h @ weight[0] + bias
        for k in range(1, self.network.kernel_size):
            a = a + ring[(t - k * dilation) % length] @ weight[k]
        # The oldest tap has been read, and its slot now takes the newest input.
        ring[t % length] = h
        u, v = a.chunk(2, dim=1)
        return torch.tanh(u) * torch.sigmoid(v)


class RNNStepper(Stepper):
    """Asks the model itself for each step."""

    block_rows = 16  # for evaluations of many clips: no fused engine runs this family

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:
        self.model = copy.deepcopy(model).to(device=device, dtype=dtype).eval()
        self.device = device
        self.quantization_channels = int(model.quantization_channels)
        self.silence = silence_code(self.quantization_channels)
        self.columns = (1, 3 * int(model.config.hidden_channels))

    def start(self) -> dict[str, Any]:
        return {"hidden": self.model.initial_state(self.block_rows)}

    def step(self, memory: dict[str, Any], previous: Tensor, frame: Tensor, prediction: Tensor, t: int,
             trace: Trace | None) -> Tensor:
        logits, memory["hidden"] = self.model.step(previous, memory["hidden"], frame[:, 0])
        if trace is not None:
            trace |= {"h": memory["hidden"][:, None]}
        result: Tensor = logits
        return result


class ReferenceState(State):
    """Memory of the model for each block of rows."""

    def __init__(self, rows: Rows, blocks: FrameBlocks, stepper: Stepper) -> None:
        self.position, self.batch_size = 0, len(rows.seeds)
        self.rows, self.blocks, self.stepper = rows, blocks, stepper
        blocks_of_rows = -(-self.batch_size // stepper.block_rows)
        self.padded = blocks_of_rows * stepper.block_rows
        self.previous = np.full(self.batch_size, stepper.silence, np.int64)
        self.memories = [stepper.start() for _ in range(blocks_of_rows)]

    def copy(self, conditioning: Conditioning | None = None) -> ReferenceState:
        other = object.__new__(ReferenceState)
        other.__dict__.update(self.__dict__)
        other.blocks, other.previous = self.blocks.copy(conditioning), self.previous.copy()
        other.memories = copy.deepcopy(self.memories)
        return other


class ReferenceEngine(AbstractEngine):
    """Any model family, in batches of any size, without haste.

    Args:
        stepper: makes one sample; see `reference_engine`.
        precision: "f64" or "f32".
        conditioning: used where `start` is given none.
    """

    name = "reference"

    def __init__(self, stepper: Stepper, precision: str, conditioning: Conditioning) -> None:
        self.stepper, self.precision, self.default_conditioning = stepper, precision, conditioning

    def start(self, batch_size: int = 1, conditioning: Conditioning | None = None,
              seeds: int | Sequence[int] = 0, streams: Sequence[int] | None = None,
              temperature: float | Sequence[float] = 1.0,
              min_p: float | Sequence[float] = 0.0) -> ReferenceState:
        rows = make_rows(batch_size, seeds, streams, temperature, min_p)
        conditioning = conditioning or self.default_conditioning
        check_conditioning(conditioning, batch_size)
        blocks = FrameBlocks(conditioning, self.stepper.columns, order=self.stepper.order)
        blocks.at(0)  # a condition that is missing or not finite is refused here, not after the first samples
        with torch.inference_mode():
            return ReferenceState(rows, blocks, self.stepper)

    def step(self, state: State, num_samples: int, uniforms: ArrayLike | None = None) -> NDArray[np.int64]:
        return self._run(state, check_num_samples(num_samples), uniforms, None)[0]

    def logits(self, codes: ArrayLike, conditioning: Conditioning | None = None) -> NDArray[Any]:
        return self.layers(codes, conditioning)["logits"]

    def layers(self, codes: ArrayLike, conditioning: Conditioning | None = None) -> dict[str, NDArray[Any]]:
        """Teacher-forced intermediate results by name, each (B, T, ...).

        WaveNet: "h" (.., L, R) input and "z" (.., L, R) gated output of each layer, "s" and "o"
        the two hidden output layers. RNN: "h" (.., 1, H), the hidden state. Both: "logits".
        """
        forced = check_codes(codes, self.stepper.quantization_channels)
        state = self.start(len(forced), conditioning)
        _, traces = self._run(state, forced.shape[1], None, forced)
        if not traces:
            return {"logits": np.zeros((*forced.shape, self.stepper.quantization_channels))}
        return {name: np.stack([trace[name] for trace in traces], axis=1) for name in traces[0]}

    def _run(self, state: State, num_samples: int, uniforms: ArrayLike | None,
             forced: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], list[dict[str, NDArray[Any]]]]:
        if not isinstance(state, ReferenceState) or state.stepper is not self.stepper:
            raise ConfigError(f"this {type(state).__name__} is of another engine; take one of this engine's start()")
        if uniforms is None:
            uniforms = state.rows.uniforms(state.position, num_samples)
        given = check_uniforms(uniforms, state.batch_size, num_samples)
        codes = np.zeros((state.batch_size, num_samples), np.int64)
        traces = []
        with torch.inference_mode():
            for i in range(num_samples):
                trace = self._sample(state, forced is not None)
                if forced is None:
                    codes[:, i] = draw(trace["logits"], given[:, i], state.rows.temperature, state.rows.min_p)
                else:
                    codes[:, i] = forced[:, i]
                    traces.append(trace)
                state.previous = codes[:, i].copy()
                state.position += 1
        return codes, traces

    def _sample(self, state: ReferenceState, want_trace: bool) -> dict[str, NDArray[Any]]:
        """Logits (B, Q) of the next sample, and with `want_trace` all intermediate results."""
        table, first, _ = state.blocks.at(state.position)
        index = state.position // state.blocks.conditioning.hop_length - first
        frame, prediction = (
            _padded(np.broadcast_to(rows[:, index], (state.batch_size, *rows.shape[2:])), state.padded)
            for rows in (table, state.blocks.prediction))
        previous = _padded(state.previous, state.padded)
        results: list[Trace] = []
        for index, memory in enumerate(state.memories):
            rows = slice(index * self.stepper.block_rows, (index + 1) * self.stepper.block_rows)
            trace: Trace = {}
            logits = self.stepper.step(memory, self._tensor(previous[rows]), self._tensor(frame[rows]),
                                       torch.tensor(prediction[rows], device=self.stepper.device),
                                       state.position, trace if want_trace else None)
            results.append(trace | {"logits": logits})
        return {name: np.concatenate([result[name].cpu().numpy() for result in results])[:state.batch_size]
                for name in results[0]}

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        dtype = DTYPES[self.precision] if array.dtype.kind == "f" else torch.int64
        return torch.tensor(array, dtype=dtype, device=self.stepper.device)


def reference_engine(model: Any, network: Network | None, conditioning: Conditioning, precision: str = "auto",
                     device: str | None = None) -> ReferenceEngine:
    """The reference engine of a model; float64 unless asked otherwise.

    Args:
        model: used for families other than WaveNet.
        network: the arrays of a WaveNet, else None.
        conditioning: the default of `start`.
        device: a torch device; None is the CPU.
    """
    precision = "f64" if precision == "auto" else precision
    if precision not in DTYPES:
        raise ConfigError(f'the reference engine has no precision "{precision}"; '
                          f"{did_you_mean(precision, DTYPES)}")
    place = _device(device)
    stepper: Stepper
    if network is not None:
        stepper = WaveNetStepper(network, DTYPES[precision], place)
    else:
        stepper = RNNStepper(model, DTYPES[precision], place)
    return ReferenceEngine(stepper, precision, conditioning)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
    except RuntimeError:
        raise ConfigError(f'no device "{name}"; give "cpu", "cuda" or "cuda:1"') from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailableError(f'device "{name}" was asked for, but torch finds no NVIDIA GPU here; '
                                     f'use "cpu"')
    return device


def _padded(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """The array with its first row repeated up to `rows`."""
    return np.concatenate([array, np.repeat(array[:1], rows - len(array), axis=0)])


