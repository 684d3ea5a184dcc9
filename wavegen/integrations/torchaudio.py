"""torchaudio, imported only where it is needed and only through here; its Tacotron 2 with our vocoder.

    waveforms, lengths = tacotron2_vocoder(voc)(*tacotron2.infer(tokens, token_lengths)[:2])

torchaudio 2.11 raises at import beside torch 2.15, and without the CUDA libraries of a full
torch wheel. Nothing that prepares, trains, evaluates or speaks depends on it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wavegen.errors import MissingBackendError

if TYPE_CHECKING:
    import torch

    from wavegen.synth import Vocoder


def import_torchaudio(feature: str) -> ModuleType:
    """The torchaudio package.

    Args:
        feature: what needs it, for the message: "the download of LJSpeech".

    Raises:
        MissingBackendError: it is missing, or cannot be loaded with the torch that is installed.
    """
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        cause = lines[0] if lines else type(error).__name__
        raise MissingBackendError(
            f"torchaudio {_version('torchaudio')} cannot be loaded with torch {_version('torch')} ({cause}). "
            f"Synthesis, training and evaluation do not need it. To use {feature}: "
            'pip install "torch>=2.11,<2.15" torchaudio==2.11.0, or pass --data DIR with the files already '
            "unpacked."
        ) from error


def tacotron2_vocoder(vocoder: Vocoder, **options: Any) -> Any:
    """A `Tacotron2TTSBundle.Vocoder`, for the mels of torchaudio's Tacotron 2.

    Args:
        vocoder: from `wavegen.load`.
        options: of every call of the vocoder, such as seed, temperature or check.

    Returns:
        A module. `(specgrams (B, n_mels, F), lengths (B,) or None)` gives waveforms (B, T) and their lengths in
        samples, or None; `sample_rate` is in Hz.

    Raises:
        MelMismatch: the vocoder does not read the preset "tacotron2".
        MissingBackendError: torchaudio cannot be loaded.
    """
    from wavegen.integrations.adapter import AbstractAdapter

    import_torchaudio("its Tacotron 2")
    interface: Any = importlib.import_module("torchaudio.pipelines").Tacotron2TTSBundle.Vocoder

    class TorchaudioVocoder(AbstractAdapter, interface):
        def forward(self, specgrams: torch.Tensor, lengths: torch.Tensor | None = None) -> tuple[torch.Tensor, Any]:
            audio = self.speak(specgrams, lengths)
            return audio.waveform, None if lengths is None else audio.lengths

    return TorchaudioVocoder(vocoder, "tacotron2", **options)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
