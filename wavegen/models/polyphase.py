"""Convolutions of one-pass networks as matrix products, channels last.

    strided     (B, L s, C) -> (B, L, s C), the taps side by side, one product  -> (B, L, O)
    upsampling  (B, L, C),                  the taps side by side, one product  -> (B, L, s O) -> (B, L s, O)

A kernel covers whole blocks of `stride` samples, so nothing is ever computed and thrown away, and
the forward, backward and double backward passes are all products: on a CPU that is several times
faster than `conv1d` and `conv_transpose1d` at the sizes of our audio networks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class PolyphaseConv(nn.Module):
    """A strided or an upsampling convolution over blocks of samples.

    Output position i sees the input blocks i - taps // 2 to i + (taps - 1) // 2, zeros beyond the
    ends. With `down` a block is `down` positions of the input, with `up` one position of the input
    gives `up` of the output: `down` is a convolution of kernel size `taps * down` and that stride,
    `up` a transposed one of kernel size `taps * up`.

    Args:
        inputs, outputs: channels.
        taps: blocks one output sees.
        down, up: samples of a block on the way in, on the way out; at least one of them is 1.
        gain: standard deviation of the first weights, times sqrt(1 / (weights of an output)).

    The weight is input-major, (taps * down * inputs, up * outputs); its products run in the format
    of the input.
    """

    def __init__(self, inputs: int, outputs: int, taps: int = 1, down: int = 1, up: int = 1,
                 gain: float = 1.0) -> None:
        super().__init__()
        self.outputs, self.taps, self.down, self.up = outputs, taps, down, up
        rows = taps * down * inputs
        self.weight = nn.Parameter(torch.randn(rows, up * outputs) * (gain / math.sqrt(rows)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) to (B, T * up / down, outputs); T is a multiple of `down`."""
        batch, num_samples, channels = x.shape
        length = num_samples // self.down
        x = side_by_side(x.reshape(batch, length, self.down * channels), self.taps)
        bias = self.bias.repeat(self.up) if self.up > 1 else self.bias
        y = torch.addmm(bias.to(x.dtype), x.reshape(batch * length, -1), self.weight.to(x.dtype))
        return y.view(batch, length * self.up, self.outputs)


def side_by_side(x: Tensor, taps: int) -> Tensor:
    """Each position with its neighbours: (B, L, C) to (B, L, taps * C), zeros beyond the ends.

    The oldest of positions i - taps // 2 .. i + (taps - 1) // 2 comes first.
    """
    if taps == 1:
        return x
    left, length = taps // 2, x.shape[1]
    padded = functional.pad(x, (0, 0, left, taps - 1 - left))
    return torch.cat([padded[:, tap : tap + length] for tap in range(taps)], dim=2)


def matrices_of(model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """The weights of all polyphase convolutions of a model, as (1, inputs, outputs): what Muon updates."""
    return {f"{name}.weight": (1, *module.weight.shape) for name, module in model.named_modules()
            if isinstance(module, PolyphaseConv)}


class NearestUpsample(nn.Module):
    """Repeat each position `up` times, then convolve with a kernel of `taps * up` samples.

    The repeated values are equal, so this too is one product at the low rate, with the taps that
    fall on one position added up first. Output i sees the repeated positions from i - (taps + 1) // 2 * up
    on. Arguments as for `PolyphaseConv`.
    """

    fold: Tensor  # (taps + 1, up, taps * up): 1 where a tap of an output phase falls on a neighbour

    def __init__(self, inputs: int, outputs: int, taps: int, up: int, gain: float = 1.0) -> None:
        super().__init__()
        self.outputs, self.up, size = outputs, up, taps * up
        self.weight = nn.Parameter(torch.randn(size, inputs, outputs) * (gain / math.sqrt(size * inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.neighbours = taps + 1  # a kernel of n blocks touches n + 1 positions
        fold = torch.zeros(self.neighbours, up, size)
        for phase in range(up):
            for tap in range(size):
                fold[(phase + tap) // up, phase, tap] = 1
        self.register_buffer("fold", fold, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) to (B, T * up, outputs)."""
        batch, length, channels = x.shape
        weight = torch.einsum("jpt,tio->jipo", self.fold, self.weight).reshape(self.neighbours * channels, -1)
        x = side_by_side(x, self.neighbours)
        y = torch.addmm(self.bias.repeat(self.up).to(x.dtype), x.reshape(batch * length, -1), weight.to(x.dtype))
        return y.view(batch, length * self.up, self.outputs)
