"""ESPnet2: the vocoder is called as `Text2Speech` calls it; its features are the spec's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wavegen.audio.mel import log_mel
from wavegen.audio.mel_formats import PRESETS, mel_spec
from wavegen.errors import BadInputError, MelMismatch
from wavegen.integrations.espnet import espnet_spec, espnet_vocoder, read_statistics


def features_of(window="hann", log_base=10.0, **settings):
    """The attributes of `espnet2.tts.feats_extract.log_mel_fbank.LogMelFbank`."""
    told = {"fs": 22050, "n_fft": 1024, "hop_length": 256, "win_length": None, "n_mels": 80, "fmin": 80, "fmax": 7600,
            **settings}
    return SimpleNamespace(**told, window=window, logmel=SimpleNamespace(log_base=log_base, mel_options={"htk": False}),
                           stft=SimpleNamespace(center=True))


def test_called_like_parallelwaveganpretrainedvocoder(vocoder_for):
    voc = vocoder_for("pwg")
    vocoder = espnet_vocoder(voc, espnet_spec(features_of()))
    features = torch.empty(4, 80).uniform_(-5, 0, generator=torch.Generator().manual_seed(0))
    waveform = vocoder(features)
    assert waveform.shape == (4 * 256,) and vocoder.fs == 22050
    assert torch.equal(waveform, voc(features.T[None]).waveform[0])


def test_the_spec_is_read_from_the_model(vocoder_for):
    assert espnet_spec(features_of()) == PRESETS["pwg"]
    with pytest.raises(MelMismatch, match="hop_length 300 against 256"):
        espnet_vocoder(vocoder_for("pwg"), espnet_spec(features_of(fs=24000, n_fft=2048, hop_length=300)))
    for odd in ({"log_base": 2.0}, {"window": "hamming"}):
        with pytest.raises(MelMismatch, match="wavegen knows hann"):
            espnet_spec(features_of(**odd))


def test_statistics_are_read_from_the_training(tmp_path):
    frames = np.random.default_rng(0).normal(-3, 0.7, (500, 80))
    np.savez(tmp_path / "feats_stats.npz", count=500, sum=frames.sum(0), sum_square=np.square(frames).sum(0))
    mean, scale = read_statistics(tmp_path / "feats_stats.npz")
    assert np.allclose(mean, frames.mean(0)) and np.allclose(scale, frames.std(0))
    np.save(tmp_path / "other.npy", frames)
    for name in ("other.npy", "missing.npz"):
        with pytest.raises(BadInputError, match="feats_stats"):
            read_statistics(tmp_path / name)


def test_the_spec_computes_what_espnet_computes():
    module = pytest.importorskip("espnet2.tts.feats_extract.log_mel_fbank", reason="needs espnet: pip install espnet")
    extract = module.LogMelFbank(fs=22050)
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    theirs = extract(torch.tensor(waveform)[None])[0][0].numpy()
    assert espnet_spec(extract) == mel_spec("pwg")
    assert np.abs(log_mel(waveform, espnet_spec(extract)) - theirs.T).max() < 1e-3
