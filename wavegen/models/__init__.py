"""The networks: previous codes and conditions in, logits out. They know nothing of files."""

from __future__ import annotations

from typing import Any

from wavegen.config import AudioConfig, ModelConfig, Vocabulary
from wavegen.models.conditioning import ConditioningInputs
from wavegen.models.generator import Generator
from wavegen.models.rnn import RNN
from wavegen.models.vae import VAE
from wavegen.models.wavenet import WaveNet

__all__ = ["RNN", "VAE", "ConditioningInputs", "Generator", "WaveNet", "build_model"]


def build_model(config: ModelConfig, audio: AudioConfig, vocabulary: Vocabulary) -> Any:
    """The network a configuration describes, with freshly drawn weights (torch's global seed)."""
    kinds = {"wavenet": WaveNet, "rnn": RNN, "vae": VAE, "wgan": Generator}
    return kinds[config.family](config, audio, vocabulary)  # type: ignore[arg-type]
