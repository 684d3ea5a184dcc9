"""The errors wavegen raises: each knows the exit code the command line ends with.

A message says what was found, what was wanted and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WavegenError(Exception):
    """Base of every error wavegen raises on purpose; exit code 1."""

    exit_code = 1


class ConfigError(WavegenError, ValueError):
    """A wrong option, key or value in a call or a configuration; exit code 2."""

    exit_code = 2


class BadInputError(WavegenError, ValueError):
    """Input data that cannot be used; exit code 3."""

    exit_code = 3


class AudioError(BadInputError):
    """An audio file or waveform that cannot be used."""


class MelMismatch(BadInputError):
    """A mel spectrogram of another kind than the model was trained on."""


class StoreError(BadInputError):
    """A store that is missing, damaged or does not fit the model."""


class ModelFileError(BadInputError):
    """A model folder or checkpoint that is missing, damaged or not ours."""


class EngineUnavailableError(WavegenError):
    """The engine asked for cannot run on this machine; exit code 4."""

    exit_code = 4


class MissingBackendError(WavegenError):
    """An optional package is missing or cannot be loaded here; exit code 4."""

    exit_code = 4


class TrainingError(WavegenError):
    """Training stopped because it could not go on; the last good checkpoint is kept."""


class PartialFailureError(WavegenError):
    """Part of a batch failed; the rest is done. Exit code 5."""

    exit_code = 5


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest valid one, then all of them.

    >>> did_you_mean("georg", ["george", "theo"])
    'did you mean "george"? Known: george, theo'
    """
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    known = "Known: " + (", ".join(names) if names else "none")
    return f'did you mean "{near[0]}"? {known}' if near else known
