"""Trains a judge on recordings. Generated audio never enters here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from wavegen.audio.mel import mel_basis
from wavegen.data.store import Store
from wavegen.errors import ConfigError
from wavegen.metrics.hearing import ear_mel, hear
from wavegen.metrics.judge import Judge, JudgeConfig, JudgeNetwork

BATCH_CLIPS = 32
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02
WARMUP_STEPS = 100  # or a quarter of all, if that is less
LABEL_SMOOTHING = 0.05
MAX_SHIFT = 3  # frames
MAX_STRETCH = 0.07  # of the speed, up or down

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # epochs done, epochs in all


def train_judge(store: Store, augmented: bool, seed: int = 0, epochs: int = 16, split: str = "train",
                num_frames: int = 80, with_speakers: bool = True, on_epoch: Progress | None = None) -> Judge:
    """Train a judge on the recordings of a split, as the mu-law codec leaves them.

    Args:
        store: with labels.
        augmented: half of the clips of an epoch also get noise, and all are shifted and stretched a
            little. Without it the judge hears the recordings as they are.
        seed: the same seed gives the same judge on the same machine.
        epochs: passes over the split.
        num_frames: of 10 ms that are heard of a clip; the rest is cut.
        with_speakers: learn the speakers too, if the store has any.
        on_epoch: told the progress.

    Raises:
        ConfigError: the store has no labels, or no such split.
    """
    if not store.labels:
        raise ConfigError(f"store {store.path} has no labels: there is nothing for a judge to tell apart")
    rows = store.rows(split)
    waveforms = [store.waveform(int(row)) for row in rows]
    labels = torch.from_numpy(store.label_ids[rows].astype(np.int64))
    speakers = torch.from_numpy(store.speaker_ids[rows].astype(np.int64))
    config = JudgeConfig(labels=store.labels, speakers=store.speakers if with_speakers else (),
                         mel=ear_mel(store.audio.sample_rate), num_frames=num_frames, augmented=augmented,
                         seed=seed, epochs=epochs, store_digest=store.digest)
    basis = mel_basis(config.mel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JudgeNetwork(config)
        _fit(network, waveforms, labels, speakers, config, basis, on_epoch)
    return Judge(config, network, basis)


def examined(judge: Judge, store: Store, split: str = "test") -> Judge:
    """The same judge with its accuracy on the recordings of a split written into its configuration."""
    rows = store.rows(split)
    verdict = judge([store.waveform(int(row)) for row in rows])
    found = {"test_label_accuracy": verdict.label_accuracy(store.label_ids[rows])}
    if judge.config.speakers:
        found["test_speaker_accuracy"] = verdict.speaker_accuracy(store.speaker_ids[rows])
    return Judge(judge.config.model_copy(update=found), judge.network, judge.basis)


def augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip at another speed, and perhaps with noise: even, or following the signal's amplitude."""
    speed = rng.uniform(1 - MAX_STRETCH, 1 + MAX_STRETCH)
    places = np.arange(max(1, int(len(waveform) / speed))) * speed
    waveform = np.interp(places, np.arange(len(waveform)), waveform).astype(np.float32)
    kind = rng.integers(4)
    if kind < 2:
        return waveform
    noise = rng.standard_normal(len(waveform)).astype(np.float32)
    if kind == 2:
        return waveform + noise * np.float32(10 ** rng.uniform(-3, -1.5))
    return waveform * (1 + noise * np.float32(10 ** rng.uniform(-2, -0.4)))


def _fit(network: JudgeNetwork, waveforms: Sequence[np.ndarray], labels: torch.Tensor, speakers: torch.Tensor,
         config: JudgeConfig, basis: np.ndarray, on_epoch: Progress | None) -> None:
    rng = np.random.default_rng(config.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    # Ceiling division: the last batch of an epoch is a smaller one.
    num_steps = config.epochs * -(-len(waveforms) // BATCH_CLIPS)
    warmup = max(1, min(WARMUP_STEPS, num_steps // 4))
    step = 0
    clean = None if config.augmented else _hear_all(waveforms, config, basis)
    for epoch in range(config.epochs):
        network.train()
        mels = clean if clean is not None else _hear_all([augment(w, rng) for w in waveforms], config, basis)
        order = rng.permutation(len(waveforms))
        for begin in range(0, len(order), BATCH_CLIPS):
            chosen = torch.from_numpy(order[begin : begin + BATCH_CLIPS])
            heard = mels[chosen]
            if config.augmented:
                heard = torch.roll(heard, int(rng.integers(-MAX_SHIFT, MAX_SHIFT + 1)), dims=2)
            for group in optimizer.param_groups:
                cosine = 0.5 + 0.5 * math.cos(math.pi * step / num_steps)
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / warmup) * cosine
            label, speaker, _ = network(heard)
            loss = _loss(label, labels[chosen])
            if config.speakers:
                loss = loss + _loss(speaker, speakers[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        logger.info("judge epoch %d of %d: loss %.3f", epoch + 1, config.epochs, loss.item())
        if on_epoch is not None:
            on_epoch(epoch + 1, config.epochs)


def _loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, ids, label_smoothing=LABEL_SMOOTHING)


def _hear_all(waveforms: Sequence[np.ndarray], config: JudgeConfig, basis: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(hear(waveforms, config, basis))
