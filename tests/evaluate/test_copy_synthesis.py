"""Copies of recordings by a vocoder, beside Griffin-Lim and the codec; through the same door as every evaluation."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from stores import tones_store
from tiny import save_tiny_vocoder
from wavegen.config import MelSpec
from wavegen.data.store import Store
from wavegen.errors import ConfigError, StoreError
from wavegen.evaluate import evaluate, summary
from wavegen.evaluate.copy_synthesis import bits_with_and_without, copy_synthesis, some_rows
from wavegen.metrics.bits import bits_per_sample, conditioning_inputs
from wavegen.metrics.copies import FIGURES
from wavegen.synth import load_vocoder

MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=12)
pytestmark = pytest.mark.usefixtures("plain_kernels")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def spoken(place) -> Store:
    """Two test clips of each of two speakers, with recordings at place/data/recordings."""
    return tones_store(place, MEL, "lpc", 0.85, labels=("0",), takes=range(3), num_samples=4600)


@pytest.fixture(scope="module")
def vocoder(place):
    return save_tiny_vocoder(place / "vocoder")


@pytest.fixture(scope="module")
def report(vocoder, spoken, place):
    return evaluate(vocoder, spoken.path, clips=2, data_dir=place / "data/recordings", html=place / "page")


def test_all_figures_are_there_and_plain(report):
    assert json.loads(json.dumps(report)) == report
    copied = report["copy_synthesis"]
    assert report["family"] == "wavenet" and report["generated"] is None and copied["clips"] == 2
    assert set(copied["columns"]) == {"model", "griffin_lim", "round_trip"} and copied["reference"] == "recordings"
    for column in copied["columns"].values():
        assert tuple(column) == FIGURES and column["log_mel"]["clips"] == 2
    assert [set(clip) for clip in copied["per_clip"]] == [{"id", "model", "griffin_lim", "round_trip"}] * 2
    speed = copied["speed"]
    assert speed["times_realtime"] > 0 and speed["first_audio_seconds"] > 0 and speed["lookahead_frames"] == 1
    assert {"bursts", "silences", "attempts", "bursts_left", "seconds"} <= set(copied["guard"])


def test_the_codec_is_nearest_and_what_learned_nothing_is_furthest(report):
    columns = report["copy_synthesis"]["columns"]
    for figure in ("log_mel", "stft", "mcd"):
        values = [columns[kind][figure]["mean"] for kind in ("round_trip", "griffin_lim", "model")]
        assert values == sorted(values), figure
    for kind, column in columns.items():
        values = [clip[kind]["log_mel"] for clip in report["copy_synthesis"]["per_clip"]]
        assert column["log_mel"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)


def test_the_summary_is_one_table(report):
    text = summary(report)
    assert "model" in text and "Griffin-Lim" in text and "codec round trip" in text and "None" not in text
    assert "with the mel moved by a third of the clip" in text and "times real time" in text
    assert "look-ahead are in" in text and "guard, per 1000 s" in text


def test_the_page_has_a_player_for_everything(report, place):
    text = (place / "page/index.html").read_text()
    files = sorted(path.name for path in (place / "page/audio").iterdir())
    assert len(files) == 2 * 4 and all(f'src="audio/{name}"' in text for name in files)
    assert (place / "page/spectrograms-1.png").read_bytes()[:4] == b"\x89PNG" and "Griffin-Lim" in text
    assert "http" not in text  # it opens from a file


def test_without_the_recordings_the_store_is_the_reference(vocoder, spoken):
    voice, rows = load_vocoder(vocoder), some_rows(spoken, "test", 2)
    copies, facts = copy_synthesis(voice, spoken, rows, temperature=0.5)
    assert facts["reference"] == "store" and set(facts["columns"]) == {"model", "griffin_lim"}
    assert (facts["temperature"], facts["matching"]) == (0.5, voice.folder.sampling.matching)
    for row, recording, copied in zip(rows, copies.recordings, copies.copies["model"], strict=True):
        assert np.array_equal(recording, spoken.waveform(int(row))) and len(copied) == len(recording)
        mel = spoken.features(int(row)).T.astype(np.float32)
        alone = voice(mel[None], temperature=0.5, check=False)[0].waveform
        assert np.array_equal(copied[: len(alone)], alone[: len(copied)])


def test_what_is_told_is_moved_and_the_prediction_is_not(vocoder, spoken):
    rows = spoken.rows("test")
    true, moved = conditioning_inputs(spoken, rows), conditioning_inputs(spoken, rows, 1 / 3)
    for row, count in enumerate(true.num_frames.tolist()):
        shift = round(count / 3)
        assert np.array_equal(moved.features[row, :, shift:count], true.features[row, :, : count - shift])
    assert moved.prediction.equal(true.prediction)
    voice = load_vocoder(vocoder)
    bits = bits_with_and_without(voice, spoken, "test", rows)
    assert bits["all"] == bits_per_sample(voice.model, spoken, "test").mean and bits["rolled"] != bits["all"]
    voice.model.conditioning.feature_weight.data.zero_()  # deaf
    deaf = bits_with_and_without(voice, spoken, "test", rows)
    assert deaf["rolled"] == pytest.approx(deaf["all"])


def test_clips_are_spread_over_the_split(spoken):
    rows = spoken.rows("test")
    assert some_rows(spoken, "test", 2).tolist() == [rows[0], rows[-1]]
    assert len(some_rows(spoken, "test", None)) == len(rows) and len(some_rows(spoken, "test", 0)) == 0
    with pytest.raises(ConfigError, match="at least 0, found -1"):
        some_rows(spoken, "test", -1)


def test_with_no_clips_only_the_bits_are_measured(vocoder, spoken):
    found = evaluate(vocoder, spoken.path, clips=0)
    assert found["copy_synthesis"] is None and found["bits_per_sample"]["clips"] == 4
    assert "bits per sample" in summary(found)
    with pytest.raises(ConfigError, match="let clips be at least 1"):
        evaluate(vocoder, spoken.path, clips=0, html="page")


def test_a_vocoder_of_several_speakers_copies_each_in_its_voice(tmp_path, spoken):
    folder = save_tiny_vocoder(tmp_path / "voices", conditioning={"speaker": True})
    assert evaluate(folder, spoken.path, clips=4)["copy_synthesis"]["clips"] == 4


def test_other_recordings_are_refused(vocoder, spoken, place, tmp_path):
    shutil.copytree(place / "data/recordings", tmp_path / "other")
    first = sorted((tmp_path / "other").iterdir())[0]
    shutil.copy(sorted((tmp_path / "other").iterdir())[-1], first)
    with pytest.raises(StoreError, match="is not the recording that store"):
        copy_synthesis(load_vocoder(vocoder), spoken, spoken.rows("test"), tmp_path / "other")


def test_what_is_not_for_a_vocoder_is_named(vocoder, model, store, spoken, judges):
    with pytest.raises(ConfigError, match="leave out --judge"):
        evaluate(vocoder, spoken.path, judge=judges)
    with pytest.raises(ConfigError, match="clips is for vocoders"):
        evaluate(model, store.path, clips=3)
    with pytest.raises(StoreError, match="has signal_path direct"):
        evaluate(vocoder, store.path)
