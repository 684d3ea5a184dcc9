"""transformers: SpeechT5 and FastSpeech2Conformer.

    speech = model.generate_speech(input_ids, speaker, vocoder=speecht5_vocoder(voc))
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from wavegen.config import MelSpec
from wavegen.errors import ConfigError
from wavegen.integrations.adapter import AbstractAdapter, Statistics
from wavegen.synth import Vocoder


class TransformersVocoder(AbstractAdapter):
    """Called like `SpeechT5HifiGan` and `FastSpeech2ConformerHifiGan`."""

    def __init__(self, vocoder: Vocoder, spec: MelSpec | str, statistics: Statistics | None = None,
                 **options: Any) -> None:
        super().__init__(vocoder, spec, statistics, **options)
        self.config = SimpleNamespace(sampling_rate=self.sample_rate, model_in_dim=self.spec.n_mels)

    def forward(self, spectrogram: torch.Tensor, **_: Any) -> torch.Tensor:
        """The waveform (B, T) of (B, F, n_mels), or (T,) of (F, n_mels).

        Rows that end before the longest are silent from there on: `generate_speech` fills their frames with zeros.
        """
        batch = spectrogram if spectrogram.dim() == 3 else spectrogram[None]
        waveform = self.speak(batch, _num_frames(batch), layout="BTC").waveform
        return waveform if spectrogram.dim() == 3 else waveform[0]


def speecht5_vocoder(vocoder: Vocoder, **options: Any) -> TransformersVocoder:
    """For `SpeechT5ForTextToSpeech.generate_speech(..., vocoder=)` and the pipeline "text-to-speech".

    SpeechT5 gives a plain log-mel: the mean and scale in `SpeechT5HifiGan` are that network's own and do not apply.

    Raises:
        MelMismatch: the vocoder does not read the preset "speecht5".
    """
    return TransformersVocoder(vocoder, "speecht5", **options)


def fastspeech2_vocoder(vocoder: Vocoder, statistics: Statistics | None, spec: MelSpec | str = "pwg",
                        **options: Any) -> TransformersVocoder:
    """For `FastSpeech2ConformerModel`, and in place of `FastSpeech2ConformerWithHifiGan.vocoder`.

    Args:
        statistics: of ESPnet's training, which the model's spectrogram is normalised with and which its checkpoint
            does not hold: `wavegen.integrations.espnet.read_statistics("feats_stats.npz")`. (0, 1) if it is not
            normalised.
        spec: the mel of its training before normalisation; "pwg" for ESPnet's LJSpeech recipe.

    Raises:
        MelMismatch: the vocoder reads another mel.
        ConfigError: no statistics.
    """
    if statistics is None:
        raise ConfigError("FastSpeech2Conformer gives a normalised spectrogram, and its checkpoint does not hold the "
                          "statistics; read them from the feats_stats.npz of its ESPnet training with "
                          "wavegen.integrations.espnet.read_statistics, or give (0, 1) if it is not normalised")
    return TransformersVocoder(vocoder, spec, statistics, **options)


def _num_frames(batch: torch.Tensor) -> torch.Tensor:
    """Frames of each row (B,) before those that are zero in every band to the end: padding. At least 1."""
    filled = (batch != 0).any(-1)
    frames = torch.arange(1, batch.shape[1] + 1, device=batch.device)
    return (filled * frames).amax(1).clamp(min=1)
