"""SpeechBrain: `speechbrain_vocoder(voc)` where its examples load `HIFIGAN`."""

from __future__ import annotations

from typing import Any

import torch

from wavegen.config import MelSpec
from wavegen.errors import MelMismatch
from wavegen.integrations.adapter import AbstractAdapter
from wavegen.synth import Vocoder


class SpeechBrainVocoder(AbstractAdapter):
    """Called like `speechbrain.inference.vocoders.HIFIGAN`."""

    def decode_batch(self, spectrogram: torch.Tensor, mel_lens: torch.Tensor | None = None,
                     hop_len: int | None = None) -> torch.Tensor:
        """The waveforms (B, 1, T) of (B, n_mels, F).

        Args:
            mel_lens: frames of each row, (B,); behind them is silence.
            hop_len: samples of a frame, if only to be compared.

        Raises:
            MelMismatch: another `hop_len` than the vocoder's.
        """
        if hop_len is not None and hop_len != self.vocoder.hop_length:
            raise MelMismatch(f"hop_len is {hop_len}, the vocoder's frames have {self.vocoder.hop_length} samples")
        return self.speak(spectrogram, mel_lens).waveform[:, None]

    def decode_spectrogram(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """The waveform (1, T) of (n_mels, F)."""
        return self.speak(spectrogram, layout="CT").waveform

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """As `decode_batch`."""
        return self.decode_batch(spectrogram)


def speechbrain_vocoder(vocoder: Vocoder, spec: MelSpec | str = "tacotron2", **options: Any) -> SpeechBrainVocoder:
    """For the mels of SpeechBrain's `Tacotron2`, `MSTacotron2` and `FastSpeech2`.

    Args:
        spec: "tacotron2" for the LJSpeech models; a `MelSpec` for one trained with other settings.

    Raises:
        MelMismatch: the vocoder reads another mel.
    """
    return SpeechBrainVocoder(vocoder, spec, **options)
