"""torchaudio, imported only where it is needed and only through here.

torchaudio 2.11 raises at import beside torch 2.15, and without the CUDA libraries of a full
torch wheel. Nothing that prepares, trains, evaluates or speaks depends on it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from wavegen.errors import MissingBackendError


def import_torchaudio(feature: str) -> ModuleType:
    """The torchaudio package.

    Args:
        feature: what needs it, for the message: "the download of LJSpeech".

    Raises:
        MissingBackendError: it is missing, or cannot be loaded with the torch that is installed.
    """
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        cause = lines[0] if lines else type(error).__name__
        raise MissingBackendError(
            f"torchaudio {_version('torchaudio')} cannot be loaded with torch {_version('torch')} ({cause}). "
            f"Synthesis, training and evaluation do not need it. To use {feature}: "
            'pip install "torch>=2.11,<2.15" torchaudio==2.11.0, or pass --data DIR with the files already '
            "unpacked."
        ) from error


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
