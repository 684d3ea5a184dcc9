"""What the engines are measured against, besides the eager step of `wavegen.bench`: one row, one thread, float32.

    CompiledStep        the step as one function through torch.compile
    OnnxStep            the step as an ONNX graph in onnxruntime, its rings outside
    QueueStep           the incremental loop of the best-known public vocoder, reconstructed

Each has the face of `wavegen.bench.eager.EagerStep`: `restart`, `logits` of the next sample, `feed` a
code, `generate` a number of samples. Logits may be off by a constant.
"""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_graph import GraphWriter
from torch import Tensor
from torch.nn import functional

from wavegen.audio.mulaw import silence_code
from wavegen.engines.packing import Network
from wavegen.errors import MissingBackendError


class Rings:
    """Where the past inputs of all layers lie in one array of slots."""

    def __init__(self, network: Network) -> None:
        self.past = network.kernel_size - 1
        self.dilations = np.array(network.dilations)
        self.lengths = self.past * self.dilations
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.count = int(self.lengths.sum())

    def at(self, position: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Slots read, (L, K - 1) oldest first, and slots written, (L,), at a sample."""
        slot = position % self.lengths
        steps = np.arange(self.past) * self.dilations[:, None]
        return (slot[:, None] + steps) % self.lengths[:, None] + self.starts[:, None], slot + self.starts


class CompiledStep:
    """The whole step in one function compiled by torch's inductor; the draw included."""

    title = "torch.compile step"

    @staticmethod
    def check() -> None:
        """Raise MissingBackendError where inductor finds no C++ compiler."""
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            raise MissingBackendError("torch.compile needs a C++ compiler, and none is here; install g++")

    # All tensors are made in inference mode, so that one compiled form serves every call.
    @torch.inference_mode()
    def __init__(self, network: Network, frame: NDArray[np.float32], seed: int = 0) -> None:
        torch.compiler.reset()  # forms of other sizes count towards the limit beyond which nothing is compiled
        self.network, self.frame, self.rings = network, torch.from_numpy(frame), Rings(network)
        self.decoded = torch.tensor(network.decoded)
        torch.manual_seed(seed)  # inductor's multinomial takes torch's own generator
        self._step = torch.compile(_functional_step(network), dynamic=False)
        self.restart()

    @torch.inference_mode()
    def restart(self) -> None:
        silence = torch.tensor([silence_code(self.network.quantization_channels)])
        self.position, self.code, self.older, self._drawn = 0, silence, silence, silence
        self.ring = torch.zeros(self.rings.count, self.network.residual_channels)
        self.history = self.decoded[silence].repeat(self.network.input_taps)

    @torch.inference_mode()
    def logits(self) -> Tensor:
        reads, writes = self.rings.at(self.position)
        self._drawn, logits = self._step(self.code, self.older, self.history, self.ring, torch.from_numpy(reads),
                                         torch.from_numpy(writes), self.frame)
        return logits

    @torch.inference_mode()
    def feed(self, code: int | Tensor) -> None:
        self.older, self.code = self.code, code if isinstance(code, Tensor) else torch.tensor([code])
        if self.network.input_taps:
            self.history = torch.cat([self.decoded[self.code], self.history[:-1]])
        self.position += 1

    def generate(self, num_samples: int) -> list[Tensor]:
        codes = []
        with torch.inference_mode():
            for _ in range(num_samples):
                self.logits()
                codes.append(self._drawn)
                self.feed(self._drawn)
        return codes


def _functional_step(network: Network) -> Any:
    p = {name: torch.from_numpy(array) for name, array in network.parameters.items()}
    layers, kernel, size = network.num_layers, network.kernel_size, network.residual_channels
    dilated = [torch.cat([p["dilated_weight"][layer, k] for k in reversed(range(kernel))]).t().contiguous()
               for layer in range(layers)]
    # Residual and skip read the same z, so they are one product here.
    skip = p["skip_weight"].view(layers, size, -1)
    both = [torch.cat([p["residual_weight"][layer], skip[layer]], 1).t().contiguous() if layer < layers - 1
            else skip[layer].t().contiguous() for layer in range(layers)]
    output, end = p["output_weight"].t().contiguous(), p["end_weight"].t().contiguous()
    embedding, wide = p["embedding"], network.input_kernel_size > 1
    projection = p["input_projection"].t().contiguous() if network.input_taps else None

    def step(code: Tensor, older: Tensor, history: Tensor, ring: Tensor, reads: Tensor, writes: Tensor,
             frame: Tensor) -> tuple[Tensor, Tensor]:
        h = embedding[0][code][0]
        if wide:
            h = h + embedding[1][older][0]
        if projection is not None:
            h = h + torch.mv(projection, history)
        if network.input_tanh:
            h = torch.tanh(h)
        taps, inputs, total = ring[reads], [], p["skip_bias"]
        for layer in range(layers):
            inputs.append(h)
            a = torch.mv(dilated[layer], torch.cat([taps[layer].reshape(-1), h])) + frame[layer]
            z = torch.tanh(a[:size]) * torch.sigmoid(a[size:])
            out = torch.mv(both[layer], z)
            if layer < layers - 1:
                h = (h + out[:size] + p["residual_bias"][layer]) * network.residual_scale
                out = out[size:]
            total = total + out
        ring[writes] = torch.stack(inputs)
        s = functional.relu(total * network.skip_scale)
        logits = torch.mv(end, functional.relu(torch.mv(output, s) + p["output_bias"])) + p["end_bias"]
        return torch.multinomial(torch.softmax(logits, 0), 1), logits

    return step


class OnnxStep:
    """The step as a graph of Gemm nodes; what the graph cannot keep, rings and draw, is numpy."""

    title = "onnxruntime step graph"

    @staticmethod
    def check() -> None:
        """Raise MissingBackendError where onnxruntime is not installed."""
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingBackendError('onnxruntime is not installed; install it with: pip install "wavegen[dev]"')

    def __init__(self, network: Network, frame: NDArray[np.float32], seed: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(_step_graph(network), options, ["CPUExecutionProvider"])
        self.network, self.frame, self.rings = network, np.ascontiguousarray(frame), Rings(network)
        self.draws = np.random.default_rng(seed)
        self.restart()

    def restart(self) -> None:
        network, silence = self.network, silence_code(self.network.quantization_channels)
        self.position, self.codes = 0, [silence] * max(2, network.input_taps)
        self.ring = np.zeros((self.rings.count, network.residual_channels), np.float32)

    def _probabilities(self) -> NDArray[np.float32]:
        network = self.network
        reads, writes = self.rings.at(self.position)
        given = {"code": np.array(self.codes[:1]), "frame": self.frame,
                 "taps": self.ring[reads].reshape(network.num_layers, -1)}
        if network.input_kernel_size > 1:
            given["older"] = np.array(self.codes[1:2])
        if network.input_taps:
            given["history"] = network.decoded[self.codes[:network.input_taps]][None]
        p, inputs = self.session.run(None, given)
        self.ring[writes] = inputs
        return np.asarray(p[0])

    def logits(self) -> Tensor:
        return torch.from_numpy(np.log(np.maximum(self._probabilities(), 1e-38)))

    def feed(self, code: int) -> None:
        self.codes = [code, *self.codes[:-1]]
        self.position += 1

    def generate(self, num_samples: int) -> list[int]:
        codes = []
        for _ in range(num_samples):
            cumulative = np.cumsum(self._probabilities())
            code = int(np.searchsorted(cumulative, self.draws.random() * cumulative[-1], side="right"))
            codes.append(min(code, self.network.quantization_channels - 1))
            self.feed(codes[-1])
        return codes


def _step_graph(network: Network) -> bytes:
    """The ONNX model of a step: code, older code, history, taps (L, (K-1) R), frame (L, 2R) to p, inputs (L, R)."""
    p, graph = network.parameters, GraphWriter()
    layers, size, past = network.num_layers, network.residual_channels, network.kernel_size - 1
    node, constant = graph.node, graph.constant
    graph.input("code", "int64", [1])
    h = node("Gather", [constant(p["embedding"][0]), "code"])
    if network.input_kernel_size > 1:
        graph.input("older", "int64", [1])
        h = node("Add", [h, node("Gather", [constant(p["embedding"][1]), "older"])])
    if network.input_taps:
        graph.input("history", "float32", [1, network.input_taps])
        h = node("Gemm", ["history", constant(p["input_projection"]), h])
    if network.input_tanh:
        h = node("Tanh", [h])
    graph.input("taps", "float32", [layers, past * size])
    graph.input("frame", "float32", [layers, 2 * size])
    taps = graph.split("taps", [1] * layers, axis=0)
    frames = graph.split("frame", [1] * layers, axis=0)
    skip = p["skip_weight"].reshape(layers, size, -1) * np.float32(network.skip_scale)
    channels = skip.shape[2]
    inputs, total = [], constant(p["skip_bias"][None] * np.float32(network.skip_scale))
    for layer in range(layers):
        inputs.append(h)
        weight = np.concatenate(list(p["dilated_weight"][layer, ::-1]))
        u, v = graph.split(node("Gemm", [node("Concat", [taps[layer], h], axis=1), constant(weight), frames[layer]]),
                           [size, size], axis=1)
        z = node("Mul", [node("Tanh", [u]), node("Sigmoid", [v])])
        if layer == layers - 1:
            total = node("Gemm", [z, constant(skip[layer]), total])
            break
        scale = np.float32(network.residual_scale)
        both = np.concatenate([p["residual_weight"][layer] * scale, skip[layer]], 1)
        bias = np.concatenate([p["residual_bias"][layer] * scale, np.zeros(channels, np.float32)])[None]
        residual, part = graph.split(node("Gemm", [z, constant(both), constant(bias)]), [size, channels], axis=1)
        if scale != 1:
            h = node("Mul", [h, constant(np.array([scale]))])
        h = node("Add", [h, residual])
        total = node("Add", [total, part])
    s = node("Relu", [total])
    o = node("Relu", [node("Gemm", [s, constant(p["output_weight"]), constant(p["output_bias"][None])])])
    logits = node("Gemm", [o, constant(p["end_weight"]), constant(p["end_bias"][None])])
    graph.output(node("Softmax", [logits], axis=1), "float32", [1, network.quantization_channels])
    graph.output(node("Concat", inputs, axis=0), "float32", [layers, size])
    return graph.model()


class QueueStep:
    """A reconstruction of the incremental loop of the best-known public WaveNet vocoder (r9y9/wavenet_vocoder).

    As there: every layer is a module; a convolution keeps a queue (B, T, C), moves it by cloning it at
    each sample, and takes every `dilation`-th entry of it; 1x1 convolutions run through the same code;
    the newest sample enters as a one-hot vector, the skips are summed layer by layer, and the draw goes
    through numpy. Its conditioning convolution of 80 mel channels is left out, which favours it.
    """

    title = "incremental loop with a cloned queue per layer (reconstruction of r9y9/wavenet_vocoder's)"

    @staticmethod
    def check() -> None:
        """Nothing is needed besides torch."""

    def __init__(self, network: Network, frame: NDArray[np.float32], seed: int = 0) -> None:
        p = {name: torch.from_numpy(array) for name, array in network.parameters.items()}
        layers, size = network.num_layers, network.residual_channels
        self.network, self.p, self.frame = network, p, torch.from_numpy(frame)
        self.draws = np.random.RandomState(seed)
        zeros = torch.zeros(size)
        self.first = QueueConv(p["embedding"][0][None], zeros)
        skip = p["skip_weight"].view(layers, size, -1)
        none = torch.zeros(skip.shape[2])
        self.dilated = [QueueConv(p["dilated_weight"][layer].flip(0), torch.zeros(2 * size), dilation)
                        for layer, dilation in enumerate(network.dilations)]
        self.skip = [QueueConv(skip[layer][None], p["skip_bias"] if layer == 0 else none) for layer in range(layers)]
        self.residual = [QueueConv(p["residual_weight"][layer][None], p["residual_bias"][layer])
                         for layer in range(layers - 1)]
        self.output = QueueConv(p["output_weight"][None], p["output_bias"])
        self.end = QueueConv(p["end_weight"][None], p["end_bias"])
        self.restart()

    def restart(self) -> None:
        for conv in self.dilated:
            conv.queue = None
        silence = silence_code(self.network.quantization_channels)
        self.codes = [silence] * max(2, self.network.input_taps)

    def logits(self) -> Tensor:
        network, p = self.network, self.p
        newest = torch.zeros(1, 1, network.quantization_channels)
        newest[:, :, self.codes[0]] = 1
        x = self.first(newest)
        if network.input_kernel_size > 1:
            x = x + p["embedding"][1, self.codes[1]]
        if network.input_taps:
            decoded = torch.from_numpy(network.decoded[self.codes[:network.input_taps]])
            x = x + decoded @ p["input_projection"]
        if network.input_tanh:
            x = torch.tanh(x)
        skips: Any = 0
        for layer, conv in enumerate(self.dilated):
            a, b = conv(x).split(network.residual_channels, dim=-1)
            of_a, of_b = self.frame[layer].split(network.residual_channels)
            z = torch.tanh(a + of_a) * torch.sigmoid(b + of_b)
            skips = skips + self.skip[layer](z)
            if layer < len(self.residual):
                x = (self.residual[layer](z) + x) * network.residual_scale
        x = functional.relu(skips * network.skip_scale)
        logits: Tensor = self.end(functional.relu(self.output(x))).view(-1)
        return logits

    def feed(self, code: int) -> None:
        self.codes = [code, *self.codes[:-1]]

    def generate(self, num_samples: int) -> list[int]:
        codes = []
        with torch.no_grad():
            for _ in range(num_samples):
                p = functional.softmax(self.logits(), dim=0).numpy().astype(np.float64)
                codes.append(int(self.draws.choice(len(p), p=p / p.sum())))
                self.feed(codes[-1])
        return codes


class QueueConv(torch.nn.Module):
    """A causal convolution that is fed one sample at a time; weights (K, inputs, outputs), oldest tap first."""

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation = len(weight), dilation
        self.weight = torch.nn.Parameter(weight.flatten(0, 1).t().contiguous())
        self.bias = torch.nn.Parameter(bias)
        self.queue: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, inputs) to (B, 1, outputs)."""
        if self.kernel_size > 1:
            if self.queue is None:
                self.queue = x.new_zeros(len(x), (self.kernel_size - 1) * self.dilation + 1, x.shape[2])
            else:
                self.queue[:, :-1] = self.queue[:, 1:].clone()
            self.queue[:, -1] = x[:, -1]
            x = self.queue[:, ::self.dilation].contiguous() if self.dilation > 1 else self.queue
        return functional.linear(x.reshape(len(x), -1), self.weight, self.bias).view(len(x), 1, -1)


PEERS = {"compiled": CompiledStep, "onnxruntime": OnnxStep, "queues": QueueStep}
