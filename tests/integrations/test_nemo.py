"""NeMo: the call its vocoders share, the spec of its preprocessor."""

from __future__ import annotations

import pytest
import torch

from wavegen.audio.mel_formats import PRESETS
from wavegen.errors import MelMismatch
from wavegen.integrations.nemo import nemo_spec, nemo_vocoder

# The preprocessor of examples/tts/conf/fastpitch_align_v1.05.yaml
FASTPITCH = {"features": 80, "lowfreq": 0, "highfreq": 8000, "n_fft": 1024, "n_window_size": 1024, "window_size": False,
             "n_window_stride": 256, "window_stride": False, "pad_to": 1, "pad_value": 0, "sample_rate": 22050,
             "window": "hann", "normalize": None, "preemph": None, "dither": 0.0, "frame_splicing": 1, "log": True,
             "log_zero_guard_type": "add", "log_zero_guard_value": 1e-05, "mag_power": 1.0}


def test_called_by_keyword_like_its_vocoders(vocoder_for):
    voc = vocoder_for("nemo")
    vocoder = nemo_vocoder(voc).eval()
    mel = torch.empty(2, 80, 4).uniform_(-9, -1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vocoder.convert_spectrogram_to_audio(spec=mel), voc(mel).waveform)
    assert vocoder(spec=mel).shape == (2, 1, 4 * 256)


def test_the_spec_is_read_from_the_preprocessor(vocoder_for):
    centred = {"center": True, "edge_padding": 0}
    assert nemo_spec(FASTPITCH) == PRESETS["nemo"].model_copy(update=centred)
    assert nemo_spec({**FASTPITCH, "exact_pad": True}) == PRESETS["nemo"]
    with pytest.raises(MelMismatch, match="center True against False"):
        nemo_vocoder(vocoder_for("nemo"), nemo_spec(FASTPITCH))


def test_seconds_become_samples():
    told = {**FASTPITCH, "n_window_size": None, "window_size": 0.04, "n_window_stride": None, "window_stride": 0.01,
            "n_fft": None, "sample_rate": 24000}
    spec = nemo_spec(told)
    assert (spec.win_length, spec.hop_length, spec.n_fft) == (960, 240, 1024)


@pytest.mark.parametrize("odd", [{"preemph": 0.97}, {"normalize": "per_feature"}, {"window": "hamming"},
                                 {"log": False}])
def test_what_has_no_name_is_refused(odd):
    with pytest.raises(MelMismatch, match=next(iter(odd))):
        nemo_spec({**FASTPITCH, **odd})
