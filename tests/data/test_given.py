"""Features of an acoustic model in place of those of the recordings."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import soundfile

from wavegen.audio.mel import log_mel
from wavegen.audio.signal import encode_waveform
from wavegen.config import MelSpec, Recipe
from wavegen.data.prepare import prepare
from wavegen.data.store import Store
from wavegen.errors import AudioError, BadInputError, ConfigError, MelMismatch, StoreError

MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
TEN = MEL.model_copy(update={"log_base": "10", "floor": 1e-10})
NAMES = ("one", "two", "deep/three")


def recipe_of(signal_path="lpc", mel=MEL, **prepare) -> Recipe:
    audio = {"sample_rate": 8000, "signal_path": signal_path, "preemphasis": 0.85,
             "mel": None if mel is None else mel.model_dump()}
    how = {"glob": "**/*.wav", "pattern": r"(?P<id>.*)\.wav", "normalize": "none", "trim": None, "remove_dc": False,
           "fade_in_ms": 0, "fade_out_ms": 0}
    return Recipe.model_validate({"name": "given", "audio": audio, "prepare": {**how, **prepare},
                                  "model": {"family": "wavenet", "residual_channels": 1, "skip_channels": 1,
                                            "output_channels": 1, "dilations": [1],
                                            "conditioning": {"hop_length": 64}},
                                  "training": {"max_steps": 1, "tail_samples": 0}})


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Words of noise and tone; gives their folder and their own features."""
    folder, own = tmp_path_factory.mktemp("recordings"), {}
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng(number)
        time = np.arange(8000 + 700 * number) / 8000
        envelope = np.repeat(rng.uniform(0.02, 1, 200), 80)[: len(time)]
        noise = 0.05 * rng.standard_normal(len(time))
        clip = envelope * (0.3 * np.sin(2 * np.pi * (300 + 200 * number) * time) + noise)
        path = folder / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.clip(clip, -1, 1), 8000, subtype="PCM_16")
        own[name] = log_mel(soundfile.read(path, dtype="float32")[0], MEL)
    return folder, own


def give(folder, features):
    for name, values in features.items():
        (folder / f"{name}.npy").parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", values)
    return folder


def smeared(own):
    """As an acoustic model would: the same sentence, a little blurred."""
    return {name: values + 0.3 * np.random.default_rng(len(name)).standard_normal(values.shape).astype(np.float32)
            for name, values in own.items()}


@pytest.mark.parametrize("signal_path", ["direct", "lpc"])
def test_a_store_holds_what_was_given_and_codes_that_go_with_it(recordings, tmp_path, signal_path):
    folder, own = recordings
    features, recipe = smeared(own), recipe_of(signal_path)
    prepare(recipe, folder, tmp_path / "store", workers=0, features=give(tmp_path / "given", features))
    prepare(recipe, folder, tmp_path / "plain", workers=0)
    store, plain = Store.open(tmp_path / "store"), Store.open(tmp_path / "plain")
    assert len(store) == 3 and store.digest != plain.digest
    for row in range(3):
        name = store.entry(row)["id"]
        assert np.array_equal(store.features(row), features[name].T.astype(np.float16))
        waveform = soundfile.read(folder / f"{name}.wav", dtype="float32")[0]
        assert np.array_equal(store.codes(row), encode_waveform(waveform, recipe.audio, store.features(row).T))
        assert np.abs(store.waveform(row) - waveform).max() < 0.05
        assert np.array_equal(store.codes(row), plain.codes(row)) == (signal_path == "direct")


def test_layout_and_logarithm_are_converted(recordings, tmp_path):
    folder, own = recordings
    forms = {"one": own["one"].T / np.log(10), "two": own["two"][None].astype(np.float64) / np.log(10),
             "deep/three": own["deep/three"] / np.log(10)}
    prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=give(tmp_path / "given", forms),
            features_spec=TEN)
    store = Store.open(tmp_path / "store")
    for row in range(3):
        assert np.allclose(store.features(row), own[store.entry(row)["id"]].T, atol=0.01)


def test_as_many_frames_as_bands_are_read_the_way_that_fits(recordings, tmp_path):
    folder, _ = recordings
    clip = soundfile.read(folder / "one.wav", dtype="float32")[0][: 19 * 64]
    soundfile.write(tmp_path / "square.wav", clip, 8000, subtype="PCM_16")
    square = log_mel(clip, MEL)
    assert square.shape == (20, 20)
    for number, values in enumerate((square, square.T)):
        given = give(tmp_path / f"given{number}", {"square": values})
        prepare(recipe_of(glob="square.wav"), tmp_path, tmp_path / f"store{number}", workers=0, features=given)
        assert np.allclose(Store.open(tmp_path / f"store{number}").features(0), square.T, atol=0.01)


def test_a_few_frames_more_or_fewer_are_cut_or_held(recordings, tmp_path):
    folder, own = recordings
    features = {"one": own["one"][:, :-4], "two": np.pad(own["two"], ((0, 0), (0, 5)), "edge"),
                "deep/three": own["deep/three"][:, :-6]}
    report = prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=give(tmp_path / "given", features))
    (left_out,) = report["skipped"]
    assert left_out["source"] == "deep/three.wav" and "frames, the recording has" in left_out["reason"]
    store = Store.open(tmp_path / "store")
    held, cut = store.features(0).astype(np.float32).T, store.features(1).astype(np.float32).T
    assert np.allclose(held, own["one"][:, [*range(own["one"].shape[1] - 4), *[-5] * 4]], atol=0.01)
    assert np.allclose(cut, own["two"], atol=0.01)


def test_what_is_missing_or_broken_is_reported_or_an_error(recordings, tmp_path):
    folder, own = recordings
    given = give(tmp_path / "given", {"one": own["one"], "two": own["two"] * np.nan})
    report = prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=given)
    reasons = {line["source"]: line["reason"] for line in report["skipped"]}
    assert report["utterances"] == 1 and "NaN" in reasons["two.wav"]
    assert "it has no features: there is no" in reasons["deep/three.wav"]
    with pytest.raises(AudioError, match=r"three\.wav cannot be used: it has no features"):
        prepare(recipe_of(), folder, tmp_path / "strict", workers=0, features=given, strict=True)
    assert not (tmp_path / "strict").exists()
    for content in (b"", b"\x93NUMPY half", b"text"):
        (given / "two.npy").write_bytes(content)
        report = prepare(recipe_of(glob="*.wav"), folder, tmp_path / str(len(content)), workers=0, features=given)
        assert "cannot be read" in report["skipped"][0]["reason"]
    for values in (own["two"][:7], np.float32(1), own["two"].astype(str), own["two"][:, :0]):
        np.save(given / "two.npy", values)
        report = prepare(recipe_of(glob="*.wav"), folder, tmp_path / str(np.shape(values)) / str(values.dtype),
                         workers=0, features=given)
        assert "two.npy cannot be used: " in report["skipped"][0]["reason"]


def test_another_kind_of_mel_is_named_before_a_file_is_opened(recordings, tmp_path):
    folder, own = recordings
    given = give(tmp_path / "given", own)
    with pytest.raises(MelMismatch, match="hop_length 256 against 64"):
        prepare(recipe_of(), folder, tmp_path / "store", features=given, features_spec="tacotron2")
    with pytest.raises(ConfigError, match="did you mean \"tacotron2\""):
        prepare(recipe_of(), folder, tmp_path / "store", features=given, features_spec="tacotron")
    with pytest.raises(ConfigError, match="the recipe has none"):
        prepare(recipe_of("direct", mel=None), folder, tmp_path / "store", features=given)
    with pytest.raises(ConfigError, match=r"prepare\.trim"):
        prepare(recipe_of(trim={}), folder, tmp_path / "store", features=given)
    with pytest.raises(ConfigError, match="give both"):
        prepare(recipe_of(), folder, tmp_path / "store", features_spec="tacotron2")
    with pytest.raises(BadInputError, match="there is no folder"):
        prepare(recipe_of(), folder, tmp_path / "store", features=tmp_path / "gone")


def test_a_store_of_other_features_is_not_the_same(recordings, tmp_path):
    folder, own = recordings
    given = give(tmp_path / "given", own)
    assert prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=given)["status"] == "prepared"
    assert prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=given)["status"] == "unchanged"
    with pytest.raises(StoreError, match="with other features"):
        prepare(recipe_of(), folder, tmp_path / "store", workers=0)
    with pytest.raises(StoreError, match="with other features"):
        prepare(recipe_of(), folder, tmp_path / "store", workers=0, features=given, features_spec=TEN)
    prepare(recipe_of(), folder, tmp_path / "plain", workers=0)
    with pytest.raises(StoreError, match="without features"):
        prepare(recipe_of(), folder, tmp_path / "plain", workers=0, features=given)


@pytest.mark.parametrize(("change", "message"), [
    (lambda own: np.pad(own, ((0, 0), (3, 0)), mode="edge")[:, : own.shape[1]], "3 frames too late in 3 of 3"),
    (lambda own: np.pad(own, ((0, 0), (0, 2)), mode="edge")[:, 2:], "2 frames too early"),
    (lambda own: own - np.log(2), r"6\.0 dB quieter than the recordings"),
    (lambda own: np.full_like(own, -9.0), "as far as any two sentences"),
])
def test_features_that_do_not_lie_over_the_recordings_are_warned_of(recordings, tmp_path, caplog, change, message):
    folder, own = recordings
    prepare(recipe_of(), folder, tmp_path / "right", workers=0, features=give(tmp_path / "a", smeared(own)))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        prepare(recipe_of(), folder, tmp_path / "wrong", workers=0,
                features=give(tmp_path / "b", {name: change(values) for name, values in own.items()}))
    assert caplog.records
    assert re.search(message, caplog.text)
