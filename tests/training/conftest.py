"""A tiny recipe and its store, shared by the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_tones
from wavegen.config import Recipe
from wavegen.data.prepare import prepare

RECIPE = {
    "name": "tiny",
    "audio": {"sample_rate": 8000},
    "prepare": {"pattern": r"recordings/(?P<label>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav",
                "splits": {"test": {"index": ["0"]}}},
    "model": {"family": "wavenet", "residual_channels": 8, "skip_channels": 8, "output_channels": 8,
              "dilations": [1, 2, 4, 8], "input_taps": 4, "dropout": 0.1,
              "conditioning": {"label": True, "speaker": True, "hidden_channels": 8, "progress_steps": 4}},
    "training": {"max_steps": 24, "samples_per_batch": 4000, "tail_samples": 80, "checkpoint_interval": 4,
                 "validation_interval": 12, "log_interval": 4, "threads": 1, "precision": "bf16",
                 "optimizer": {"warmup_steps": 2}},
}


def tiny_recipe(**training) -> Recipe:
    return Recipe.model_validate({**RECIPE, "training": {**RECIPE["training"], **training}})


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    prepare(tiny_recipe(), write_tones(folder / "data"), folder / "store", workers=0, progress=False)
    return folder / "store"
