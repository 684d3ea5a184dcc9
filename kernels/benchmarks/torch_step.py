"""The baselines of the Triton kernels: WaveNet's incremental step in plain torch, for many rows at once.

`eager` calls one operator after the other; `graphed` records the same operators in a CUDA graph and
replays it, so that no time goes into calling them; `compiled` lets torch.compile fuse them first and
records what comes out. Rings are written in place, the taps and the current input enter one product,
the skip is one product over all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MODES = ("eager", "graphed", "compiled")


class TorchStep:
    """Rows of one WaveNet, all from the same start and with the same conditioning frame throughout.

    Args:
        parameters: named and shaped as those of `wavegen.models.WaveNet`, float32.
        dilations: of each layer.
        frame: float32 (L, 2R), bias of the dilated products.
        batch_size: rows.
        dtype: of weights and of all but the softmax.
        mode: one of MODES; all but "eager" need a CUDA device.
        steps: samples in one graph.
    """

    def __init__(self, parameters: Mapping[str, NDArray[np.float32]], dilations: Sequence[int],
                 frame: NDArray[np.float32], batch_size: int, dtype: torch.dtype, device: torch.device | str,
                 mode: str = "eager", residual_scale: float = 1.0, skip_scale: float = 1.0, steps: int = 4) -> None:
        assert mode in MODES, mode
        self.dilations, self.batch_size, self.steps, self.mode = tuple(dilations), batch_size, steps, mode
        self.scale = residual_scale

        def put(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device, dtype)

        p = parameters
        self.embedding = put(p["embedding"])
        layers, kernel, channels, _ = p["dilated_weight"].shape
        self.dilated = [put(p["dilated_weight"][layer, ::-1].reshape(kernel * channels, -1)) for layer in range(layers)]
        self.frame = put(frame)
        self.residual, self.residual_bias = put(p["residual_weight"]), put(p["residual_bias"])
        self.skip, self.skip_bias = put(p["skip_weight"] * skip_scale), put(p["skip_bias"] * skip_scale)
        self.output, self.output_bias = put(p["output_weight"]), put(p["output_bias"])
        self.end, self.end_bias = put(p["end_weight"]), put(p["end_bias"])
        codes = self.embedding.shape[1]
        self.rings = [torch.zeros((kernel - 1) * d, batch_size, channels, dtype=dtype, device=device)
                      for d in self.dilations]
        self.clock = torch.zeros(1, dtype=torch.int64, device=device)
        self.code = torch.full((batch_size,), codes // 2, dtype=torch.int64, device=device)
        self.older = self.code.clone()
        self.last_logits = torch.zeros(batch_size, codes, device=device)
        self._run = self._prepare()

    def logits(self) -> Tensor:
        """Logits (B, Q) of the next sample; the rings move on."""
        channels, kernel = self.embedding.shape[2], self.dilated[0].shape[0] // self.embedding.shape[2]
        h = self.embedding[0, self.code]
        if len(self.embedding) > 1:
            h = h + self.embedding[1, self.older]
        gated = []
        for layer, dilation in enumerate(self.dilations):
            ring, length = self.rings[layer], (kernel - 1) * dilation
            taps = [ring.index_select(0, (self.clock + k * dilation) % length)[0] for k in range(kernel - 1)]
            a = torch.addmm(self.frame[layer], torch.cat([*taps, h], 1), self.dilated[layer])
            ring.index_copy_(0, self.clock % length, h[None])
            z = torch.tanh(a[:, :channels]) * torch.sigmoid(a[:, channels:])
            gated.append(z)
            if layer < len(self.residual):
                h = h + torch.addmm(self.residual_bias[layer], z, self.residual[layer])
                if self.scale != 1:
                    h = h * self.scale
        s = torch.relu(torch.addmm(self.skip_bias, torch.cat(gated, 1), self.skip))
        o = torch.relu(torch.addmm(self.output_bias, s, self.output))
        return torch.addmm(self.end_bias, o, self.end).float()

    def feed(self, codes: Tensor) -> None:
        """The codes int64 (B,) of the samples just predicted."""
        self.older.copy_(self.code)
        self.code.copy_(codes)
        self.clock += 1

    def sample(self) -> None:
        """Draw one sample of each row by inverse CDF and feed it."""
        logits = self.logits()
        self.last_logits.copy_(logits)
        sums = torch.cumsum(torch.softmax(logits, 1), 1)
        uniforms = torch.rand(self.batch_size, 1, device=logits.device)
        self.feed((sums <= uniforms).sum(1).clamp_max(logits.shape[1] - 1))

    def generate(self, num_samples: int) -> None:
        """Draw and feed at least this many samples of each row: whole graphs."""
        with torch.inference_mode():
            for _ in range(-(-num_samples // self.steps)):
                self._run()

    def _prepare(self) -> Callable[[], None]:
        """One call makes `steps` samples."""
        def run() -> None:
            for _ in range(self.steps):
                one()

        one = self.sample
        if self.mode == "eager":
            return run
        if self.mode == "compiled":
            one = torch.compile(self.sample, fullgraph=True, dynamic=False)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(3):  # libraries and compilers allocate at their first calls
                one()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            run()
        return graph.replay
