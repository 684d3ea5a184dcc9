"""Batches of windows from a store: the one dataset of every model family.

Which windows make up a batch is a pure function of (seed, step, rank), so resuming a training
needs no loader state, and any number of processes sees the same global batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wavegen.data.store import Store
from wavegen.data.windows import Windows, draw_noise, features_of, play
from wavegen.errors import StoreError


@dataclass(frozen=True)
class Batch:
    """Windows of codes, padded with silence to one length T.

    Attributes:
        codes: int64 (B, T).
        label, speaker: int64 (B,), -1 where the store has none.
        num_samples: int64 (B,), length of the whole clip without its tail.
        start_frame: int64 (B,), conditioning frame of the first sample within its clip.
        inside: bool (B, T), samples of the clip itself that this window is to predict.
        weight: float32 (B, T), 1 where the loss counts: `inside` and the tail.
        total_weight: sum of `weight` over all ranks.
        features: float32 (B, n_mels, F), log-mel frames of the whole clips; None where the store has none.
        num_frames: int64 (B,), frames of each clip.
        inputs: int64 (B, T, 3) and
        signal: float32 (B, T), what a network of the signal path lpc is told; None on the path direct.
    """

    codes: np.ndarray
    label: np.ndarray
    speaker: np.ndarray
    num_samples: np.ndarray
    start_frame: np.ndarray
    inside: np.ndarray
    weight: np.ndarray
    total_weight: float
    features: np.ndarray | None = None
    num_frames: np.ndarray | None = None
    inputs: np.ndarray | None = None
    signal: np.ndarray | None = None


class WindowBatches:
    """Length-bucketed batches of whole clips, or of windows of long clips.

    Args:
        store: where the codes are.
        split: which rows.
        samples_per_batch: samples of one batch over all ranks, padding included.
        tail_samples: silence appended to each clip, so that a model learns to end.
        hop_length: window starts are multiples of it.
        window: cut clips longer than this into windows; None keeps clips whole. A multiple of
            `hop_length`.
        context: samples before a window that are seen but not predicted.
        seed: of the order.
        fixed: one window of exactly so many samples a clip, for models of fixed length: a shorter
            clip is followed by silence, which counts, a longer one is cut. It takes the place of
            `tail_samples`, `hop_length`, `window` and `context`.
        random_start: where a fixed window begins in a longer clip: anew in each epoch, or at 0.
        pitch_shift: most semitones by which a fixed window is played faster or slower. Only `batch` does it, `collate`
            does not.
        balance: clips of rarer labels come several times an epoch, so that all labels are about as frequent.
        code_noise: strength of the errors in the codes fed back, on the signal path lpc; see
            `wavegen.data.windows.draw_noise`. Only `batch` adds them, `collate` does not.

    Raises:
        StoreError: if the split is empty.
    """

    def __init__(self, store: Store, split: str, samples_per_batch: int, tail_samples: int, hop_length: int,
                 window: int | None = None, context: int = 0, seed: int = 0, fixed: int | None = None,
                 random_start: bool = False, code_noise: float = 0.0, pitch_shift: float = 0.0,
                 balance: bool = False) -> None:
        rows = store.rows(split)
        if not len(rows):
            raise StoreError(f'{store.path} has no rows in split "{split}"; check prepare.splits of its recipe')
        if balance and len(store.labels):
            counts = np.bincount(store.label_ids[rows].astype(np.int64))[store.label_ids[rows]]
            rows = np.repeat(rows, np.rint(counts.max() / counts).astype(np.int64))
        if fixed is not None:
            tail_samples, hop_length, context = 0, 1, 0
        self.store, self.tail, self.hop, self.seed = store, tail_samples, hop_length, seed
        self.random_start, self.code_noise, self._reader = random_start, code_noise, Windows(store)
        self.pitch_shift = pitch_shift if fixed is not None else 0.0
        self.context = -(-context // hop_length) * hop_length
        lengths = store.lengths[rows] + tail_samples
        if fixed is not None:
            self.rows, self.starts = rows, np.zeros_like(lengths)
            self.stops = np.full_like(lengths, fixed)
            self._slack = np.maximum(0, lengths - fixed)
        elif window is None:
            self.rows, self.starts, self.stops = rows, np.zeros_like(lengths), lengths
        else:
            window = max(hop_length, window // hop_length * hop_length)
            counts = np.maximum(1, -(-lengths // window))
            self.rows = np.repeat(rows, counts)
            first = np.repeat(np.cumsum(counts) - counts, counts)
            self.starts = (np.arange(len(self.rows)) - first) * window
            self.stops = np.minimum(self.starts + window, np.repeat(lengths, counts))
        self.sizes = self.stops - np.maximum(0, self.starts - self.context)
        # Batch borders are laid once over the sorted sizes; an epoch only changes who stands where.
        # The number of batches per epoch is then constant and step -> (epoch, batch) a division.
        self.borders = _pack(np.sort(self.sizes), samples_per_batch)
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.borders) - 1

    def windows(self, step: int) -> np.ndarray:
        """Window numbers of the global batch of a step."""
        epoch, index = divmod(step, len(self))
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch])
            order = np.argsort(self.sizes * generator.uniform(0.93, 1.07, len(self.sizes)), kind="stable")
            self._epoch = (epoch, order, generator.permutation(len(self)))
            if self.random_start:
                shift = (generator.random(len(self._slack)) * (self._slack + 1)).astype(np.int64)
                self.stops += shift - self.starts
                self.starts = shift
        _, order, shuffled = self._epoch
        batch = shuffled[index]
        return order[self.borders[batch] : self.borders[batch + 1]]

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The part of a step's global batch that falls to one rank."""
        windows = self.windows(step)
        drawing = self.code_noise or self.pitch_shift
        return self.collate(windows[rank::world_size], self._weight(windows), step if drawing else None)

    def sequential(self) -> list[np.ndarray]:
        """All windows once, shortest first: for evaluation."""
        order = np.argsort(self.sizes, kind="stable")
        return [order[a:b] for a, b in zip(self.borders[:-1], self.borders[1:], strict=True)]

    def collate(self, windows: np.ndarray, total_weight: float | None = None, noise_step: int | None = None) -> Batch:
        """Read windows from the store and pad them with silence to a multiple of the hop.

        With `noise_step` the fed-back codes are noisy, and fixed windows shifted: a function of (seed, step, window).
        """
        # A rank without a window of its own runs one with weight zero: all ranks must take part.
        idle = len(windows) == 0
        chosen = np.zeros(1, np.int64) if idle else windows
        begins = np.maximum(0, self.starts[chosen] - self.context)
        size = int((self.stops[chosen] - begins).max())
        size = -(-size // self.hop) * self.hop
        silence = self.store.audio.quantization_channels // 2
        codes = np.full((len(chosen), size), silence, np.int64)
        position = np.arange(size) + begins[:, None]
        rows = self.rows[chosen]
        lengths = np.array(self.store.lengths[rows], np.int64)
        inputs: np.ndarray | None = None
        signal: np.ndarray | None = None
        if self._reader.has_excitation:
            inputs, signal = np.full((*codes.shape, 3), silence, np.int64), np.zeros(codes.shape, np.float32)
        for i, row in enumerate(rows):
            start, stop = int(begins[i]), int(min(self.stops[chosen[i]], lengths[i]))
            stop, noise = max(start, stop), None
            if noise_step is not None:
                generator = np.random.default_rng([self.seed, noise_step, int(chosen[i])])
                noise = draw_noise(generator, self.code_noise, stop - start) if self.code_noise else None
                if self.pitch_shift:
                    speed = 2 ** (generator.uniform(-self.pitch_shift, self.pitch_shift) / 12)
                    played = play(self.store.codes(int(row))[start : start + math.ceil(size * speed)], speed, size,
                                  self.store.audio)
                    codes[i, : len(played)], lengths[i] = played, start + len(played)
                    continue
            piece = self._reader.read(int(row), start, stop, noise)
            codes[i, : stop - start] = piece.codes
            if inputs is not None and signal is not None and piece.inputs is not None and piece.signal is not None:
                inputs[i, : stop - start], signal[i, : stop - start] = piece.inputs, piece.signal
        features = features_of(self.store, rows)
        predicted = (position >= self.starts[chosen][:, None]) & (position < self.stops[chosen][:, None])
        weight = predicted.astype(np.float32) * (0.0 if idle else 1.0)
        return Batch(codes=codes, label=self.store.label_ids[rows].astype(np.int64),
                     speaker=self.store.speaker_ids[rows].astype(np.int64), num_samples=lengths,
                     start_frame=(begins // self.hop).astype(np.int64),
                     inside=predicted & (position < lengths[:, None]), weight=weight,
                     total_weight=float(weight.sum()) if total_weight is None else total_weight,
                     features=None if features is None else features[0],
                     num_frames=None if features is None else features[1], inputs=inputs, signal=signal)

    def _weight(self, windows: np.ndarray) -> float:
        return float((self.stops[windows] - self.starts[windows]).sum())


def _pack(sizes: np.ndarray, samples_per_batch: int) -> np.ndarray:
    """Borders that cut ascending sizes into batches of at most `samples_per_batch`, one item at least."""
    borders = [0]
    for i, size in enumerate(sizes):
        if i > borders[-1] and size * (i + 1 - borders[-1]) > samples_per_batch:
            borders.append(i)
    return np.array([*borders, len(sizes)])
