"""An evaluation as lines of text: the generated clips beside the recordings."""

from __future__ import annotations

from typing import Any


def summary(report: dict[str, Any]) -> str:
    """What `wavegen eval` prints."""
    machine = report["machine"]
    lines = [
        f"model {report['model']} ({report['family']}, {report['parameters']:,} parameters), split {report['split']}",
        *bits_lines(report["bits_per_sample"]),
    ]
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
    lines += [*company_lines(report)]
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


def bits_lines(bits: dict[str, Any] | None) -> list[str]:
    """What a model needs for a sample, in words."""
    if bits is None:
        return ["bits per sample: none, a wgan says nothing about how likely a recording is"]
    kinds = {"exact": "bits per sample", "bound": "bits per sample, at most (ELBO)",
             "reconstruction": "bits per sample of the reconstruction alone (its latents have no price)"}
    lines = [f"{kinds[bits['kind']]}, inside {bits['clips']} clips: {bits['all']:.4f}"]
    if bits["speakers"]:
        lines.append("  " + "  ".join(f"{name} {value:.3f}" for name, value in bits["speakers"].items()))
    if bits["kind"] == "bound":
        lines.append(f"  reconstruction {bits['reconstruction']:.4f}, latents {bits['kl_nats']:.1f} nats a clip, "
                     f"{bits['kl_bits_per_dimension']:.3f} bits a dimension")
    return lines


def company_lines(report: dict[str, Any]) -> list[str]:
    """Reconstructions, neighbours and diversity, in words."""
    again, generated = report["reconstructions"], report["generated"]
    near, differs = generated["neighbours"], generated["diversity"]
    lines = []
    if again is not None:
        heard = ", ".join(f"{name} hears {_share(found.get('label_accuracy'))}"
                          for name, found in again["judges"].items())
        lines.append(f"reconstructions of {again['clips']} recordings: STFT distance {again['stft_distance']:.4f}, "
                     f"log-mel distance {again['log_mel_distance']:.4f} nats" + (f"; {heard}" if heard else ""))
    if near is not None:
        lines.append(f"nearest training clip: at {near['generated']:.3f}, of unseen recordings {near['unseen']:.3f}; "
                     f"ratio {_number(near['ratio'])}, of the nearest tenth {_number(near['ratio_of_nearest'])} "
                     "(far below 1: copies)")
    if differs is not None:
        lines.append(f"diversity within a label: {differs['generated']:.3f}, of recordings "
                     f"{differs['recordings']:.3f}; ratio {differs['ratio']:.3f} (far below 1: collapse)")
    return lines


def table(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row for each set of clips; also what the page shows."""
    judges = list(report["judges"])
    header = ["clips", "number", "silent", "noise-like", "unended"]
    for name in judges:
        header += [f"label ({name})", f"speaker ({name})", f"distance ({name})", f"inception ({name})", "modified"]
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
                f"{found['inception_score']:.2f}",
                f"{found['modified_inception_score']:.2f}",
            ]
        rows.append(row)
    return rows


def _arithmetic(figures: dict[str, Any]) -> str:
    choice = figures["precision_choice"]
    return f"precision {figures['precision']}" + (f" ({choice})" if choice else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _pad(cell: str, width: int, place: int) -> str:
    return cell.ljust(width) if place == 0 else cell.rjust(width)
