"""Synthesis speed: samples per second, times real time, fraction of the floor, times eager PyTorch."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wavegen.bench.eager import EagerStep
from wavegen.bench.timing import Timing, interleave
from wavegen.config import Calibration, WaveNetConfig
from wavegen.engines import AbstractEngine, Conditioning, ModelConditioning, State, build_engine
from wavegen.engines.calibration import own_ranges
from wavegen.engines.machine import describe, levels, synthesis_floor
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import Network, network_of
from wavegen.errors import WavegenError
from wavegen.models import ConditioningInputs

PARITY = 1e-3  # a baseline's logits may differ from the network's by this: all are float32
FEATURE_FRAMES = 8192  # silence told to a model of local features; longer than anything spoken here

_CYCLE = tuple(2**exponent for exponent in range(10))
# The benchmark sizes: A the classic GPU benchmark, B small, C large, D a well-known public vocoder's.
CONFIGURATIONS = {
    "A": WaveNetConfig(residual_channels=64, skip_channels=256, output_channels=256, dilations=_CYCLE * 2),
    "B": WaveNetConfig(residual_channels=32, skip_channels=128, output_channels=256, dilations=_CYCLE * 3),
    "C": WaveNetConfig(residual_channels=128, skip_channels=256, output_channels=256, dilations=_CYCLE * 3),
    "D": WaveNetConfig(residual_channels=128, skip_channels=128, output_channels=128, kernel_size=3,
                       dilations=_CYCLE[:6] * 4),
}


@dataclass(frozen=True)
class Case:
    """One way to speak with a model: what `build_engine` takes, and how many rows at once."""

    engine: str = "auto"
    precision: str = "auto"
    batch: int = 1
    threads: int | str = 1


def bench_synthesis(model: Any, sample_rate: int, name: str, engine: str = "auto", precision: str = "auto",
                    batch: int = 1, threads: int | str = 1, clock: str = "wall", rounds: int = 15,
                    ranges: Any = None, calibration: Calibration | None = None) -> dict[str, Any]:
    """Measure one engine on one model; WaveNet beside the eager baseline and the floor.

    Args:
        model: from `build_model`.
        sample_rate: Hz, for times real time.
        name: of the model in the report.
        engine, precision, threads: as in `build_engine`.
        batch: rows; speeds are totals over the rows.
        clock: see `interleave`.
        rounds: interleaved turns of engine and baseline.
        ranges, calibration: of the model, as in `build_engine`.

    Raises:
        WavegenError: the baseline computes something else than the network.
    """
    case = Case(engine, precision, batch, threads)
    reports, _ = bench_cases(model, sample_rate, name, [case], {"eager": EagerStep}, clock, rounds, ranges, calibration)
    return reports[0] | machine()


def bench_cases(model: Any, sample_rate: int, name: str, cases: Sequence[Case],
                baselines: Mapping[str, Callable[[Network, NDArray[np.float32]], Any]], clock: str = "wall",
                rounds: int = 15, ranges: Any = None,
                calibration: Calibration | None = None) -> tuple[list[dict[str, Any]], dict[str, Timing]]:
    """Measure several engines on one model, and what they are compared with, in one interleaved run.

    Args:
        model, sample_rate, name, clock, rounds, ranges, calibration: as in `bench_synthesis`.
        cases: at least one.
        baselines: steps of one row by name, made from the network and a conditioning frame (L, 2R).
            Each is first checked against the first case. Only for WaveNet; "eager" among them is
            what `times_baseline` counts.

    Returns:
        A flat report of each case, and the timings of the baselines by name.
    """
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        conditioning = _conditioning(model)
        if not ranges and len(cases) > 1 and model.config.family == "wavenet":
            # Once for all engines, each of which would let the model speak first.
            ranges = own_ranges(network_of(model), model, lambda: NumbaEngine(network_of(model)))
        speakers, contenders = [], {}
        for number, case in enumerate(cases):
            start = time.perf_counter()
            speaker = build_engine(model, case.engine, case.precision, None, ranges, case.threads, calibration)
            speakers.append((speaker, time.perf_counter() - start))
            contenders[f"case {number}"] = _runner(speaker, speaker.start(case.batch, conditioning))
        steps = {}
        if model.config.family == "wavenet":
            network, frame = network_of(model), conditioning.frames(0, 1)[0, 0]
            exact = build_engine(model, "reference", "f32")
            for baseline, make in baselines.items():
                steps[baseline] = make(network, frame)
                _check_parity(exact, steps[baseline], network, conditioning)
                contenders[baseline] = steps[baseline].generate
        timings, share = interleave(contenders, rounds=rounds, clock=clock)
        reports = []
        for number, (case, (speaker, build_seconds)) in enumerate(zip(cases, speakers, strict=True)):
            timing, threads = timings[f"case {number}"], speaker.threads_for(case.batch)
            report: dict[str, Any] = {
                "model": name, "engine": speaker.name, "precision": speaker.precision, "batch": case.batch,
                "threads": threads, "clock": clock, "share_of_core": round(share, 3)}
            if speaker.choice:
                report["precision_choice"] = speaker.choice
            report |= _speed(timing, case.batch, sample_rate)
            report["first_sample_milliseconds"] = round(1e3 * _first_sample(speaker, conditioning), 3)
            report["build_seconds"] = round(build_seconds, 3)
            if "eager" in timings:
                report |= _baseline(timings["eager"], timing, case.batch)
            if isinstance(speaker, NumbaEngine):
                report["memory_megabytes"] = round(speaker.memory_bytes(case.batch) / 1e6, 2)
                report |= _floor(speaker, timing, case.batch, threads)
            reports.append(report)
        return reports, {baseline: timings[baseline] for baseline in steps}
    finally:
        torch.set_num_threads(torch_threads)


def _runner(engine: AbstractEngine, state: State) -> Callable[[int], Any]:
    return lambda num_samples: engine.step(state, num_samples)


def _conditioning(model: Any) -> Conditioning:
    """The first label and speaker, if the model is told any: the speed does not depend on which."""
    first = torch.zeros(1, dtype=torch.int64)
    told = model.config.conditioning
    return ModelConditioning(model, ConditioningInputs(
        label=first if told.label else None, speaker=first if told.speaker else None,
        num_samples=first + 10**9 if told.progress_steps else None,
        features=torch.zeros(1, told.features, FEATURE_FRAMES) if told.features else None,
        prediction=torch.zeros(1, 1, model.lpc_order) if getattr(model, "lpc_order", 0) else None))


def _check_parity(exact: AbstractEngine, step: Any, network: Network, conditioning: Conditioning) -> None:
    """First green, then fast. The baseline holds the first frame, so within that. Logits may be off by a constant."""
    num_samples = min(20, conditioning.hop_length)
    codes = np.random.default_rng(0).integers(0, network.quantization_channels, num_samples)
    found = []
    with torch.no_grad():
        for code in codes:
            found.append(torch.log_softmax(step.logits().double(), 0).numpy())
            step.feed(int(code))
    expected = torch.log_softmax(torch.from_numpy(exact.logits(codes[None], conditioning)[0]).double(), 1).numpy()
    error = float(np.abs(expected - np.stack(found)).max())
    step.restart()
    if not error < PARITY:
        raise WavegenError(f"the baseline's logits differ from the network's by {error:.1e}: nothing was timed")


def _speed(timing: Timing, batch: int, sample_rate: int) -> dict[str, Any]:
    slow, fast = timing.spread()
    rate = batch * timing.samples_per_second
    return {"samples_per_second": round(rate, 1), "p20": round(batch * slow, 1), "p80": round(batch * fast, 1),
            "sample_rate": sample_rate, "times_realtime": round(rate / sample_rate, 3)}


def _first_sample(engine: AbstractEngine, conditioning: Conditioning, rounds: int = 9) -> float:
    """Seconds from `start` to the first code."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        engine.step(engine.start(1, conditioning), 1)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _baseline(eager: Timing, timing: Timing, batch: int) -> dict[str, Any]:
    slow, fast = eager.spread()
    return {"baseline": "eager PyTorch step, one row, one thread, f32",
            "baseline_samples_per_second": round(eager.samples_per_second, 1), "baseline_p20": round(slow, 1),
            "baseline_p80": round(fast, 1),
            "times_baseline": round(batch * eager.median / timing.median, 2)}


def _floor(engine: NumbaEngine, timing: Timing, batch: int, threads: int) -> dict[str, Any]:
    floor = synthesis_floor(engine, batch, threads)
    # Of one core the floor is measured in the thread's own time, so it is compared with that.
    seconds = float(np.median(timing.cpu_seconds if threads == 1 else timing.seconds)) / batch
    return {"microseconds_per_sample": round(1e6 * seconds, 2), "floor_microseconds": round(1e6 * floor.seconds, 2),
            "fraction_of_floor": round(floor.seconds / seconds, 3), "weight_bytes": floor.weight_bytes,
            "multiply_adds": floor.multiply_adds,
            "read_gigabytes_per_second": round(floor.read_bandwidth / 1e9, 1),
            "peak_gigamacs_per_second": round(floor.multiply_add_peak / 1e9, 1)}


def limits() -> dict[str, Any]:
    """What one core of this machine reaches: reads from each cache level, multiply-adds in registers."""
    return {f"{name}_{'gigabytes' if name.startswith('read') else 'gigamacs'}_per_second": round(rate / 1e9, 1)
            for name, rate in levels().items()}


def machine() -> dict[str, Any]:
    """Processor, versions and date, for the end of every report."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {**describe(), "torch": torch.__version__, "date": today}
