"""The parts the Triton kernels share, each against its definition in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from wavegen.engines import sampling
from wavegen_kernels import philox
from wavegen_kernels.gpu import blocks


@triton.jit
def uniform_kernel(seeds, streams, times, out, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    tl.store(out + i, blocks.philox_uniform(tl.load(seeds + i), tl.load(streams + i), tl.load(times + i)))


@triton.jit
def draw_kernel(logits, uniforms, rates, least, out, ROWS: tl.constexpr, CODES: tl.constexpr):
    i = tl.arange(0, ROWS)
    tile = tl.load(logits + i[:, None] * CODES + tl.arange(0, CODES)[None, :])
    code = blocks.draw(tile, tl.load(uniforms + i), tl.load(rates + i), tl.load(least + i), CODES)
    tl.store(out + i, code)


@triton.jit
def gate_kernel(u, v, out, COUNT: tl.constexpr, FAST: tl.constexpr):
    i = tl.arange(0, COUNT)
    tl.store(out + i, blocks.gate(tl.load(u + i), tl.load(v + i), FAST))


def test_philox_has_the_bits_of_numpy():
    random = np.random.default_rng(0)
    numbers = random.integers(0, 2**64, (3, 1024), dtype=np.uint64)
    numbers[:, :4] = [0, 1, 2**32, 2**64 - 1]
    out = torch.zeros(1024)
    uniform_kernel[(1,)](*(torch.from_numpy(row.view(np.int64)) for row in numbers), out, COUNT=1024)
    assert out.numpy().tobytes() == philox.uniform(*numbers).tobytes()


def draw(logits, uniforms, temperature, min_p):
    rows, codes = logits.shape
    out = torch.zeros(rows, dtype=torch.int32)
    rates = (1 / temperature).clip(max=1e30).astype(np.float32)
    tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in (logits, uniforms, rates, min_p)]
    draw_kernel[(1,)](*tensors, out, ROWS=rows, CODES=codes)
    return out.numpy()


def test_draws_follow_the_rule():
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (1024, 64)).astype(np.float32)
    uniforms = random.random(1024, np.float32)
    temperature, min_p = random.uniform(0.3, 2, 1024), random.choice([0.0, 0.05, 0.5, 1.0], 1024)
    found = draw(logits, uniforms, temperature, min_p)
    expected = sampling.draw(logits, uniforms, temperature, min_p)
    differ = found != expected
    assert differ.mean() < 0.01
    assert (sampling.margin(logits, uniforms, temperature, min_p)[differ] < 1e-6).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-24])
def test_a_code_of_probability_zero_is_never_drawn(uniform):
    logits = np.full((4, 32), -1e30, np.float32)
    logits[np.arange(4), [0, 7, 31, 16]] = [-50, 0, 3, 1e5]
    found = draw(logits, np.full(4, uniform), np.array([1.0, 1e-30, 1e6, 1.0]), np.array([0, 0, 0.5, 1.0]))
    assert found.tolist() == [0, 7, 31, 16]


def test_no_code_is_drawn_from_what_is_not_a_number():
    logits = np.zeros((2, 16), np.float32)
    logits[0, 3] = np.nan
    assert draw(logits, np.full(2, 0.5), np.ones(2), np.zeros(2)).tolist() == [-1, 8]


@pytest.mark.parametrize("fast", [False, True])
def test_the_gate_is_tanh_times_sigmoid(fast):
    u, v = torch.meshgrid(torch.linspace(-60, 60, 64), torch.linspace(-120, 120, 64), indexing="ij")
    u, v, out = u.flatten(), v.flatten(), torch.zeros(4096)
    gate_kernel[(1,)](u, v, out, COUNT=4096, FAST=fast)
    truth = torch.tanh(u.double()) * torch.sigmoid(v.double())
    assert (out - truth).abs().max() < 1e-6
