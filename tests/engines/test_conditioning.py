from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import make_wavenet
from wavegen.engines import Conditioning, ModelConditioning, TableConditioning, build_engine
from wavegen.engines.base import MAX_BLOCK_FRAMES
from wavegen.engines.conditioning import FrameBlocks
from wavegen.errors import BadInputError, ConfigError
from wavegen.models import ConditioningInputs

ENGINES = ["numba", "reference"]


class Counting(Conditioning):
    """Random frames; notes which were asked for."""

    def __init__(self, hop_length=4, layers=4, columns=16, bad_frame=None):
        self.hop_length, self.batch_size = hop_length, 1
        self.layers, self.columns, self.bad_frame = layers, columns, bad_frame
        self.asked: list[tuple[int, int]] = []

    def frames(self, start, stop):
        self.asked.append((start, stop))
        frames = np.stack([np.random.default_rng(frame).normal(size=(self.layers, self.columns))
                           for frame in range(start, stop)])[None].astype(np.float32)
        if self.bad_frame is not None and start <= self.bad_frame < stop:
            frames[0, self.bad_frame - start, 2, 3] = np.nan
        return frames


def test_frames_of_a_model_equal_its_table():
    model = make_wavenet(label=True)
    inputs = ConditioningInputs(label=torch.tensor([1, 2]), num_samples=torch.tensor([100, 50]))
    conditioning = ModelConditioning(model, inputs)
    frames = conditioning.frames(2, 9)
    assert conditioning.batch_size == 2 and conditioning.hop_length == 16
    assert frames.shape == (2, 7, 4, 16) and frames.flags.c_contiguous and frames.dtype == np.float32
    with torch.inference_mode():
        assert np.array_equal(frames, model.conditioning_table(inputs, 2, 7).numpy())


def test_the_last_frame_of_a_table_holds_on():
    table = TableConditioning(np.arange(6, dtype=np.float32).reshape(3, 1, 2), hop_length=5)
    assert table.frames(1, 6)[0, :, 0, 0].tolist() == [2, 4, 4, 4, 4]


@pytest.mark.parametrize("hop_length", [1, 80, 256, 100_000])
def test_blocks_begin_at_multiples_and_are_fetched_once(hop_length):
    conditioning = Counting(hop_length)
    blocks = FrameBlocks(conditioning, (4, 16))
    start, count = conditioning.block(0)
    assert start == 0 and 1 <= count <= MAX_BLOCK_FRAMES
    span = count * hop_length
    for position in (0, 1, span - 1, span, 2 * span - 1):
        block, first, end = blocks.at(position)
        assert first % count == 0 and first * hop_length <= position < end
        assert block.shape == (1, count, 4, 16)
    assert conditioning.asked == [(0, count), (count, 2 * count)]


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_frames_of_the_moment_are_asked_for(engine):
    engine, conditioning = build_engine(make_wavenet(), engine), Counting()
    state = engine.start(1, conditioning)
    for _ in range(7):
        engine.step(state, 200)
    assert conditioning.asked == [(0, 256), (256, 512)]


@pytest.mark.parametrize("engine", ENGINES)
def test_conditioning_that_is_not_finite_is_refused(engine):
    engine = build_engine(make_wavenet(), engine)
    with pytest.raises(BadInputError, match="not finite at frame 3, layer 2"):
        engine.start(1, Counting(bad_frame=3))
    state = engine.start(1, Counting(bad_frame=300))
    with pytest.raises(BadInputError, match="not finite at frame 300, layer 2"):
        engine.step(state, 1500)


@pytest.mark.parametrize("engine", ENGINES)
def test_conditioning_of_another_model_is_refused(engine):
    engine = build_engine(make_wavenet(), engine)
    with pytest.raises(ConfigError, match=r"the conditioning gives frames \(1, 256, 5, 16\)"):
        engine.start(1, Counting(layers=5))
    with pytest.raises(ConfigError, match="the conditioning has 3 rows, the batch 2"):
        engine.start(2, TableConditioning(np.zeros((3, 1, 4, 16)), 10))
    with pytest.raises(ConfigError, match="at least 1 sample"):
        engine.start(1, TableConditioning(np.zeros((1, 1, 4, 16)), 0))
    with pytest.raises(ConfigError, match=r"a conditioning table is"):
        TableConditioning(np.zeros((4, 16)), 10)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_condition_the_model_needs_is_asked_for_at_once(engine):
    engine = build_engine(make_wavenet(label=True), engine)
    with pytest.raises(ConfigError, match="conditioned on a label"):
        engine.start(1)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_row_of_conditioning_serves_all(engine):
    engine = build_engine(make_wavenet(), engine)
    shared = engine.step(engine.start(3, Counting()), 40)
    for row in range(3):
        assert np.array_equal(engine.step(engine.start(1, Counting(), streams=[row]), 40)[0], shared[row])


def test_frames_of_a_model_are_computed_on_one_thread(monkeypatch):
    model, seen = make_wavenet(label=True), []
    table = model.conditioning_table
    monkeypatch.setattr(model, "conditioning_table", lambda *a: seen.append(torch.get_num_threads()) or table(*a))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inputs = ConditioningInputs(label=torch.tensor([1]), num_samples=torch.tensor([9]))
        ModelConditioning(model, inputs).frames(0, 2)
        assert seen == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
