"""One training step of a sequence model, as Lightning sees it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from wavegen.config import Recipe, Vocabulary
from wavegen.data.batches import Batch
from wavegen.models import ConditioningInputs, build_model
from wavegen.training.losses import bits, nats, shift
from wavegen.training.optimizer import build_optimizer, learning_rate_factor


class SequenceModule(lightning.LightningModule):
    """Next-code prediction: cross-entropy over the samples of a batch, weights averaged on the side.

    What happens at a step is a pure function of the weights and (seed, step, rank): the batch
    comes from `WindowBatches` and the random state is set anew at each step. A resumed training
    is therefore bit-equal to one that was never interrupted.
    """

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> None:
        super().__init__()
        self.recipe, self.vocabulary, self.store_digest = recipe, vocabulary, store_digest
        torch.manual_seed(recipe.training.seed)
        self.model = build_model(recipe.model, recipe.audio, vocabulary)
        decay = recipe.training.ema_decay
        self.ema = AveragedModel(self.model, multi_avg_fn=functools.partial(_average, decay=decay))
        self.ema.requires_grad_(False)
        self.ema.eval()
        self.results: dict[str, float] = {}  # latest validation, kept in checkpoints

    def on_fit_start(self) -> None:
        if self.recipe.training.precision == "bf16":
            # The averaged copy stays in float32: it is what validation measures and what is exported.
            self.model.compute_dtype = torch.bfloat16

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # `to_inputs` moves what the network needs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.global_step
        torch.manual_seed((self.recipe.training.seed * 1_000_003 + step) * 4096 + self.global_rank)
        codes, inputs = to_inputs(batch, self.device)
        logits = self.model(shift(codes, self.model.silence), inputs)
        loss = nats(logits, codes)
        weight = torch.from_numpy(batch.weight).to(self.device)
        # Divided by the weight over all ranks: the mean of gradients over ranks, which DDP takes,
        # is then the gradient of one process with the whole batch.
        world = self.trainer.world_size
        total = (loss * weight).sum() * world / batch.total_weight
        inside = torch.from_numpy(batch.inside).to(self.device)
        self.last_bits = bits(float((loss.detach() * inside).sum()), float(inside.sum()))
        self.last_samples = batch.codes.size * world
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Here and not at the end of the batch: checkpoints are written before that hook of a module.
        self.ema.update_parameters(self.model)

    def on_validation_start(self) -> None:
        self._sums = np.zeros(2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        codes, inputs = to_inputs(batch, self.device)
        loss = nats(self.ema.module(shift(codes, self.model.silence), inputs), codes)
        self._sums += [float(loss[torch.from_numpy(batch.inside).to(self.device)].double().sum()), batch.inside.sum()]

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor(self._sums, dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        value = bits(float(sums[0]), float(sums[1]))
        self.results = {"validation_bits": value, "step": self.global_step}
        self.log("validation/bits_per_sample", value, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        training = self.recipe.training
        optimizer = build_optimizer(self.model, training.optimizer, training.gradient_clip)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, training.max_steps, training.optimizer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

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
    return tensor(batch.codes), ConditioningInputs(label=label, speaker=speaker, num_samples=tensor(batch.num_samples),
                                                   start_frame=start)


@torch.no_grad()
def _average(average: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int, decay: float) -> None:
    """Exponential moving average that forgets its start: the decay grows from 0.1 to `decay`."""
    count = int(count)
    torch._foreach_lerp_(list(average), list(new), 1 - min(decay, (1 + count) / (10 + count)))
