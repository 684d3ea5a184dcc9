"""Audio written piece by piece is the audio written at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from helpers import full_disk
from wavegen.audio import io as audio_io
from wavegen.audio import wav
from wavegen.audio.streams import PipeWriter, file_writer
from wavegen.errors import ConfigError, WavegenError

WAVEFORM = np.sin(np.arange(10_001) / 9).astype(np.float32)
PIECES = np.split(WAVEFORM, [1, 1, 300, 9000])


def piped(kind: str, num_samples: int | None = None) -> bytes:
    pipe = io.BytesIO()
    pipe.seek = None  # a pipe cannot go back
    writer = PipeWriter(pipe, 16_000, kind, num_samples)
    for piece in PIECES:
        before = len(pipe.getvalue())
        writer.write(piece)
        assert kind == "flac" or len(pipe.getvalue()) > before or len(piece) == 0
    writer.close()
    assert writer.num_samples == len(WAVEFORM)
    return pipe.getvalue()


def test_a_pipe_of_known_length_is_the_file(tmp_path):
    audio_io.save(tmp_path / "a.wav", WAVEFORM, 16_000)
    assert piped("wav", len(WAVEFORM)) == (tmp_path / "a.wav").read_bytes()
    samples, sample_rate = soundfile.read(io.BytesIO(piped("flac", len(WAVEFORM))), dtype="int16")
    assert sample_rate == 16_000
    np.testing.assert_array_equal(samples, wav.to_pcm16(WAVEFORM))


def test_a_pipe_of_unknown_length_says_so():
    assert piped("raw") == wav.to_pcm16(WAVEFORM).tobytes()
    assert piped("wav") == wav.wav_header(16_000, None) + piped("raw")
    with soundfile.SoundFile(io.BytesIO(piped("flac"))) as file:
        assert file.frames == 2**63 - 1
    assert piped("flac")[26:] == piped("flac", len(WAVEFORM))[26:]


@pytest.mark.parametrize("kind", ["wav", "flac", "raw"])
def test_no_audio_is_no_header(kind):
    pipe = io.BytesIO()
    writer = PipeWriter(pipe, 16_000, kind)
    writer.write(WAVEFORM[:0])
    writer.close()
    assert pipe.getvalue() == b""


def test_an_unknown_format_is_named():
    with pytest.raises(ConfigError, match='"flak"; did you mean "flac"'):
        PipeWriter(io.BytesIO(), 16_000, "flak")
    with pytest.raises(ConfigError, match=r'unknown format ".mp3"'), file_writer("a.mp3", 16_000):
        pass


@pytest.mark.parametrize("name", ["a.wav", "b.flac"])
def test_a_file_in_pieces_is_the_file_at_once(tmp_path, name):
    audio_io.save(tmp_path / name, WAVEFORM, 16_000)
    with file_writer(tmp_path / f"pieces-{name}", 16_000) as write:
        for piece in PIECES:
            write(piece)
    assert (tmp_path / f"pieces-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["a.wav", "b.flac"])
def test_a_file_that_cannot_be_written_is_not_there(tmp_path, name):
    noise = np.random.default_rng(0).uniform(-1, 1, 40_000)
    with (full_disk(20_000), pytest.raises(WavegenError, match="could not be written"),
          file_writer(tmp_path / name, 16_000) as write):
        write(noise)
        write(noise)
    with pytest.raises(KeyboardInterrupt), file_writer(tmp_path / name, 16_000) as write:
        write(noise)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
