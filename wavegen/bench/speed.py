"""Synthesis speed: samples per second, times real time, fraction of the floor, times eager PyTorch."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wavegen.bench.eager import EagerStep
from wavegen.bench.timing import Timing, interleave
from wavegen.config import WaveNetConfig
from wavegen.engines import AbstractEngine, Conditioning, ModelConditioning, build_engine
from wavegen.errors import WavegenError
from wavegen.models import ConditioningInputs

PARITY = 1e-3  # the baseline's logits may differ from the engine's by this: both are float32

_CYCLE = tuple(2**exponent for exponent in range(10))
# The benchmark sizes: A the classic GPU benchmark, B small, C large, D a well-known public vocoder's.
CONFIGURATIONS = {
    "A": WaveNetConfig(residual_channels=64, skip_channels=256, output_channels=256, dilations=_CYCLE * 2),
    "B": WaveNetConfig(residual_channels=32, skip_channels=128, output_channels=256, dilations=_CYCLE * 3),
    "C": WaveNetConfig(residual_channels=128, skip_channels=256, output_channels=256, dilations=_CYCLE * 3),
    "D": WaveNetConfig(residual_channels=128, skip_channels=128, output_channels=128, kernel_size=3,
                       dilations=_CYCLE[:6] * 4),
}


def bench_synthesis(model: Any, sample_rate: int, name: str, engine: str = "auto", precision: str = "auto",
                    batch: int = 1, clock: str = "wall", rounds: int = 15) -> dict[str, Any]:
    """Measure one engine on one model; WaveNet beside the eager baseline and the floor.

    Args:
        model: from `build_model`.
        sample_rate: Hz, for times real time.
        name: of the model in the report.
        engine, precision: as in `build_engine`.
        batch: rows; speeds are totals over the rows.
        clock: see `interleave`.
        rounds: interleaved turns of engine and baseline.

    Raises:
        WavegenError: the baseline computes something else than the engine.
    """
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        speaker = build_engine(model, engine, precision)
        build_seconds = time.perf_counter() - start
        conditioning = _conditioning(model)
        state = speaker.start(batch, conditioning)
        contenders: dict[str, Callable[[int], Any]] = {"engine": lambda n: speaker.step(state, n)}
        network = None
        if model.config.family == "wavenet":
            from wavegen.engines.packing import network_of

            network = network_of(model)
            step = EagerStep(network, conditioning.frames(0, 1)[0, 0])
            _check_parity(speaker, step, conditioning)
            contenders["eager"] = step.generate
        timings, share = interleave(contenders, rounds=rounds, clock=clock)
        report = {"model": name, "engine": speaker.name, "precision": speaker.precision, "batch": batch,
                  "threads": 1, "clock": clock, "share_of_core": round(share, 3)}
        report |= _speed(timings["engine"], batch, sample_rate)
        report["first_sample_milliseconds"] = round(1e3 * _first_sample(speaker, conditioning), 3)
        report["build_seconds"] = round(build_seconds, 3)
        if network is not None:
            report |= _baseline(timings)
            if speaker.name == "numba":
                report |= _floor(network, timings["engine"], batch)
        return report | machine()
    finally:
        torch.set_num_threads(torch_threads)


def _conditioning(model: Any) -> Conditioning:
    """The first label and speaker, if the model is told any: the speed does not depend on which."""
    first = torch.zeros(1, dtype=torch.int64)
    told = model.config.conditioning
    return ModelConditioning(model, ConditioningInputs(
        label=first if told.label else None, speaker=first if told.speaker else None,
        num_samples=first + 10**9 if told.progress_steps else None))


def _check_parity(engine: AbstractEngine, step: EagerStep, conditioning: Conditioning) -> None:
    """First green, then fast. The baseline holds the first frame, so within that."""
    num_samples = min(20, conditioning.hop_length)
    codes = np.random.default_rng(0).integers(0, step.network.quantization_channels, num_samples)
    found = []
    with torch.inference_mode():
        for code in codes:
            found.append(step.logits().numpy())
            step.feed(int(code))
    error = float(np.abs(engine.logits(codes[None], conditioning)[0] - np.stack(found)).max())
    step.restart()
    if not error < PARITY:
        raise WavegenError(f"the baseline's logits differ from the engine's by {error:.1e}: nothing was timed")


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


def _baseline(timings: dict[str, Timing]) -> dict[str, Any]:
    eager = timings["eager"]
    slow, fast = eager.spread()
    return {"baseline": "eager PyTorch step, one row, one thread, f32",
            "baseline_samples_per_second": round(eager.samples_per_second, 1), "baseline_p20": round(slow, 1),
            "baseline_p80": round(fast, 1),
            "times_baseline": round(eager.median / timings["engine"].median, 2)}


def _floor(network: Any, timing: Timing, batch: int) -> dict[str, Any]:
    from wavegen.engines.machine import synthesis_floor

    floor = synthesis_floor(network)
    # The floor is measured in the thread's own time, so it is compared with that.
    seconds = float(np.median(timing.cpu_seconds)) / batch
    return {"microseconds_per_sample": round(1e6 * seconds, 2), "floor_microseconds": round(1e6 * floor.seconds, 2),
            "fraction_of_floor": round(floor.seconds / seconds, 3), "weight_bytes": floor.weight_bytes,
            "multiply_adds": floor.multiply_adds,
            "read_gigabytes_per_second": round(floor.read_bandwidth / 1e9, 1),
            "peak_gigamacs_per_second": round(floor.multiply_add_peak / 1e9, 1)}


def machine() -> dict[str, Any]:
    """Processor, versions and date, for the end of every report."""
    from wavegen.engines.machine import describe

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {**describe(), "torch": torch.__version__, "date": today}
