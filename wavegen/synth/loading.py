"""From the name of a model to what speaks with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from wavegen.checkpoint import load_model
from wavegen.errors import ConfigError
from wavegen.synth.synthesizer import Synthesizer
from wavegen.synth.vocoder import Vocoder


@overload
def load(model: Literal["digits", "drums", "notes"], engine: str = ..., precision: str = ..., device: str | None = ...,
         threads: int | str = ...) -> Synthesizer: ...


@overload
def load(model: Literal["kathleen"], engine: str = ..., precision: str = ..., device: str | None = ...,
         threads: int | str = ...) -> Vocoder: ...


@overload
def load(model: str | Path, engine: str = ..., precision: str = ..., device: str | None = ...,
         threads: int | str = ...) -> Synthesizer | Vocoder: ...


def load(model: str | Path, engine: str = "auto", precision: str = "auto", device: str | None = None,
         threads: int | str = 1) -> Synthesizer | Vocoder:
    """A model ready to speak: a `Vocoder` if it turns a mel into audio, else a `Synthesizer`.

    Where you know which, `load_vocoder` and `load_synthesizer` tell a type checker, too.

    Args:
        model: name of a bundled model such as "digits", or the path of a model folder.
        engine: "auto" (logs its choice), "reference", "numba" or "triton".
        precision: "auto", or what the engine offers.
        device: for the reference and the triton engine, such as "cpu" or "cuda".
        threads: of the numba engine, or "auto" for as many as pay; the sound is the same.

    Raises:
        ModelFileError: the model is missing, damaged or not one of ours.
        EngineUnavailableError: the engine asked for cannot run here.
        ConfigError: no engine or precision of that name, or no such number of threads.
    """
    loaded = load_model(model)
    kind = Vocoder if loaded.spec.is_vocoder else Synthesizer
    return kind(loaded, engine, precision, device, threads)


def load_synthesizer(model: str | Path, engine: str = "auto", precision: str = "auto", device: str | None = None,
                     threads: int | str = 1) -> Synthesizer:
    """`load` of a model that is told what to say; ConfigError if it is a vocoder."""
    loaded = load_model(model)
    if loaded.spec.is_vocoder:
        raise ConfigError(f'model "{loaded.spec.name}" is a vocoder: it turns a mel into audio and is told no label')
    return Synthesizer(loaded, engine, precision, device, threads)


def load_vocoder(model: str | Path, engine: str = "auto", precision: str = "auto", device: str | None = None,
                 threads: int | str = 1) -> Vocoder:
    """`load` of a vocoder; ConfigError if it is none."""
    loaded = load_model(model)
    if not loaded.spec.is_vocoder:
        raise ConfigError(f'model "{loaded.spec.name}" is no vocoder: it is a {loaded.spec.model.family} that is told '
                          "no mel")
    return Vocoder(loaded, engine, precision, device, threads)
