"""An evaluation as lines of text: the generated clips beside the recordings."""

from __future__ import annotations

from typing import Any


def summary(report: dict[str, Any]) -> str:
    """What `wavegen eval` prints."""
    bits, machine = report["bits_per_sample"], report["machine"]
    lines = [
        f"model {report['model']} ({report['family']}, {report['parameters']:,} parameters), split {report['split']}",
        f"bits per sample, inside {bits['clips']} clips: {bits['all']:.4f}",
    ]
    if bits["speakers"]:
        lines.append("  " + "  ".join(f"{name} {value:.3f}" for name, value in bits["speakers"].items()))
    own = report["engine_bits"]
    if own is not None:
        lines.append(f"  by the engine that speaks ({own['engine']}, {_arithmetic(own)}), {own['clips']} clips: "
                     f"{own['all']:.4f}, {own['change']:+.5f} against float64, KL {own['kl']:.1e}")
    if report["generated"] is None:
        return "\n".join(lines)
    generated = report["generated"]
    rows = table(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += [
        "",
        *(
            "  ".join(
                _pad(cell, width, place) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
        "",
    ]
    if not report["judges"]:
        lines.append("no judge was given (--judge DIR): what the clips say was not checked")
    lines.append(
        f"spoke {generated['seconds']:.1f} s of audio in {generated['wall_seconds']:.1f} s: "
        f"{generated['samples_per_second']:,.0f} samples/s, "
        f"{generated['times_realtime']:.2f} times real time "
        f"(engine {generated['engine']}, {_arithmetic(generated)}, "
        f"{machine['threads']} threads, {machine['cpu']})"
    )
    return "\n".join(lines)


def table(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row for each set of clips; also what the page shows."""
    judges = list(report["judges"])
    header = ["clips", "number", "silent", "noise-like", "unended"]
    for name in judges:
        header += [f"label ({name})", f"speaker ({name})", f"distance ({name})"]
    sets = {"generated": report["generated"]}
    sets |= {f"recordings, {name}": figures for name, figures in report["recordings"].items()}
    rows = [header]
    for name, figures in sets.items():
        faults = [_share(figures[fault]) for fault in ("silent", "noise_like", "unended")]
        row = [name, str(figures["clips"]), *faults]
        for judge in judges:
            found = figures["judges"][judge]
            row += [
                _share(found.get("label_accuracy")),
                _share(found.get("speaker_accuracy")),
                f"{found['frechet_distance']:.2f}" if "frechet_distance" in found else "-",
            ]
        rows.append(row)
    return rows


def _arithmetic(figures: dict[str, Any]) -> str:
    choice = figures["precision_choice"]
    return f"precision {figures['precision']}" + (f" ({choice})" if choice else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _pad(cell: str, width: int, place: int) -> str:
    return cell.ljust(width) if place == 0 else cell.rjust(width)
