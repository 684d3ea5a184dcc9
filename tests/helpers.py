"""What several tests need: small data where real recordings are not needed, scripts, a full disk."""

from __future__ import annotations

import importlib.util
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile


def write_tones(
    folder: Path,
    labels: tuple[str, ...] = ("0", "1", "2"),
    speakers: tuple[str, ...] = ("anna", "ben"),
    takes: Iterable[int] = range(6),
    sample_rate: int = 8000,
    num_samples: int = 900,
) -> Path:
    """Write a data set in the layout of the spoken digits: recordings/{label}_{speaker}_{take}.wav.

    Every clip is a decaying tone whose pitch depends on label and speaker, plus a little noise;
    lengths differ by up to 20 %. The same arguments write the same bytes.
    """
    recordings = folder / "recordings"
    recordings.mkdir(parents=True)
    for row, label in enumerate(labels):
        for column, speaker in enumerate(speakers):
            for take in takes:
                rng = np.random.default_rng([row, column, take])
                time = np.arange(int(num_samples * rng.uniform(0.8, 1.0))) / sample_rate
                tone = np.sin(2 * np.pi * (200 + 90 * row + 35 * column) * time) * np.exp(-8 * time)
                clip = 0.5 * tone + 0.01 * rng.standard_normal(len(time))
                soundfile.write(recordings / f"{label}_{speaker}_{take}.wav", clip, sample_rate)
    return folder


def load_script(path: str) -> ModuleType:
    """A script of the repository as a module, such as load_script("recipes/fsdd/prepare.py")."""
    place = Path(__file__).resolve().parents[1] / path
    spec = importlib.util.spec_from_file_location("script_" + "_".join(place.parts[-2:])[:-3], place)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond `num_bytes`: Python ignores the signal, so writing fails as on a full disk.

    For the inside of a test only, not for a fixture: the limit holds for the file pytest reports to as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
