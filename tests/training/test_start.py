"""What a training can begin with: models, runs, checkpoints, and what must fit."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.training.conftest import tiny_recipe
from wavegen.checkpoint import export_run, load_model
from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.config import Recipe
from wavegen.errors import ConfigError, ModelFileError
from wavegen.training import fit
from wavegen.training.start import initial_weights
from wavegen.training.trainer import build_vocabulary

STANDING = {"max_steps": 1, "checkpoint_interval": 1, "optimizer": {"muon_lr": 1e-9, "adamw_lr": 1e-9}}


@pytest.fixture(scope="module")
def first(tiny_store, tmp_path_factory):
    """A run of a few steps, and the model folder made of it."""
    folder = tmp_path_factory.mktemp("first")
    fit(tiny_recipe(max_steps=4), tiny_store, folder / "run")
    export_run(folder / "run", folder / "model")
    return folder


def changed(path: str, value) -> Recipe:
    values = tiny_recipe().model_dump()
    *steps, last = path.split(".")
    place = values
    for step in steps:
        place = place[step]
    place[last] = value
    return Recipe.model_validate(values)


@pytest.mark.parametrize("kind", ["run", "model", "checkpoint"])
def test_fine_tuning_begins_with_the_averaged_weights(first, tiny_store, tmp_path, kind):
    source = latest_checkpoint(first / "run") if kind == "checkpoint" else first / kind
    fit(tiny_recipe(**STANDING), tiny_store, tmp_path / "tuned", init_from=source)
    tuned = read_checkpoint(latest_checkpoint(tmp_path / "tuned"))["wavegen"]["ema"]
    base = load_model(first / "model").model.state_dict()
    assert all(torch.allclose(tuned[name], base[name], atol=1e-6) for name in base)


def test_of_a_run_the_best_checkpoint_is_taken_where_there_is_one(first, tiny_store, tmp_path):
    from wavegen.data.store import Store

    shutil.copytree(first / "run", tmp_path / "run")
    content = read_checkpoint(latest_checkpoint(first / "run"))
    content["wavegen"]["ema"] = {name: value + 1 for name, value in content["wavegen"]["ema"].items()}
    torch.save({"wavegen": content["wavegen"]}, tmp_path / "run/checkpoints/best.ckpt")
    vocabulary = build_vocabulary(Store.open(tiny_store))
    last, best = (initial_weights(run, tiny_recipe(), vocabulary) for run in (first / "run", tmp_path / "run"))
    assert all(torch.equal(best[name], last[name] + 1) for name in last)


def test_a_resumed_fine_tuning_goes_on_from_its_own_weights(first, tiny_store, tmp_path):
    fit(tiny_recipe(max_steps=2, checkpoint_interval=2), tiny_store, tmp_path / "run", init_from=first / "model")
    before = latest_checkpoint(tmp_path / "run")
    # The model it began with may be gone by then.
    assert fit(tiny_recipe(max_steps=2, checkpoint_interval=2), tiny_store, tmp_path / "run", resume="auto",
               init_from=first / "gone") == before


@pytest.mark.parametrize(("path", "value"), [
    ("model.skip_channels", 9), ("model.input_taps", 5), ("model.conditioning.progress_steps", 5),
    ("audio.quantization_channels", 128),
    ("audio.mel", {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 20}),
])
def test_a_field_that_differs_is_named_with_both_values(first, tiny_store, path, value):
    from wavegen.data.store import Store

    vocabulary = build_vocabulary(Store.open(tiny_store))
    name = path.rpartition(".")[2]
    with pytest.raises(ConfigError, match=rf"cannot be the start of recipe tiny: \S*{name}\S* is .* there, .* here"):
        initial_weights(first / "model", changed(path, value), vocabulary)
    with pytest.raises(ConfigError, match=r"vocabulary\.speakers is .*ben.* there, .*carl.* here"):
        initial_weights(first / "run", tiny_recipe(), vocabulary.model_copy(update={"speakers": ("anna", "carl")}))
    assert initial_weights(first / "model", changed("model.dropout", 0.3), vocabulary)


def test_what_is_nothing_to_begin_with_is_named(first, tiny_store, tmp_path):
    for source in ("digitz", tmp_path, tmp_path / "gone.ckpt"):
        with pytest.raises(ConfigError, match=r"nothing to begin with at .*neither a bundled model"):
            fit(tiny_recipe(), tiny_store, tmp_path / "run", init_from=source)
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="without a checkpoint"):
        fit(tiny_recipe(), tiny_store, tmp_path / "run", init_from=tmp_path / "empty")
    shutil.copytree(first / "model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelFileError, match="safetensors"):
        fit(tiny_recipe(), tiny_store, tmp_path / "run", init_from=tmp_path / "model")
    assert not (tmp_path / "run").exists(), "a training that cannot begin leaves nothing"
