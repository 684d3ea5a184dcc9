import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.audio import mulaw
from wavegen.metrics.linear import code_edges, linear_prediction_bits


@pytest.mark.parametrize("channels", [2, 16, 256, 1024])
def test_edges_are_where_encoding_changes_its_code(channels):
    edges = code_edges(channels)
    inner = edges[1:-1]
    assert np.all(np.diff(inner) > 0) and np.isneginf(edges[0]) and np.isposinf(edges[-1])
    np.testing.assert_array_equal(mulaw.encode(inner + 1e-9, channels), np.arange(1, channels))
    np.testing.assert_array_equal(mulaw.encode(inner - 1e-9, channels), np.arange(channels - 1))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 15), max_size=8), st.integers(0, 4))
def test_the_probabilities_of_all_next_codes_add_up_to_one(past, order):
    clips = [np.array([*past, code]) for code in range(16)] + [np.array(past, np.int64)]
    bits = linear_prediction_bits(clips, order, quantization_channels=16)
    assert (2.0 ** (bits[-1] - bits[:-1])).sum() == pytest.approx(1, abs=1e-9)


def resonance(num_samples, seed=0):
    """A noisy two-pole resonator: order 2 explains all but its noise."""
    rng = np.random.default_rng(seed)
    x = np.zeros(num_samples)
    for t in range(2, num_samples):
        x[t] = 1.8 * x[t - 1] - 0.95 * x[t - 2] + 0.003 * rng.standard_normal()
    return mulaw.encode(0.9 * x / np.abs(x).max())


def test_a_resonance_is_predicted_by_order_two():
    codes = resonance(4000)
    order0, order2, order8 = (linear_prediction_bits([codes], order)[0] / len(codes) for order in (0, 2, 8))
    assert order2 < order0 - 1.5
    assert abs(order8 - order2) < 0.1


def test_noise_costs_what_its_distribution_costs():
    rng = np.random.default_rng(0)
    waveform = np.clip(0.1 * rng.standard_normal(20_000), -1, 1)
    codes = mulaw.encode(waveform)
    share = np.bincount(codes, minlength=256) / len(codes)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert linear_prediction_bits([codes], 4)[0] / len(codes) == pytest.approx(entropy, abs=0.1)


def test_clips_do_not_know_of_each_other():
    first, second = resonance(500), resonance(301, seed=1)
    together = linear_prediction_bits([first, np.zeros(0, np.int64), second], 20)
    alone = [linear_prediction_bits([clip], 20)[0] for clip in (first, second)]
    assert together.tolist() == [alone[0], 0.0, alone[1]]


def test_a_long_silence_overflows_nothing():
    clip = np.concatenate([resonance(500), np.full(60_000, 128), resonance(500)])
    bits = linear_prediction_bits([clip], 20, forgetting=0.98)[0]
    # The narrowest noise it knows is a little wider than the code of silence.
    assert np.isfinite(bits) and 0 < bits / len(clip) < 2.5


@pytest.mark.parametrize(("order", "forgetting"), [(-1, 0.99), (4, 0.0), (4, 1.5)])
def test_values_out_of_range_are_refused(order, forgetting):
    with pytest.raises(ValueError, match="forgetting"):
        linear_prediction_bits([resonance(10)], order, forgetting)
