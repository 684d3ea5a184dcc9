"""The hand-written stack against the same arithmetic in plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.models import gate
from wavegen.models.stack import gated_stack, gated_stack_ref

NAMES = ("h", "table", "dilated_weight", "residual_weight", "residual_bias")


def arguments(num_samples: int, batch: int, channels: int, layers: int, kernel: int, hop: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(num_samples + channels)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).requires_grad_()

    frames = -(-num_samples // hop)
    return [draw(num_samples, batch, channels), draw(layers, frames, batch, 2 * channels),
            draw(layers, kernel, channels, 2 * channels, scale=0.2), draw(layers - 1, channels, channels, scale=0.2),
            draw(layers - 1, channels)]


@pytest.mark.parametrize(("num_samples", "batch", "channels", "kernel", "dilations", "hop", "scale"), [
    (1, 1, 3, 2, (1,), 80, 1.0),  # shorter than any tap
    (130, 3, 16, 2, (1, 2, 4, 64), 20, 1.0),
    (129, 2, 7, 3, (1, 2, 5, 64), 20, 0.7),  # the outer tap of the last layer is just inside
    (50, 4, 8, 4, (3, 40, 1), 7, 1.3),
])
def test_gradients_are_those_of_plain_torch(num_samples, batch, channels, kernel, dilations, hop, scale):
    given = arguments(num_samples, batch, channels, len(dilations), kernel, hop)
    weight = torch.randn(num_samples * batch, len(dilations) * channels, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (gated_stack, gated_stack_ref):
        out = function(*given, dilations, hop, scale)
        used = given if len(dilations) > 1 else given[:3]
        results.append((out, torch.autograd.grad((out * weight).sum(), used)))
    (fast, fast_grads), (plain, plain_grads) = results
    assert torch.allclose(fast, plain, atol=2e-6)
    for name, got, wanted in zip(NAMES, fast_grads, plain_grads, strict=False):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4), name


def test_bfloat16_products_stay_close():
    given = arguments(130, 3, 16, 4, 2, 20)
    out = gated_stack(*given, (1, 2, 4, 64), 20, 1.0, torch.bfloat16)
    assert out.dtype == torch.bfloat16
    plain = gated_stack_ref(*given, (1, 2, 4, 64), 20, 1.0)
    assert (out.float() - plain).abs().max() < 0.03
    got = torch.autograd.grad(out.float().square().sum(), given)
    wanted = torch.autograd.grad(plain.square().sum(), given)
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert (a - b).norm() / b.norm() < 0.03, name


def test_the_gate_holds_at_any_input():
    values = np.float32([-1e30, -100, -9, -1e-3, 0, 1e-3, 9, 100, 1e30])
    pre = np.concatenate([np.repeat(values[:, None], 9, 1), np.tile(values, (9, 1))], 1)
    z = np.full((9, 9), np.nan, np.float32)
    gate.gate_forward(pre.copy(), np.zeros((9, 18), np.float32), z, 0, 1, 1)
    with np.errstate(over="ignore"):
        wanted = np.tanh(values.astype(np.float64))[:, None] / (1 + np.exp(-values.astype(np.float64)))
    assert np.allclose(z, wanted, atol=1e-6)


def test_the_gate_compiles_without_a_place_for_a_cache(monkeypatch):
    compile_kernel = gate.njit

    def read_only(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_kernel(**options)

    monkeypatch.setattr(gate, "njit", read_only)
    double = gate._kernel(lambda x: x + x)
    assert double(2.0) == 4.0
