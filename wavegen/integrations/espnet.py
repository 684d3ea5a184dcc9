"""ESPnet2: `text2speech.vocoder = espnet_vocoder(voc, espnet_spec(text2speech.feats_extract))`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.config import MelSpec
from wavegen.errors import BadInputError, MelMismatch
from wavegen.integrations.adapter import AbstractAdapter, Statistics
from wavegen.synth import Vocoder


class EspnetVocoder(AbstractAdapter):
    """Called like `ParallelWaveGANPretrainedVocoder`, by `espnet2.bin.tts_inference.Text2Speech`."""

    @property
    def fs(self) -> int:
        """Hz; what `text2speech.fs` answers."""
        return self.sample_rate

    def forward(self, feats: torch.Tensor, f0: torch.Tensor | None = None) -> torch.Tensor:
        """The waveform (T,) of features (F, n_mels); f0 is not used."""
        return self.speak(feats, layout="TC").waveform[0]


def espnet_vocoder(vocoder: Vocoder, spec: MelSpec | str = "pwg", statistics: Statistics | None = None,
                   **options: Any) -> EspnetVocoder:
    """For `text2speech.vocoder`.

    Args:
        spec: of the features; `espnet_spec(text2speech.feats_extract)`, or "pwg" for the LJSpeech recipes.
        statistics: only with `prefer_normalized_feats=True`: `(text2speech.normalize.mean, text2speech.normalize.std)`.
            Otherwise ESPnet has undone the normalisation.

    Raises:
        MelMismatch: the vocoder reads another mel.
    """
    return EspnetVocoder(vocoder, spec, statistics, **options)


def espnet_spec(feats_extract: Any) -> MelSpec:
    """The mel of ESPnet's `LogMelFbank`, before normalisation.

    Raises:
        MelMismatch: it is none that a `MelSpec` can say: another window, another logarithm.
    """
    log_base = {None: "e", 10.0: "10"}.get(feats_extract.logmel.log_base)
    if log_base is None or feats_extract.window != "hann":
        raise MelMismatch(f"ESPnet's features have the window {feats_extract.window} and logarithms to base "
                          f"{feats_extract.logmel.log_base}; wavegen knows hann, and e (null) or 10")
    return MelSpec(
        sample_rate=feats_extract.fs,
        n_fft=feats_extract.n_fft,
        hop_length=feats_extract.hop_length,
        win_length=feats_extract.win_length or feats_extract.n_fft,
        n_mels=feats_extract.n_mels,
        fmin=feats_extract.fmin or 0.0,
        fmax=feats_extract.fmax,
        mel_scale="htk" if feats_extract.logmel.mel_options["htk"] else "slaney",
        log_base=log_base,
        floor=1e-10,
        center=feats_extract.stft.center,
    )


def read_statistics(path: str | Path) -> Statistics:
    """Mean and standard deviation of every band from ESPnet's `feats_stats.npz`, each float64 (n_mels,).

    Raises:
        BadInputError: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            count, total, squares = (np.asarray(stored[name], np.float64) for name in ("count", "sum", "sum_square"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path} is no feats_stats.npz of ESPnet, with count, sum and sum_square: "
                            f"{error}") from error
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 1e-20))
