from __future__ import annotations

import numpy as np
import pytest

import wavegen
from tiny import save_tiny_vocoder, tiny_mel
from wavegen.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_vocoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def voc(folder):
    return wavegen.load(folder, precision="f32")


def test_a_mel_becomes_a_hop_of_samples_for_each_frame(voc):
    mel = tiny_mel(7)
    audio = voc(mel[None])
    assert audio.waveform.shape == (1, 7 * voc.hop_length) and audio.waveform.dtype == np.float32
    assert audio.lengths.tolist() == [7 * voc.hop_length] and audio.sample_rate == voc.sample_rate == 8000
    assert 0 < np.abs(audio.waveform).max() <= 1
    assert np.array_equal(voc(mel, layout="CT").waveform, audio.waveform)


def test_a_stream_is_the_whole(voc):
    mel = tiny_mel(9)
    stream = voc.stream()
    pieces = [stream.push(mel[:, f]) for f in range(9)]
    assert [len(piece) for piece in pieces] == [0] * voc.lookahead_frames + [80] * (9 - voc.lookahead_frames)
    assert np.array_equal(np.concatenate([*pieces, stream.finish()]), voc(mel[None]).waveform[0])


def test_a_vocoder_is_told_a_mel_and_another_model_is_not(voc):
    with pytest.raises(ConfigError, match="is a vocoder: it turns a mel into audio"):
        voc.generate(label="7")
    with pytest.raises(ConfigError, match="is no vocoder: it is told a label, not a mel"):
        wavegen.load("digits")(tiny_mel(5))
