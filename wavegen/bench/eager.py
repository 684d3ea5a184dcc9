"""The baseline: WaveNet's incremental step in eager PyTorch, as fast as we could make it.

Queues are rings written in place, the taps and the current input enter one product, the skip is
one product over all layers, weights lie output-major for the matrix-vector product, inference mode.
Measured against two other forms (skip fused with the residual product, as addmv and as addmm) this
one is 5 to 25 % faster at one row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegen.audio.mulaw import silence_code, thresholds
from wavegen.engines.packing import Network


class EagerStep:
    """One row, float32.

    Args:
        network: the weights.
        frame: conditioning (L, 2R) held for all samples, the bias of the dilated products included. On the signal
            path lpc the coefficients are zeros: they cost what any do.
        seed: of torch's own multinomial draw.
    """

    def __init__(self, network: Network, frame: NDArray[np.float32], seed: int = 0) -> None:
        p = {name: torch.from_numpy(array) for name, array in network.parameters.items()}
        layers, kernel = network.num_layers, network.kernel_size
        self.network, self.p = network, p
        self.dilated = [_output_major(torch.cat([p["dilated_weight"][layer, k] for k in reversed(range(kernel))]))
                        for layer in range(layers)]
        self.residual = [_output_major(weight) for weight in p["residual_weight"]]
        self.skip = _output_major(p["skip_weight"] * network.skip_scale)
        self.skip_bias = p["skip_bias"] * network.skip_scale
        self.output, self.end = _output_major(p["output_weight"]), _output_major(p["end_weight"])
        self.frame = torch.from_numpy(frame)
        self.decoded = torch.tensor(network.decoded)
        self.thresholds = torch.tensor(thresholds(network.quantization_channels))
        self.coefficients = torch.zeros(network.lpc_order)
        self.generator = torch.Generator().manual_seed(seed)
        self.restart()

    def restart(self) -> None:
        """Back to the state before the first sample."""
        network, past = self.network, self.network.kernel_size - 1
        self.position = 0
        self.rings = [torch.zeros(past * dilation, network.residual_channels) for dilation in network.dilations]
        silence = silence_code(network.quantization_channels)
        self.codes = [silence] * max(network.input_kernel_size, network.input_taps)
        self.signal, self.predicted = torch.zeros(max(network.lpc_order, network.input_taps)), torch.zeros(())

    def logits(self) -> Tensor:
        """Logits (Q,) of the next sample."""
        p, size, past = self.p, self.network.residual_channels, self.network.kernel_size - 1
        h = self._excitation() if self.network.lpc_order else self._codes()
        if self.network.input_tanh:
            h = torch.tanh(h)
        gated = []
        for layer, dilation in enumerate(self.network.dilations):
            ring = self.rings[layer]
            slot = self.position % (past * dilation)
            taps = [ring[(slot + k * dilation) % (past * dilation)] for k in range(past)]
            a = torch.addmv(self.frame[layer], self.dilated[layer], torch.cat([*taps, h]))
            ring[slot] = h
            z = torch.tanh(a[:size]) * torch.sigmoid(a[size:])
            gated.append(z)
            if layer < len(self.residual):
                h = h + torch.addmv(p["residual_bias"][layer], self.residual[layer], z)
                if self.network.residual_scale != 1:
                    h = h * self.network.residual_scale
        s = torch.relu(torch.addmv(self.skip_bias, self.skip, torch.cat(gated)))
        o = torch.relu(torch.addmv(p["output_bias"], self.output, s))
        return torch.addmv(p["end_bias"], self.end, o)

    def _codes(self) -> Tensor:
        """Input of the first layer on the path direct."""
        p = self.p
        h = p["embedding"][0, self.codes[0]]
        if self.network.input_kernel_size > 1:
            h = h + p["embedding"][1, self.codes[1]]
        if self.network.input_taps:
            h = torch.addmv(h, p["input_projection"].t(), self.decoded[self.codes[:self.network.input_taps]])
        return h

    def _excitation(self) -> Tensor:
        """Input of the first layer on the path lpc."""
        embedding = self.p["embedding"]
        self.predicted = torch.dot(self.coefficients, self.signal[:len(self.coefficients)]).clamp(-1, 1)
        before, about = torch.bucketize(torch.stack([self.signal[0], self.predicted]), self.thresholds, right=True)
        h = embedding[0, before] + embedding[1, about] + embedding[2, self.codes[0]]
        if self.network.input_taps:
            h = torch.addmv(h, self.p["input_projection"].t(), self.signal[:self.network.input_taps])
        return h

    def feed(self, code: int) -> None:
        """The code of the sample just predicted."""
        if self.network.lpc_order:
            newest = (self.predicted + self.decoded[code]).clamp(-1, 1)
            self.signal = torch.cat([newest[None], self.signal[:-1]])
        self.codes = [code, *self.codes[:-1]]
        self.position += 1

    def generate(self, num_samples: int) -> list[int]:
        """Draw and feed codes."""
        codes = []
        with torch.inference_mode():
            for _ in range(num_samples):
                p = torch.softmax(self.logits(), 0)
                codes.append(int(torch.multinomial(p, 1, generator=self.generator)))
                self.feed(codes[-1])
        return codes


def _output_major(weight: Tensor) -> Tensor:
    return weight.t().contiguous()
