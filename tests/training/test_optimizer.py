"""Muon orthogonalises, AdamW is torch's, a gradient that is not finite changes nothing."""

from __future__ import annotations

import itertools

import pytest
import torch

from wavegen.config import OptimizerConfig
from wavegen.training.optimizer import MuonAdamW, learning_rate_factor, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5), (1, 1, 7)])
def test_orthogonalise_flattens_the_singular_values(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert (values > 0.6).all() and (values < 1.3).all()


def test_adamw_part_is_torchs():
    torch.manual_seed(0)
    mine, theirs = torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.zeros(5, 3))
    theirs.data.copy_(mine.data)
    optimizer = MuonAdamW([], [mine], OptimizerConfig(adamw_lr=0.01, betas=(0.9, 0.95)), gradient_clip=1e9)
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    for _ in range(5):
        gradient = torch.randn(5, 3)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing():
    matrix, vector = torch.nn.Parameter(torch.ones(4, 6)), torch.nn.Parameter(torch.ones(3))
    optimizer = MuonAdamW([(matrix, (1, 4, 6))], [vector], OptimizerConfig(), gradient_clip=1.0)
    matrix.grad, vector.grad = torch.ones(4, 6), torch.tensor([1.0, float("nan"), 1.0])
    optimizer.step()
    assert optimizer.bad_steps == 1 and (matrix == 1).all() and (vector == 1).all()
    vector.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.bad_steps == 0 and (matrix != 1).all() and (vector != 1).all()


def test_clipping_bounds_the_global_norm():
    vector = torch.nn.Parameter(torch.zeros(4))
    optimizer = MuonAdamW([], [vector], OptimizerConfig(), gradient_clip=0.5)
    vector.grad = torch.full((4,), 10.0)
    optimizer.step()
    assert optimizer.gradient_norm == pytest.approx(20.0)
    assert vector.grad.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_rate_rises_holds_and_falls_to_its_end():
    config = OptimizerConfig(warmup_steps=10, flat_fraction=0.5, final_fraction=0.1)
    rates = [learning_rate_factor(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10:51] == [1.0] * 41
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[100] == pytest.approx(0.1)
