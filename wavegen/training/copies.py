"""Copy synthesis while a vocoder trains: held-out clips from their own mel, free-running, and how near they come.

Bits per sample say little of a vocoder: they fall for hours before the pitch holds. What its audio says of the
progress are the intelligibility (STOI) and the log-mel distance of clips it speaks alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from wavegen.audio.signal import SignalDecoder
from wavegen.checkpoint.run import BEST
from wavegen.config import AudioConfig
from wavegen.data.store import Store
from wavegen.engines import ModelConditioning, build_engine
from wavegen.errors import MissingBackendError
from wavegen.metrics.bits import conditioning_inputs
from wavegen.metrics.copies import QUICK, compare, means
from wavegen.metrics.perception import unavailable
from wavegen.training.checkpoints import AtomicCheckpointIO
from wavegen.training.module import TrainingModule
from wavegen.training.progress import ProgressLine
from wavegen.training.sounds import spectrogram_image

logger = logging.getLogger(__name__)

MAX_SECONDS = 8.0  # of a clip: all rows of a batch last as long as the longest
SHOWN_CLIPS = 4  # in TensorBoard


class CopySynthesis(lightning.Callback):
    """Every `interval` steps and at the end, held-out clips spoken by the averaged weights from their own mel.

    The clips, their seed and the temperature (1) are the same each time. The figures go to TensorBoard, to the log and
    into the checkpoints; the weights with the highest STOI so far are kept as `checkpoints/best.ckpt`, which holds what
    an export needs and nothing to resume from.

    Args:
        store, split: where the clips are.
        num_clips: how many, drawn once by `seed`.
        interval: steps.
        run: the run's folder.
        line: whose clock is stopped meanwhile.

    Raises:
        MissingBackendError: pystoi is not installed.
    """

    def __init__(self, store: Store, split: str, num_clips: int, interval: int, seed: int, run: Path,
                 line: ProgressLine) -> None:
        missing = unavailable()
        if "stoi" in missing:
            raise MissingBackendError(f"training.copy_clips is {num_clips}, and the copies are judged by their STOI: "
                                      f"{missing['stoi']}, or set training.copy_clips=0")
        rows = store.rows(split)
        chosen = np.random.default_rng(seed).choice(len(rows), min(num_clips, len(rows)), replace=False)
        self.store, self.rows, self.interval = store, rows[np.sort(chosen)], interval
        self.path, self.line, self._shown = run / "checkpoints" / BEST, line, False

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, TrainingModule)
        step = trainer.global_step
        if not trainer.is_global_zero or (step % self.interval and step != trainer.max_steps):
            return
        threads = 1 if pl_module.recipe.training.threads == 1 else "auto"
        spoken = speak_rows(pl_module.ema.module, self.store, self.rows, threads=threads)
        recorded = [self.store.waveform(int(row))[: len(clip)] for row, clip in zip(self.rows, spoken, strict=True)]
        table = means([compare(found, wanted, self.store.audio.sample_rate, QUICK)
                       for found, wanted in zip(spoken, recorded, strict=True)])
        figures = {name: figure["mean"] for name, figure in table.items() if figure["mean"] is not None}
        results = pl_module.results
        results |= {f"copy_{name}": value for name, value in figures.items()} | {"copy_step": step}
        if figures.get("stoi", -1.0) > results.get("best_stoi", -1.0):
            results |= {"best_stoi": figures["stoi"], "best_step": step}
            checkpoint: dict[str, Any] = {}
            pl_module.on_save_checkpoint(checkpoint)
            AtomicCheckpointIO().save_checkpoint(checkpoint, self.path)
        self._log(trainer, spoken, recorded, figures)
        logger.info("step %d: copies of %d held-out clips: %s", step, len(spoken), _in_words(results))
        self.line.restart()

    def _log(self, trainer: lightning.Trainer, spoken: Sequence[np.ndarray], recorded: Sequence[np.ndarray],
             figures: dict[str, float]) -> None:
        if trainer.logger is None:
            return
        writer, step, rate = trainer.logger.experiment, trainer.global_step, self.store.audio.sample_rate  # type: ignore[attr-defined]
        for name, value in figures.items():
            writer.add_scalar(f"copies/{name}", value, step)
        for row, found, wanted in list(zip(self.rows, spoken, recorded, strict=True))[:SHOWN_CLIPS]:
            name = str(self.store.entry(int(row))["id"])
            clips = {name: found} if self._shown else {name: found, f"{name}-recording": wanted}
            for title, clip in clips.items():
                writer.add_audio(f"copies/{title}", clip, step, rate)
                writer.add_image(f"copies/{title}-spectrogram", spectrogram_image(clip), step, dataformats="HW")
        self._shown = True


def _in_words(results: dict[str, float]) -> str:
    said = [f"{title} {results[name]:.3f}" for title, name in (
        ("STOI", "copy_stoi"), ("log-mel distance", "copy_log_mel")) if name in results]
    if "best_stoi" in results:
        said.append(f"(best STOI {results['best_stoi']:.3f} at step {results['best_step']:.0f})")
    return "  ".join(said)


def speak_rows(model: Any, store: Store, rows: np.ndarray, seed: int = 0, temperature: float = 1.0, min_p: float = 0.0,
               threads: int | str = 1, max_seconds: float = MAX_SECONDS) -> list[np.ndarray]:
    """Clips of a store, spoken by a model that has heard nothing of them but what they are conditioned on.

    Args:
        model: a WaveNet on any device; it speaks on the CPU in float32.
        store: with what the model is told.
        rows: which clips; each draws from stream 0 of `seed`.
        max_seconds: of a clip.

    Returns:
        float32 (T,) of each clip, as long as the recording or `max_seconds`.
    """
    audio: AudioConfig = store.audio
    told = ModelConditioning(model, conditioning_inputs(store, rows))
    lengths = np.minimum(store.lengths[rows], int(max_seconds * audio.sample_rate))
    engine = build_engine(model, "numba", threads=threads)  # type: ignore[arg-type]
    state = engine.start(len(rows), told, seeds=seed, streams=[0] * len(rows), temperature=temperature, min_p=min_p)
    decoder = SignalDecoder(audio, len(rows), told.prediction, told.hop_length)
    waveforms = decoder.decode(engine.step(state, int(lengths.max())))
    return [waveform[:length] for waveform, length in zip(waveforms, lengths, strict=True)]
