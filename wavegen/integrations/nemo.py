"""NVIDIA NeMo: `nemo_vocoder(voc, nemo_spec(model.cfg.preprocessor))` where its examples load `HifiGanModel`."""

from __future__ import annotations

from typing import Any

import torch

from wavegen.config import MelSpec
from wavegen.errors import MelMismatch
from wavegen.integrations.adapter import AbstractAdapter, setting
from wavegen.synth import Vocoder


class NemoVocoder(AbstractAdapter):
    """Called like `nemo.collections.tts.models.base.Vocoder`."""

    def convert_spectrogram_to_audio(self, *, spec: torch.Tensor) -> torch.Tensor:
        """The waveforms (B, T) of (B, n_mels, F); by keyword, as NeMo's own demand it."""
        return self.speak(spec).waveform

    def forward(self, *, spec: torch.Tensor) -> torch.Tensor:
        """As `HifiGanModel.forward`: (B, 1, T)."""
        return self.speak(spec).waveform[:, None]


def nemo_vocoder(vocoder: Vocoder, spec: MelSpec | str = "nemo", **options: Any) -> NemoVocoder:
    """For the spectrograms of `FastPitchModel` and `Tacotron2Model`.

    Args:
        spec: `nemo_spec(model.cfg.preprocessor)`; "nemo" is that of the HiFi-GAN recipes, whose frames lie half a hop
            later than FastPitch's.

    Raises:
        MelMismatch: the vocoder reads another mel.
    """
    return NemoVocoder(vocoder, spec, **options)


def nemo_spec(preprocessor: Any) -> MelSpec:
    """The mel of `AudioToMelSpectrogramPreprocessor`, from its configuration, which holds samples, not seconds.

    The guard "add", log(x + value), is taken for a floor: they differ where the mel is within a few dB of it.

    Raises:
        MelMismatch: it is none that a `MelSpec` can say, such as one of a pre-emphasised signal.
    """
    def get(name: str, default: Any = None) -> Any:
        return setting(preprocessor, name, default)

    unknown = {name: get(name) for name, usual in (("preemph", 0.97), ("normalize", "per_feature"))
               if get(name, usual) not in (None, False, 0, 0.0, "")}
    if get("window", "hann") != "hann":
        unknown["window"] = get("window")
    if not get("log", True):
        unknown["log"] = False
    if unknown:
        raise MelMismatch("NeMo's preprocessor does what wavegen has no name for: "
                          + ", ".join(f"{name} {value}" for name, value in unknown.items()))
    win_length, hop_length, rate = get("n_window_size"), get("n_window_stride"), get("sample_rate", 16000)
    win_length = win_length or round(get("window_size", 0.02) * rate)
    hop_length = hop_length or round(get("window_stride", 0.01) * rate)
    n_fft = get("n_fft") or 1 << (win_length - 1).bit_length()
    exact = bool(get("exact_pad", False))
    return MelSpec(
        sample_rate=rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        n_mels=get("features", 64),
        fmin=get("lowfreq", 0) or 0.0,
        fmax=get("highfreq"),
        power=get("mag_power", 2.0),
        floor=get("log_zero_guard_value", 2**-24),
        center=not exact,
        edge_padding=(n_fft - hop_length) // 2 if exact else 0,
        pad_mode="zero",
        window="hann_symmetric",
    )
