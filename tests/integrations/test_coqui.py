"""Coqui TTS: what its Synthesizer asks of a vocoder, and its mel from its settings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from toolkits import CoquiSynthesizer, coqui_audio
from wavegen.audio.mel import log_mel
from wavegen.audio.mel_formats import PRESETS, convert_mel
from wavegen.errors import MelMismatch
from wavegen.integrations.coqui import coqui_spec, plug_in

LN = {"log_func": "np.log", "spec_gain": 1, "signal_norm": False, "mel_fmax": 8000.0}  # as its later releases


def test_the_synthesizer_speaks_through_it(vocoder_for):
    voc = vocoder_for("tacotron2")
    synthesizer = CoquiSynthesizer(coqui_audio(mel_fmax=8000.0))
    vocoder = plug_in(synthesizer, voc)
    waveform = synthesizer.tts("any text")
    mel = synthesizer.tts_model.mel  # (F, 80), normalised to [-4, 4]
    decibels = synthesizer.tts_model.ap.denormalize(mel)
    assert waveform.shape == (len(mel) * 256,) and synthesizer.output_sample_rate == 22050
    assert np.array_equal(waveform, voc(decibels, spec=vocoder.spec, layout="TC").waveform[0])
    spec = coqui_spec(coqui_audio(mel_fmax=8000.0))
    assert np.abs(convert_mel(mel, spec, vocoder.spec, layout="TC")[0].T - decibels).max() < 1e-3
    assert next(vocoder.parameters()).device.type == "cpu"


def test_the_spec_is_read_from_the_settings(vocoder_for):
    assert coqui_spec(coqui_audio(**LN)) == PRESETS["tacotron2"].model_copy(update={"floor": 1e-8})
    default = coqui_spec(SimpleNamespace(**coqui_audio()))
    assert default.model_copy(update={"mean": (-1.5,), "scale": (0.625,), "floor": 1e-4}) == PRESETS["coqui"]
    assert np.allclose([*default.mean, *default.scale, default.floor], [-1.5, 0.625, 1e-4])
    with pytest.raises(MelMismatch, match="sample_rate 24000 against 22050"):
        plug_in(CoquiSynthesizer(coqui_audio(sample_rate=24000)), vocoder_for("tacotron2"))
    spec = coqui_spec(coqui_audio(hop_length=None, frame_length_ms=50, frame_shift_ms=12.5, fft_size=2048))
    assert (spec.win_length, spec.hop_length) == (1102, 275)


@pytest.mark.parametrize("odd", [{"preemphasis": 0.97}, {"do_amp_to_db_mel": False}, {"stft_pad_mode": "edge"},
                                 {"stats_path": "scale_stats.npy"}])
def test_what_has_no_name_is_refused(odd):
    with pytest.raises(MelMismatch):
        coqui_spec(coqui_audio(**odd))


@pytest.mark.parametrize("audio", [
    {}, LN, {"symmetric_norm": False, "max_norm": 1.0}, {"signal_norm": False, "mel_fmin": 50.0},
    {"spec_gain": 1, "min_level_db": -5, "ref_level_db": 0, "max_norm": 2.0}])
def test_the_spec_computes_what_coqui_computes(audio):
    module = pytest.importorskip("TTS.utils.audio", reason="needs coqui-tts: pip install coqui-tts")
    configuration = pytest.importorskip("TTS.config.shared_configs").BaseAudioConfig(**audio)
    processor = module.AudioProcessor(configuration)
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    theirs = processor.melspectrogram(waveform)
    assert np.abs(log_mel(waveform, coqui_spec(configuration)) - theirs).max() < 2e-3
    plain = coqui_spec(processor, denormalised=True)
    ours = convert_mel(theirs, coqui_spec(configuration), plain, layout="CT", check=False)[0]
    assert np.abs(ours - processor.denormalize(theirs)).max() < 2e-2


def test_the_real_synthesizer_speaks_through_it(vocoder_for, tmp_path):
    module = pytest.importorskip("TTS.utils.synthesizer", reason="needs coqui-tts: pip install coqui-tts")
    configs, models = pytest.importorskip("TTS.tts.configs.glow_tts_config"), pytest.importorskip("TTS.tts.models")
    shared = pytest.importorskip("TTS.config.shared_configs")
    config = configs.GlowTTSConfig(
        audio=shared.BaseAudioConfig(**LN, do_trim_silence=False), use_phonemes=False, text_cleaner="basic_cleaners",
        hidden_channels_enc=8, hidden_channels_dec=8, hidden_channels_dp=8, num_flow_blocks_dec=1, num_block_layers=1,
        encoder_params={"kernel_size": 3, "dropout_p": 0.0, "num_layers": 1, "num_heads": 2,
                        "hidden_channels_ffn": 8, "input_length": None})
    torch.manual_seed(0)
    model = models.setup_model(config)
    with torch.no_grad():
        model.encoder.proj_m.bias.fill_(-4.0)
    torch.save({"model": model.state_dict()}, tmp_path / "model_file.pth")
    config.save_json(tmp_path / "config.json")
    synthesizer = module.Synthesizer(tts_checkpoint=str(tmp_path / "model_file.pth"),
                                     tts_config_path=str(tmp_path / "config.json"))
    voc = vocoder_for("tacotron2")
    plug_in(synthesizer, voc, check=False)  # random weights: the mel is no recording's
    waveform = np.asarray(synthesizer.tts("aba", split_sentences=False))
    mel = synthesizer.tts_model.synthesize(text="aba")["outputs"]["model_outputs"]
    alone = voc(mel, layout="BTC", spec=coqui_spec(config.audio), check=False).waveform[0]
    assert len(alone) == mel.shape[1] * 256 and np.array_equal(waveform[: len(alone)], alone)
