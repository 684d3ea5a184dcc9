"""SpeechBrain: the methods of its HIFIGAN, and its own Tacotron 2 where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.audio.mel import log_mel
from wavegen.audio.mel_formats import mel_spec
from wavegen.errors import MelMismatch
from wavegen.integrations.speechbrain import speechbrain_vocoder

NEEDS = "needs speechbrain: pip install speechbrain"


def test_called_like_hifigan(vocoder_for):
    voc = vocoder_for("tacotron2")
    vocoder = speechbrain_vocoder(voc)
    mel = torch.empty(2, 80, 5).uniform_(-9, -1, generator=torch.Generator().manual_seed(0))
    waveforms = vocoder.decode_batch(mel, torch.tensor([5, 3]), 256)
    assert waveforms.shape == (2, 1, 5 * 256) and not waveforms[1, 0, 3 * 256 :].any()
    assert torch.equal(vocoder.decode_spectrogram(mel[1, :, :3]), waveforms[1, :, : 3 * 256])
    assert torch.equal(vocoder(mel)[0], waveforms[0])
    with pytest.raises(MelMismatch, match="hop_len is 300"):
        vocoder.decode_batch(mel, torch.tensor([5, 3]), 300)


def test_its_tacotron2_speaks(vocoder_for):
    module = pytest.importorskip("speechbrain.lobes.models.Tacotron2", reason=NEEDS)
    torch.manual_seed(0)
    model = module.Tacotron2(n_symbols=20, symbols_embedding_dim=16, encoder_embedding_dim=16, attention_rnn_dim=16,
                             decoder_rnn_dim=16, prenet_dim=8, postnet_embedding_dim=8, attention_dim=8,
                             max_decoder_steps=4, attention_location_n_filters=4, gate_threshold=2.0).eval()
    with torch.no_grad():
        model.decoder.linear_projection.linear_layer.bias.fill_(-6.0)
        mels, lengths, _ = model.infer(torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2]))
    waveforms = speechbrain_vocoder(vocoder_for("tacotron2")).decode_batch(mels, lengths, 256)
    assert waveforms.shape == (2, 1, mels.shape[2] * 256)


def test_its_mel_is_the_preset():
    module = pytest.importorskip("speechbrain.lobes.models.Tacotron2", reason=NEEDS)
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    theirs = module.mel_spectrogram(22050, 256, 1024, 1024, 80, 0.0, 8000.0, 1, False, "slaney", "slaney", True,
                                   torch.tensor(waveform)).numpy()
    assert np.abs(log_mel(waveform, mel_spec("tacotron2")) - theirs).max() < 1e-3
