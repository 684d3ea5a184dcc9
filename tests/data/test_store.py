"""What a store gives back, and how it notices damage."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from wavegen.audio import io, levels, mulaw
from wavegen.audio.mel import log_mel
from wavegen.config import MelSpec
from wavegen.data.prepare import prepare
from wavegen.data.store import Store
from wavegen.errors import ConfigError, StoreError

PATTERN = r"(?P<label>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav"
MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=20)


@pytest.fixture(scope="session")
def recipe(make_recipe):
    return make_recipe(512, MEL, pattern=PATTERN, splits={"test": {"index": ["0"]}}, shard_samples=5000)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, recordings, recipe):
    """A store of several shards, 512 codes, with features."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    prepare(recipe, recordings, folder, workers=0)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_every_row_is_what_the_recording_says(finished, recordings, recipe):
    store = Store.open(finished)
    assert len(store) == 24 and store.labels == ("0", "1", "2") and store.speakers == ("anna", "ben")
    assert len(store.info.codes) == len(store.info.features) > 2
    for row in store.rows():
        entry = store.entry(int(row))
        waveform, gain, peak = levels.level(*io.load(recordings / entry["source"], 8000), recipe.prepare)
        assert store.codes(row).dtype == np.uint16
        assert np.array_equal(store.codes(row), mulaw.encode(waveform, 512))
        assert store.lengths[row] == len(waveform) == entry["num_samples"]
        assert store.gains[row] == gain and entry["peak"] == pytest.approx(peak)
        assert store.labels[store.label_ids[row]] == entry["label"] == entry["id"].split("_")[0]
        assert store.speakers[store.speaker_ids[row]] == entry["speaker"]
        assert np.array_equal(store.features(row), log_mel(waveform, MEL).T.astype(np.float16))
    store.verify()


def test_splits_are_row_numbers(finished):
    store = Store.open(finished)
    assert store.splits == ("train", "test")
    assert store.rows("test").dtype == np.int64 and len(store.rows("test")) == 6
    assert sorted([*store.rows("test"), *store.rows("train")]) == list(range(24)) == store.rows().tolist()
    assert all(store.entry(row)["source"].endswith("_0.wav") for row in store.rows("test").tolist())
    with pytest.raises(ConfigError, match='no split "tset"; did you mean "test"'):
        store.rows("tset")


def test_what_is_mapped_cannot_be_written(finished):
    with pytest.raises(ValueError, match="read-only"):
        Store.open(finished).codes(0)[0] = 0


def test_a_store_travels_to_another_process(finished):
    store = Store.open(finished)
    store.codes(3)
    there = pickle.loads(pickle.dumps(store))
    assert there.digest == store.digest and np.array_equal(there.codes(3), store.codes(3))
    assert len(pickle.dumps(store)) < 1000


def test_names_that_are_missing_are_minus_one(make_recipe, recordings, tmp_path):
    prepare(make_recipe(glob="0_*.wav"), recordings, tmp_path / "store", workers=0)
    store = Store.open(tmp_path / "store")
    assert store.labels == store.speakers == () and store.features(0) is None
    assert (store.label_ids == -1).all() and (store.speaker_ids == -1).all()
    assert store.entry(0)["label"] is None and store.codes(0).dtype == np.uint8


@pytest.mark.parametrize("harm", ["gone", "short", "garbage", "empty", "other"])
def test_columns_are_made_again(copy, finished, harm):
    file = copy / "columns.npy"
    if harm == "gone":
        file.unlink()
    elif harm == "short":
        file.write_bytes(file.read_bytes()[:100])
    elif harm == "garbage":
        file.write_bytes(bytes(file.stat().st_size))
    elif harm == "empty":
        np.save(file, np.zeros_like(np.load(file)))
    else:
        np.save(file, np.zeros((file.stat().st_size - 128) // 8))
    store, whole = Store.open(copy), Store.open(finished)
    assert np.array_equal(store.lengths, whole.lengths) and np.array_equal(store.codes(23), whole.codes(23))
    assert file.read_bytes() == (finished / "columns.npy").read_bytes()


@pytest.mark.parametrize("name", ["index.jsonl", "codes-00000.u16", "codes-00002.u16", "features-00001.f16"])
def test_damage_is_noticed(copy, name):
    file = copy / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=f"{name} is not what was written"):
        Store.open(copy).verify()
    file.write_bytes(data[:-1])
    with pytest.raises(StoreError, match=f"{name} should have {len(data)} bytes, found {len(data) - 1} bytes"):
        Store.open(copy)
    file.unlink()
    with pytest.raises(StoreError, match=f"{name} .* no such file"):
        Store.open(copy)


def test_damaged_columns_are_found_by_a_full_check(copy):
    columns = np.load(copy / "columns.npy")
    columns["offset"][3] += 1
    np.save(copy / "columns.npy", columns)
    with pytest.raises(StoreError, match=r"columns\.npy is not what was written"):
        Store.open(copy).verify()


@pytest.mark.parametrize(("change", "message"), [
    ({"format": "x"}, "does not describe"), ({"format_version": 9}, "format version 9, this wavegen reads version 1"),
    ({"extra": 1}, 'unknown key "extra"'), ({"audio": {"sample_rate": 0}}, "audio.sample_rate"), (None, "damaged")])
def test_a_store_that_is_not_ours_is_refused(copy, change, message):
    file = copy / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change) if change else file.read_text()[:50])
    with pytest.raises(StoreError, match=message):
        Store.open(copy)


def test_a_folder_without_a_store_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match=r"no store.json\); make one with `wavegen prepare`"):
        Store.open(tmp_path)


def test_the_digest_is_that_of_the_rows(copy, finished, make_recipe, recordings, tmp_path):
    assert Store.open(copy).digest == Store.open(finished).digest
    prepare(make_recipe(glob="0_*.wav", peak=0.8), recordings, tmp_path / "a", workers=0)
    prepare(make_recipe(glob="0_*.wav", peak=0.9), recordings, tmp_path / "b", workers=0)
    assert Store.open(tmp_path / "a").digest != Store.open(tmp_path / "b").digest
