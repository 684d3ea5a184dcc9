"""Train what a recipe describes on a store, into a run folder.

    RUN/recipe.yaml  RUN/vocabulary.json  RUN/checkpoints/step-*.ckpt  RUN/tensorboard/
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wavegen.audio.atomic import atomic_write
from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.config import Recipe, VAEConfig, Vocabulary, WaveNetConfig, WGANConfig, is_vocoder
from wavegen.data.batches import Batch, WindowBatches
from wavegen.data.store import Store
from wavegen.errors import ConfigError, StoreError
from wavegen.training.checkpoints import AtomicCheckpointIO
from wavegen.training.copies import CopySynthesis
from wavegen.training.families import build_module
from wavegen.training.health import warn_of_collapse
from wavegen.training.interruption import KeepWork
from wavegen.training.progress import ProgressLine, ValidationMark
from wavegen.training.sounds import SoundSamples
from wavegen.training.start import initial_weights

logger = logging.getLogger(__name__)


class TrainingBatches(IterableDataset[Batch | list[Batch]]):
    """The batches of a rank from a step on: one a step, or lists of `per_step`.

    Of n loader processes each makes every n-th step; the loader takes from them in turn, so the order stays.
    """

    def __init__(self, batches: WindowBatches, first_step: int, max_steps: int, rank: int, world_size: int,
                 per_step: int | None = None) -> None:
        self.batches, self.first_step, self.max_steps = batches, first_step, max_steps
        self.rank, self.world_size, self.per_step = rank, world_size, per_step

    def __iter__(self) -> Iterator[Batch | list[Batch]]:
        worker = get_worker_info()
        first, apart = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in range(self.first_step + first, self.max_steps, apart):
            if self.per_step is None:
                yield self.batches.batch(step, self.rank, self.world_size)
            else:
                yield [self.batches.batch(step * self.per_step + i, self.rank, self.world_size)
                       for i in range(self.per_step)]


class ValidationBatches(IterableDataset[Batch]):
    """Every window of a split once, dealt out over the ranks."""

    def __init__(self, batches: WindowBatches, limit: int | None, rank: int, world_size: int) -> None:
        chosen = batches.sequential()
        if limit is not None and limit < len(chosen):
            chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, limit).astype(int)]
        self.batches, self.chosen = batches, chosen[rank::world_size]

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches.collate(windows) for windows in self.chosen)


@contextmanager
def _settings_given_back() -> Iterator[None]:
    """Threads, flushing of denormals and warning filters are the process's: restore them at the end."""
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)  # torch cannot be asked; this is how every process starts


@_settings_given_back()
def fit(recipe: Recipe, store: str | Path, out: str | Path, resume: str | Path | None = None,
        init_from: str | Path | None = None) -> Path:
    """Train a recipe and return the last checkpoint.

    Under `torchrun` every process trains on its share of each batch. On a CPU the result of a
    resumed training is bit-equal to that of an uninterrupted one.

    Args:
        recipe: what to train.
        store: folder made by `wavegen prepare`.
        out: run folder; must be new unless the training is resumed.
        resume: "auto" continues the newest good checkpoint of `out` (or starts), a path that one.
        init_from: model folder, bundled model, run or checkpoint whose averaged weights are the start, for
            fine-tuning; sizes and audio must be the recipe's. A run that is resumed goes on from its own.

    Raises:
        ConfigError: recipe, store and run do not fit together.
        ModelFileError: the checkpoint to resume is missing or damaged.
        TrainingError: the gradient stayed non-finite, or a checkpoint cannot be written.
    """
    data, run, training = Store.open(store), Path(out), recipe.training
    _check(recipe, data)
    checkpoint = _starting_point(run, resume)
    vocabulary = build_vocabulary(data)
    first_step = 0
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)
        if "state_dict" not in content:
            raise ConfigError(f"{checkpoint} holds weights to export, not a training to resume: continue with --resume "
                              "auto, or begin a new run with these weights by --init-from")
        saved = content["wavegen"]
        first_step = saved["step"]
        _check_resumable(recipe, saved, data, checkpoint)
        logger.info("resuming %s at step %d", checkpoint, first_step)
    if training.threads:
        torch.set_num_threads(training.threads)
    torch.set_flush_denormal(True)
    if training.precision == "bf16" and not _has_fast_bfloat16():
        logger.warning("this machine has no bfloat16 instructions, so training.precision=bf16 is likely slower than "
                       "training.precision=32 here")
    warnings.filterwarnings("ignore", module="lightning.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    module = build_module(recipe, vocabulary, data.digest)
    if init_from is not None and checkpoint is None:
        module.model.load_state_dict(initial_weights(init_from, recipe, vocabulary))
        logger.info("beginning with the weights of %s", init_from)
        module.ema.module.load_state_dict(module.model.state_dict())
    if training.compile and torch.cuda.is_available():
        # Batches of whole clips differ in length: compiled for one, it would be compiled anew for the second and third.
        module.model.compile(dynamic=True if training.chunk_samples is None else None)
    run.mkdir(parents=True, exist_ok=True)
    for name, text in (("recipe.yaml", _yaml(recipe)), ("vocabulary.json", vocabulary.model_dump_json(indent=1))):
        with atomic_write(run / name) as file:
            file.write(text.encode())

    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    order = _windows(recipe, data, "train")
    held_out = _windows(recipe, data, training.validation_split)
    line = ProgressLine(training.log_interval, training.max_steps, recipe.audio.sample_rate, training.max_bad_steps)
    saver = ModelCheckpoint(run / "checkpoints", filename="step-{step}", auto_insert_metric_name=False,
                            monitor="step", mode="max", save_top_k=training.keep_checkpoints,
                            every_n_train_steps=training.checkpoint_interval, save_on_train_epoch_end=True)
    keeper = KeepWork(run)
    callbacks: list[lightning.Callback] = [line, ValidationMark(line), saver, keeper]
    if training.sample_interval:
        callbacks.append(SoundSamples(training.sample_interval))
    if training.copy_clips:
        callbacks.append(CopySynthesis(data, training.validation_split, training.copy_clips, training.copy_interval,
                                       training.seed, run, line))
    trainer = lightning.Trainer(
        accelerator="auto", devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=max(1, world_size // int(os.environ.get("LOCAL_WORLD_SIZE", 1))),
        strategy="ddp" if world_size > 1 else "auto",
        precision="bf16-mixed" if training.precision == "bf16" and torch.cuda.is_available() else "32-true",
        max_steps=training.max_steps, max_epochs=-1, val_check_interval=training.validation_interval,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, plugins=[AtomicCheckpointIO()],
        logger=TensorBoardLogger(run, name="tensorboard", version=""), callbacks=callbacks)
    # Not fork: a forked child inherits the locks of threads it does not have.
    workers: dict[str, Any] = {"num_workers": training.loader_workers, "multiprocessing_context": "spawn"}
    train_rows = data.rows("train")
    logger.info("%s: %d clips, %.1f minutes; %s parameters; %d steps%s", recipe.name, len(train_rows),
                data.lengths[train_rows].sum() / recipe.audio.sample_rate / 60,
                f"{sum(weight.numel() for weight in module.model.parameters()):,}", training.max_steps - first_step,
                " to go" if first_step else "")
    # Of several processes each would stop at a step of its own, and wait there for the others.
    with keeper.listening() if world_size == 1 else nullcontext():
        trainer.fit(
            module,
            DataLoader(TrainingBatches(order, first_step, training.max_steps, rank, world_size,
                                       module.batches_per_step),
                       batch_size=None, **(workers if training.loader_workers else {})),
            DataLoader(ValidationBatches(held_out, training.validation_batches, rank, world_size), batch_size=None),
            ckpt_path=checkpoint)
    if trainer.global_step > first_step:
        # The last step need not fall on the interval, and is validated after a checkpoint of the interval.
        trainer.save_checkpoint(run / "checkpoints" / f"step-{trainer.global_step}.ckpt")
    if training.check_clips and is_vocoder(recipe.audio, recipe.model) and rank == 0:
        warn_of_collapse(module.ema.module, data, training.validation_split, training.check_clips)
    last = latest_checkpoint(run)
    if last is None:
        raise ConfigError(f"training of {run} ended without a checkpoint: training.max_steps is {training.max_steps}")
    return last


def build_vocabulary(store: Store) -> Vocabulary:
    """Labels, speakers and the quartiles of clip length for each pair, from the training split."""
    rows = store.rows("train")
    lengths, labels, speakers = store.lengths[rows], store.label_ids[rows], store.speaker_ids[rows]
    durations = []
    for label in range(max(1, len(store.labels))):
        line = []
        for speaker in range(max(1, len(store.speakers))):
            chosen = np.ones(len(rows), bool)
            if store.labels:
                chosen &= labels == label
            if store.speakers:
                chosen &= speakers == speaker
            # A pair that was never recorded takes the lengths of all clips.
            quartiles = np.percentile(lengths[chosen] if chosen.any() else lengths, [25, 50, 75])
            line.append(tuple(int(value) for value in quartiles))
        durations.append(tuple(line))
    return Vocabulary(labels=store.labels, speakers=store.speakers, durations=tuple(durations))


def _windows(recipe: Recipe, store: Store, split: str) -> WindowBatches:
    training, model = recipe.training, recipe.model
    if isinstance(model, VAEConfig | WGANConfig):
        return WindowBatches(store, split, training.samples_per_batch, 0, 1, seed=training.seed,
                             fixed=model.num_samples,
                             random_start=training.window_start == "random" and split == "train",
                             pitch_shift=training.pitch_shift, balance=training.balance_labels and split == "train")
    context = model.receptive_field if isinstance(model, WaveNetConfig) else 0
    return WindowBatches(store, split, training.samples_per_batch, training.tail_samples,
                         model.conditioning.hop_length, training.chunk_samples, context, training.seed,
                         code_noise=training.code_noise, balance=training.balance_labels and split == "train")


def _check(recipe: Recipe, store: Store) -> None:
    names = ["sample_rate", "quantization_channels", "codec", "signal_path", "preemphasis"]
    if isinstance(recipe.model, WaveNetConfig) and recipe.model.conditioning.features:
        names.append("mel")
    if recipe.audio.signal_path == "lpc":
        names += ["lpc_order", "mel"]
    for name in dict.fromkeys(names):
        wanted, found = getattr(recipe.audio, name), getattr(store.audio, name)
        if wanted != found:
            raise StoreError(f"store {store.path} has {name} {found} but recipe {recipe.name} wants {wanted}; "
                             "prepare the store again with this recipe")
    for split in ("train", recipe.training.validation_split):
        if split not in store.splits or not len(store.rows(split)):
            found = ", ".join(f"{name} ({len(store.rows(name))} clips)" for name in store.splits)
            raise StoreError(f'store {store.path} has no clips in split "{split}", which recipe {recipe.name} needs; '
                             f'it has {found}. Prepare a store with "prepare.hash_splits={{test: 0.1}}", which keeps a '
                             "tenth of the clips for testing, or name a split with training.validation_split")


def _starting_point(run: Path, resume: str | Path | None) -> Path | None:
    if resume == "auto":
        return latest_checkpoint(run)
    if resume is not None:
        return Path(resume)
    if (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
        raise ConfigError(f"run folder {run} already holds a training; continue it with --resume auto, "
                          "or choose another --out")
    return None


def _check_resumable(recipe: Recipe, saved: dict[str, object], store: Store, checkpoint: Path) -> None:
    if saved["store_digest"] != store.digest:
        raise StoreError(f"{checkpoint} was trained on another store than {store.path} (digest {saved['store_digest']} "
                         f"against {store.digest}); resume with the store it began with")
    if Recipe.model_validate(saved["recipe"]).model != recipe.model:
        raise ConfigError(f"{checkpoint} holds a model of another size than recipe {recipe.name}; "
                          "use the recipe it began with, or another --out")


def _has_fast_bfloat16() -> bool:
    return (torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _yaml(recipe: Recipe) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(json.loads(recipe.model_dump_json())))
