"""A store of tones, a judge of them and a tiny model that knows their names."""

from __future__ import annotations

import pytest

from stores import tones_store
from tiny import save_tiny
from wavegen.engines.numba_engine import KERNELS_VARIABLE
from wavegen.metrics.judge_training import train_judge


@pytest.fixture(scope="module")
def plain_kernels():
    """Plain loops are compiled once for all shapes and precisions, vector loops for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KERNELS_VARIABLE, "plain")
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return tones_store(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def judges(tmp_path_factory, store):
    """A folder of two judges that have learned next to nothing."""
    folder = tmp_path_factory.mktemp("judges")
    for name in ("augmented", "clean"):
        train_judge(store, augmented=name == "augmented", epochs=1).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")
