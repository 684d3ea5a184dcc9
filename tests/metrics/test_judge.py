import json

import numpy as np
import pytest
import torch

from wavegen.audio import mulaw
from wavegen.errors import ConfigError, ModelFileError
from wavegen.metrics.hearing import ear_mel, hear
from wavegen.metrics.judge import CONFIG, WEIGHTS, Judge, load_judges
from wavegen.metrics.judge_training import augment, examined, train_judge


@pytest.fixture(scope="module")
def judge(store):
    return examined(train_judge(store, augmented=True, epochs=30), store)


def recordings(store, split="test"):
    rows = store.rows(split)
    return rows, [mulaw.decode(store.codes(int(row))) for row in rows]


def test_a_judge_hears_recordings_it_has_not_seen(judge, store):
    rows, waveforms = recordings(store)
    verdict = judge(waveforms)
    assert verdict.label_accuracy(store.label_ids[rows]) > 0.9
    assert verdict.speaker_accuracy(store.speaker_ids[rows]) > 0.9
    assert judge.config.test_label_accuracy == verdict.label_accuracy(store.label_ids[rows])
    np.testing.assert_allclose(verdict.labels.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(verdict.speakers.sum(1), 1, rtol=1e-5)
    assert verdict.features.shape == (len(rows), judge.config.feature_channels)


def test_the_level_and_the_offset_do_not_matter(judge, store):
    _, waveforms = recordings(store)
    quiet = judge([0.05 * waveform + 0.01 for waveform in waveforms])
    np.testing.assert_allclose(quiet.features, judge(waveforms).features, atol=1e-2)


def test_neither_does_silence_around(judge, store):
    _, waveforms = recordings(store)
    heard = judge([np.concatenate([waveform, np.zeros(800, np.float32)]) for waveform in waveforms])
    assert np.array_equal(heard.labels.argmax(1), judge(waveforms).labels.argmax(1))


def test_company_does_not_matter(judge, store):
    _, waveforms = recordings(store)
    alone = np.concatenate([judge([waveform]).features for waveform in waveforms])
    np.testing.assert_allclose(alone, judge(waveforms).features, atol=1e-4)


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(0), np.zeros(1), np.ones(1), np.zeros(4000), np.full(90_000, 0.3), 1e-6 * np.ones(500)],
)
def test_an_odd_clip_gets_a_finite_verdict(judge, waveform):
    verdict = judge([waveform])
    assert np.isfinite(verdict.features).all() and np.isfinite(verdict.labels).all()


def test_no_clips_get_no_verdicts(judge):
    verdict = judge([])
    assert verdict.labels.shape == (0, 3) and verdict.speakers.shape == (0, 2)
    assert verdict.features.shape == (0, judge.config.feature_channels)


def test_the_same_seed_gives_the_same_judge_and_leaves_random_numbers_alone(store):
    before = torch.random.get_rng_state()
    first, second = (train_judge(store, augmented=True, seed=3, epochs=1) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    other = train_judge(store, augmented=True, seed=4, epochs=1)
    weights = [one.network.label.weight for one in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_saved_judge_judges_the_same(judge, store, tmp_path):
    judge.save(tmp_path / "judge")
    _, waveforms = recordings(store)
    loaded = Judge.load(tmp_path / "judge")
    np.testing.assert_array_equal(loaded(waveforms).features, judge(waveforms).features)
    assert loaded.config.test_label_accuracy == judge.config.test_label_accuracy
    assert loaded.config.store_digest == store.digest
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == [CONFIG, WEIGHTS]


def test_saving_again_writes_the_same_bytes(judge, tmp_path):
    judge.save(tmp_path / "one")
    Judge.load(tmp_path / "one").save(tmp_path / "two")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_judges_are_found_by_the_name_of_their_folder(judge, tmp_path):
    judge.save(tmp_path / "judges" / "clean")
    judge.save(tmp_path / "judges" / "augmented")
    assert list(load_judges(tmp_path / "judges")) == ["augmented", "clean"]
    assert list(load_judges(tmp_path / "judges" / "clean")) == ["clean"]
    with pytest.raises(ModelFileError, match=r"judge\.py"):
        load_judges(tmp_path)


def damage(folder, kind):
    weights, config = folder / WEIGHTS, folder / CONFIG
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "flipped":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        config.unlink()
    elif kind == "no json":
        config.write_text("{")
    elif kind == "a pickle":
        weights.write_bytes(b"\x80\x04\x95junk")
    else:
        values = json.loads(config.read_text())
        values["channels"] = [16, 32, 40]
        config.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "kind", ["cut", "flipped", "no weights", "no config", "no json", "a pickle", "other sizes"]
)
def test_a_damaged_judge_is_one_clear_error(judge, tmp_path, kind):
    judge.save(tmp_path / "judge")
    damage(tmp_path / "judge", kind)
    with pytest.raises(ModelFileError, match="judge"):
        Judge.load(tmp_path / "judge")


def test_augmented_clips_stay_near_their_recording(store):
    rng = np.random.default_rng(0)
    waveform = recordings(store)[1][0]
    for _ in range(20):
        changed = augment(waveform, rng)
        assert changed.dtype == np.float32 and np.isfinite(changed).all()
        assert 0.9 * len(waveform) < len(changed) < 1.1 * len(waveform)


def test_what_a_judge_is_shown_has_one_shape(judge, store):
    shown = hear(recordings(store)[1], judge.config, judge.basis)
    assert shown.shape == (12, 40, 80) and shown.dtype == np.float32
    assert shown.min() >= np.log(judge.config.mel.floor) - 1e-5


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 48000])
def test_a_judge_of_any_rate_has_ten_milliseconds_a_frame(sample_rate):
    spec = ear_mel(sample_rate)
    assert spec.hop_length == round(sample_rate / 100) and spec.fmax < sample_rate / 2


def test_a_store_without_labels_has_nothing_to_judge(store, monkeypatch):
    monkeypatch.setattr(store, "labels", ())
    with pytest.raises(ConfigError, match="no labels"):
        train_judge(store, augmented=False)
