from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen_kernels import philox
from wavegen_kernels.cpu.draw import philox_uniform

words = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123's known answers for philox4x32-10
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
         [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ],
)
def test_known_answers(counter, key, expected):
    found = philox.block(np.array(counter, np.uint32), np.array(key, np.uint32))
    assert found.tolist() == expected


@given(words, words, words)
def test_numba_draws_the_same_bits(seed, stream, t):
    numpy_bits = philox.uniform(np.uint64(seed), np.uint64(stream), np.uint64(t))
    numba_bits = np.float32(philox_uniform(np.uint64(seed), np.uint64(stream), np.uint64(t)))
    assert numpy_bits.tobytes() == numba_bits.tobytes()


def test_uniforms_are_24_bit_numbers_below_one():
    values = philox.uniform(3, np.arange(50)[:, None], np.arange(2000))
    assert values.dtype == np.float32 and values.shape == (50, 2000)
    assert values.min() >= 0 and values.max() < 1
    assert np.array_equal(values * 2**24, np.floor(values * 2**24))


def test_uniforms_are_flat_and_rows_unrelated():
    values = philox.uniform(0, np.arange(64)[:, None], np.arange(4096)).astype(float)
    counts, _ = np.histogram(values, bins=64, range=(0, 1))
    expected = values.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # chi-square, 63 degrees of freedom
    correlation = np.corrcoef(values) - np.eye(64)
    assert np.abs(correlation).max() < 0.08


def test_seed_stream_and_time_each_matter():
    base = philox.uniform(1, 2, np.arange(8))
    for other in (philox.uniform(2, 2, np.arange(8)), philox.uniform(1, 3, np.arange(8)),
                  philox.uniform(1, 2, np.arange(8) + 2**32), philox.uniform(1 + 2**32, 2, np.arange(8)),
                  philox.uniform(1, 2 + 2**32, np.arange(8))):
        assert not np.array_equal(base, other)
