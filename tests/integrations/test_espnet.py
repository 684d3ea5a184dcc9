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


@pytest.mark.slow  # the import alone: a package below asks the network for a dictionary
@pytest.mark.filterwarnings("ignore")
def test_the_real_text2speech_speaks_through_it(vocoder_for, tmp_path):
    inference = pytest.importorskip("espnet2.bin.tts_inference", reason="needs espnet: pip install espnet")
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which espnet brings")
    task = pytest.importorskip("espnet2.tasks.tts").TTSTask
    np.savez(tmp_path / "feats_stats.npz", count=100, sum=np.full(80, -300.0), sum_square=np.full(80, 950.0))
    sizes = {"embed_dim": 8, "elayers": 1, "eunits": 8, "econv_layers": 1, "econv_chans": 8, "adim": 8,
             "aconv_chans": 2, "aconv_filts": 3, "dlayers": 1, "dunits": 8, "prenet_units": 8, "postnet_chans": 8,
             "postnet_layers": 2}
    config = {**task.get_default_config(), "token_list": ["<blank>", "<unk>", "a", "b", "<sos/eos>"],
              "token_type": "char", "g2p": None, "feats_extract": "fbank",
              "feats_extract_conf": {"fs": 22050, "fmin": 80, "fmax": 7600, "n_mels": 80},
              "normalize": "global_mvn", "normalize_conf": {"stats_file": str(tmp_path / "feats_stats.npz")},
              "tts": "tacotron2", "tts_conf": sizes, "pitch_extract": None, "energy_extract": None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    text2speech = inference.Text2Speech(tmp_path / "config.yaml", threshold=2.0, maxlenratio=2.0)
    voc = vocoder_for("pwg")
    text2speech.vocoder = espnet_vocoder(voc, espnet_spec(text2speech.feats_extract))
    spoken = text2speech("abba")
    assert text2speech.fs == 22050 and len(spoken["wav"]) == 256 * len(spoken["feat_gen_denorm"]) > 0
    assert torch.equal(spoken["wav"], voc(spoken["feat_gen_denorm"], layout="TC").waveform[0])
    # Without ESPnet's denormalisation it is the same mel by its statistics.
    assert torch.equal(text2speech.normalize.mean, torch.tensor(read_statistics(tmp_path / "feats_stats.npz")[0]))
    text2speech.prefer_normalized_feats = True
    text2speech.vocoder = espnet_vocoder(voc, "pwg", (text2speech.normalize.mean, text2speech.normalize.std))
    normalised = text2speech.vocoder.spec
    plain = voc.codes(spoken["feat_gen_denorm"], layout="TC")
    assert (voc.codes(spoken["feat_gen"], spec=normalised, layout="TC") == plain).float().mean() > 0.99
