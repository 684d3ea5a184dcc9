"""What one training step is for every family: seeds, averaged weights, checkpoints, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from wavegen.audio.mulaw import to_companded
from wavegen.config import Recipe, Vocabulary
from wavegen.data.batches import Batch
from wavegen.models import ConditioningInputs, build_model
from wavegen.training.optimizer import MuonAdamW, build_optimizer, learning_rate_factor


class TrainingModule(lightning.LightningModule):
    """Base of the families' modules: a network, its averaged weights and what a checkpoint holds.

    What happens at a step is a pure function of the weights and (seed, step, rank): the batch
    comes from `WindowBatches` and the random state is set anew at each step. A resumed training
    is therefore bit-equal to one that was never interrupted.

    A family defines `training_step`, `validation_step`, `headline`, `validation_line` and `listen`.

    Attributes:
        model: the network that is trained and, averaged as `ema`, exported.
        figures: of the latest step, for the log; each is smoothed over steps.
        last_samples: audio samples over all ranks in the latest step.
        results: latest validation, kept in checkpoints.
        batches_per_step: None: a step gets one `Batch`; n: a list of n.
    """

    batches_per_step: int | None = None

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> None:
        super().__init__()
        self.recipe, self.vocabulary, self.store_digest = recipe, vocabulary, store_digest
        torch.manual_seed(recipe.training.seed)
        self.model = build_model(recipe.model, recipe.audio, vocabulary)
        self.ema = AveragedModel(self.model)
        self.ema.requires_grad_(False)
        self.ema.eval()
        self._averaged_steps: int | None = None  # `ema.n_averaged`, which is on the device, once it is known here
        self.figures: Mapping[str, float | Tensor] = {}
        self.last_samples = 0
        self.results: dict[str, float] = {}

    def headline(self, smooth: dict[str, float]) -> str:
        """The part of a line of progress that is the family's own, from smoothed `figures`."""
        raise NotImplementedError

    def validation_line(self) -> str:
        """The latest validation in words."""
        raise NotImplementedError

    def listen(self, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        """Waveforms float32 (B, T), T at most `num_samples`, of the averaged weights, seed 0."""
        raise NotImplementedError

    def sounds(self) -> dict[str, np.ndarray]:
        """More clips float32 (T,) to log by name, beside what the model says."""
        return {}

    def seed_step(self) -> None:
        """Set the random state of this step and rank."""
        torch.manual_seed((self.recipe.training.seed * 1_000_003 + self.global_step) * 4096 + self.global_rank)

    def on_fit_start(self) -> None:
        if self.recipe.training.precision == "bf16":
            # The averaged copy stays in float32: it is what validation measures and what is exported.
            self.model.compute_dtype = torch.bfloat16

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # `to_inputs` moves what the network needs

    def average_weights(self) -> None:
        """Call after each step of the optimizer.

        Not in a hook at the end of the batch: checkpoints are written before that hook of a module.
        """
        if self._averaged_steps is None:
            self._averaged_steps = int(self.ema.n_averaged)
        _average(list(self.ema.module.parameters()), list(self.model.parameters()), self._averaged_steps,
                 self.recipe.training.ema_decay)
        self._averaged_steps += 1
        self.ema.n_averaged += 1

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average_weights()

    def configure_optimizers(self) -> Any:
        training = self.recipe.training
        optimizer = build_optimizer(self.model, training.optimizer, training.gradient_clip)
        return {"optimizer": optimizer,
                "lr_scheduler": {"scheduler": self.build_schedule(optimizer), "interval": "step"}}

    def build_schedule(self, optimizer: MuonAdamW) -> torch.optim.lr_scheduler.LambdaLR:
        """The recipe's rate over steps."""
        training = self.recipe.training
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, training.max_steps, training.optimizer))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["wavegen"] = {
            "recipe": self.recipe.model_dump(mode="json"), "vocabulary": self.vocabulary.model_dump(mode="json"),
            "ema": self.ema.module.state_dict(), "step": self.global_step, "store_digest": self.store_digest,
            "metrics": dict(self.results)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.results = dict(checkpoint["wavegen"]["metrics"])


def to_inputs(batch: Batch, device: torch.device | str) -> tuple[Tensor, ConditioningInputs]:
    """Codes (B, T) and conditions of a batch as tensors on a device."""
    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    known = [column if (column >= 0).all() else None for column in (batch.label, batch.speaker)]
    label, speaker = [None if column is None else tensor(column) for column in known]
    start = tensor(batch.start_frame) if batch.start_frame.any() else None
    features, num_frames = [None if column is None else tensor(column) for column in (batch.features, batch.num_frames)]
    return tensor(batch.codes), ConditioningInputs(label=label, speaker=speaker, num_samples=tensor(batch.num_samples),
                                                   start_frame=start, features=features, num_frames=num_frames)


def companded(batch: Batch, quantization_channels: int, device: torch.device | str,
              generator: torch.Generator | None = None, noise: bool = True) -> Tensor:
    """What a continuous network sees of a batch: companded amplitudes, spread inside their bins.

    A code stands for a bin of width 2 / (Q - 1). Recordings lie on Q points of it, which no
    continuous output ever hits; uniform noise inside the bin gives both overlapping support.

    Args:
        batch: windows of codes.
        quantization_channels: number of codes Q.
        generator: of the noise; None draws from torch's global one, which `seed_step` sets.
        noise: False leaves the points.

    Returns:
        float32 (B, T), within 1 / (Q - 1) of [-1, 1].
    """
    points = torch.from_numpy(to_companded(batch.codes, quantization_channels))
    if noise:
        points += (torch.rand(points.shape, generator=generator) * 2 - 1) / (quantization_channels - 1)
    return points.to(device)


@torch.no_grad()
def _average(average: list[Tensor], new: list[Tensor], count: int, decay: float) -> None:
    """Exponential moving average that forgets its start: the first weights, then a decay from 0.18 to `decay`."""
    if count == 0:
        torch._foreach_copy_(average, new)
    else:
        torch._foreach_lerp_(average, new, 1 - min(decay, (1 + count) / (10 + count)))
