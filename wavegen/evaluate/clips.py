"""Sets of clips to compare: what a model speaks, and recordings of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wavegen.data.store import Store
from wavegen.synth import Report, Request, Synthesizer
from wavegen.synth.plan import plan_clip

GROUP_CLIPS = 64  # spoken or heard at once
WARM_UP_SECONDS = 0.01

Progress = Callable[[str, int, int], None]  # what is done, how many, of how many


@dataclass(frozen=True, eq=False)
class Spoken:
    """Clips a model spoke.

    Attributes:
        waveforms: float32 (T,) each.
        label_ids, speaker_ids: int64 (N,), what each was meant to be; -1 where the model is not told.
        seeds: int64 (N,).
        report: how fast they were spoken.
    """

    waveforms: list[np.ndarray]
    label_ids: np.ndarray
    speaker_ids: np.ndarray
    seeds: np.ndarray
    report: Report


@dataclass(frozen=True, eq=False)
class Pairs:
    """Recordings and what an auto-encoder makes of them.

    Attributes:
        found, wanted: float32 (T,) each, reconstruction and recording.
        names: ids of the recordings.
    """

    found: list[np.ndarray]
    wanted: list[np.ndarray]
    names: list[str]


def all_requests(
    synthesizer: Synthesizer, seeds: int, temperature: float = 1.0, min_p: float = 0.0
) -> list[Request]:
    """Every label in every voice with seeds 0 to `seeds` - 1.

    A clip is what `wavegen synth --label L --speaker S --seed N` writes.

    Raises:
        ConfigError: a value out of range, or a model that knows no usual lengths.
    """
    requests = [
        Request(label, speaker, seed=seed, temperature=temperature, min_p=min_p)
        for label in synthesizer.labels or (None,)
        for speaker in synthesizer.speakers or (None,)
        for seed in range(seeds)
    ]
    for request in requests:
        plan_clip(request, synthesizer.spec)
    return requests


def speak_all(
    synthesizer: Synthesizer, requests: Sequence[Request], progress: Progress | None = None
) -> Spoken:
    """Speak every request at its usual length, each clip ending by itself."""
    plans = [plan_clip(request, synthesizer.spec)[0] for request in requests]
    # The first call may compile; that is not speaking.
    synthesizer.generate_batch([replace(requests[0], seconds=WARM_UP_SECONDS)])
    # Clips of like length are spoken together, so that no row waits long for another.
    order = np.argsort([plan.num_samples for plan in plans], kind="stable").tolist()
    waveforms: list[np.ndarray] = [np.zeros(0, np.float32)] * len(requests)
    num_samples, wall_seconds = 0, 0.0
    for begin in range(0, len(order), GROUP_CLIPS):
        group = order[begin : begin + GROUP_CLIPS]
        for i, chunk in zip(group, synthesizer.generate_batch([requests[i] for i in group]), strict=True):
            waveforms[i] = chunk.waveform
        num_samples += synthesizer.report.num_samples
        wall_seconds += synthesizer.report.wall_seconds
        if progress is not None:
            progress("speaking", begin + len(group), len(order))
    return Spoken(
        waveforms,
        np.array([-1 if plan.label_id is None else plan.label_id for plan in plans]),
        np.array([-1 if plan.speaker_id is None else plan.speaker_id for plan in plans]),
        np.array([plan.seed for plan in plans]),
        replace(synthesizer.report, num_samples=num_samples, wall_seconds=wall_seconds),
    )


def recordings(store: Store, rows: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The waveforms of rows, a group at a time, so that a split of any size fits in memory."""
    for begin in range(0, len(rows), GROUP_CLIPS):
        yield [
            store.waveform(int(row))
            for row in rows[begin : begin + GROUP_CLIPS]
        ]


def spread(store: Store, rows: np.ndarray, per_group: int) -> np.ndarray:
    """At most `per_group` rows of each label and speaker, evenly spread over their order: int64 (N,)."""
    kinds = store.label_ids[rows].astype(np.int64) * (len(store.speakers) + 1) + store.speaker_ids[rows]
    chosen = []
    for kind in np.unique(kinds):
        members = rows[kinds == kind]
        places = np.linspace(0, len(members) - 1, min(per_group, len(members))).round().astype(np.int64)
        chosen.append(members[places])
    return np.sort(np.concatenate(chosen)) if chosen else rows[:0]
