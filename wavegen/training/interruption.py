"""Ctrl-C ends a training after its step, and keeps what was learned."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning

logger = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], Any]


class KeepWork(lightning.Callback):
    """When interrupted, saves a checkpoint at the end of the step and ends the training then.

    A second interruption is that of whoever started the training: it ends at once, and the newest checkpoint is that
    of the latest interval.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._interrupted = False
        self._before: Handler | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take interruptions over from the handler there is, in the main thread."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return
        self._before = before
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        if not self._interrupted:
            return
        path = self.run / "checkpoints" / f"step-{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        logger.warning("stopped after step %d; the same command with --resume auto goes on from there",
                       trainer.global_step)
        self._pass_on()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            self._pass_on(frame)
            return
        self._interrupted = True
        logger.warning("stopping after this step; once more stops at once and keeps the latest checkpoint")

    def _pass_on(self, frame: FrameType | None = None) -> None:
        assert self._before is not None
        self._before(signal.SIGINT, frame)
