"""SpeechT5 and FastSpeech2Conformer: the call first, then the real classes with random weights."""

from __future__ import annotations

import pytest
import torch

from toolkits import random_speecht5
from wavegen.errors import ConfigError
from wavegen.integrations.transformers import fastspeech2_vocoder, speecht5_vocoder

HOP = 256


def test_called_like_speecht5hifigan(vocoder_for):
    voc = vocoder_for("speecht5")
    vocoder = speecht5_vocoder(voc)
    mel = torch.empty(2, 5, 80).uniform_(-6, 0, generator=torch.Generator().manual_seed(0))
    waveforms = vocoder(mel)
    assert waveforms.shape == (2, 5 * HOP) and waveforms.dtype == torch.float32
    assert torch.equal(vocoder(mel[1]), waveforms[1])
    assert torch.equal(vocoder(spectrogram=mel.double().requires_grad_()), waveforms)
    assert vocoder.config.sampling_rate == 16000


def test_frames_of_zeros_at_the_end_are_silence(vocoder_for):
    vocoder = speecht5_vocoder(vocoder_for("speecht5"))
    mel = torch.full((2, 5, 80), -3.0)
    mel[1, 3:] = 0
    waveforms = vocoder(mel)
    assert torch.equal(waveforms[1, : 3 * HOP], vocoder(mel[1, :3]))
    assert not waveforms[1, 3 * HOP :].any()


def test_fastspeech2_needs_its_statistics(vocoder_for):
    with pytest.raises(ConfigError, match=r"feats_stats\.npz"):
        fastspeech2_vocoder(vocoder_for("pwg"), None)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs transformers: pip install transformers")


def test_speecht5_speaks(transformers, vocoder_for):
    model, voc, speaker = random_speecht5(transformers), vocoder_for("speecht5"), torch.zeros(1, 512)
    ids = torch.tensor([[5, 6, 7]])
    torch.manual_seed(1)
    mel = model.generate_speech(ids, speaker, maxlenratio=2)
    torch.manual_seed(1)
    speech = model.generate_speech(ids, speaker, maxlenratio=2, vocoder=speecht5_vocoder(voc))
    assert mel.shape == (6, 80) and speech.shape == (6 * HOP,)
    assert torch.equal(speech, voc(mel, spec="speecht5", layout="TC").waveform[0])


def test_speecht5_speaks_a_batch_with_lengths(transformers, vocoder_for):
    model = random_speecht5(transformers)
    waveforms, lengths = model.generate_speech(
        torch.tensor([[5, 6, 7], [8, 9, 1]]), torch.zeros(2, 512), maxlenratio=2,
        attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]), vocoder=speecht5_vocoder(vocoder_for("speecht5")),
        return_output_lengths=True)
    assert waveforms.shape == (2, 6 * HOP) and list(lengths) == [6 * HOP] * 2


def test_fastspeech2conformer_speaks(transformers, vocoder_for):
    small = dict(encoder_layers=1, decoder_layers=1, hidden_size=16, encoder_num_attention_heads=2,
                 decoder_num_attention_heads=2, encoder_linear_units=16, decoder_linear_units=16, vocab_size=20,
                 duration_predictor_channels=8, energy_predictor_channels=8, pitch_predictor_channels=8,
                 speech_decoder_postnet_units=8)
    sizes = dict(upsample_initial_channel=16)
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(model_config=small, vocoder_config=sizes)
    torch.manual_seed(0)
    model = transformers.FastSpeech2ConformerWithHifiGan(config).eval()
    with torch.no_grad():
        model.model.duration_predictor.linear.bias.fill_(1.1)  # two frames for each token
    voc = vocoder_for("pwg")
    mean, scale = torch.full((80,), -3.0), torch.full((80,), 0.7)
    model.vocoder = fastspeech2_vocoder(voc, (mean, scale))
    told = model(torch.tensor([[3, 4, 5]]), return_dict=True)
    mel = told["spectrogram"].detach()
    assert told["waveform"].shape == (1, mel.shape[1] * HOP)
    plain = voc.codes(mel * scale + mean, layout="BTC")
    assert (voc.codes(mel, spec=model.vocoder.spec, layout="BTC") == plain).float().mean() > 0.99
