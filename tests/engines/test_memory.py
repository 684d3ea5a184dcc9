"""Generation in bounded memory: nothing is kept per sample, nothing allocated per sample."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from networks import make_wavenet
from wavegen.engines import TableConditioning, build_engine


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_length():
    engine = build_engine(make_wavenet(label=False), "numba")
    table = TableConditioning(np.random.default_rng(0).normal(size=(1, 500, 4, 16)), hop_length=1)
    state = engine.start(1, table)
    engine.step(state, 20_000)
    gc.collect()
    before = resident_bytes()
    for _ in range(30):
        engine.step(state, 20_000)
    gc.collect()
    # One sample kept as one float of one channel of one layer would be 600,000 * 32 * 4 = 77 MB.
    assert resident_bytes() - before < 4e6
