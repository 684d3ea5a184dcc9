"""How fast this machine speaks and trains, beside what plain PyTorch does in the same run."""

from __future__ import annotations

from typing import Any

from wavegen.bench.speed import CONFIGURATIONS, Case, bench_cases, bench_synthesis, limits, machine
from wavegen.bench.streams import bench_streams
from wavegen.bench.training import bench_training
from wavegen.checkpoint import load_model
from wavegen.config import AudioConfig, Vocabulary, WaveNetConfig
from wavegen.engines.threads import check_threads
from wavegen.errors import ConfigError, did_you_mean
from wavegen.models import build_model
from wavegen.synth import Vocoder

__all__ = ["CONFIGURATIONS", "Case", "bench", "bench_cases", "bench_streams", "bench_synthesis", "bench_training",
           "limits", "machine"]

CONFIGURATION_RATE = 16_000  # Hz; the benchmark sizes are not tied to a rate, times real time is


def bench(model: str | None = None, *, config: str | None = None, engine: str = "auto", precision: str = "auto",
          batch: int = 1, threads: int | str = 1, train: bool = False) -> dict[str, Any]:
    """Measure synthesis, or training with `train`.

    Args:
        model: name or folder of a model; None for a benchmark configuration.
        config: one of `CONFIGURATIONS`, drawn at random; "A" if there is no model either. With
            `train`, None is a middle size.
        engine, precision: as in `build_engine`.
        batch: rows spoken at once.
        threads: CPU threads, a number or for synthesis "auto"; see `build_engine`.

    Returns:
        A flat report: what was measured, speed as medians of interleaved rounds with the 20 % and
        80 % quantiles, the baseline of the same run, the machine; of a vocoder also how soon a stream speaks.

    Raises:
        ConfigError: an unknown configuration, or options that do not go together.
    """
    if model is not None and config is not None:
        raise ConfigError(f'give a model ("{model}") or a configuration ("{config}"), not both')
    if config is not None and config not in CONFIGURATIONS:
        raise ConfigError(f'no configuration "{config}"; {did_you_mean(config, CONFIGURATIONS)}')
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, found {batch}")
    threads = check_threads(threads)
    if train:
        shape = load_model(model).spec.model if model else CONFIGURATIONS[config] if config else None
        if shape is not None and not isinstance(shape, WaveNetConfig):
            raise ConfigError(f'--train measures WaveNet; "{model}" is {shape.family}')
        if isinstance(threads, str):
            raise ConfigError(f'training needs a number of threads, found "{threads}"')
        return bench_training(shape, threads=threads)
    ranges, calibration = None, None
    streams: dict[str, Any] = {}
    if model is not None:
        loaded = load_model(model)
        family = loaded.spec.model.family
        if family not in ("wavenet", "rnn"):
            raise ConfigError(f'bench measures models that speak sample by sample, wavenet and rnn; '
                              f'"{model}" is {family}')
        ranges, calibration = loaded.ranges, loaded.spec.calibration
        network, rate, name = loaded.model, loaded.spec.audio.sample_rate, model
        if loaded.spec.is_vocoder:
            streams = bench_streams(Vocoder(loaded, engine, precision, threads=threads))
    else:
        rate, name = CONFIGURATION_RATE, f"configuration {config or 'A'}"
        network = build_model(CONFIGURATIONS[config or "A"], AudioConfig(sample_rate=rate), Vocabulary())
    report = bench_synthesis(network, rate, name, engine, precision, batch, threads, ranges=ranges,
                             calibration=calibration)
    report |= streams
    return report | limits() if report["engine"] == "numba" else report
