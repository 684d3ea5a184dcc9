"""What a store holds and what was left out: `report.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wavegen.data.store import StoreInfo
from wavegen.errors import did_you_mean

QUANTILES = {"lowest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "highest": 1.0}
NUM_WORST = 20
NUM_TOLD = 5  # files left out that are named at once


def build_report(info: StoreInfo, columns: np.ndarray, num_files: int,
                 skipped: Iterable[dict[str, str]]) -> dict[str, Any]:
    """Summarise a store; depends on nothing but its arguments.

    Args:
        info: what `store.json` says.
        columns: the numbers of its index.
        num_files: recordings found, usable or not.
        skipped: `source` and `reason` of each that was left out.

    Returns:
        Plain values, to be written as JSON: counts, durations in seconds, peaks in dB of full scale before
        normalising, clipping by row, warnings, and everything skipped.
    """
    lengths, rate = columns["num_samples"], info.audio.sample_rate
    clipped = np.flatnonzero(columns["clipped"])
    worst = clipped[np.argsort(-columns["clipped"][clipped], kind="stable")][:NUM_WORST]
    labels, speakers = _counts(columns["label"], info.labels), _counts(columns["speaker"], info.speakers)
    skipped = list(skipped)
    return {
        "files": num_files,
        "utterances": len(columns),
        "seconds": round(int(lengths.sum()) / rate, 3),
        "splits": {name: {"utterances": totals.utterances, "seconds": round(totals.samples / rate, 3)}
                   for name, totals in info.splits.items()},
        "labels": labels,
        "speakers": speakers,
        "durations": _quantiles(lengths / rate),
        "levels": _quantiles(20 * np.log10(columns["peak"].astype(np.float64))),
        "clipping": {"utterances": len(clipped), "samples": int(columns["clipped"].sum()),
                     "worst": [{"row": int(row), "samples": int(columns["clipped"][row])} for row in worst]},
        "warnings": [*_unused("labels", labels), *_unused("speakers", speakers), *_unused_splits(info)],
        "num_skipped": len(skipped),
        "skipped": skipped,
    }


def summary(report: Mapping[str, Any]) -> list[str]:
    """What a person wants to know of a report at once, in a few lines."""
    lines = [f"left out {file['source']}: {file['reason']}" for file in report["skipped"][:NUM_TOLD]]
    if report["num_skipped"] > NUM_TOLD:
        lines.append(f"left out {report['num_skipped'] - NUM_TOLD} more, which report.json names")
    lines += [f"{name}: {split['utterances']} clips, {_long(split['seconds'])}"
              for name, split in report["splits"].items()]
    spread = report["durations"]
    lines.append(f"a clip lasts {spread['median']:.2f} s in the median, {spread['lowest']:.2f} to "
                 f"{spread['highest']:.2f} s")
    for kind in ("labels", "speakers"):
        counts = report[kind]
        if counts:
            names = sorted(counts, key=lambda name: -counts[name])
            told = ", ".join(f"{name} ({counts[name]})" for name in names[:NUM_TOLD])
            lines.append(f"{len(names)} {kind}: {told}{', ...' if len(names) > NUM_TOLD else ''}")
    return lines


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 4) for name, share in QUANTILES.items()}


def _counts(ids: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(ids[ids >= 0], minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _unused(kind: str, counts: dict[str, int]) -> list[str]:
    used = [name for name, count in counts.items() if count]
    return [f'prepare.{kind} has "{name}", which is on no recording; {did_you_mean(name, used)}'
            for name, count in counts.items() if not count]


def _unused_splits(info: StoreInfo) -> list[str]:
    wanted = [*info.prepare.splits, *(name for name, share in info.prepare.hash_splits.items() if share)]
    return [f'split "{name}" is empty; check prepare.splits' for name in wanted if name not in info.splits]
