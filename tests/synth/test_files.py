"""Files are whole or absent, a batch has a line for each clip, and one bad clip does not stop the others."""

from __future__ import annotations

import errno
import io
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import wavegen
from tiny import save_tiny, tiny_family, tiny_spec
from wavegen.errors import BadInputError, ConfigError, PartialFailureError, WavegenError
from wavegen.synth import Request, files, numbered
from wavegen.synth.finish import Finish
from wavegen.synth.plan import Near

SEVEN = Request("1", "anna", 0.05, seed=7)


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return wavegen.load(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.WAV"])
def test_a_file_holds_the_clip(voice, tmp_path, name):
    (written,) = files.write_clip(voice, SEVEN, tmp_path / name).clips
    waveform, sample_rate = soundfile.read(tmp_path / name, dtype="float32")
    assert sample_rate == 8000
    np.testing.assert_allclose(waveform, voice.generate("1", "anna", 0.05, seed=7).waveform, atol=1 / 32768)
    assert names(tmp_path) == [name]
    assert written.row["num_samples"] == len(waveform)


def test_a_stream_is_a_wav_of_the_same_bytes(voice, tmp_path):
    pipe = io.BytesIO()
    files.write_stream(voice, SEVEN, pipe)
    files.write_clip(voice, SEVEN, tmp_path / "clip.wav")
    assert pipe.getvalue() == (tmp_path / "clip.wav").read_bytes()


def test_a_batch_has_a_file_and_a_line_for_each_clip(voice, tmp_path):
    requests = numbered(Request(["1", "2"], "anna", seed=3), 5)
    written = files.write_clips(voice, requests, tmp_path / "out").clips
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert rows == [outcome.row for outcome in written]
    assert [row["path"] for row in rows] == [f"1-2_anna_seed3_{clip:05d}.wav" for clip in range(5)]
    assert names(tmp_path / "out") == sorted([*(row["path"] for row in rows), "manifest.jsonl"])
    for row, request in zip(rows, requests, strict=True):
        waveform, _ = soundfile.read(tmp_path / "out" / row["path"], dtype="float32")
        (audio,) = voice.generate_batch([request])
        np.testing.assert_allclose(waveform, audio.waveform, atol=1 / 32768)
        assert (row["label"], row["speaker"], row["seed"], row["engine"]) == (["1", "2"], "anna", 3, "numba")
        assert row["num_samples"] == len(waveform)
        assert row["seconds"] == pytest.approx(len(waveform) / 8000)


def test_the_window_does_not_change_the_audio(voice, tmp_path, monkeypatch):
    requests = numbered(Request("2", "ben"), 7)
    files.write_clips(voice, requests, tmp_path / "a")
    monkeypatch.setattr(files, "WINDOW_CLIPS", 3)
    monkeypatch.setattr(files, "WINDOW_SAMPLES", 2000)
    delivery = files.write_clips(voice, requests, tmp_path / "b")
    assert delivery.report.num_samples == files.total_samples(voice, requests)
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_file_name_is_safe():
    (plan,) = files.plan_clip(Request(seconds=1), tiny_spec(conditional=False))
    strange = replace(plan, label="a/../b c", speaker="é")
    assert files.clip_name([strange], 3) == "a-..-b-c_é_00003.wav"
    assert files.clip_name([plan], 3) == "00003.wav"


def test_one_bad_clip_does_not_stop_the_others(voice, tmp_path):
    (tmp_path / "1_anna_seed7_00001.wav").mkdir()
    requests = numbered(SEVEN, 4)
    delivery = files.write_clips(voice, requests, tmp_path)
    assert [clip.error is None for clip in delivery.clips] == [True, False, True, True]
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert "could not be written" in rows[1]["error"]
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    with pytest.raises(PartialFailureError, match="1 of 4 clips were not written; the first, clip 1") as caught:
        files.check_delivery(delivery, 4)
    assert caught.value.exit_code == 5


def test_a_full_disk_ends_the_batch(voice, tmp_path, monkeypatch):
    class Full(files.AudioChunk):
        def save(self, path):
            if path.name.endswith("2.wav"):
                raise WavegenError("no space") from OSError(errno.ENOSPC, "No space left on device")
            super().save(path)

    def generate_batch(requests):
        return [Full(np.zeros(8, np.float32), 8000) for _ in requests]

    monkeypatch.setattr(voice, "generate_batch", generate_batch)
    delivery = files.write_clips(voice, numbered(SEVEN, 6), tmp_path)
    assert len(delivery.clips) == 3
    with pytest.raises(PartialFailureError, match="4 of 6 clips were not written"):
        files.check_delivery(delivery, 6)


def test_when_nothing_could_be_written_the_reason_is_raised(voice, tmp_path):
    (tmp_path / "1_anna_seed7_00000.wav").mkdir()
    delivery = files.write_clips(voice, [SEVEN], tmp_path)
    assert names(tmp_path) == ["1_anna_seed7_00000.wav"]
    with pytest.raises(WavegenError, match="could not be written"):
        files.check_delivery(delivery, 1)


def test_an_interrupted_batch_keeps_what_is_done(voice, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WINDOW_CLIPS", 2)
    generate_batch = voice.generate_batch

    def interrupted(requests):
        if requests[0].clip == 2:
            raise KeyboardInterrupt
        return generate_batch(requests)

    monkeypatch.setattr(voice, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_clips(voice, numbered(SEVEN, 6), tmp_path)
    assert names(tmp_path) == ["1_anna_seed7_00000.wav", "1_anna_seed7_00001.wav", "manifest.jsonl"]
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 2


def test_a_wrong_request_writes_nothing(voice, tmp_path):
    with pytest.raises(ConfigError):
        files.write_clips(voice, [SEVEN, Request("9", "anna")], tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no folder"):
        files.write_clip(voice, SEVEN, tmp_path / "none" / "a.wav")
    with pytest.raises(ConfigError, match=r'unknown format ".mp3"'):
        files.write_clip(voice, SEVEN, tmp_path / "a.mp3")
    assert names(tmp_path) == []


def test_memory_does_not_grow_with_the_length(voice, tmp_path):
    peaks = []
    for seconds in (2, 2, 60):  # the first run warms up
        tracemalloc.start()
        files.write_clip(voice, Request("1", "anna", seconds), tmp_path / "a.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "a.wav").stat().st_size == 44 + 2 * (60 * 8000 + 480)
    assert peaks[2] < 1.1 * peaks[1] + 10_000


def test_progress_counts_every_sample(voice, tmp_path):
    requests, done = numbered(SEVEN, 3), []
    files.write_clips(voice, requests, tmp_path / "out", done.append)
    files.write_clip(voice, SEVEN, tmp_path / "a.wav", done.append)
    assert sum(done) == files.total_samples(voice, [*requests, SEVEN]) == 4 * 880


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    """A model with latents."""
    return wavegen.load(tiny_family("wgan", tmp_path_factory.mktemp("models") / "sampler"))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_clips_that_are_there_are_left(voice, tmp_path, monkeypatch):
    files.write_clips(voice, numbered(SEVEN, 2), tmp_path)
    before, batches, generate_batch = rows_of(tmp_path), [], voice.generate_batch
    monkeypatch.setattr(voice, "generate_batch", lambda requests: batches.append(requests) or generate_batch(requests))
    done: list[int] = []
    delivery = files.write_clips(voice, numbered(SEVEN, 4), tmp_path, done.append)
    assert [[request.clip for request in batch] for batch in batches] == [[2, 3]]
    assert delivery.kept == 2 and len(delivery.clips) == 4 and sum(done) == 4 * 880
    assert rows_of(tmp_path)[:2] == before and [row["clip"] for row in rows_of(tmp_path)] == [0, 1, 2, 3]
    again = files.write_clips(voice, numbered(SEVEN, 4), tmp_path)
    assert again.kept == 4 and again.report.num_samples == 0
    assert files.write_clips(voice, numbered(SEVEN, 4), tmp_path, overwrite=True).kept == 0


def test_rows_of_other_clips_stay(voice, tmp_path):
    files.write_clips(voice, [SEVEN], tmp_path)
    files.write_clips(voice, [replace(SEVEN, seed=8), replace(SEVEN, label="2")], tmp_path)
    assert [row["path"] for row in rows_of(tmp_path)] == ["1_anna_seed7_00000.wav", "1_anna_seed8_00000.wav",
                                                          "2_anna_seed7_00000.wav"]


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-2] + b"ab"), "was changed since"),
    (lambda path: (path.parent / "manifest.jsonl").unlink(), "does not say how it was made"),
    (None, r"made otherwise: temperature 1.0, now 0.5; choose another --out"),
])
def test_no_other_clip_is_overwritten_unasked(voice, tmp_path, spoil, message):
    files.write_clips(voice, [SEVEN], tmp_path)
    path, request = tmp_path / "1_anna_seed7_00000.wav", SEVEN if spoil else replace(SEVEN, temperature=0.5)
    if spoil:
        spoil(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        files.write_clips(voice, numbered(request, 2), tmp_path)
    assert path.read_bytes() == before and not (tmp_path / "1_anna_seed7_00001.wav").exists()
    files.write_clips(voice, [request], tmp_path, overwrite=True)
    assert rows_of(tmp_path)[0]["temperature"] == request.temperature


def test_finished_clips_say_how_they_were_finished(voice, tmp_path):
    finish = Finish(tidy=True, sample_rate=16000, bits=24, kind="flac")
    (row,) = [clip.row for clip in files.write_clips(voice, [SEVEN], tmp_path, finish=finish).clips]
    assert row["path"] == "1_anna_seed7_00000.flac" and row["tidy"] and row["bits"] == 24
    info = soundfile.info(tmp_path / row["path"])
    assert (info.frames, info.samplerate, info.subtype) == (row["num_samples"], row["sample_rate"], "PCM_24")
    assert files.write_clips(voice, [SEVEN], tmp_path, finish=finish).kept == 1
    with pytest.raises(ConfigError, match="made otherwise: tidy true, now null"):
        files.write_clips(voice, [SEVEN], tmp_path, finish=replace(finish, tidy=False))
    (alone,) = files.write_clip(voice, SEVEN, tmp_path / "alone.flac", finish=finish).clips
    assert (tmp_path / "alone.flac").read_bytes() == (tmp_path / row["path"]).read_bytes()
    assert alone.row["num_samples"] == row["num_samples"]


def test_clips_near_one_are_like_it(sampler, tmp_path):
    files.write_clips(sampler, numbered(Request("1"), 3), tmp_path)
    (tmp_path / "x").mkdir()
    origin = sampler.generate("1", clip=2).waveform

    def near(spread, folder=tmp_path, name="1_00002.wav"):
        place, row = files.near_clip(folder / name, sampler.spec, spread)
        assert row["label"] == "1"
        return numbered(Request("1", near=place), 20)

    def distance(spread):
        clips = sampler.generate_batch(near(spread))
        return np.mean([np.abs(clip.waveform - origin).mean() for clip in clips])

    assert distance(0.0) == 0.0
    assert 0 < distance(0.1) < 0.5 * distance(1.0)
    # What it lies near to is in the manifest, and can be gone on from.
    files.write_clips(sampler, near(0.5)[:3], tmp_path / "x")
    (again,) = sampler.generate_batch(near(0.0, tmp_path / "x")[:1])
    assert np.array_equal(again.waveform, sampler.generate_batch(near(0.5))[2].waveform)


def test_a_clip_nobody_can_draw_near_to_is_refused(sampler, voice, tmp_path):
    files.write_clips(sampler, [Request("1")], tmp_path)
    with pytest.raises(BadInputError, match=r"no manifest.jsonl beside .*other.wav"):
        files.near_clip(tmp_path / "other.wav", sampler.spec)
    with pytest.raises(BadInputError, match=r"no manifest.jsonl beside"):
        files.near_clip(tmp_path / "none" / "other.wav", sampler.spec)
    with pytest.raises(ConfigError, match="a wavenet, which has no latents"):
        files.near_clip(tmp_path / "1_00000.wav", voice.spec)
    other = sampler.spec.model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(ConfigError, match="with other weights"):
        files.near_clip(tmp_path / "1_00000.wav", other)
    with pytest.raises(ConfigError, match="spread must be a number in"):
        files.near_clip(tmp_path / "1_00000.wav", sampler.spec, 2.0)
    with pytest.raises(ConfigError, match="which has no latents"):
        voice.generate_batch([replace(SEVEN, near=Near(0, 0))])


@pytest.mark.parametrize("family", ["vae", "vae_wavenet"])
def test_an_auto_encoder_draws_near_a_clip(family, tmp_path):
    voice = wavegen.load(tiny_family(family, tmp_path / "model"))
    request = Request("1", temperature=0.5, seed=3)
    files.write_clips(voice, [request], tmp_path / "a")
    near, _ = files.near_clip(tmp_path / "a" / "1_seed3_00000.wav", voice.spec, 0.0)
    (same,) = voice.generate_batch([replace(request, near=near)])
    assert np.array_equal(same.waveform, voice.generate_batch([request])[0].waveform)


def test_a_run_that_was_stopped_between_a_clip_and_its_row_goes_on(voice, tmp_path, monkeypatch):
    digest = files.file_digest

    def stopped(path):
        if path.name.endswith("1.wav"):
            raise KeyboardInterrupt
        return digest(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "file_digest", stopped)
        files.write_clips(voice, numbered(SEVEN, 3), tmp_path)
    assert [("sha256" in row) for row in rows_of(tmp_path)] == [True, False]
    delivery = files.write_clips(voice, numbered(SEVEN, 3), tmp_path)
    assert delivery.kept == 1 and all("sha256" in row for row in rows_of(tmp_path))
    assert len(rows_of(tmp_path)) == 3


def test_a_manifest_that_cannot_be_written_is_an_error_told_once(voice, tmp_path, monkeypatch, caplog):
    from wavegen.synth import manifest

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest.Ledger, "_ends_with_newline", full)
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    monkeypatch.setattr(manifest, "atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_clips(voice, numbered(SEVEN, 3), tmp_path)
    assert caplog.text.count("No space left") == 1
