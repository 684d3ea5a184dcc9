"""The table of engine speeds: configurations A to D and the size of the bundled digits model.

    python kernels/benchmarks/bench_engines.py [--clock cpu] [--out results/NAME.json]

Every row is measured beside the eager PyTorch step, interleaved, medians; see `wavegen bench`.
With `--clock cpu` the thread's own time is taken, for a machine that is shared; `share_of_core` in
a row says what was left for it. Caches and memory are still shared then, which can only slow it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from wavegen.bench import CONFIGURATIONS, bench_synthesis, bench_training
from wavegen.config import AudioConfig, Vocabulary, WaveNetConfig
from wavegen.models import build_model

SAMPLE_RATE = 16_000  # Hz, for times real time of the configurations
DIGITS = WaveNetConfig(residual_channels=64, skip_channels=128, output_channels=128, input_taps=32,
                       dilations=CONFIGURATIONS["A"].dilations)
DIGITS_RATE = 8000
BUILD = """
import time
from wavegen.bench import CONFIGURATIONS
from wavegen.config import AudioConfig, Vocabulary
from wavegen.models import build_model
model = build_model(CONFIGURATIONS["A"], AudioConfig(sample_rate=16000), Vocabulary())
begin, busy = time.perf_counter(), time.thread_time()
from wavegen.engines import build_engine
engine = build_engine(model, "numba")
engine.step(engine.start(), 1)
print(time.perf_counter() - begin, time.thread_time() - busy)
"""


def first_calls(clock: str) -> dict[str, float]:
    """Seconds to the first sample of A in a fresh process: nothing compiled yet, then from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"WAVEGEN_CACHE_DIR": folder}
        seconds = []
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", BUILD], env=environment, check=True,
                                  capture_output=True, text=True)
            seconds.append(float(done.stdout.split()[clock == "cpu"]))
    return {"first_call_seconds": round(seconds[0], 2), "cached_call_seconds": round(seconds[1], 2)}


def run(clock: str, rounds: int, names: str) -> list[dict[str, Any]]:
    """One row a configuration, then one of training."""
    rows = []
    for name, config in {**CONFIGURATIONS, "digits": DIGITS}.items():
        if name[0] not in names:
            continue
        rate = DIGITS_RATE if name == "digits" else SAMPLE_RATE
        model = build_model(config, AudioConfig(sample_rate=rate), Vocabulary())
        shape = (f"R{config.residual_channels} S{config.skip_channels} O{config.output_channels} "
                 f"L{config.num_layers} K{config.kernel_size} taps{config.input_taps}")
        rows.append({"op": "synthesis", "shape": shape,
                     **bench_synthesis(model, rate, name, "numba", clock=clock, rounds=rounds)})
        print(f"{name:8} {rows[-1]['samples_per_second']:>10,.0f} samples/s  "
              f"{rows[-1]['times_baseline']:>6.1f} x eager  {rows[-1]['fraction_of_floor']:>6.1%} of the floor")
    if "t" in names:
        rows.append({"op": "training", **bench_training(clock=clock)})
        print(f"training {rows[-1]['samples_per_second']:>10,.0f} samples/s  "
              f"{rows[-1]['times_baseline']:>6.2f} x conv1d, bfloat16 {rows[-1]['bfloat16_times_baseline']:.2f} x")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="ABCDdt", help="first letters of the rows: A B C D digits training")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, help="JSON file to write; none is written without it")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                            cwd=Path(__file__).parent).stdout.strip()
    calls = first_calls(options.clock)
    print(f"A in a fresh process: {calls['first_call_seconds']} s compiled, {calls['cached_call_seconds']} s cached")
    rows = run(options.clock, options.rounds, options.only)
    if options.out:
        result = {"commit": commit, "note": options.note, **calls, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
