"""The networks: previous codes and conditions in, logits out. They know nothing of files."""

from __future__ import annotations

from wavegen.config import AudioConfig, ModelConfig, RNNConfig, Vocabulary
from wavegen.models.conditioning import ConditioningInputs
from wavegen.models.rnn import RNN
from wavegen.models.wavenet import WaveNet

__all__ = ["RNN", "ConditioningInputs", "WaveNet", "build_model"]


def build_model(config: ModelConfig, audio: AudioConfig, vocabulary: Vocabulary) -> WaveNet | RNN:
    """The network a configuration describes, with freshly drawn weights (torch's global seed)."""
    if isinstance(config, RNNConfig):
        return RNN(config, audio, vocabulary)
    return WaveNet(config, audio, vocabulary)
