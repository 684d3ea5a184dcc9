"""What all adapters share: a mel that does not fit is refused when the two are put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.audio.mel_formats import PRESETS
from wavegen.errors import BadInputError, ConfigError, MelMismatch
from wavegen.integrations.adapter import AbstractAdapter, normalised_spec
from wavegen.integrations.coqui import CoquiVocoder
from wavegen.integrations.espnet import espnet_vocoder
from wavegen.integrations.nemo import nemo_vocoder
from wavegen.integrations.speechbrain import speechbrain_vocoder
from wavegen.integrations.transformers import fastspeech2_vocoder, speecht5_vocoder


@pytest.mark.parametrize(("plug", "fields"), [
    (speecht5_vocoder, ["sample_rate 16000 against 22050", "fmin 80.0 against 0.0", "fmax 7600.0 against 8000.0"]),
    (lambda voc: fastspeech2_vocoder(voc, (0, 1)), ["fmin 80.0 against 0.0"]),
    (espnet_vocoder, ["fmin 80.0 against 0.0"]),
    (nemo_vocoder, ["center False against True", "window hann_symmetric against hann"]),
    (lambda voc: speechbrain_vocoder(voc, PRESETS["hifigan"]), ["edge_padding 384 against 0"]),
    (lambda voc: CoquiVocoder(voc, PRESETS["coqui"]), ["fmax 11025.0 against 8000.0"]),
])
def test_an_acoustic_model_with_another_mel_is_refused_at_once(plug, fields, vocoder_for):
    with pytest.raises(MelMismatch) as caught:
        plug(vocoder_for("tacotron2"))
    assert all(field in str(caught.value) for field in fields)


def test_options_reach_every_call_and_an_adapter_has_no_weights(vocoder_for):
    voc = vocoder_for("tacotron2")
    adapter = AbstractAdapter(voc, "tacotron2", seed=5, temperature=0.7)
    mel = torch.full((1, 80, 3), -6.0)
    assert torch.equal(adapter.speak(mel).waveform, voc(mel, seed=5, temperature=0.7).waveform)
    assert adapter.sample_rate == 22050
    assert not adapter.state_dict() and adapter.to("cpu").eval() is adapter


def test_a_normalised_mel_is_the_plain_one(vocoder_for):
    voc, mel = vocoder_for("pwg"), np.random.default_rng(0).uniform(-6, 0, (1, 80, 4)).astype(np.float32)
    mean, scale = np.linspace(-5, -2, 80), np.linspace(0.5, 1.5, 80)
    normalised = (mel - mean[:, None]) / scale[:, None]
    adapter = AbstractAdapter(voc, "pwg", (torch.tensor(mean), torch.tensor(scale)))
    assert np.array_equal(adapter.vocoder.codes(normalised, spec=adapter.spec), voc.codes(mel))


@pytest.mark.parametrize(("statistics", "message"), [
    ((np.zeros(79), np.ones(80)), "79 numbers as mean"),
    ((np.zeros(80), np.zeros(80)), "above 0"),
    ((np.full(80, np.nan), np.ones(80)), "finite"),
])
def test_wrong_statistics_are_refused(statistics, message):
    with pytest.raises(ConfigError, match=message):
        normalised_spec("pwg", statistics)


def test_what_an_acoustic_model_guesses_a_little_below_the_floor_is_the_floor(vocoder_for):
    voc = vocoder_for("tacotron2")
    floor = np.full((1, 80, 12), np.log(1e-5), np.float32)
    floor[:, :30] = -4.0
    below = np.where(floor < -11, floor - 0.9, floor)
    assert np.array_equal(voc.codes(below), voc.codes(floor))
    with pytest.raises(BadInputError, match="below the floor"):
        voc(np.where(floor < -11, floor - 5, floor))
