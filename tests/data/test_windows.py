import numpy as np
import pytest

from stores import tones_store
from wavegen.audio import lpc, mulaw
from wavegen.config import AudioConfig, MelSpec
from wavegen.data import windows
from wavegen.data.batches import WindowBatches
from wavegen.data.windows import Windows, draw_noise, features_of, play

MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_store(tmp_path_factory.mktemp("lpc"), MEL, "lpc", 0.85, takes=range(4))


def test_a_window_of_excitation_is_that_of_its_clip(store):
    reader = Windows(store)
    coefficients = reader.coefficients(0)
    whole = lpc.replay(store.codes(0)[None], coefficients[None], MEL.hop_length)
    part = reader.read(0, 100, 300)
    assert np.array_equal(part.codes, store.codes(0)[100:300])
    assert np.array_equal(part.inputs, whole.inputs[0, 100:300])
    assert np.array_equal(part.signal, whole.signal[0, 100:300])


@pytest.mark.parametrize(("speed", "max_samples", "length"), [(2.0, 4000, 1000), (0.5, 4000, 4000), (0.5, 3000, 3000),
                                                              (1.25, 4000, 1600)])
def test_a_recording_played_faster_is_higher_and_shorter(speed, max_samples, length):
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(2000) / 8000) * np.hanning(2000)
    found = play(mulaw.encode(tone.astype(np.float32)), speed, max_samples, AudioConfig(sample_rate=8000))
    assert found.shape == (length,) and found.dtype == np.int64
    heard = mulaw.decode(found)
    peak = np.argmax(np.abs(np.fft.rfft(heard, 16000))) / 2
    assert peak == pytest.approx(500 * speed, abs=2)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.02) and abs(heard[-1]) < 0.01
    assert len(play(found[:0], speed, 10, AudioConfig(sample_rate=8000))) == 0


def test_what_is_kept_is_bounded_and_changes_nothing(store, monkeypatch):
    free = [Windows(store).read(row, 0, 50).inputs for row in range(4)]
    monkeypatch.setattr(windows, "CACHE_BYTES", 1)
    reader = Windows(store)
    assert all(np.array_equal(reader.read(row, 0, 50).inputs, free[row]) for row in (0, 1, 2, 3))
    assert len(reader._coded) == 1


def test_a_batch_of_the_path_lpc_holds_what_the_network_is_told(store):
    batches = WindowBatches(store, "train", 4000, 0, 64, window=512, context=100)
    for step in range(len(batches)):
        batch = batches.batch(step)
        assert batch.inputs.shape == (*batch.codes.shape, 3) and batch.signal.shape == batch.codes.shape
        assert batch.features.shape[:2] == (len(batch.codes), MEL.n_mels)
        inside = batch.inside[:, 1:]
        # e[t-1] is the code before, everywhere inside a window.
        assert np.array_equal(batch.inputs[:, 1:, 2][inside], batch.codes[:, :-1][inside])


def test_noise_is_a_function_of_seed_and_step_and_leaves_validation_clean(store):
    noisy, clean = (WindowBatches(store, "train", 4000, 0, 64, window=512, context=100, code_noise=noise)
                    for noise in (1.0, 0.0))
    again = WindowBatches(store, "train", 4000, 0, 64, window=512, context=100, code_noise=1.0)
    assert np.array_equal(noisy.batch(3).inputs, again.batch(3).inputs)
    assert not np.array_equal(noisy.batch(3).inputs, clean.batch(3).inputs)
    assert np.array_equal(noisy.collate(noisy.windows(3)).inputs, clean.batch(3).inputs)


def test_the_noise_has_the_strength_asked_for():
    draws = np.concatenate([draw_noise(np.random.default_rng(i), 2.0, 100) for i in range(3000)])
    assert abs(draws.mean()) < 0.1
    assert 1.0 < np.abs(draws).mean() < 1.6
    assert not draw_noise(np.random.default_rng(0), 0.0, 100).any()


def test_features_of_rows_hold_their_last_frame(store):
    frames, counts = features_of(store, np.arange(3))
    for place in range(3):
        own = store.features(place)
        assert counts[place] == len(own) and np.array_equal(frames[place, :, : len(own)], own.T.astype(np.float32))
        assert (frames[place, :, len(own) :] == own[-1][:, None].astype(np.float32)).all()
