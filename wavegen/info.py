"""What is installed, what works here and what is in a model: facts for `wavegen info`.

Everything is read from metadata and headers, so it takes a fraction of a second; torch is
imported only on request.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wavegen import __version__
from wavegen.audio.mel import matching_delay
from wavegen.audio.mel_formats import preset_of
from wavegen.checkpoint import bundled_models, find_model, read_shapes, read_spec
from wavegen.checkpoint.folder import WEIGHTS
from wavegen.errors import MissingBackendError

PACKAGES = (
    "torch",
    "torchaudio",
    "triton",
    "numpy",
    "numba",
    "soundfile",
    "soxr",
    "librosa",
    "safetensors",
    "lightning",
    "matplotlib",
)
TORCH_FOR_TORCHAUDIO = ((2, 11), (2, 15))  # from, below


def describe_installation(full: bool = False) -> dict[str, Any]:
    """Versions, engines usable here and why not, torchaudio, bundled models.

    Args:
        full: import torch and torchaudio to be sure, which takes seconds.
    """
    return {
        "wavegen": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "packages": {name: _version(name) for name in PACKAGES},
        "engines": _engines(),
        "torchaudio": _torchaudio(full),
        "models": list(bundled_models()),
    }


def describe_model(name_or_path: str | Path) -> dict[str, Any]:
    """The facts of a model's card, from its config and the header of its weights.

    Raises:
        ModelFileError: as `load_model` would, but for what only the weights themselves show.
    """
    folder = find_model(name_or_path)
    spec, shapes = read_spec(folder), read_shapes(folder)
    told = spec.model.conditioning
    quartiles = [three for row in spec.vocabulary.durations for three in row]
    facts: dict[str, Any] = {
        "name": spec.name,
        "path": str(folder),
        "wavegen_version": spec.wavegen_version,
        "family": spec.model.family,
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sample_rate": spec.audio.sample_rate,
        "quantization_channels": spec.audio.quantization_channels,
        "codec": spec.audio.codec,
        "labels": list(spec.vocabulary.labels) if told.label else [],
        "speakers": list(spec.vocabulary.speakers) if told.speaker else [],
        "seconds": [
            round(value / spec.audio.sample_rate, 3)
            for value in (min(q[0] for q in quartiles), max(q[2] for q in quartiles))
        ]
        if quartiles and spec.model.family not in ("wgan", "vae") and not spec.is_vocoder
        else None,
        "model": spec.model.model_dump(mode="json"),
        "training": spec.training,
        "calibration": None if spec.calibration is None else spec.calibration.model_dump(mode="json"),
        "weights_sha256": spec.weights_sha256,
    }
    if spec.is_vocoder:
        assert spec.audio.mel is not None
        frame = spec.audio.mel.hop_length / spec.audio.sample_rate
        lookahead = spec.lookahead_frames + matching_delay(spec.audio.mel, spec.sampling.matching)
        facts["vocoder"] = {
            "mel": spec.audio.mel.model_dump(mode="json"),
            "mel_preset": preset_of(spec.audio.mel),
            "signal_path": spec.audio.signal_path,
            "lpc_order": spec.audio.lpc_order if spec.audio.signal_path == "lpc" else None,
            "preemphasis": spec.audio.preemphasis,
            "frame_ms": round(1000 * frame, 3),
            "lookahead_frames": lookahead,
            "lookahead_ms": round(1000 * frame * lookahead, 3),
            "sampling": spec.sampling.model_dump(mode="json"),
        }
    if spec.model.family == "wavenet":
        facts["receptive_field"] = spec.model.receptive_field
    elif spec.model.family in ("wgan", "vae"):
        facts["num_samples"] = spec.model.num_samples  # of every clip
    return facts


def _engines() -> dict[str, dict[str, Any]]:
    """For each engine whether it can run here, and if not, why not."""
    torch, numba, triton = _version("torch"), _version("numba"), _version("triton")
    gpus = _gpus()
    return {
        "reference": _state(torch is not None, "any device torch can use", "torch is not installed"),
        "numba": _state(numba is not None and torch is not None, "any CPU", "numba is not installed"),
        "triton": _state(torch is not None and triton is not None and gpus > 0,
                         f"{gpus} NVIDIA GPU{'s' * (gpus > 1)}, of compute capability 8.0 or newer",
                         "triton is not installed" if triton is None else "no NVIDIA GPU"),
    }


def _gpus() -> int:
    """NVIDIA GPUs the driver knows, asked without torch; 0 where there is no driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def _state(usable: bool, note: str, reason: str) -> dict[str, Any]:
    return {"usable": True, "note": note} if usable else {"usable": False, "reason": reason}


def _torchaudio(full: bool) -> dict[str, Any]:
    if full:
        from wavegen.integrations.torchaudio import import_torchaudio

        try:
            import_torchaudio("torchaudio")
        except MissingBackendError as error:
            return {"version": _version("torchaudio"), "usable": False, "reason": str(error)}
        return {"version": _version("torchaudio"), "usable": True}
    reason = _why_no_torchaudio()
    return {"version": _version("torchaudio"), "usable": reason is None} | (
        {"reason": reason} if reason else {}
    )


def _why_no_torchaudio() -> str | None:
    """Judged by versions and files; only an import is certain."""
    torch = _version("torch")
    if _version("torchaudio") is None:
        return "torchaudio is not installed"
    if torch is None:
        return "torch is not installed"
    numbers = tuple(int(number) for number in re.findall(r"\d+", torch)[:2])
    first, beyond = TORCH_FOR_TORCHAUDIO
    if not first <= numbers < beyond:
        return f'torchaudio 2.11 needs torch >=2.11,<2.15, found {torch}: pip install "torch>=2.11,<2.15"'
    if not _torch_has_cuda_libraries():
        return f"torchaudio 2.11 needs a torch wheel with CUDA libraries, found torch {torch} for CPU only"
    return None


def _torch_has_cuda_libraries() -> bool:
    found = find_spec("torch")  # finds the package without running it
    if found is None or found.origin is None:
        return False
    return any((Path(found.origin).parent / "lib").glob("*torch_cuda*"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    except OSError:
        pass
    vectors = [flag for flag in ("avx2", "fma", "avx512f", "avx512_vnni", "amx_tile") if flag in flags]
    return {
        "name": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vectors": vectors,
    }
