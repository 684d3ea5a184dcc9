"""What the model says while it trains: sounds and spectrograms in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch

from wavegen.config import Vocabulary
from wavegen.models import ConditioningInputs
from wavegen.training.module import TrainingModule


class SoundSamples(lightning.Callback):
    """Every `interval` steps, a few clips of the averaged weights, the same conditions and seed each time."""

    def __init__(self, interval: int, num_clips: int = 4) -> None:
        self.interval, self.num_clips = interval, num_clips

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, TrainingModule)
        step, audio = trainer.global_step, pl_module.recipe.audio
        if step % self.interval or not trainer.is_global_zero or trainer.logger is None:
            return
        inputs, names, lengths = self._conditions(pl_module.vocabulary)
        tail = pl_module.recipe.training.tail_samples
        spoken = pl_module.listen(inputs, max(lengths) + tail)
        clips = {f"samples/{name}": waveform[: length + tail]
                 for name, waveform, length in zip(names, spoken, lengths, strict=True)}
        writer = trainer.logger.experiment  # type: ignore[attr-defined]
        for name, clip in (clips | pl_module.sounds()).items():
            writer.add_audio(name, clip, step, audio.sample_rate)
            writer.add_image(f"spectrograms/{name.removeprefix('samples/')}", spectrogram_image(clip), step,
                             dataformats="HW")

    def _conditions(self, vocabulary: Vocabulary) -> tuple[ConditioningInputs, list[str], list[int]]:
        labels, speakers = max(1, len(vocabulary.labels)), max(1, len(vocabulary.speakers))
        # A walk over the grid of pairs that changes label and speaker at each step.
        pairs = [(i * labels // self.num_clips, i % speakers) for i in range(self.num_clips)]
        lengths = [vocabulary.durations[label][speaker][1] for label, speaker in pairs]
        names = ["-".join([*vocabulary.labels[label : label + 1], *vocabulary.speakers[speaker : speaker + 1]])
                 or f"clip-{i}" for i, (label, speaker) in enumerate(pairs)]
        label_ids, speaker_ids = torch.tensor(pairs).unbind(1)
        return ConditioningInputs(label_ids, speaker_ids, torch.tensor(lengths)), names, lengths


def spectrogram_image(waveform: np.ndarray) -> np.ndarray:
    """Log-magnitude spectrogram as a picture in [0, 1], (257, frames), low frequencies at the bottom."""
    spectrum = torch.stft(torch.from_numpy(np.ascontiguousarray(waveform)), 512, 64, 256,
                          torch.hann_window(256), pad_mode="constant", return_complex=True).abs()
    decibels = 20 * torch.log10(spectrum.clamp(min=1e-4))
    picture: np.ndarray = ((decibels + 80) / 100).clamp(0, 1).flip(0).numpy()
    return picture
