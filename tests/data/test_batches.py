"""The order of windows: a pure function, the same for any number of ranks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.config import AudioConfig
from wavegen.data.batches import WindowBatches
from wavegen.errors import StoreError


def store(lengths):
    """The part of a store that batches read; sample t of clip i has code (7 i + t) mod 251."""
    lengths = np.array(lengths)
    return SimpleNamespace(
        path="store", audio=AudioConfig(sample_rate=8000), lengths=lengths, labels=("a", "b", "c"),
        label_ids=np.arange(len(lengths)) % 3,
        speaker_ids=np.full(len(lengths), -1), rows=lambda split: np.arange(len(lengths) if split == "train" else 0),
        codes=lambda row: ((7 * row + np.arange(lengths[row])) % 251).astype(np.uint8))


LENGTHS = [100, 350, 90, 500, 120, 80, 333, 200, 60, 410]


def test_a_step_is_a_pure_function_of_seed_and_step():
    first = [WindowBatches(store(LENGTHS), "train", 1000, 20, 10, seed=3).windows(step).tolist() for step in range(12)]
    again = WindowBatches(store(LENGTHS), "train", 1000, 20, 10, seed=3)
    for step in (11, 0, 5, 7):  # out of order: no state is carried
        assert again.windows(step).tolist() == first[step]
    other = WindowBatches(store(LENGTHS), "train", 1000, 20, 10, seed=4)
    assert [other.windows(step).tolist() for step in range(12)] != first


def test_an_epoch_holds_every_clip_once():
    batches = WindowBatches(store(LENGTHS), "train", 1000, 20, 10)
    for epoch in (0, 1, 2):
        seen = np.concatenate([batches.windows(epoch * len(batches) + i) for i in range(len(batches))])
        assert sorted(seen.tolist()) == list(range(len(LENGTHS)))
    assert sorted(np.concatenate(batches.sequential()).tolist()) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_share_a_global_batch(world_size):
    batches = WindowBatches(store(LENGTHS), "train", 1000, 20, 10)
    for step in range(len(batches)):
        whole = batches.batch(step)
        parts = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        assert sum(part.weight.sum() for part in parts) == whole.weight.sum() == whole.total_weight
        assert {part.total_weight for part in parts} == {whole.total_weight}


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=12), window=st.integers(1, 120),
       context=st.integers(0, 70), hop=st.integers(1, 16))
def test_windows_predict_every_sample_once(lengths, window, context, hop):
    batches = WindowBatches(store(lengths), "train", 400, 20, hop, window=window, context=context)
    counts = [np.zeros(length + 20) for length in lengths]
    for step in range(len(batches)):
        windows, batch = batches.windows(step), batches.batch(step)
        for i, row in enumerate(batches.rows[windows]):
            start = int(batch.start_frame[i]) * hop
            positions = start + np.flatnonzero(batch.weight[i])
            counts[row][positions] += 1
            inside = start + np.flatnonzero(batch.inside[i])
            assert np.array_equal(batch.codes[i][batch.inside[i]], (7 * row + inside) % 251)
            assert positions[0] - start >= min(context, positions[0])
    assert all((count == 1).all() for count in counts)


def test_padding_is_silence_and_does_not_count():
    batch = WindowBatches(store([50, 130]), "train", 10_000, 20, 40).batch(0)
    short = int(np.argmin(batch.num_samples))
    assert batch.codes.shape == (2, 160)
    assert (batch.codes[short, 50:] == 128).all()
    assert batch.weight[short].sum() == 70 and batch.inside[short].sum() == 50


def test_an_empty_split_is_named():
    with pytest.raises(StoreError, match='no rows in split "test"'):
        WindowBatches(store(LENGTHS), "test", 1000, 20, 10)


def test_windows_of_fixed_length_hold_one_clip_each():
    batches = WindowBatches(store([50, 130, 300]), "train", 256, 20, 40, window=60, context=30, fixed=128)
    seen = [batches.batch(step) for step in range(len(batches))]
    assert [batch.codes.shape[1] for batch in seen] == [128, 128] and len(batches) == 2
    rows = {int(row): batch.codes[i] for step, batch in enumerate(seen)
            for i, row in enumerate(batches.rows[batches.windows(step)])}
    assert np.array_equal(rows[0], [*range(50), *[128] * 78])  # silence behind a short clip
    assert np.array_equal(rows[2], (14 + np.arange(128)) % 251)  # the start of a long one
    assert all(batch.weight.all() for batch in seen)
    assert sum(int(batch.inside.sum()) for batch in seen) == 50 + 128 + 128


def test_random_starts_are_a_pure_function_of_the_epoch():
    def codes(batches, step):
        return batches.batch(step).codes

    first = WindowBatches(store([300, 90, 500]), "train", 10_000, 0, 1, fixed=64, random_start=True)
    again = WindowBatches(store([300, 90, 500]), "train", 10_000, 0, 1, fixed=64, random_start=True)
    epochs = [codes(first, step) for step in range(5)]
    assert all(np.array_equal(codes(again, step), epochs[step]) for step in (4, 0, 2))
    starts = {int(first.batch(step).start_frame.max()) for step in range(20)}
    assert len(starts) > 10 and max(starts) <= 436


def test_shifted_windows_are_a_pure_function_of_the_step():
    batches = WindowBatches(store(LENGTHS), "train", 1000, 0, 1, fixed=300, pitch_shift=2)
    first = batches.batch(3)
    again = WindowBatches(store(LENGTHS), "train", 1000, 0, 1, fixed=300, pitch_shift=2).batch(3)
    assert np.array_equal(first.codes, again.codes)
    assert not np.array_equal(first.codes, batches.batch(3 + len(batches)).codes)
    plain = WindowBatches(store(LENGTHS), "train", 1000, 0, 1, fixed=300)
    rows = plain.rows[plain.windows(3)]
    assert (first.inside.sum(1) == np.minimum(first.num_samples, 300)).all()
    assert (np.abs(np.log2(first.num_samples / np.minimum(np.array(LENGTHS)[rows], 300 * 2 ** (2 / 12)))) < 0.3).all()
    held_out = [batches.collate(windows).codes for windows in batches.sequential()]
    assert all(np.array_equal(one, plain.collate(windows).codes)
               for one, windows in zip(held_out, plain.sequential(), strict=True))


def test_labels_are_balanced_by_repeating_the_rarer():
    data = store([100] * 12)
    data.label_ids = np.array([0] * 8 + [1] * 3 + [2])
    batches = WindowBatches(data, "train", 1000, 0, 1, balance=True)
    assert np.bincount(data.label_ids[batches.rows]).tolist() == [8, 9, 8]
    assert sorted(set(batches.rows)) == list(range(12))
