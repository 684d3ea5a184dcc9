"""Engines run a model forward in time, code after code; `build_engine` picks one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from wavegen.config import Calibration
from wavegen.engines.base import AbstractEngine, Conditioning, State
from wavegen.engines.conditioning import ModelConditioning, TableConditioning
from wavegen.engines.ranges import ActivationRanges
from wavegen.engines.sampling import uniform
from wavegen.engines.threads import Threads, check_threads
from wavegen.errors import ConfigError, EngineUnavailableError, ModelFileError, did_you_mean

__all__ = ["ENGINES", "PRECISIONS", "AbstractEngine", "ActivationRanges", "Conditioning", "ModelConditioning", "State",
           "TableConditioning", "build_engine", "uniform"]

logger = logging.getLogger(__name__)

ENGINES = ("auto", "reference", "numba", "triton")
PRECISIONS = {"reference": ("auto", "f64", "f32"), "numba": ("auto", "f32", "i16", "i8x15", "i8"),
              "triton": ("auto", "f16", "bf16", "f32", "f16-fast", "bf16-fast")}


def build_engine(model: Any, engine: str = "auto", precision: str = "auto",
                 device: str | None = None, ranges: ActivationRanges | Mapping[str, Any] | None = None,
                 threads: Threads = 1, calibration: Calibration | None = None) -> AbstractEngine:
    """The engine that speaks with a model.

    Args:
        model: from `wavegen.models.build_model`. The weights are copied; the conditioning network
            is asked as it is when frames are needed.
        engine: "auto" takes the fastest that can run the model here and logs why; "reference" is
            plain torch; "numba" the fused CPU loop and "triton" the fused loop on an NVIDIA GPU
            (WaveNet only).
        precision: "auto" or one of `PRECISIONS`. On the numba engine "auto" is the fastest whose
            divergence from float64 is within the model's limit, see `calibration`. On the triton engine it
            is f16; "f16-fast" and "bf16-fast" take the hardware's tanh, off by up to 2^-11 of its value.
        device: torch device of the reference and the triton engine; None is the CPU, for "triton"
            the current GPU.
        ranges: of the activations, for the integer precisions of the numba engine, also by the names
            of their parts; None or an empty mapping lets the model speak for about a second to find them.
        calibration: what each precision costs on this model; None leaves "auto" at float32.
        threads: of the numba engine, 1 or more: rows of a batch are spread over them, and one
            stream is shared by two. "auto" takes more than one only where it pays and cores are
            idle, and logs why. The samples are the same bit for bit.

    Raises:
        ConfigError: an engine or precision that does not exist; names the nearest.
        EngineUnavailableError: the engine cannot run this model or on this machine.
        ModelFileError: a weight is NaN or infinite.
    """
    if engine not in ENGINES:
        raise ConfigError(f'no engine "{engine}"; {did_you_mean(engine, ENGINES)}')
    family = model.config.family
    chosen = engine
    if engine == "auto":
        chosen, reason = _choose(family, precision, device)
        logger.info('engine "auto" is %s: %s', chosen, reason)
    if precision not in PRECISIONS[chosen]:
        raise ConfigError(f'the {chosen} engine has no precision "{precision}"; '
                          f"{did_you_mean(precision, PRECISIONS[chosen])}")
    threads = check_threads(threads)
    if chosen == "numba":
        return _numba(model, family, precision, device, ranges, threads, calibration)
    if threads not in (1, "auto"):
        raise ConfigError(f"the {chosen} engine runs on the threads torch is set to, found threads={threads}; "
                          f"leave it out, or set OMP_NUM_THREADS")
    if chosen == "triton":
        return _triton(model, family, precision, device)
    return _reference(model, family, precision, device)


def _choose(family: str, precision: str, device: str | None) -> tuple[str, str]:
    if family != "wavenet":
        return "reference", f"the fused engines run WaveNet, this model is {family}"
    if device is not None and not device.startswith("cpu"):
        if precision not in PRECISIONS["triton"]:
            return "reference", f'the only engine with precision {precision} on device "{device}"'
        reason = _why_no_triton(device)
        return ("triton", "the fastest on a GPU") if reason is None else ("reference", reason)
    if precision in PRECISIONS["reference"] and precision not in PRECISIONS["numba"]:
        return "reference", f"the only engine with precision {precision}"
    return "numba", "the fastest on a CPU"


def _numba(model: Any, family: str, precision: str, device: str | None,
           ranges: ActivationRanges | Mapping[str, Any] | None, threads: Threads,
           calibration: Calibration | None) -> AbstractEngine:
    if family != "wavenet":
        raise EngineUnavailableError(f'the numba engine runs WaveNet only, this model is "{family}"; '
                                     f'use engine="reference"')
    if device is not None and not device.startswith("cpu"):
        raise EngineUnavailableError(f'the numba engine runs on the CPU only, not on device "{device}"; '
                                     f'use engine="reference"')
    from wavegen.engines.calibration import own_ranges
    from wavegen.engines.numba_engine import NumbaEngine, speed_order
    from wavegen.engines.packing import network_of
    from wavegen.engines.precision import choose_precision

    network, choice = network_of(model), ""
    if precision == "auto":
        precision, choice = choose_precision(calibration, speed_order())
        logger.info("precision %s (%s)", precision, choice)
    if not isinstance(ranges, ActivationRanges):
        ranges = ActivationRanges(**ranges) if ranges else None
    if precision != "f32" and ranges is None:
        logger.info("no activation ranges come with this model: it speaks for a second to find its own")
        ranges = own_ranges(network, model, lambda: NumbaEngine(network))
    engine = NumbaEngine(network, ModelConditioning(model), precision=precision, ranges=ranges, threads=threads)
    engine.choice = choice
    return engine


def _why_no_triton(device: str) -> str | None:
    try:
        from wavegen.engines.triton_engine import find_device

        find_device(device)
    except (ImportError, ConfigError, EngineUnavailableError) as error:
        return f'the only engine that runs on device "{device}": {error}'
    return None


def _triton(model: Any, family: str, precision: str, device: str | None) -> AbstractEngine:
    if family != "wavenet":
        raise EngineUnavailableError(f'the triton engine runs WaveNet only, this model is "{family}"; '
                                     f'use engine="reference" with device="cuda"')
    try:
        from wavegen.engines.triton_engine import TritonEngine
    except ImportError as error:
        raise EngineUnavailableError(f"the triton engine needs the package triton, which exists for Linux only; it "
                                     f'cannot be imported here ({error}); use engine="numba"') from error
    from wavegen.engines.packing import network_of

    precision = "f16" if precision == "auto" else precision
    return TritonEngine(network_of(model), ModelConditioning(model), precision, device)


def _reference(model: Any, family: str, precision: str, device: str | None) -> AbstractEngine:
    from wavegen.engines.packing import network_of
    from wavegen.engines.reference import reference_engine

    network = network_of(model) if family == "wavenet" else None
    if network is None:
        _check_finite(model)
    return reference_engine(model, network, ModelConditioning(model), precision, device)


def _check_finite(model: Any) -> None:
    for name, value in model.named_parameters():
        if not np.isfinite(value.detach().cpu().float().numpy()).all():
            raise ModelFileError(f'parameter "{name}" holds NaN or infinity; the training has diverged, '
                                 f'use an earlier checkpoint')
