"""Files in: every format, every kind of damage. Files out: whole or not there."""

from __future__ import annotations

import os
import resource
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from helpers import full_disk
from wavegen.audio import headers, io, wav
from wavegen.errors import AudioError, ConfigError, WavegenError

GOLDEN = Path(__file__).parent / "golden"


def tone(num_samples=1000, rate=8000, frequency=440.0):
    """A decaying tone: float32 (T,)."""
    time = np.arange(num_samples) / rate
    return (0.7 * np.sin(2 * np.pi * frequency * time) * np.exp(-3 * time)).astype(np.float32)


def wav_bytes(data=None, data_length=None, rate=8000, riff=b"RIFF", extra=b""):
    """A 16-bit mono wav whose header may lie about its length."""
    data = (tone() * 32767).astype("<i2").tobytes() if data is None else data
    length = len(data) if data_length is None else data_length
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    body = fmt + extra + struct.pack("<4sI", b"data", length) + data
    return riff + struct.pack("<I4s", min(4 + len(body), 2**32 - 1), b"WAVE") + body


@pytest.fixture
def keep(tmp_path):
    """Writes bytes into a file and gives its path."""
    def write(data: bytes, name: str = "clip.wav") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name
    return write


@pytest.mark.parametrize(("name", "subtype", "tolerance"), [
    ("a.wav", "PCM_U8", 0.01), ("a.wav", "PCM_16", 1e-4), ("a.wav", "PCM_24", 1e-6), ("a.wav", "PCM_32", 1e-6),
    ("a.wav", "FLOAT", 0), ("a.wav", "DOUBLE", 0), ("a.wav", "ULAW", 0.03), ("a.WAV", "ALAW", 0.03),
    ("a.flac", "PCM_16", 1e-4), ("a.flac", "PCM_24", 1e-6), ("a.aiff", "PCM_16", 1e-4), ("a.au", "ULAW", 0.03),
    ("a.ogg", "VORBIS", 0.05), ("a.mp3", "MPEG_LAYER_III", 0.1), ("a.w64", "PCM_16", 1e-4),
    ("a.rf64", "PCM_16", 1e-4), ("a.caf", "PCM_16", 1e-4),
])
def test_every_format_and_depth_is_read(tmp_path, name, subtype, tolerance):
    clip = tone(8000, 16000)
    soundfile.write(tmp_path / name, clip, 16000, subtype=subtype)
    waveform, rate = io.load(tmp_path / name)
    assert rate == 16000 and waveform.dtype == np.float32 and waveform.ndim == 1
    assert len(waveform) >= len(clip)  # a block codec fills its last block
    assert np.abs(waveform[: len(clip)] - clip).max() <= tolerance


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_mixed_to_their_mean(tmp_path, channels):
    clip = np.random.default_rng(0).uniform(-1, 1, (777, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", clip, 44100, subtype="FLOAT")
    waveform, rate = io.load(tmp_path / "a.wav")
    assert rate == 44100
    np.testing.assert_allclose(waveform, clip.mean(axis=1), atol=1e-7)


def test_long_files_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "BLOCK_SAMPLES", 100)
    clip = np.random.default_rng(0).uniform(-1, 1, (777, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", clip, 8000, subtype="FLOAT")
    np.testing.assert_allclose(io.load(tmp_path / "a.wav")[0], clip.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (8000, 22050), (48000, 8000), (11025, 11025)])
def test_resampling_keeps_the_tone(tmp_path, rate, wanted):
    soundfile.write(tmp_path / "a.wav", tone(rate, rate), rate, subtype="FLOAT")
    waveform, found = io.load(tmp_path / "a.wav", wanted)
    assert found == wanted and len(waveform) == wanted
    # Away from the edges, where the filter has all its input.
    np.testing.assert_allclose(waveform[200:-200], tone(wanted, wanted)[200:-200], atol=1e-3)


def test_loading_gives_the_golden_samples(tmp_path):
    stereo = np.stack([tone(2205, 44100, 300), tone(2205, 44100, 1700)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100)
    np.testing.assert_allclose(io.load(tmp_path / "a.wav", 8000)[0], np.load(GOLDEN / "load.npy"), atol=2e-6)


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "Format not recognised"),
    (b"not audio at all, only named so" * 9, "Format not recognised"),
    (wav_bytes()[:500], "cut short: the header promises 2000 bytes of audio, 456 are there"),
    (wav_bytes()[:44], "cut short"),
    (wav_bytes()[:30], "No 'data' chunk"),
    (wav_bytes(b""), "0 frames"),
    (wav_bytes(data_length=0), "promises no audio though 2000 bytes follow"),
    (wav_bytes(rate=1_092_676), "1092676 Hz"),
    (wav_bytes(rate=999), "999 Hz"),
    (wav_bytes(rate=0), "SF_INFO struct incomplete"),
    (wav_bytes(extra=b"junk" + struct.pack("<I", 4_000_000_000)), "No 'data' chunk"),
])
def test_damage_is_named_with_the_file(keep, data, reason):
    path = keep(data, "odd name é.wav")
    with pytest.raises(AudioError, match=reason) as caught:
        io.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_has_no_length_and_is_read_to_its_end(keep, length):
    assert len(io.load(keep(wav_bytes(data_length=length)))[0]) == 1000


def test_a_chunk_before_the_samples_is_stepped_over(keep):
    path = keep(wav_bytes(extra=struct.pack("<4sI", b"LIST", 3) + b"odd\0"))
    assert len(io.load(path)[0]) == 1000


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_counted(tmp_path, wrong):
    clip = tone(1000)
    clip[[10, 500]] = wrong
    soundfile.write(tmp_path / "a.wav", clip, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="2 of its 1000 samples are NaN or infinite"):
        io.load(tmp_path / "a.wav")


@pytest.mark.parametrize(("name", "subtype"), [
    ("a.wav", "PCM_16"), ("a.aiff", "PCM_16"), ("a.au", "PCM_16"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS"),
    ("a.mp3", "MPEG_LAYER_III"), ("a.rf64", "PCM_16")])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_cut_short_is_noticed_in_every_format(tmp_path, name, subtype, share):
    path = tmp_path / name
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 60_000), 16000, subtype=subtype)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(AudioError, match=name):
        io.load(path)


def flac_of_length(tmp_path, num_frames):
    """A FLAC of 20 000 frames whose header claims another number."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20_000), 16000)
    data = bytearray(path.read_bytes())
    packed = int.from_bytes(data[18:26], "big")
    data[18:26] = (packed >> 36 << 36 | num_frames).to_bytes(8, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("num_frames", "reason"), [
    (0, "states no length"), (2**36 - 1, "claims 68719476735 frames"), (5000, "holds more audio"),
    (30_000, "cut short|lost sync|psf_fseek")])
def test_a_flac_that_lies_about_its_length_is_noticed(tmp_path, num_frames, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match=reason):
        io.load(flac_of_length(tmp_path, num_frames))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@given(st.binary(max_size=400), st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"RF64\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF",
                                                 b".snd", b"fLaC", b"OggS", wav_bytes()[:36]]))
def test_no_bytes_break_the_checks(tmp_path_factory, data, start):
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    path.write_bytes(start + data)
    with open(path, "rb") as file:
        reason = headers.damage(file, path.stat().st_size)
        assert reason is None or isinstance(reason, str)
    try:
        waveform, _ = io.load(path)
    except AudioError as error:
        assert str(path) in str(error)
    else:
        assert len(waveform) and np.isfinite(waveform).all()


@given(st.integers(0, 2043))
def test_a_wav_cut_anywhere_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.getbasetemp() / "cut.wav"
    path.write_bytes(wav_bytes()[:length])
    with pytest.raises(AudioError):
        io.load(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    begun = time.monotonic()
    for name, reason in (("pipe.wav", "is not a file"), ("", "is not a file"), ("none.wav", "does not exist")):
        with pytest.raises(AudioError, match=reason):
            io.load(tmp_path / name)
    assert time.monotonic() - begun < 5


def test_headerless_bytes_are_not_taken_for_audio_because_of_their_name(keep):
    for name in ("a.raw", "a.au", "a.vox", "a.gsm", "a.pcm"):
        with pytest.raises(AudioError, match="cannot be used"):
            io.load(keep(bytes(range(1, 255)) * 40, name))


@pytest.mark.parametrize("wanted", [0, 999, 400_000])
def test_a_rate_that_makes_no_sense_is_refused(keep, wanted):
    with pytest.raises(ConfigError, match="sample_rate must lie in"):
        io.load(keep(wav_bytes()), wanted)


def test_a_clip_that_vanishes_or_explodes_is_refused(keep, monkeypatch):
    with pytest.raises(AudioError, match="nothing is left"):
        io.load(keep(wav_bytes(b"\1\0", rate=384_000)), 1000)
    monkeypatch.setattr(io, "MAX_FRAMES", 1500)
    with pytest.raises(AudioError, match="too long at 48000 Hz"):
        io.load(keep(wav_bytes()), 48_000)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "A.WAV"])
def test_what_is_saved_is_loaded_again(tmp_path, name):
    samples = np.arange(-32768, 32768, 7)
    io.save(tmp_path / name, samples / 32768, 8000)
    waveform, rate = io.load(tmp_path / name)
    assert rate == 8000 and np.array_equal(waveform * 32768, samples)
    assert soundfile.info(tmp_path / name).subtype == "PCM_16"
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_file_is_encoded_in_pieces_to_the_bytes_of_the_whole(tmp_path, monkeypatch, ending):
    clip = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    io.save(tmp_path / f"whole.{ending}", clip, 8000)
    monkeypatch.setattr(io, "PIECE_SAMPLES", 777)
    io.save(tmp_path / f"pieces.{ending}", clip, 8000)
    assert (tmp_path / f"pieces.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    soundfile.write(tmp_path / f"library.{ending}", wav.to_pcm16(clip), 8000, "PCM_16")
    assert (tmp_path / f"library.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_memory_does_not_grow_with_a_file(tmp_path, ending):
    clip = np.random.default_rng(0).uniform(-1, 1, 3_000_000).astype(np.float32)
    io.save(tmp_path / f"a.{ending}", clip[:200_000], 8000)  # everything loaded
    peaks = []
    for length in (200_000, 3_000_000):
        tracemalloc.start()
        io.save(tmp_path / f"a.{ending}", clip[:length], 8000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] < clip.nbytes / 4


def test_a_wav_may_be_empty(tmp_path):
    io.save(tmp_path / "a.wav", np.zeros(0), 8000)
    assert soundfile.info(tmp_path / "a.wav").frames == 0


def test_what_exceeds_full_scale_is_clipped(tmp_path):
    io.save(tmp_path / "a.wav", np.array([1.5, 1.0, -1.0, -7.0]), 8000)
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, 32767, -32768, -32768]


def test_an_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r'unknown format ".wave"; did you mean ".wav"'):
        io.save(tmp_path / "a.wave", tone(), 8000)


@pytest.mark.parametrize("wrong", [np.array([np.nan]), np.zeros((2, 3))])
def test_what_is_no_waveform_is_not_written(tmp_path, wrong):
    (tmp_path / "a.wav").write_bytes(b"before")
    for name in ("a.wav", "a.flac"):
        with pytest.raises(AudioError):
            io.save(tmp_path / name, wrong, 8000)
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"before"


def test_pieces_make_the_same_file_as_the_whole(tmp_path):
    clip = tone(5000)
    io.save(tmp_path / "whole.wav", clip, 8000)
    with wav.WavWriter(tmp_path / "pieces.wav", 8000) as writer:
        for piece in np.split(clip, [1, 1, 130, 4096]):
            writer.write(piece)
            assert not (tmp_path / "pieces.wav").exists()
    assert (tmp_path / "pieces.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert writer.num_samples == 5000


def test_nothing_is_left_of_a_file_that_was_given_up(tmp_path):
    with pytest.raises(KeyboardInterrupt), wav.WavWriter(tmp_path / "a.wav", 8000) as writer:
        writer.write(tone())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    for name in ("none/a.wav", "none/a.flac"):
        with pytest.raises(WavegenError, match="could not be written: No such file or directory"):
            io.save(tmp_path / name, tone(), 8000)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 100_000)
    for name in ("a.wav", "a.flac"):
        message = r"a\.(wav|flac) could not be written: File too large"
        with full_disk(8192), pytest.raises(WavegenError, match=message):
            io.save(tmp_path / name, noise, 8000)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_noticed_at_the_last_buffer(tmp_path):
    with (
        full_disk(8192),
        pytest.raises(WavegenError, match="File too large"),
        wav.WavWriter(tmp_path / "a.wav", 8000) as writer,
    ):
        writer.write(np.zeros(4000))
        writer.write(np.zeros(100))  # stays in the buffer of the file until it is closed
    assert not list(tmp_path.iterdir())


def test_a_wav_cannot_pass_4_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "MAX_WAV_BYTES", 1044)
    with pytest.raises(AudioError, match="4 GiB"), wav.WavWriter(tmp_path / "a.wav", 8000) as writer:
        writer.write(np.zeros(500))
        writer.write(np.zeros(1))
    assert not list(tmp_path.iterdir())


def test_a_header_for_a_pipe_is_readable(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav.wav_header(8000, None) + wav.to_pcm16(tone()).tobytes())
    assert len(io.load(tmp_path / "a.wav")[0]) == 1000


def test_two_threads_may_load_at_once(keep):
    path, found = keep(wav_bytes()), []
    threads = [threading.Thread(target=lambda: found.append(io.load(path)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(found[0], other) for other in found)
