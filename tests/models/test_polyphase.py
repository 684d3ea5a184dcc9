"""Polyphase convolutions are ordinary convolutions, written as matrix products."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wavegen.models.polyphase import PolyphaseConv, matrices_of


def _conv(inputs, outputs, **options):
    torch.manual_seed(0)
    module = PolyphaseConv(inputs, outputs, **options).double()
    torch.nn.init.normal_(module.bias)
    return module, torch.randn(2, 24, inputs, dtype=torch.float64)


@pytest.mark.parametrize(("taps", "down"), [(1, 1), (3, 1), (4, 1), (1, 4), (2, 3), (3, 4)])
def test_a_strided_convolution(taps, down):
    module, x = _conv(3, 5, taps=taps, down=down)
    kernel = module.weight.view(taps * down, 3, 5).permute(2, 1, 0)
    left, right = taps // 2 * down, (taps - 1 - taps // 2) * down
    padded = functional.pad(x.transpose(1, 2), (left, right))
    expected = functional.conv1d(padded, kernel, module.bias, stride=down).transpose(1, 2)
    assert torch.allclose(module(x), expected)


@pytest.mark.parametrize(("taps", "up"), [(1, 4), (3, 2), (4, 4)])
def test_an_upsampling_convolution(taps, up):
    module, x = _conv(3, 5, taps=taps, up=up)
    # Tap k of the block form sees block i + k - taps // 2, which a transposed kernel holds taps - 1 - k blocks late.
    kernel = module.weight.view(taps, 3, up, 5).flip(0).permute(1, 3, 0, 2).reshape(3, 5, taps * up)
    whole = functional.conv_transpose1d(x.transpose(1, 2), kernel, module.bias, stride=up)
    begin = (taps - 1 - taps // 2) * up
    assert torch.allclose(module(x), whole[:, :, begin : begin + 24 * up].transpose(1, 2))


def test_gradients_of_gradients():
    module, x = _conv(2, 3, taps=3, down=4)
    x.requires_grad_(True)
    torch.autograd.gradgradcheck(lambda x: module(x).sin(), (x[:1, :8].detach().requires_grad_(True),))


def test_products_in_bfloat16_keep_float32_weights():
    module, x = _conv(3, 5, taps=3, up=2)
    module.float()
    y = module(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.double(), module.double()(x), atol=0.1)


def test_matrices_are_named():
    module = torch.nn.Sequential(PolyphaseConv(3, 5, taps=2, down=2), torch.nn.Linear(5, 5))
    assert matrices_of(module) == {"0.weight": (1, 12, 5)}
