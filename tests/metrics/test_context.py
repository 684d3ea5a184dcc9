import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.metrics.context import ContextModel


def clips_of(*lengths, codes=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, codes, length) for length in lengths]


def slow_bits(train, clip, order, quantization_channels):
    """Witten-Bell by dictionaries, from the formula."""
    silence = quantization_channels // 2
    probability = np.full(len(clip), 1 / quantization_channels)
    for context in range(order + 1):
        seen = {}
        for codes in train:
            padded = [silence] * context + list(codes)
            for t in range(len(codes)):
                followers = seen.setdefault(tuple(padded[t : t + context]), {})
                followers[padded[t + context]] = followers.get(padded[t + context], 0) + 1
        padded = [silence] * context + list(clip)
        for t in range(len(clip)):
            followers = seen.get(tuple(padded[t : t + context]))
            if followers:
                total, distinct = sum(followers.values()), len(followers)
                count = followers.get(padded[t + context], 0)
                probability[t] = (count + distinct * probability[t]) / (total + distinct)
    return -np.log2(probability).sum()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_bits_equal_the_formula(order):
    train, test = clips_of(30, 0, 7), clips_of(11, 1, seed=1)
    bits = ContextModel(train, order, 4).bits(test)
    expected = [[slow_bits(train, clip, context, 4) for clip in test] for context in range(order + 1)]
    np.testing.assert_allclose(bits, expected, rtol=1e-12)


@given(st.lists(st.integers(0, 3), max_size=6), st.integers(0, 3))
def test_the_probabilities_of_all_next_codes_add_up_to_one(past, order):
    model = ContextModel(clips_of(40, 12), order, 4)
    bits = model.bits([np.array([*past, code]) for code in range(4)] + [np.array(past, np.int64)])
    total = (2.0 ** (bits[:, 4:] - bits[:, :4])).sum(1)
    np.testing.assert_allclose(total, 1, rtol=1e-9)


def test_a_repeated_pattern_costs_little_once_the_context_sees_it():
    pattern = np.tile([0, 1, 2, 3, 2, 1], 400)
    bits = ContextModel([pattern], 2, 4).bits([pattern])[:, 0] / len(pattern)
    assert bits[0] > 1.5 and bits[1] < 1.1 and bits[2] < 0.05


def test_empty_clips_cost_nothing():
    assert ContextModel(clips_of(5), 1, 4).bits([np.zeros(0, np.int64)]).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(("order", "codes"), [(-1, 4), (3, 65536)])
def test_an_order_that_cannot_be_counted_is_refused(order, codes):
    with pytest.raises(ValueError, match="order"):
        ContextModel(clips_of(5), order, codes)


def test_nothing_to_count_is_refused():
    with pytest.raises(ValueError, match="at least one training sample"):
        ContextModel([np.zeros(0, np.int64)], 0, 4)
