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
    if report["copy_synthesis"] is not None:
        lines += ["", *aligned(copy_table(report)), "", *copy_lines(report["copy_synthesis"]), _copy_speed(report)]
    if report["generated"] is None:
        return "\n".join(lines)
    generated = report["generated"]
    lines += ["", *aligned(table(report)), ""]
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
    if "rolled" in bits:
        lines.append(f"  with the mel moved by a third of the clip: {bits['rolled']:.4f}, "
                     f"{bits['rolled'] - bits['all']:+.3f} (near 0: the model does not listen)")
    if bits["speakers"]:
        lines.append("  " + "  ".join(f"{name} {value:.3f}" for name, value in bits["speakers"].items()))
    if bits["kind"] == "bound":
        lines.append(f"  reconstruction {bits['reconstruction']:.4f}, latents {bits['kl_nats']:.1f} nats a clip, "
                     f"{bits['kl_bits_per_dimension']:.3f} bits a dimension")
    return lines


FIGURES = {  # how a figure of a copy is called and written
    "stoi": ("STOI", ".3f"), "pesq": ("PESQ, wide band", ".2f"), "mcd": ("mel-cepstral distortion, dB", ".2f"),
    "f0_cents": ("F0 error, cents", ".0f"), "f0_hertz": ("F0 error, Hz", ".1f"),
    "voicing_error": ("voicing error", ".1%"), "log_mel": ("log-mel distance, nats", ".3f"),
    "stft": ("STFT distance", ".3f")}
KINDS = {"model": "model", "griffin_lim": "Griffin-Lim", "round_trip": "codec round trip"}


def copy_table(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row for each figure of a vocoder's copies: mean and standard error of each kind."""
    columns = report["copy_synthesis"]["columns"]
    rows = [["copies", *(KINDS[kind] for kind in columns)]]
    for figure, (title, form) in FIGURES.items():
        rows.append([title, *(_with_error(columns[kind][figure], form) for kind in columns)])
    return rows


def copy_lines(copied: dict[str, Any]) -> list[str]:
    """What a vocoder's copies were held against, what was not measured, and what the guard saw; in words."""
    against = "the recordings" if copied["reference"] == "recordings" else (
        "the store, itself through the codec once; --data DIR compares with the recordings and adds the round trip")
    lines = [f"{copied['clips']} clips, {copied['seconds']:.1f} s, against {against}; mean +- standard error",
             f"spoken freely from their own mel at temperature {copied['temperature']:g}, min_p {copied['min_p']:g}, "
             f"matching {copied['matching']}; Griffin-Lim with {copied['griffin_lim_iterations']} "
             "iterations from the same mel"]
    lines += [f"no {FIGURES[figure][0]}: {reason}" for figure, reason in copied["missing"].items()]
    guard = copied["guard"]
    if guard is not None:
        lines.append(f"guard, per 1000 s: {guard['bursts']:g} bursts, {guard['silences']:g} silences, "
                     f"{guard['bursts_left'] + guard['silences_left']:g} left after {guard['attempts']:g} more draws")
    return lines


def _copy_speed(report: dict[str, Any]) -> str:
    speed, machine = report["copy_synthesis"]["speed"], report["machine"]
    first = speed["first_audio_seconds"]
    soon = "" if first is None else (f"; first 20 ms of audio after {1e3 * first:.0f} ms of work, once "
                                     f"{1e3 * speed['lookahead_seconds']:.0f} ms of look-ahead are in")
    return (f"one clip at a time: {speed['samples_per_second']:,.0f} samples/s, {speed['times_realtime']:.2f} times "
            f"real time (engine {speed['engine']}, {_arithmetic(speed)}, {machine['cpu']}){soon}")


def _with_error(figure: dict[str, Any], form: str) -> str:
    if figure["mean"] is None:
        return "-"
    error = "" if figure["standard_error"] is None else f" +- {figure['standard_error']:{form}}"
    return f"{figure['mean']:{form}}{error}"


def aligned(rows: list[list[str]]) -> list[str]:
    """A table as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_pad(cell, width, place) for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
            .rstrip() for row in rows]


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
