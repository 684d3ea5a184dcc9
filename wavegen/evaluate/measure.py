"""Measures a model on a store: bits per sample, and what its own clips sound like to judges."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen import __version__
from wavegen.data.store import Store
from wavegen.engines.calibration import divergence
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError
from wavegen.evaluate.calibrate import check_store, excerpt
from wavegen.evaluate.clips import Progress, Spoken, all_requests, recordings, speak_all, spread
from wavegen.metrics.bits import bits_per_sample
from wavegen.metrics.clips import ClipCheck, check_clip, rates
from wavegen.metrics.frechet import frechet_distance
from wavegen.metrics.judge import Judge, Verdict, load_judges
from wavegen.synth import Request, Synthesizer, load
from wavegen.synth.one_pass import OnePassEngine

ENGINE_SAMPLES = 20_000  # of a split, for the bits per sample of the engine
MAX_REAL_CLIPS = 2000  # of a split, when recordings are heard for comparison


@dataclass
class Heard:
    """What checks and judges found in one set of clips."""

    label_ids: np.ndarray
    speaker_ids: np.ndarray
    checks: list[ClipCheck] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


def evaluate(
    model: str | Path,
    store: str | Path,
    split: str = "test",
    judge: str | Path | None = None,
    seeds: int = 10,
    engine: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    temperature: float = 1.0,
    min_p: float = 0.0,
    html: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: name of a bundled model, or the path of a model folder.
        store: folder that `wavegen prepare` wrote, at the model's rate and number of codes.
        split: recordings the model has not seen.
        judge: folder of one judge or of several (`recipes/fsdd/judges`); None leaves out what needs one.
        seeds: clips of each label and speaker; 0 speaks none.
        engine, precision, device: see `wavegen.load`.
        temperature, min_p: of the clips.
        html: folder to write a page to listen to into; None writes none.
        progress: told what is done, how many and of how many.

    Returns:
        plain values for JSON: `bits_per_sample`, `engine_bits` (the same by the engine that speaks, on an
        excerpt, and its divergence from float64), `generated`, `recordings` (the same figures for the
        split and for as many training clips), speed and machine. Rates and accuracies are shares in
        [0, 1] or None; `frechet_distance` is to the recordings of the split.

    Raises:
        ConfigError: a value out of range, or judges that know other labels.
        ModelFileError, StoreError: model, judge or store is missing, damaged, or they do not fit.
        MissingBackendError: `html` without matplotlib.
    """
    if seeds < 0:
        raise ConfigError(f"seeds must be at least 0, found {seeds}")
    if html is not None:
        if seeds == 0:
            raise ConfigError("a page to listen to (html) needs clips; let seeds be at least 1")
        from wavegen.evaluate.page import check_page

        check_page(Path(html))
    judges = load_judges(judge) if judge is not None else {}
    data = Store.open(store)
    synthesizer = load(model, engine, precision, device)
    _check_fit(synthesizer, data, store, judges)
    rows = data.rows(split)
    requests = all_requests(synthesizer, seeds, temperature, min_p)

    def read(done: int) -> None:
        if progress is not None:
            progress("reading", done, len(rows))

    bits = bits_per_sample(synthesizer.model, data, split, on_clip=read)
    report: dict[str, Any] = {
        "model": synthesizer.spec.name,
        "family": synthesizer.spec.model.family,
        "parameters": sum(parameter.numel() for parameter in synthesizer.model.parameters()),
        "training": synthesizer.spec.training,
        "split": split,
        "store_digest": data.digest,
        "bits_per_sample": _rounded({"all": bits.mean, "speakers": dict(bits.groups)})
        | {"clips": bits.num_clips, "samples": bits.num_samples},
        "engine_bits": _engine_bits(synthesizer, data, split),
        "generated": None,
        "recordings": {},
        "judges": {
            name: _rounded(
                {
                    "label_accuracy": one.config.test_label_accuracy,
                    "speaker_accuracy": one.config.test_speaker_accuracy,
                    "augmented": one.config.augmented,
                    "seed": one.config.seed,
                }
            )
            for name, one in judges.items()
        },
        "machine": _machine(),
    }
    if seeds == 0:
        return report
    spoken = speak_all(synthesizer, requests, progress)
    real = spread(data, rows, max(1, MAX_REAL_CLIPS // _kinds(data)))
    train = spread(data, data.rows("train"), seeds) if "train" in data.splits else rows[:0]
    reference = _hear_recordings(data, real, judges)
    generated = _hear(
        [spoken.waveforms], spoken.label_ids, spoken.speaker_ids, synthesizer.sample_rate, judges
    )
    report["generated"] = _speed(spoken, seeds, temperature, min_p) | _figures(
        generated, synthesizer, reference
    )
    report["generated"]["faulty"] = _faulty(requests, generated.checks)
    report["recordings"][split] = _figures(reference, data)
    if len(train) and split != "train":
        # As many training clips: the distance a perfect model could be expected to have.
        report["recordings"]["train"] = _figures(_hear_recordings(data, train, judges), data, reference)
    if html is not None:
        from wavegen.evaluate.page import write_page

        write_page(Path(html), report, spoken, generated.checks, generated.verdicts, synthesizer)
    return report


def _engine_bits(synthesizer: Synthesizer, data: Store, split: str) -> dict[str, Any] | None:
    """Bits per sample as the engine itself computes them, on an excerpt; None for the reference, which is slow."""
    engine = synthesizer.engine
    if isinstance(engine, OnePassEngine) or engine.name == "reference" or synthesizer.spec.model.family != "wavenet":
        return None
    clips = excerpt(synthesizer.model, data, split, ENGINE_SAMPLES)
    figures = divergence(engine, network_of(synthesizer.model), clips)
    return {"engine": engine.name, "precision": engine.precision, "precision_choice": engine.choice,
            "clips": len(clips), "samples": sum(len(codes) for codes, _ in clips), "all": round(figures.bits, 5),
            "change": round(figures.bits_change, 6), "kl": float(f"{figures.kl:.3g}")}


def _check_fit(synthesizer: Synthesizer, data: Store, store: str | Path, judges: Mapping[str, Judge]) -> None:
    check_store(synthesizer.spec, data)
    for name, judge in judges.items():
        if (judge.config.labels, judge.config.speakers) != (data.labels, data.speakers):
            raise ConfigError(
                f'judge "{name}" knows other labels or speakers than store {store}; '
                "train one on this store with recipes/judge.py"
            )
        if judge.sample_rate != data.audio.sample_rate:
            raise ConfigError(
                f'judge "{name}" hears {judge.sample_rate} Hz, store {store} is at {data.audio.sample_rate} Hz; '
                "train one on this store with recipes/judge.py"
            )


def _hear_recordings(store: Store, rows: np.ndarray, judges: Mapping[str, Judge]) -> Heard:
    return _hear(
        recordings(store, rows),
        store.label_ids[rows],
        store.speaker_ids[rows],
        store.audio.sample_rate,
        judges,
    )


def _hear(
    groups: Iterable[list[np.ndarray]],
    label_ids: np.ndarray,
    speaker_ids: np.ndarray,
    sample_rate: int,
    judges: Mapping[str, Judge],
) -> Heard:
    heard = Heard(label_ids, speaker_ids)
    parts: dict[str, list[Verdict]] = {name: [] for name in judges}
    for waveforms in groups:
        heard.checks += [check_clip(waveform, sample_rate) for waveform in waveforms]
        for name, judge in judges.items():
            parts[name].append(judge(waveforms))
    for name, verdicts in parts.items():
        heard.verdicts[name] = Verdict(
            *(
                np.concatenate([getattr(verdict, part) for verdict in verdicts])
                for part in ("labels", "speakers", "features")
            )
        )
    return heard


def _figures(heard: Heard, names: Synthesizer | Store, reference: Heard | None = None) -> dict[str, Any]:
    """Rates, accuracies and distances of one set of clips."""
    figures: dict[str, Any] = {"clips": len(heard.checks), **_rounded(rates(heard.checks)), "judges": {}}
    if isinstance(names, Store):
        figures["unended"] = None  # a recording was cut where its sound fades: it has no tail to end in
    for name, verdict in heard.verdicts.items():
        found: dict[str, Any] = {}
        if names.labels:
            right = verdict.labels.argmax(1) == heard.label_ids
            found["label_accuracy"] = right.mean()
            found["labels"] = _by_group(right, heard.label_ids, names.labels)
        if names.speakers:
            right = verdict.speakers.argmax(1) == heard.speaker_ids
            found["speaker_accuracy"] = right.mean()
            found["speakers"] = _by_group(right, heard.speaker_ids, names.speakers)
        if reference is not None and min(len(heard.checks), len(reference.checks)) > 1:
            found["frechet_distance"] = frechet_distance(verdict.features, reference.verdicts[name].features)
        figures["judges"][name] = _rounded(found)
    return figures


def _faulty(requests: Sequence[Request], checks: Sequence[ClipCheck]) -> list[dict[str, Any]]:
    """The clips with a fault, as they can be spoken again."""
    return [
        {"label": request.label, "speaker": request.speaker, "seed": request.seed, "faults": list(check.faults)}
        for request, check in zip(requests, checks, strict=True)
        if check.faults
    ]


def _by_group(right: np.ndarray, ids: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    return {name: right[ids == i].mean() for i, name in enumerate(names) if (ids == i).any()}


def _speed(spoken: Spoken, seeds: int, temperature: float, min_p: float) -> dict[str, Any]:
    report = spoken.report
    return {
        "seeds": seeds,
        "temperature": temperature,
        "min_p": min_p,
        "engine": report.engine,
        "precision": report.precision,
        "precision_choice": report.choice,
        **_rounded(
            {
                "seconds": report.seconds,
                "wall_seconds": report.wall_seconds,
                "samples_per_second": report.samples_per_second,
                "times_realtime": report.times_realtime,
            }
        ),
    }


def _kinds(store: Store) -> int:
    return max(1, len(store.labels)) * max(1, len(store.speakers))


def _machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return {
        "cpu": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "wavegen": __version__,
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain floats of at most four decimals, also one level down."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain[name] = _rounded(value)
        elif isinstance(value, (float, np.floating)):
            plain[name] = round(float(value), 4)
        else:
            plain[name] = value
    return plain
