"""What a person sees while a model trains: a line of figures, and scalars for TensorBoard."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning

from wavegen.errors import TrainingError
from wavegen.training.module import TrainingModule

logger = logging.getLogger(__name__)
WARM_STEPS = 2  # which compile and load: they say nothing of those to come
EARLY_STEPS, EARLY_SECONDS = 10, 5.0  # after which it is told how long a training will take


class ProgressLine(lightning.Callback):
    """Every `interval` steps: step, the family's figures, speed as times real time, time to go.

    Also the guard: stops the training when `max_bad_steps` steps in a row had no finite gradient.
    """

    def __init__(self, interval: int, max_steps: int, sample_rate: int, max_bad_steps: int) -> None:
        self.interval, self.max_steps, self.sample_rate = interval, max_steps, sample_rate
        self.max_bad_steps = max_bad_steps
        self.smooth: dict[str, float] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._batches, self._early = 0, True
        self.restart()

    def restart(self) -> None:
        """Measure the speed from now on: what took time since then was not training."""
        self._mark, self._samples, self._steps = time.monotonic(), 0, 0

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, TrainingModule)
        optimizer = trainer.optimizers[0]
        if any(one.bad_steps >= self.max_bad_steps for one in trainer.optimizers):  # type: ignore[attr-defined]
            raise TrainingError(
                f"training stopped at step {trainer.global_step}: the gradient was not finite for "
                f"{self.max_bad_steps} steps in a row. The weights are those of the last good step; lower "
                "training.optimizer.muon_lr or adamw_lr and continue with --resume auto")
        for name, figure in pl_module.figures.items():
            value = float(figure)  # the device has long computed it: its gradient has been used
            if math.isfinite(value):
                self.smooth[name] = 0.98 * self.smooth.get(name, value) + 0.02 * value
        self._samples += pl_module.last_samples
        self._steps += 1
        step = trainer.global_step
        if step % self.interval and step != self.max_steps:
            self._tell_early(trainer)
            return
        self._early = False
        elapsed = max(1e-9, time.monotonic() - self._mark)
        speed = self._samples / elapsed
        pl_module.log_dict({**{f"train/{name}": value for name, value in self.smooth.items()},
                            "train/samples_per_second": speed,
                            "train/gradient_norm": optimizer.gradient_norm,  # type: ignore[attr-defined]
                            "train/learning_rate": optimizer.param_groups[0]["lr"]}, rank_zero_only=True)
        if trainer.is_global_zero:
            remaining = (self.max_steps - step) * elapsed / self._steps
            logger.info("step %d/%d  %s  %.1fx real time  %s left", step, self.max_steps,
                        pl_module.headline(self.smooth), speed / self.sample_rate, _clock(remaining))
        self.restart()


    def _tell_early(self, trainer: lightning.Trainer) -> None:
        """Say once how long it will take, before the first line of figures is due."""
        self._batches += 1
        if self._batches <= WARM_STEPS:
            self._warm = time.monotonic(), trainer.global_step
            return
        elapsed, steps = time.monotonic() - self._warm[0], trainer.global_step - self._warm[1]
        if self._early and steps and (steps >= EARLY_STEPS or elapsed > EARLY_SECONDS):
            self._early = False
            if trainer.is_global_zero:
                logger.info("about %s at the pace of the first steps",
                            _clock((self.max_steps - trainer.global_step) * elapsed / steps))


class ValidationMark(lightning.Callback):
    """Logs each validation figure, and keeps its time out of the training speed."""

    def __init__(self, line: ProgressLine) -> None:
        self.line = line

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if trainer.is_global_zero:
            logger.info("step %d: %s", trainer.global_step, pl_module.validation_line())
        self.line.restart()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
