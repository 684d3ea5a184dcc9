"""Normal numbers for latents: the right distribution, the same whatever the batch."""

from __future__ import annotations

import numpy as np
import torch

from wavegen.engines.sampling import _inverse_normal, normal


def test_the_inverse_is_that_of_torch():
    p = (np.arange(2000) + 0.5) / 2000
    p = np.concatenate([p, 2.0 ** -np.arange(2, 26), 1 - 2.0 ** -np.arange(2, 26)])
    assert np.allclose(_inverse_normal(p), torch.special.ndtri(torch.from_numpy(p)).numpy(), rtol=1e-6, atol=1e-7)


def test_many_draws_are_standard_normal():
    draws = normal(3, 0, 100_000)[0].astype(np.float64)
    assert draws.dtype == np.float64 and abs(draws.mean()) < 0.01 and abs(draws.std() - 1) < 0.01
    assert abs((draws**4).mean() - 3) < 0.1


def test_a_row_does_not_depend_on_its_company_nor_on_how_many_are_asked():
    rows = normal([7, 8, 7], [0, 1, 2], 33)
    assert rows.shape == (3, 33) and rows.dtype == np.float32
    assert np.array_equal(normal(8, 1, 33)[0], rows[1])
    assert np.array_equal(normal(7, 2, 9)[0], rows[2, :9])
    assert not np.array_equal(rows[0], rows[2])
