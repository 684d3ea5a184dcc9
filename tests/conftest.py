"""What all tests share: the folder of real recordings, the GPU mark, how hypothesis draws."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# The same code gets the same verdict: no deadline that a busy machine misses, no random examples.
settings.register_profile(
    "wavegen", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wavegen")

# A shell ignores SIGINT on behalf of what it runs in the background, and children would inherit that:
# the tests that interrupt a process need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU that torch can use on this machine"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real recordings: $WAVEGEN_TEST_DATA, else shared/data beside or in the checkout."""
    named = os.environ.get("WAVEGEN_TEST_DATA")
    places = [Path(named)] if named else [REPOSITORY.parent / "shared/data", REPOSITORY / "shared/data"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no recordings at {' or '.join(map(str, places))}; name their folder in $WAVEGEN_TEST_DATA")


@pytest.fixture(scope="session")
def fsdd_folder(data_folder: Path) -> Path:
    """Spoken digits: recordings/{digit}_{speaker}_{index}.wav."""
    return _below(data_folder, "fsdd")


@pytest.fixture(scope="session")
def kathleen_folder(data_folder: Path) -> Path:
    """One reader: data/*.flac at 16 kHz."""
    return _below(data_folder, "kathleen")


@pytest.fixture(scope="session")
def nasty_folder(data_folder: Path) -> Path:
    """Odd, broken and empty files, each described in MANIFEST.csv."""
    return _below(data_folder, "nasty")


def _below(data_folder: Path, name: str) -> Path:
    folder = data_folder / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} in {data_folder}")
    return folder
