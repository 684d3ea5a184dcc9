"""Bits per sample of a model on a split of a store, by teacher forcing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from wavegen.audio import mulaw
from wavegen.data.store import Store
from wavegen.data.windows import Windows, features_of
from wavegen.errors import ConfigError
from wavegen.metrics.tally import BitsPerSample, tally
from wavegen.models.conditioning import ConditioningInputs

BATCH_SAMPLES = {"cpu": 4_000, "cuda": 64_000}  # of a batch, padding included; a small one stays in the cache


def bits_per_sample(model: nn.Module, store: Store, split: str = "test", batch_samples: int | None = None,
                    on_clip: Callable[[int], None] | None = None, rows: np.ndarray | None = None,
                    roll: float = 0.0) -> BitsPerSample:
    """Mean negative log2-likelihood of every sample of a split, overall and for each speaker.

    Only samples inside the clips count: neither padding nor the tail of silence the model is
    trained to end with.

    Args:
        model: `model(previous_codes, ConditioningInputs) -> logits (B, T, Q)`, evaluated on its device.
        store: at the model's sample rate and number of codes, with the model's labels and speakers in
            their order.
        split: name of the split.
        batch_samples: clips of like length share a batch of at most so many samples; a longer clip is
            a batch of its own. None suits the device.
        on_clip: called with the number of clips done after each batch.
        rows: some clips of the split; None is all of them.
        roll: share of a clip by which the mel the model is told is moved, see `conditioning_inputs`.

    Raises:
        ConfigError: no such split, or it is empty.
    """
    rows = store.rows(split) if rows is None else rows
    if len(rows) == 0:
        raise ConfigError(f'split "{split}" of store {store.path} has no clips')
    if batch_samples is None:
        batch_samples = BATCH_SAMPLES.get(next(model.parameters()).device.type, 64_000)
    was_training = model.training
    model.eval()
    try:
        bits = np.zeros(len(rows))
        done = 0
        for chosen in _batches(store.lengths[rows], batch_samples):
            bits[chosen] = _batch_bits(model, store, rows[chosen], roll)
            done += len(chosen)
            if on_clip is not None:
                on_clip(done)
    finally:
        model.train(was_training)
    return tally(bits, store.lengths[rows], store.speaker_ids[rows], store.speakers)


def _batches(lengths: np.ndarray, batch_samples: int) -> Iterator[np.ndarray]:
    """Positions of clips of like length, padded at most `batch_samples` together."""
    batch: list[int] = []
    for place in np.argsort(lengths, kind="stable"):
        if batch and lengths[place] * (len(batch) + 1) > batch_samples:
            yield np.array(batch)
            batch = []
        batch.append(int(place))
    if batch:
        yield np.array(batch)


def _batch_bits(model: nn.Module, store: Store, rows: np.ndarray, roll: float) -> np.ndarray:
    """Bits of each whole clip: float64 (B,)."""
    device = next(model.parameters()).device
    lengths = store.lengths[rows]
    # Column t of `codes[:, :-1]` is the code before sample t, and silence comes before the first.
    silence = mulaw.silence_code(store.audio.quantization_channels)
    codes = np.full((len(rows), int(lengths.max()) + 1), silence, np.int64)
    for place, row in enumerate(rows):
        codes[place, 1 : lengths[place] + 1] = store.codes(row)
    everything = torch.from_numpy(codes).to(device)
    previous, target = everything[:, :-1].contiguous(), everything[:, 1:]
    signal, reader = None, Windows(store)
    if reader.has_excitation:
        told = np.full((*target.shape, 3), silence, np.int64)
        coded = np.zeros(target.shape, np.float32)
        for place, row in enumerate(rows):
            window = reader.read(int(row), 0, int(lengths[place]))
            told[place, : lengths[place]], coded[place, : lengths[place]] = window.inputs, window.signal
        previous, signal = torch.from_numpy(told).to(device), torch.from_numpy(coded).to(device)
    with torch.inference_mode():
        inputs = conditioning_inputs(store, rows, roll, reader).to(device)
        logits = model(previous, inputs) if signal is None else model(previous, inputs, signal)
        losses = nn.functional.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")
        inside = torch.arange(target.shape[1], device=device) < torch.from_numpy(lengths).to(device)[:, None]
        bits = (losses.double() * inside).sum(1) / math.log(2)
    result: np.ndarray = bits.cpu().numpy()
    return result


def conditioning_inputs(store: Store, rows: np.ndarray, roll: float = 0.0,
                        reader: Windows | None = None) -> ConditioningInputs:
    """What a model may be told about rows of a store; None where the store has no such thing.

    Args:
        roll: share of a clip by which its features are moved, what leaves at the end coming in at the start: a mel of
            the same voice that is wrong. The prediction of the signal path lpc, without which the codes have no
            meaning, stays the true one.
        reader: of the store, if one is at hand that has read these rows.
    """
    features, prediction = features_of(store, rows), None
    if store.audio.signal_path == "lpc":
        assert features is not None
        # Each row by itself: padding would reach into the last frame's coefficients.
        reader, longest = reader or Windows(store), features[0].shape[2]
        clips = [reader.coefficients(int(row)) for row in rows]
        prediction = torch.from_numpy(np.stack(
            [np.concatenate([clip, clip[-1:].repeat(longest - len(clip), 0)]) for clip in clips]))
    return ConditioningInputs(
        features=None if features is None else torch.from_numpy(_rolled(*features, roll)),
        num_frames=None if features is None else torch.from_numpy(features[1]), prediction=prediction,
        label=torch.from_numpy(store.label_ids[rows].astype(np.int64)) if store.labels else None,
        speaker=torch.from_numpy(store.speaker_ids[rows].astype(np.int64)) if store.speakers else None,
        num_samples=torch.from_numpy(store.lengths[rows].astype(np.int64)))


def _rolled(features: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Features (B, C, F) moved by a share of each clip's frames; the last frame holds on behind them."""
    if not share:
        return features
    moved = features.copy()
    for row, count in enumerate(counts):
        moved[row, :, :count] = np.roll(features[row, :, :count], round(share * int(count)), axis=1)
        moved[row, :, count:] = moved[row, :, count - 1 : count]
    return moved
