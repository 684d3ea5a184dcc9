"""A synthesizer's samples depend on seed, clip and position, and on nothing else."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wavegen
from networks import make_coefficients
from tiny import save_tiny
from wavegen.audio import lpc
from wavegen.engines import ModelConditioning
from wavegen.errors import ConfigError, ModelFileError
from wavegen.models import ConditioningInputs
from wavegen.synth import Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def voice(folder):
    return wavegen.load(folder)


@pytest.fixture(scope="module")
def free_voice(tmp_path_factory):
    return wavegen.load(save_tiny(tmp_path_factory.mktemp("models") / "free", conditional=False))


def test_it_knows_what_it_can_say(voice, free_voice):
    assert (voice.labels, voice.speakers, voice.sample_rate) == (("0", "1", "2"), ("anna", "ben"), 8000)
    assert (free_voice.labels, free_voice.speakers) == ((), ())


def test_a_clip_is_a_whole_chunk_of_sound(voice):
    audio = voice.generate("1", "anna", 0.05)
    assert audio.waveform.dtype == np.float32
    assert audio.waveform.shape == (400 + 480,)
    assert np.abs(audio.waveform).max() <= 1.0
    assert (audio.start_sample, audio.is_last, audio.sample_rate) == (0, True, 8000)
    assert audio.seconds == pytest.approx(0.11)


def test_the_same_seed_gives_the_same_samples(voice, folder):
    audio = voice.generate("1", "anna", seed=5)
    again = wavegen.load(folder).generate("1", "anna", seed=5)
    assert np.array_equal(audio.waveform, again.waveform)
    assert not np.array_equal(audio.waveform[:300], voice.generate("1", "anna", seed=6).waveform[:300])


def test_the_reference_engine_speaks_the_same_length(voice, folder):
    slow = wavegen.load(folder, engine="reference")
    assert slow.engine.name == "reference"
    assert slow.generate("0", "anna", seed=1).num_samples == voice.generate("0", "anna", seed=1).num_samples


def test_clip_i_of_a_batch_is_clip_i_alone(voice):
    batch = voice.generate("2", "ben", count=40, seed=3)
    assert len(batch) == 40
    for clip in (0, 1, 17, 39):
        alone = voice.generate("2", "ben", seed=3, clip=clip)
        assert np.array_equal(batch[clip].waveform, alone.waveform), f"clip {clip}"
    assert len({audio.waveform[:300].tobytes() for audio in batch}) == 40


def test_a_batch_may_mix_everything(voice):
    requests = [
        Request("0", "anna", seed=1),
        Request(["1", "2"], "ben", 0.02, seed=2, clip=9),
        Request("2", "ben", temperature=0.5, min_p=0.1, seed=3),
    ]
    for request, audio in zip(requests, voice.generate_batch(requests), strict=True):
        (alone,) = voice.generate_batch([request])
        assert np.array_equal(audio.waveform, alone.waveform)
    assert voice.generate_batch([]) == []


def test_a_sequence_is_its_labels_with_pauses_between(voice):
    whole = voice.generate(["1", "0"], "anna", seed=4).waveform
    first = voice.generate("1", "anna", seed=4).waveform
    pause = whole[len(first) : len(first) + 640]
    assert np.array_equal(whole[: len(first)], first)
    assert np.abs(pause).max() < 1e-4
    assert len(whole) > len(first) + 640 + 480


@settings(max_examples=15)
@given(chunk_samples=st.integers(1, 3000), sequence=st.booleans())
def test_chunking_never_changes_the_audio(voice, chunk_samples, sequence):
    label = ["1", "0"] if sequence else "2"
    whole = voice.generate(label, "anna", 0.06, seed=8).waveform
    chunks = list(voice.stream(label, "anna", 0.06, seed=8, chunk_samples=chunk_samples))
    assert np.array_equal(np.concatenate([chunk.waveform for chunk in chunks]), whole)
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(chunk.num_samples == chunk_samples for chunk in chunks[:-1])
    assert [chunk.start_sample for chunk in chunks] == list(range(0, len(whole), chunk_samples))


def test_two_streams_do_not_disturb_each_other(voice):
    alone = [list(voice.stream("1", "anna", 0.05, seed=seed, chunk_samples=100)) for seed in (1, 2)]
    pairs = zip(*(voice.stream("1", "anna", 0.05, seed=seed, chunk_samples=100) for seed in (1, 2)), strict=True)
    for place, pair in enumerate(pairs):
        for chunks, chunk in zip(alone, pair, strict=True):
            assert np.array_equal(chunks[place].waveform, chunk.waveform)


def test_a_model_without_conditions_speaks_for_as_long_as_asked(free_voice):
    assert free_voice.generate(seconds=0.1).num_samples == 800
    assert np.array_equal(
        free_voice.generate(seconds=0.1, seed=2).waveform[:400],
        free_voice.generate(seconds=0.05, seed=2).waveform,
    )


def test_a_mistake_is_told_at_the_call(voice):
    with pytest.raises(ConfigError, match="needs a label"):
        voice.stream()
    with pytest.raises(ConfigError, match="chunk_samples must be a whole number"):
        voice.stream("1", "anna", chunk_samples=0)
    with pytest.raises(ConfigError, match="count must be a whole number"):
        voice.generate("1", "anna", count=0)


def test_the_report_counts_what_is_handed_out(voice):
    audio = voice.generate("1", "anna", 0.1, count=3)
    report = voice.report
    assert report.num_samples == sum(clip.num_samples for clip in audio)
    assert report.seconds == pytest.approx(3 * 0.16)
    assert report.samples_per_second == pytest.approx(report.num_samples / report.wall_seconds)
    assert report.times_realtime == pytest.approx(report.samples_per_second / 8000)
    assert (report.engine, report.precision) == ("numba", "f32")
    assert "samples/s" in str(report) and "times real time (engine numba, precision f32 (auto" in str(report)
    next(voice.stream("1", "anna", 0.1, chunk_samples=100))
    assert voice.report.num_samples == 100


def test_a_clip_is_saved_as_wav_and_as_flac(voice, tmp_path):
    audio = voice.generate("1", "anna", 0.05)
    for name in ("clip.wav", "clip.flac"):
        audio.save(tmp_path / name)
        waveform, sample_rate = soundfile.read(tmp_path / name, dtype="float32")
        assert sample_rate == 8000
        np.testing.assert_allclose(waveform, audio.waveform, atol=1 / 32768)


def test_an_engine_asked_for_by_name_is_that_engine(folder):
    assert wavegen.load(folder, engine="numba").engine.name == "numba"
    with pytest.raises(ConfigError, match='did you mean "numba"'):
        wavegen.load(folder, engine="numbra")
    with pytest.raises(ModelFileError, match="no model"):
        wavegen.load("no such model")


def test_generate_and_stream_take_the_arguments_of_a_request():
    fields = set(inspect.signature(Request).parameters)
    assert fields | {"self", "count"} == set(inspect.signature(wavegen.Synthesizer.generate).parameters)
    assert fields | {"self", "chunk_samples"} == set(inspect.signature(wavegen.Synthesizer.stream).parameters)


def test_a_model_of_the_path_lpc_speaks_through_its_prediction(tmp_path, monkeypatch):
    audio = {"signal_path": "lpc", "preemphasis": 0.85}
    speaker = wavegen.load(save_tiny(tmp_path / "vocoder", conditional=False, audio=audio))
    with pytest.raises(ConfigError, match="speaks what a linear prediction leaves over and needs the coefficients"):
        speaker.generate(seconds=0.01)
    told = ConditioningInputs(prediction=torch.from_numpy(make_coefficients(0, 1, 12)))
    monkeypatch.setattr(speaker, "_conditioning", lambda plans, latents: ModelConditioning(speaker.model, told))
    whole = speaker.generate(seconds=0.1)
    pieces = list(speaker.stream(seconds=0.1, chunk_samples=77))
    assert np.array_equal(np.concatenate([piece.waveform for piece in pieces]), whole.waveform)
    state = speaker.engine.start(1, ModelConditioning(speaker.model, told), streams=[0])
    decoder = lpc.Decoder(1, ModelConditioning(speaker.model, told).prediction, 80, 0.85)
    assert np.array_equal(decoder.decode(speaker.engine.step(state, whole.num_samples))[0], whole.waveform)
    batch = speaker.generate(seconds=0.1, count=3)
    assert np.array_equal(batch[0].waveform, whole.waveform) and not np.array_equal(batch[1].waveform, whole.waveform)


def test_what_is_compiled_first_is_no_part_of_the_speed(voice, monkeypatch):
    from wavegen.synth import synthesizer

    told, clock = [], iter(range(1000))
    monkeypatch.setattr(voice.engine, "prepare", lambda rows: told.append((rows, next(clock))))
    monkeypatch.setattr(synthesizer.time, "perf_counter", lambda: float(next(clock)))
    voice.generate(label="1", speaker="anna", seconds=0.1)
    assert told == [(1, 0)]  # before the clock is read for the first time
