"""Measures a model on a store: bits per sample, and what its own clips sound like to judges."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen import __version__
from wavegen.config import ModelFolder
from wavegen.data.store import Store
from wavegen.engines import AbstractEngine
from wavegen.engines.calibration import MAX_CLIP, divergence
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError
from wavegen.evaluate.autoencoding import distances, evidence_bound, reconstruct
from wavegen.evaluate.calibrate import check_store, excerpt
from wavegen.evaluate.clips import Pairs, Progress, Spoken, all_requests, recordings, speak_all, spread
from wavegen.evaluate.copy_synthesis import evaluate_vocoder, some_rows
from wavegen.evaluate.newness import diversity_beside, newness
from wavegen.metrics.bits import bits_per_sample
from wavegen.metrics.clips import ClipCheck, check_clip, rates
from wavegen.metrics.frechet import frechet_distance
from wavegen.metrics.inception import inception_score, modified_inception_score
from wavegen.metrics.judge import Judge, Verdict, load_judges
from wavegen.synth import Request, Synthesizer, Vocoder, load
from wavegen.synth.one_pass import OnePassEngine
from wavegen.synth.plan import is_one_pass

ENGINE_SAMPLES = 20_000  # of a split, for the bits per sample of the engine
MAX_REAL_CLIPS = 2000  # of a split, when recordings are heard for comparison
MAX_RECONSTRUCTIONS = 500  # of a split
MAX_COMPARED = 300  # clips each, when every two of a label are compared
MAX_SPOKEN_AGAIN = 100  # the same, by a decoder that speaks code after code


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
    temperature: float | None = None,
    min_p: float | None = None,
    html: str | Path | None = None,
    progress: Progress | None = None,
    clips: int | None = None,
    data_dir: str | Path | None = None,
    matching: int | None = None,
) -> dict[str, Any]:
    """Measure a model.

    A vocoder is measured by copy synthesis of recordings, every other model by clips of its own.

    Args:
        model: name of a bundled model, or the path of a model folder.
        store: folder that `wavegen prepare` wrote, at the model's rate and number of codes.
        split: recordings the model has not seen.
        judge: folder of one judge or of several (`recipes/fsdd/judges`); None leaves out what needs one.
        seeds: clips of each label and speaker; 0 speaks none. A vocoder has one copy of each recording.
        engine, precision, device: see `wavegen.load`.
        temperature, min_p: of the clips; None is the model's own default.
        html: folder to write a page to listen to into; None writes none.
        progress: told what is done, how many and of how many.
        clips: of a vocoder, recordings that are measured, evenly spread over the split; None is at most
            `COPIED_CLIPS`, 0 speaks none.
        data_dir: of a vocoder, the folder the store was prepared from, which gives the recordings as they were before
            they were coded.
        matching: of a vocoder, passes that bring its audio to the levels of the mel; None is the model's own default.

    Returns:
        plain values for JSON, the same keys for every family; what a family has not is None:

        - `bits_per_sample`: exact for a model that speaks code after code, the ELBO's bound for a vae (its
          `kind` says which), nothing for a wgan, which gives no likelihood. `engine_bits`: the same by the
          engine that speaks, on an excerpt, and its divergence from float64;
        - `reconstructions`: of a vae, distances to the recordings of the split and what the judges hear;
        - `copy_synthesis`: of a vocoder, see `wavegen.evaluate.copy_synthesis`; its `bits_per_sample` also has
          `rolled`, the bits with the mel moved by a third of the clip;
        - `generated`: faults, speed, what the judges hear, `neighbours` (a ratio far below 1 is copying),
          `diversity` (a ratio far below 1 is collapse);
        - `recordings`: the same figures for the split and for as many training clips.

        Rates and accuracies are shares in [0, 1] or None; `frechet_distance` is to the recordings of the split.

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
        if clips == 0:
            raise ConfigError("a page to listen to (html) needs clips; let clips be at least 1")
        from wavegen.evaluate.page import check_page

        check_page(Path(html))
    judges = load_judges(judge) if judge is not None else {}
    data = Store.open(store)
    speaker = load(model, engine, precision, device)
    if isinstance(speaker, Vocoder):
        if judges:
            raise ConfigError(f'judges hear what a clip says; "{speaker.folder.name}" is a vocoder and says what it is '
                              "given: leave out --judge")
        check_store(speaker.folder, data)
        report = _head(speaker.folder, speaker.engine, speaker.model, data, split, judges)
        rows = some_rows(data, split, 0 if seeds == 0 else clips)
        measured, copies = evaluate_vocoder(speaker, data, split, rows, data_dir, temperature, min_p, progress,
                                            matching)
        report |= _rounded(measured)
        if html is not None and copies is not None:
            from wavegen.evaluate.page import write_vocoder_page

            write_vocoder_page(Path(html), report, copies, speaker.sample_rate)
        return report
    for name, value in (("clips", clips), ("data", data_dir), ("matching", matching)):
        if value is not None:
            raise ConfigError(f'{name} is for vocoders, which copy recordings; "{speaker.spec.name}" speaks for '
                              "itself: leave it out (seeds says how many clips)")
    synthesizer, rows = speaker, data.rows(split)
    _check_fit(synthesizer, data, store, judges)
    usual = synthesizer.spec.sampling
    temperature = usual.temperature if temperature is None else temperature
    min_p = usual.min_p if min_p is None else min_p
    requests = all_requests(synthesizer, seeds, temperature, min_p)

    def read(done: int) -> None:
        if progress is not None:
            progress("reading", done, len(rows))

    bits = _bits(synthesizer, data, split, read)
    report = _head(synthesizer.spec, synthesizer.engine, synthesizer.model, data, split, judges)
    report["bits_per_sample"] = bits
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
    report["generated"] |= _company(spoken, data, rows, real)
    report["recordings"][split] = _figures(reference, data)
    if len(train) and split != "train":
        # As many training clips: the distance a perfect model could be expected to have.
        report["recordings"]["train"] = _figures(_hear_recordings(data, train, judges), data, reference)
    pairs = None
    if synthesizer.spec.model.family == "vae":
        chosen = _sample(real, MAX_RECONSTRUCTIONS if is_one_pass(synthesizer.spec.model) else MAX_SPOKEN_AGAIN)
        pairs = _pairs(synthesizer, data, chosen, progress)
        again = _hear([pairs.found], data.label_ids[chosen], data.speaker_ids[chosen], data.audio.sample_rate, judges)
        report["reconstructions"] = _rounded(distances(pairs.found, pairs.wanted, data.audio.sample_rate)) | {
            "judges": _figures(again, data, reference)["judges"]}
    if html is not None:
        from wavegen.evaluate.page import write_page

        write_page(Path(html), report, spoken, generated.checks, generated.verdicts, synthesizer, pairs)
    return report


def _head(spec: ModelFolder, engine: AbstractEngine | OnePassEngine, model: Any, data: Store, split: str,
          judges: Mapping[str, Judge]) -> dict[str, Any]:
    """The keys of every report, filled in as far as all models have them."""
    return {
        "model": spec.name,
        "family": spec.model.family,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": spec.training,
        "split": split,
        "store_digest": data.digest,
        "bits_per_sample": None,
        "engine_bits": _engine_bits(engine, model, data, split),
        "reconstructions": None,
        "copy_synthesis": None,
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


def _bits(synthesizer: Synthesizer, data: Store, split: str, read: Callable[[int], None]) -> dict[str, Any] | None:
    """Bits per sample, or their bound; None for a family that says nothing about them."""
    config = synthesizer.spec.model
    if config.family == "wgan":
        return None
    kind, more = "exact", {}
    if config.family == "vae":
        bound = evidence_bound(synthesizer.model, data, split, read)
        bits = bound.bits
        kind = "reconstruction" if config.latent_noise == "none" else "bound"
        more = {"reconstruction": bound.reconstruction, "kl_nats": bound.kl_nats,
                "kl_bits_per_dimension": bound.kl_bits_per_dimension}
    else:
        bits = bits_per_sample(synthesizer.model, data, split, on_clip=read)
    return _rounded({"all": bits.mean, "speakers": dict(bits.groups)}) | {
        "clips": bits.num_clips, "samples": bits.num_samples, "kind": kind, **_rounded(more)}


def _company(spoken: Spoken, data: Store, rows: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """Generated clips beside the training split, and beside each other."""
    found: dict[str, Any] = {"neighbours": None, "diversity": None}
    if "train" in data.splits:
        found["neighbours"] = _rounded(newness(spoken.waveforms, data, _sample(rows, MAX_REAL_CLIPS)))
    ours, theirs = _sample(np.arange(len(spoken.waveforms)), MAX_COMPARED), _sample(real, MAX_COMPARED)
    recorded = [waveform for group in recordings(data, theirs) for waveform in group]
    labels = data.label_ids[theirs] if (spoken.label_ids >= 0).all() else np.full(len(theirs), -1)
    beside = diversity_beside([spoken.waveforms[i] for i in ours], spoken.label_ids[ours], recorded, labels)
    found["diversity"] = None if beside is None else _rounded(beside)
    return found


def _pairs(synthesizer: Synthesizer, data: Store, rows: np.ndarray, progress: Progress | None) -> Pairs:
    def tell(done: int) -> None:
        if progress is not None:
            progress("reconstructing", done, len(rows))

    found = reconstruct(synthesizer, data, rows, tell)
    wanted = [waveform for group in recordings(data, rows) for waveform in group]
    names = [str(data.entry(int(row))["id"]) for row in rows]
    return Pairs(found, wanted, names)


def _sample(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]


def _engine_bits(engine: AbstractEngine | OnePassEngine, model: Any, data: Store,
                 split: str) -> dict[str, Any] | None:
    """Bits per sample as the engine itself computes them, on an excerpt; None for the reference, which is slow."""
    if isinstance(engine, OnePassEngine) or engine.name == "reference" or model.config.family != "wavenet":
        return None
    clips = excerpt(model, data, split, ENGINE_SAMPLES)
    figures = divergence(engine, network_of(model), clips)
    return {"engine": engine.name, "precision": engine.precision, "precision_choice": engine.choice,
            "clips": len(clips), "samples": sum(min(len(codes), MAX_CLIP) for codes, _ in clips),
            "all": round(figures.bits, 5), "change": round(figures.bits_change, 6), "kl": float(f"{figures.kl:.3g}")}


def _check_fit(synthesizer: Synthesizer, data: Store, store: str | Path, judges: Mapping[str, Judge]) -> None:
    check_store(synthesizer.spec, data)
    for name, judge in judges.items():
        if judge.config.labels != data.labels or judge.config.speakers not in ((), data.speakers):
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
        if names.speakers and verdict.speakers.shape[1]:
            right = verdict.speakers.argmax(1) == heard.speaker_ids
            found["speaker_accuracy"] = right.mean()
            found["speakers"] = _by_group(right, heard.speaker_ids, names.speakers)
        if reference is not None and min(len(heard.checks), len(reference.checks)) > 1:
            found["frechet_distance"] = frechet_distance(verdict.features, reference.verdicts[name].features)
        found["inception_score"] = inception_score(verdict.labels)
        found["modified_inception_score"] = modified_inception_score(verdict.labels)
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
    """Plain floats of at most four decimals, all the way down."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _rounded(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return round(float(value), 4) if isinstance(value, (float, np.floating)) else value
