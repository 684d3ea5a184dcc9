"""One training step of a sequence model, as Lightning sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.audio.signal import SignalDecoder
from wavegen.data.batches import Batch
from wavegen.engines import ModelConditioning, build_engine
from wavegen.models import ConditioningInputs
from wavegen.training.losses import bits, nats, shift
from wavegen.training.module import TrainingModule, to_inputs


class SequenceModule(TrainingModule):
    """Next-code prediction: cross-entropy over the samples of a batch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seed_step()
        codes, inputs = to_inputs(batch, self.device)
        loss = nats(self._predict(self.model, batch, codes, inputs), codes)
        weight = torch.from_numpy(batch.weight).to(self.device)
        # Divided by the weight over all ranks: the mean of gradients over ranks, which DDP takes,
        # is then the gradient of one process with the whole batch.
        world = self.trainer.world_size
        total = (loss * weight).sum() * world / batch.total_weight
        inside = torch.from_numpy(batch.inside).to(self.device)
        # Stays on the device, which need not be waited for here.
        self.figures = {"bits_per_sample": bits((loss.detach() * inside).sum(), float(batch.inside.sum()))}
        self.last_samples = batch.codes.size * world
        return total

    def _predict(self, model: Any, batch: Batch, codes: Tensor, inputs: ConditioningInputs) -> Tensor:
        """Logits (B, T, Q) of the codes of a batch, on either signal path."""
        if batch.inputs is None or batch.signal is None:
            logits: Tensor = model(shift(codes, self.model.silence), inputs)
        else:
            told, signal = (torch.from_numpy(array).to(self.device) for array in (batch.inputs, batch.signal))
            logits = model(told, inputs, signal)
        return logits

    def on_validation_start(self) -> None:
        self._sums = np.zeros(2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        codes, inputs = to_inputs(batch, self.device)
        loss = nats(self._predict(self.ema.module, batch, codes, inputs), codes)
        self._sums += [float(loss[torch.from_numpy(batch.inside).to(self.device)].double().sum()), batch.inside.sum()]

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor(self._sums, dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        value = bits(float(sums[0]), float(sums[1]))
        self.results |= {"validation_bits": value, "step": self.global_step}
        self.log("validation/bits_per_sample", value, rank_zero_only=True)

    def headline(self, smooth: dict[str, float]) -> str:
        validation = self.results.get("validation_bits")
        shown = "" if validation is None else f"  validation {validation:.3f}"
        if "copy_stoi" in self.results:
            shown += f"  STOI {self.results['copy_stoi']:.3f}"
        return f"bits {smooth.get('bits_per_sample', float('nan')):.3f}{shown}"

    def validation_line(self) -> str:
        return f"validation {self.results['validation_bits']:.4f} bits per sample"

    def listen(self, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        model = self.ema.module
        engine = build_engine(model, "auto")
        assert inputs.num_samples is not None
        told = ModelConditioning(model, inputs)  # type: ignore[arg-type]
        state = engine.start(len(inputs.num_samples), told, seeds=0)
        decoder = SignalDecoder(self.recipe.audio, len(inputs.num_samples), told.prediction, told.hop_length)
        return decoder.decode(engine.step(state, num_samples))
