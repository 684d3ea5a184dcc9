"""Every recipe is read, says what it costs, and trains for two steps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from helpers import write_tones
from wavegen.config import load_recipe
from wavegen.data.prepare import prepare
from wavegen.data.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("recipes/**/*.yaml"))
SMALL = [
    "training.max_steps=2",
    "training.samples_per_batch=2000",
    "training.validation_interval=2",
    "training.validation_batches=1",
    "training.sample_interval=0",
    "training.threads=1",
]


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_is_read_and_says_what_it_costs(path):
    recipe = load_recipe(REPOSITORY / path)
    assert recipe.name
    head = (REPOSITORY / path).read_text().split("name:")[0]
    assert re.search(r"#.*\d\s*(min|h)\b", head), f"{path}: say in a comment at the top what training costs"


@pytest.mark.parametrize("path", RECIPES)
@pytest.mark.parametrize("below", [".", "recordings"])
def test_a_recipe_finds_the_recordings_at_either_folder(path, below, tmp_path):
    recipe = load_recipe(REPOSITORY / path)
    data = write_tones(tmp_path / "data", ("7",), recipe.prepare.speakers or ("anna",), takes=(0, 5))
    prepare(recipe, data / below, tmp_path / "store", workers=1, progress=False)
    store = Store.open(tmp_path / "store")
    assert len(store.rows("train")) == len(store.rows("test")) == len(store.speakers)


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_trains_for_two_steps(path, tmp_path):
    training = pytest.importorskip("wavegen.training", reason="the train extra is not installed")
    recipe = load_recipe(REPOSITORY / path, SMALL)
    labels, speakers = recipe.prepare.labels or ("0", "1"), recipe.prepare.speakers or ("anna", "ben")
    data = write_tones(tmp_path / "data", labels[:3], speakers[:2], takes=(0, 5, 6))
    prepare(recipe, data / "recordings", tmp_path / "store", progress=False)
    checkpoint = training.fit(recipe, tmp_path / "store", tmp_path / "run")
    assert checkpoint.name == "step-2.ckpt"  # though it is far from a whole interval
    assert np.float32(1e-40) * np.float32(0.5) > 0, "training flushes denormals, and should stop when it ends"
