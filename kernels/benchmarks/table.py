"""The speed tables of the README, in markdown, from what `bench_engines.py` or `gpu_check.py` measured.

    python kernels/benchmarks/table.py [results/NAME.json]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("f32", "i16", "i8x15", "i8")
PEERS = {"eager": "eager PyTorch", "compiled": "torch.compile", "onnxruntime": "onnxruntime"}
Row = dict[str, Any]


def tables(results: dict[str, Any]) -> str:
    """One stream, beside its baselines; batches; a known vocoder's own loop, where it was measured."""
    engine = [row for row in results["rows"] if row["op"] == "synthesis"]
    others = [row for row in results["rows"] if row["op"] == "baseline" and "skipped" not in row]
    sizes = list(dict.fromkeys((row["model"], row["shape"], row["sample_rate"]) for row in engine))
    sizes.sort(key=lambda size: size[0] != "digits")
    parts = [_streams(engine, others, sizes), _ratios(engine, others, sizes), _batches(engine)]
    return "\n\n".join(part for part in parts if part)


def gpu_table(results: dict[str, Any]) -> str:
    """Of `gpu_check.py`: configuration A on a GPU, beside torch; then the bundled vocoder, where it ran."""
    facts = results["device"]
    speeds = {section: {name: value["samples_per_second"] for name, value in results.get(section, {}).items()
                        if isinstance(value, dict) and "samples_per_second" in value}
              for section in ("speed", "baselines")}
    ours, base = speeds["speed"], speeds["baselines"]
    counts = sorted({int(name.split()[2]) for name in ours if name.startswith("A ") and len(name.split()) == 3})
    lines = _head(f"rows, configuration A, f16, on one {facts['device']['name']}", "samples/s of each", "all together",
                  "CUDA-graphed torch", "times that")
    for rows in counts:
        best = max(value for name, value in ours.items() if name in (f"A latency {rows}", f"A batch {rows}"))
        graphed = base.get(f"A graphed {rows}")
        lines.append(_line(f"{rows:,}", f"{best / rows:,.0f}", f"{best:,.0f}",
                           *(("", "") if graphed is None else (f"{graphed:,.0f}", f"{best / graphed:.1f}"))))
    text = "\n".join(lines)
    voices = results.get("voices", {})
    stream = voices.get("vocoder_stream", {}).get("guarded")
    if stream:
        text += (f"\n\nThe bundled vocoder, frame by frame: first audio {stream['first_audio_milliseconds']} ms after "
                 f"the look-ahead is in, {stream['stream_times_realtime']} times real time.")
    versions = facts["versions"]
    return text + (f"\n\nMeasured {facts['date']} with torch {versions['torch']} and Triton {versions['triton']} at "
                   f"commit {facts['commit']}.")


def _streams(engine: list[Row], others: list[Row], sizes: list[tuple[str, str, int]]) -> str:
    lines = _head("model", "size", *PRECISIONS, *(f"{name}, two threads" for name in ("f32", "i8")), *PEERS.values())
    for model, shape, _ in sizes:
        cells = [_speed(_find(engine, model, precision, 1, 1)) for precision in PRECISIONS]
        cells += [_speed(_find(engine, model, precision, 1, 2)) for precision in ("f32", "i8")]
        cells += [_speed(_peer(others, model, name)) for name in PEERS]
        lines.append(_line(model, shape, *cells))
    return "\n".join(lines)


def _ratios(engine: list[Row], others: list[Row], sizes: list[tuple[str, str, int]]) -> str:
    lines = _head("model", "fastest stream", "times real time", "f32 / eager", "fastest / eager",
                  "fastest / onnxruntime", "f32 of its floor", "i8 of its floor")
    for model, _, rate in sizes:
        plain, small = (_find(engine, model, precision, 1, 1) for precision in ("f32", "i8"))
        streams = [row for row in engine if row["model"] == model and row["batch"] == 1]
        best = max(streams, key=lambda row: row["samples_per_second"])
        title = best["precision"] + (", two threads" if best["threads"] == 2 else "")
        cells = [_times(plain, _peer(others, model, "eager"))]
        cells += [_times(best, _peer(others, model, name)) for name in ("eager", "onnxruntime")]
        cells += ["" if row is None else f"{row['fraction_of_floor']:.0%}" for row in (plain, small)]
        lines.append(_line(model, title, f"{best['times_realtime']:.1f} at {rate / 1000:g} kHz", *cells))
    known = [(model, _find(engine, model, "i8", 1, 1), _peer(others, model, "queues")) for model, _, _ in sizes]
    text = "\n".join(lines)
    for model, small, queues in known:
        if small is not None and queues is not None:
            text += (f"\n\n{model} has the size of the best-known public vocoder. Its own incremental loop, rebuilt in "
                     f"plain PyTorch, makes {queues['samples_per_second']:,.0f} samples per second here: i8 on one "
                     f"thread is {_times(small, queues)} times that.")
    return text


def _batches(engine: list[Row]) -> str:
    rows = [row for row in engine if row["batch"] > 1]
    if not rows:
        return ""
    batch = rows[0]["batch"]
    lines = _head(f"{batch} streams together", *(f"{precision}, {threads} thread{'s' * (threads > 1)}"
                                                  for precision in ("f32", "i8") for threads in (1, 2)))
    for model in dict.fromkeys(row["model"] for row in rows):
        lines.append(_line(model, *(_speed(_find(engine, model, precision, batch, threads))
                                    for precision in ("f32", "i8") for threads in (1, 2))))
    return "\n".join(lines)


def _find(rows: list[Row], model: str, precision: str, batch: int, threads: int) -> Row | None:
    wanted = {"model": model, "precision": precision, "batch": batch, "threads": threads}
    return next((row for row in rows if wanted.items() <= row.items()), None)


def _peer(rows: list[Row], model: str, name: str) -> Row | None:
    return next((row for row in rows if row["model"] == model and row["name"] == name), None)


def _speed(row: Row | None) -> str:
    return "" if row is None else f"{row['samples_per_second']:,.0f}"


def _times(row: Row | None, base: Row | None) -> str:
    return "" if row is None or base is None else f"{row['samples_per_second'] / base['samples_per_second']:.1f}"


def _head(*cells: str) -> list[str]:
    return [_line(*cells), "|" + "---|" * len(cells)]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else sorted(RESULTS.glob("*-engines.json"))[-1]
    results = json.loads(path.read_text(encoding="utf-8"))
    print(gpu_table(results) if "speed" in results else tables(results))


if __name__ == "__main__":
    main()
