from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import make_wavenet
from wavegen.config import AudioConfig, ConditioningConfig, Vocabulary
from wavegen.engines.frames import FrameNetwork, FrameTable
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs, build_model

BANDS, FRAMES, CONTEXT = 6, 14, 2
MODEL = make_wavenet(features=BANDS, context_frames=CONTEXT)
UPSAMPLED = make_wavenet(features=BANDS, context_frames=CONTEXT, upsampling=3)
FEATURES = np.random.default_rng(0).normal(-4, 2, (FRAMES, BANDS)).astype(np.float32)


def rows_of(network, start, stop, first=0, last=FRAMES, count=FRAMES, base=None):
    out = np.full((stop - start, *network.columns), np.nan, np.float32)
    network.rows(FEATURES[first:last], first, count, start, network.base() if base is None else base, out)
    return out


@pytest.mark.parametrize("model", [MODEL, UPSAMPLED])
def test_rows_are_those_of_the_model(model):
    inputs, network = ConditioningInputs(features=torch.from_numpy(FEATURES.T[None])), FrameNetwork(model)
    count = FRAMES * network.upsampling + 3
    with torch.inference_mode():
        expected = model.conditioning_table(inputs, 0, count)[0].numpy()
    assert np.abs(rows_of(network, 0, count) - expected).max() < 1e-5


def test_rows_of_a_speaker_are_those_of_the_model():
    told = ConditioningConfig(speaker=True, features=BANDS, context_frames=1, hidden_channels=8, hop_length=16,
                              feature_mean=-4.0, feature_scale=2.0)
    config = MODEL.config.model_copy(update={"conditioning": told})
    audio = AudioConfig(sample_rate=8000, quantization_channels=64)
    model = build_model(config, audio, Vocabulary(speakers=("a", "b")))
    inputs = ConditioningInputs(features=torch.from_numpy(FEATURES.T[None]), speaker=torch.tensor([1]))
    with torch.inference_mode():
        expected = model.conditioning_table(inputs, 0, FRAMES)[0].numpy()
    network = FrameNetwork(model)
    assert np.abs(rows_of(network, 0, FRAMES, base=network.base(speaker=1)) - expected).max() < 1e-5
    with pytest.raises(ConfigError, match="conditioned on a speaker; none was given"):
        network.base()


@settings(max_examples=30)
@given(start=st.integers(0, FRAMES - 1), length=st.integers(1, FRAMES), spare=st.integers(0, 3))
def test_a_row_does_not_depend_on_the_company_it_is_computed_in(start, length, spare):
    network, stop = FrameNetwork(MODEL), min(start + length, FRAMES)
    whole = rows_of(network, 0, FRAMES)
    first, last = max(0, start - CONTEXT - spare), min(FRAMES, stop + CONTEXT + spare)
    known = FRAMES if last == FRAMES else 2**62  # the end need not be known before it is near
    assert np.array_equal(rows_of(network, start, stop, first, last, known), whole[start:stop])


@settings(max_examples=30)
@given(start=st.integers(0, 3 * FRAMES - 1), length=st.integers(1, 12), spare=st.integers(0, 3))
def test_nor_does_an_upsampled_row(start, length, spare):
    network, stop = FrameNetwork(UPSAMPLED), min(start + length, 3 * FRAMES)
    whole = rows_of(network, 0, 3 * FRAMES)
    first, last = max(0, start // 3 - CONTEXT - spare), min(FRAMES, (stop - 1) // 3 + 1 + network.lookahead + spare)
    known = FRAMES if last == FRAMES else 2**62
    assert np.array_equal(rows_of(network, start, stop, first, last, known), whole[start:stop])


def test_models_that_are_told_something_else_are_refused():
    with pytest.raises(ConfigError, match="told features and no progress; this one has features 0"):
        FrameNetwork(make_wavenet(label=True))


def test_a_table_gives_the_frames_it_holds_and_a_copy_keeps_them():
    table = FrameTable(16, (2, 4), 1, order=3)
    frames, coefficients = np.ones((1, 5, 2, 4), np.float32), np.ones((1, 5, 3), np.float32)
    table.hold(10, frames, coefficients)
    kept = table.copy()
    table.hold(15, 2 * frames, 2 * coefficients)
    assert kept.block(12) == (10, 15) and table.block(17) == (15, 20)
    assert kept.frames(11, 13).shape == (1, 2, 2, 4) and kept.frames(11, 13).max() == 1
    assert table.prediction(15, 16).tolist() == [[[2, 2, 2]]]
    assert FrameTable(16, (2, 4), 1).prediction(0, 0) is None
