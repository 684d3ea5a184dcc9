"""torchaudio's failures become one readable error; its Tacotron 2 speaks through a vocoder."""

from __future__ import annotations

import importlib
import types

import pytest
import torch

from wavegen.errors import MelMismatch, MissingBackendError
from wavegen.integrations.torchaudio import import_torchaudio, tacotron2_vocoder


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'torchaudio'"),
        OSError("libcudart.so.13: cannot open shared object file\nsecond line"),
        RuntimeError("Detected that PyTorch and TorchAudio were compiled with different CUDA versions."),
    ],
)
def test_a_failure_says_what_to_do(failure, monkeypatch):
    def fail(name: str) -> types.ModuleType:
        raise failure

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingBackendError) as caught:
        import_torchaudio("the download of LJSpeech")
    message = str(caught.value)
    assert str(failure).splitlines()[0] in message
    assert "second line" not in message
    assert 'To use the download of LJSpeech: pip install "torch>=2.11,<2.15" torchaudio==2.11.0' in message
    assert caught.value.exit_code == 4


def test_where_it_works_it_is_handed_over(monkeypatch):
    module = types.ModuleType("torchaudio")
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    assert import_torchaudio("anything") is module


@pytest.fixture(scope="module")
def torchaudio():
    try:
        return import_torchaudio("this test")
    except MissingBackendError as error:
        pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore:Reached max decoder steps")
def test_its_tacotron2_speaks(torchaudio, vocoder_for):
    torch.manual_seed(0)
    tacotron2 = torchaudio.models.Tacotron2(
        n_symbol=20, symbol_embedding_dim=16, encoder_embedding_dim=16, decoder_rnn_dim=16, decoder_max_step=4,
        attention_rnn_dim=16, attention_hidden_dim=8, attention_location_n_filter=4, prenet_dim=8,
        postnet_embedding_dim=8, gate_threshold=2.0).eval()
    voc = vocoder_for("tacotron2")
    vocoder = tacotron2_vocoder(voc, seed=3)
    assert isinstance(vocoder, torchaudio.pipelines.Tacotron2TTSBundle.Vocoder) and vocoder.sample_rate == 22050
    with torch.inference_mode():
        tacotron2.decoder.linear_projection.bias.fill_(-6.0)
        mels, mel_lengths, _ = tacotron2.infer(torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2]))
        waveforms, lengths = vocoder(mels, mel_lengths)
        shorter, _ = vocoder(mels, torch.tensor([4, 2], dtype=torch.int32))
        assert vocoder(mels)[1] is None
    assert waveforms.shape == (2, 4 * 256) and lengths.tolist() == [4 * 256] * 2
    assert torch.equal(waveforms, voc(mels, seed=3).waveform)
    assert torch.equal(shorter[1, : 2 * 256], vocoder(mels[1:, :, :2])[0][0]) and not shorter[1, 2 * 256 :].any()


def test_another_mel_is_refused(torchaudio, vocoder_for):
    with pytest.raises(MelMismatch, match="sample_rate 22050 against 16000"):
        tacotron2_vocoder(vocoder_for("speecht5"))
