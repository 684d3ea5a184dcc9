from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.engines.sampling import draw, margin, probabilities
from wavegen_kernels.cpu.draw import LANES, draw_code

LARGEST = np.float32(1 - 2**-24)


def drawn(p: np.ndarray, uniform: float) -> int:
    """draw_code on probabilities in code order."""
    count = -(-len(p) // LANES)
    padded = np.zeros(count * LANES, np.float32)
    padded[:len(p)] = p
    e = np.ascontiguousarray(padded.reshape(LANES, count).T.ravel())
    sums = np.zeros(LANES, np.float32)
    for i in range(count):
        sums += e[i * LANES:(i + 1) * LANES]
    return int(draw_code(e, sums, count, np.float32(uniform)))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=70).filter(lambda p: max(p) > 1e-3),
       st.integers(0, 2**24 - 1))
def test_the_kernel_draws_by_inverse_cumulative_probability(p, step):
    uniform = np.float32(step * 2**-24)
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(p, np.float64))[None]
    found, expected = drawn(np.array(p, np.float32), uniform), int(draw(logits, [uniform])[0])
    assert p[found] > 0
    assert found == expected or margin(logits, [uniform])[0] < 1e-6


@pytest.mark.parametrize("draw_one", [
    drawn, lambda p, uniform: int(draw(np.log(np.maximum(p, 1e-300))[None], [uniform], min_p=1e-200)[0])])
def test_a_code_of_probability_zero_is_never_drawn(draw_one):
    p = np.zeros(40)
    p[[5, 17, 33]] = 0.5, 1.0, 0.25
    assert draw_one(p, 0.0) == 5
    assert draw_one(p, LARGEST) == 33
    assert {draw_one(p, u) for u in np.linspace(0, LARGEST, 500)} == {5, 17, 33}


def test_shares_follow_the_probabilities():
    p = np.random.default_rng(0).random(100) ** 3
    uniforms = (np.arange(20_000) + 0.5) / 20_000
    counts = np.bincount([drawn(p, u) for u in uniforms], minlength=100) / 20_000
    assert np.abs(counts - p / p.sum()).max() < 1.5 / 20_000 + 1e-6


def test_temperature_and_min_p():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    cold = probabilities(logits, temperature=0.5)[0]
    assert np.allclose(cold / cold.sum(), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365)
    assert np.array_equal(probabilities(logits, min_p=0.31)[0] > 0, [True, True, False, False])
    assert draw(logits, [LARGEST], min_p=0.31)[0] == 1


def test_rows_draw_with_their_own_options():
    logits = np.tile(np.log(np.array([[0.4, 0.6]])), (3, 1))
    assert draw(logits, [0.3, 0.3, 0.3], temperature=[1, 0.2, 1], min_p=[0, 0, 0.9]).tolist() == [0, 1, 1]


def test_margin_is_the_distance_to_the_nearest_border():
    logits = np.log(np.array([[0.25, 0.25, 0.5]]))
    assert np.allclose(margin(np.repeat(logits, 3, 0), [0.26, 0.375, 0.9]), [0.01, 0.125, 0.1])
