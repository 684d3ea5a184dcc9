"""The table of engine speeds: configurations A to D and the size of the bundled digits model.

    python kernels/benchmarks/bench_engines.py --out results/NAME.json [--only A] [--warm]

Every size is one interleaved run of all precisions, one and two threads, a batch, and what they are
compared with: the eager PyTorch step of `wavegen bench` and the steps of `peers.py`. Medians; the
speed of a batch is that of its rows together. Rows of an earlier run that are not measured again
stay in the file, so that the table can be made piece by piece. `--warm` compiles everything
first, in a process of its own, so that nothing is compiled while the machine is kept quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import PEERS

from wavegen.audio.atomic import write_json
from wavegen.bench import CONFIGURATIONS, Case, bench_cases, bench_training, limits, machine
from wavegen.bench.eager import EagerStep
from wavegen.config import AudioConfig, Vocabulary, WaveNetConfig
from wavegen.errors import MissingBackendError
from wavegen.models import build_model

SAMPLE_RATE = 16_000  # Hz, for times real time of the configurations
DIGITS = WaveNetConfig(residual_channels=64, skip_channels=128, output_channels=128, input_taps=32,
                       dilations=CONFIGURATIONS["A"].dilations)
SIZES = {**CONFIGURATIONS, "digits": DIGITS}
RATES = {"D": 22_050, "digits": 8000}  # Hz, where it is not SAMPLE_RATE: D is of a vocoder at this rate
STREAMS = [Case("numba", precision, 1, threads) for precision in ("f32", "i16", "i8x15", "i8") for threads in (1, 2)]
BATCHES = [Case("numba", precision, 8, threads) for precision in ("f32", "i8") for threads in (1, 2)]
BUILD = """
import time
from wavegen.bench import CONFIGURATIONS
from wavegen.config import AudioConfig, Vocabulary
from wavegen.models import build_model
model = build_model(CONFIGURATIONS["A"], AudioConfig(sample_rate=16000), Vocabulary())
begin = time.perf_counter()
from wavegen.engines import build_engine
engine = build_engine(model, "numba")
engine.step(engine.start(), 1)
print(time.perf_counter() - begin)
"""


def first_calls() -> dict[str, float]:
    """Seconds to the first sample of A in a fresh process: nothing compiled yet, then from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"WAVEGEN_CACHE_DIR": folder}
        seconds = [float(subprocess.run([sys.executable, "-c", BUILD], env=environment, check=True,
                                        capture_output=True, text=True).stdout) for _ in range(2)]
    return {"first_call_seconds": round(seconds[0], 2), "cached_call_seconds": round(seconds[1], 2)}


def bench_size(name: str, rounds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of one size: of the engines, and of what they are compared with."""
    config, rate = SIZES[name], RATES.get(name, SAMPLE_RATE)
    model = build_model(config, AudioConfig(sample_rate=rate), Vocabulary())
    shape = (f"R{config.residual_channels} S{config.skip_channels} O{config.output_channels} "
             f"L{config.num_layers} K{config.kernel_size}" + (f" taps{config.input_taps}" if config.input_taps else ""))
    wanted = [peer for peer in PEERS if peer != "queues" or name == "D"]
    baselines: dict[str, Callable[..., Any]] = {"eager": EagerStep}
    titles, skipped = {"eager": "eager PyTorch step"}, []
    for peer in wanted:
        try:
            PEERS[peer].check()
            baselines[peer], titles[peer] = PEERS[peer], PEERS[peer].title
        except MissingBackendError as error:
            skipped.append({"op": "baseline", "model": name, "name": peer, "title": PEERS[peer].title,
                            "skipped": str(error)})
    reports, timings = bench_cases(model, rate, name, [*STREAMS, *BATCHES], baselines, "wall", rounds)
    rows = [{"op": "synthesis", "shape": shape, **report} for report in reports]
    others = []
    for peer, timing in timings.items():
        slow, fast = timing.spread()
        others.append({"op": "baseline", "model": name, "name": peer, "title": titles[peer], "precision": "f32",
                       "batch": 1, "threads": 1, "samples_per_second": round(timing.samples_per_second, 1),
                       "p20": round(slow, 1), "p80": round(fast, 1)})
    return rows, others + skipped


def show(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row['model']:7} {row['precision']:6} batch {row['batch']} threads {row['threads']} "
              f"{row['samples_per_second']:>11,.0f} samples/s ({row['p20']:,.0f} to {row['p80']:,.0f}) "
              f"{row['times_baseline']:>7.1f} x eager {row['fraction_of_floor']:>6.1%} of the floor")
    for row in others:
        print(f"{row['model']:7} {row['name']}: {row.get('skipped') or format(row['samples_per_second'], ',.0f')}")


def merged(path: Path, part: dict[str, Any], models: list[str]) -> dict[str, Any]:
    """What the file holds of other models, and this part."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    kept = [row for row in old["rows"] if row.get("model") not in models and row.get("op") not in part["ops"]]
    order = [*SIZES, "training"]
    rows = sorted([*kept, *part["rows"]], key=lambda row: order.index(
        row["model"] if row["op"] in ("synthesis", "baseline") else "training"))
    facts = {name: value for name, value in (old | part).items() if name not in ("rows", "ops")}
    return {**facts, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default=",".join([*SIZES, "training", "start"]), metavar="NAMES",
                        help="with commas: A B C D digits, training, start (time to the first sample)")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, help="JSON file to write or complete; none is written without it")
    parser.add_argument("--warm", action="store_true", help="compile all that is needed, measure nothing")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = set(names) - {*SIZES, "training", "start"}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                            cwd=Path(__file__).parent).stdout.strip()
    part: dict[str, Any] = {"commit": commit, "note": options.note, "rows": [], "ops": []}
    begin = time.perf_counter()
    for name in names:
        if name in SIZES:
            rows, others = bench_size(name, 1 if options.warm else options.rounds)
            part["rows"] += [row | {"commit": commit} | machine() for row in [*rows, *others]]
            show(rows, others)
    if "training" in names and not options.warm:
        part["ops"].append("training")
        part["rows"].append({"op": "training", **bench_training(), "commit": commit})
        print(f"training {part['rows'][-1]['samples_per_second']:,.0f} samples/s")
    if "start" in names and not options.warm:
        part |= first_calls() | {"limits": limits()}
        print(f"A in a fresh process: {part['first_call_seconds']} s compiled, {part['cached_call_seconds']} s cached")
    print(f"{time.perf_counter() - begin:.0f} s")
    if options.out and not options.warm:
        result = merged(options.out, part, [name for name in names if name in SIZES])
        write_json(options.out, result)


if __name__ == "__main__":
    main()
