"""Copy synthesis: recordings spoken again from their own mel, beside Griffin-Lim and beside the codec's round trip.

    recording -> mel -> vocoder     -> copy
                     -> Griffin-Lim -> copy      what no model at all makes of the same mel
    recording -> codes -> waveform               the ceiling: what the codes themselves can hold
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import io, levels
from wavegen.audio.griffin_lim import ITERATIONS, griffin_lim
from wavegen.data.store import Store
from wavegen.errors import ConfigError, StoreError
from wavegen.evaluate.clips import Progress
from wavegen.metrics.bits import bits_per_sample
from wavegen.metrics.copies import FIGURES, compare, means
from wavegen.metrics.perception import unavailable
from wavegen.synth import Vocoder

COPIED_CLIPS = 20  # of a split
ROLL = 1 / 3  # of a clip, by which its mel is moved to see whether the model listens to it
FIRST_CLIPS = 5  # the time to the first audio is the median over so many
SEED = 0

Report = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Copies:
    """Clips and their copies.

    Attributes:
        names: ids of the recordings.
        recordings: float32 (T,) each.
        copies: of each kind ("model", "griffin_lim", and "round_trip" where the recordings themselves are at hand)
            one float32 (T,) a recording.
        figures: of each kind, the figures of each clip.
    """

    names: list[str]
    recordings: list[np.ndarray]
    copies: dict[str, list[np.ndarray]]
    figures: dict[str, list[dict[str, float | None]]]


def some_rows(store: Store, split: str, clips: int | None) -> np.ndarray:
    """Clips of a split, evenly spread: so many, or at most `COPIED_CLIPS`.

    Raises:
        ConfigError: no such split, an empty one, or a number below 0.
    """
    rows = store.rows(split)
    if len(rows) == 0:
        raise ConfigError(f'split "{split}" of store {store.path} has no clips')
    if clips is not None and clips < 0:
        raise ConfigError(f"clips must be at least 0, found {clips}")
    count = min(len(rows), COPIED_CLIPS if clips is None else clips)
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def evaluate_vocoder(vocoder: Vocoder, store: Store, split: str, rows: np.ndarray, data: str | Path | None = None,
                     temperature: float | None = None, min_p: float | None = None,
                     progress: Progress | None = None,
                     matching: int | None = None) -> tuple[Report, Copies | None]:
    """Bits per sample and copy synthesis of some clips; of none, the bits of `COPIED_CLIPS` clips of the split alone.

    Returns:
        `bits_per_sample` and `copy_synthesis` of a report, and the clips.
    """
    heard = rows if len(rows) else some_rows(store, split, None)

    def read(done: int) -> None:
        if progress is not None:
            progress("reading", done, 2 * len(heard))

    report: Report = {"bits_per_sample": bits_with_and_without(vocoder, store, split, heard, read)}
    if not len(rows):
        return report, None
    copies, report["copy_synthesis"] = copy_synthesis(vocoder, store, rows, data, temperature, min_p, progress,
                                                       matching)
    return report, copies


def copy_synthesis(vocoder: Vocoder, store: Store, rows: np.ndarray, data: str | Path | None = None,
                   temperature: float | None = None, min_p: float | None = None,
                   progress: Progress | None = None, matching: int | None = None) -> tuple[Copies, Report]:
    """Speak clips of a store from their own mel, and measure how near the copies come.

    Args:
        vocoder: its mel is the store's.
        store: with features.
        rows: which clips.
        data: folder the store was prepared from: the recordings are then those files, levelled as the store's were.
            None: they are what the store's codes say, already once through the codec, and there is no round trip.
        temperature, min_p, matching: None is the model's own default.
        progress: told what is done, how many and of how many.

    Returns:
        The clips, and plain values for JSON: `columns` {kind: {figure: mean, standard_error, clips}} with the figures
        of `wavegen.metrics.copies.compare`; `per_clip`; `speed` one clip at a time; `guard`, events per 1000 s of
        audio; `reference`, whether the copies were held against the files or against the store; `missing`, figures
        whose package is not installed.

    Raises:
        StoreError: a recording below `data` is not the one the store was made of.
    """
    names, recordings = [str(store.entry(int(row))["id"]) for row in rows], []
    copies: dict[str, list[np.ndarray]] = {"model": [], "griffin_lim": []}
    if data is not None:
        copies["round_trip"] = []
    report, guard = None, None
    for done, row in enumerate(map(int, rows), 1):
        coded = store.waveform(row)
        recordings.append(coded if data is None else _recording(store, row, Path(data)))
        if data is not None:
            copies["round_trip"].append(coded)
        mel = _mel(store, row)
        # The store's mel is the model's: what looks odd in it is so.
        spoken = vocoder(mel[None], seed=SEED, temperature=temperature, min_p=min_p, check=False,
                         matching=matching, speaker=_speaker(vocoder, store, row))
        copies["model"].append(_as_long(spoken[0].waveform, len(coded)))
        report = vocoder.report if report is None else report + vocoder.report
        if vocoder.report.guarded is not None:
            guard = vocoder.report.guarded if guard is None else guard + vocoder.report.guarded
        copies["griffin_lim"].append(_as_long(griffin_lim(mel, vocoder.spec), len(coded)))
        if progress is not None:
            progress("speaking", done, len(rows))
    assert report is not None
    firsts = (_first_audio(vocoder, store, int(row), temperature, min_p, matching) for row in rows[:FIRST_CLIPS])
    first = [seconds for seconds in firsts if seconds is not None]
    figures: dict[str, list[dict[str, float | None]]] = {kind: [] for kind in copies}
    for done, wanted in enumerate(recordings):
        for kind, found in copies.items():
            figures[kind].append(compare(found[done], wanted, store.audio.sample_rate, FIGURES))
        if progress is not None:
            progress("measuring", done + 1, len(recordings))
    usual = vocoder.folder.sampling
    facts: Report = {
        "clips": len(rows), "seconds": report.seconds, "reference": "store" if data is None else "recordings",
        "temperature": usual.temperature if temperature is None else temperature,
        "min_p": usual.min_p if min_p is None else min_p,
        "matching": usual.matching if matching is None else matching, "seed": SEED,
        "griffin_lim_iterations": ITERATIONS,
        "columns": {kind: means(clips) for kind, clips in figures.items()},
        "per_clip": [{"id": name, **{kind: clips[place] for kind, clips in figures.items()}}
                     for place, name in enumerate(names)],
        "missing": unavailable(),
        "speed": {"engine": report.engine, "precision": report.precision, "precision_choice": report.choice,
                  "wall_seconds": report.wall_seconds, "samples_per_second": report.samples_per_second,
                  "times_realtime": report.times_realtime,
                  "first_audio_seconds": float(np.median(first)) if first else None,
                  "lookahead_frames": vocoder.lookahead_frames,
                  "lookahead_seconds": vocoder.lookahead_frames * vocoder.hop_length / vocoder.sample_rate},
        "guard": None if guard is None else {"seconds": guard.seconds, **guard.per_1000_seconds()},
    }
    return Copies(names, recordings, copies, figures), facts


def bits_with_and_without(vocoder: Vocoder, store: Store, split: str, rows: np.ndarray,
                          on_clip: Callable[[int], None] | None = None) -> Report:
    """Bits per sample with the true mel, and with the mel moved by a third of the clip.

    A model that has not learned to listen needs as many bits with the wrong mel. On the signal path lpc the
    prediction stays the true one: only what the network is told is moved.
    """
    def again(done: int) -> None:
        if on_clip is not None:
            on_clip(len(rows) + done)

    true = bits_per_sample(vocoder.model, store, split, on_clip=on_clip, rows=rows)
    moved = bits_per_sample(vocoder.model, store, split, on_clip=again, rows=rows, roll=ROLL)
    return {"all": true.mean, "speakers": dict(true.groups), "clips": true.num_clips, "samples": true.num_samples,
            "kind": "exact", "rolled": moved.mean, "rolled_by": ROLL}


def _recording(store: Store, row: int, data: Path) -> np.ndarray:
    """The file a row was made of, levelled as it was then."""
    source = str(store.entry(row)["source"])
    waveform, _ = io.load(data / source, store.audio.sample_rate)
    levelled = levels.level(waveform, store.audio.sample_rate, store.info.prepare).waveform
    if len(levelled) != store.lengths[row]:
        raise StoreError(f"{data / source} is not the recording that store {store.path} was made of: {len(levelled)} "
                         f"samples after levelling, the store has {store.lengths[row]}; name the folder that "
                         "`wavegen prepare --data` was given")
    return levelled


def _mel(store: Store, row: int) -> np.ndarray:
    features = store.features(row)
    if features is None:
        raise StoreError(f"store {store.path} has no mel features; prepare it with the model's recipe")
    return np.ascontiguousarray(features.T, np.float32)


def _speaker(vocoder: Vocoder, store: Store, row: int) -> str | None:
    return store.speakers[store.speaker_ids[row]] if vocoder.speakers else None


def _as_long(waveform: np.ndarray, size: int) -> np.ndarray:
    """Cut, or filled with silence: the last frame may end a little before or after the recording."""
    return np.pad(waveform[:size], (0, max(0, size - len(waveform))))


def _first_audio(vocoder: Vocoder, store: Store, row: int, temperature: float | None,
                 min_p: float | None, matching: int | None) -> float | None:
    """Seconds of work from the first frame of a stream until 20 ms of audio are there."""
    mel = _mel(store, row)
    stream = vocoder.stream(seed=SEED, temperature=temperature, min_p=min_p, check=False,
                            matching=matching, speaker=_speaker(vocoder, store, row))
    for frame in range(mel.shape[1]):
        stream.push(mel[:, frame : frame + 1])
        seconds: float | None = stream.report.first_audio_seconds
        if seconds is not None:
            return seconds
    return None
