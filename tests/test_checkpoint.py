"""A model folder is read back as it was written, and every damage is one clear error."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import save_tiny, tiny_model, tiny_spec
from wavegen.checkpoint import export_run, find_model, load_model, read_shapes, read_spec, save_model
from wavegen.checkpoint import folder as folders
from wavegen.checkpoint import weights as weight_files
from wavegen.config import OptimizerConfig, Recipe, SamplingDefaults, TrainingConfig
from wavegen.errors import ConfigError, ModelFileError, WavegenError


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "tiny")


def rewrite_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_vocabulary(folder: Path, **changes: object) -> None:
    vocabulary = json.loads((folder / "config.json").read_text())["vocabulary"]
    rewrite_config(folder, vocabulary={**vocabulary, **changes})


def rewrite_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    rewrite_config(folder, weights_sha256=digest)


def test_a_model_is_read_back_as_it_was_written(folder):
    spec = tiny_spec()
    loaded = load_model(folder)
    assert loaded.spec.model_copy(update={"weights_sha256": ""}) == spec
    assert not loaded.model.training
    for name, value in tiny_model(spec).state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])


def test_the_same_model_gives_the_same_bytes(folder, tmp_path):
    again = save_tiny(tmp_path / "other" / "tiny")
    assert sorted(path.name for path in again.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_the_weights_carry_the_config_too(folder):
    header = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    inside = json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["wavegen"])
    assert inside == {**json.loads((folder / "config.json").read_text()), "weights_sha256": ""}


def test_the_checksum_is_that_of_the_weights(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert read_spec(folder).weights_sha256 == digest


def test_the_card_says_how_to_speak(folder):
    card = (folder / "README.md").read_text()
    assert "wavegen synth PATH/OF/THIS/FOLDER --label 0 --speaker anna -o out.wav" in card
    assert "validation_bits: 5.5" in card


def test_half_precision_halves_the_file(tmp_path):
    spec = tiny_spec()
    whole, half = tmp_path / "whole", tmp_path / "half"
    save_model(whole, tiny_model(spec), spec)
    save_model(half, tiny_model(spec), spec, dtype="float16")
    sizes = [(path / "model.safetensors").stat().st_size for path in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    weights = load_model(half).model.state_dict()
    assert all(value.dtype == torch.float32 for value in weights.values())
    torch.testing.assert_close(weights, dict(tiny_model(spec).state_dict()), rtol=1e-3, atol=1e-5)


def test_loading_leaves_the_random_numbers_alone(folder):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), wanted)


def test_a_bundled_name_comes_before_a_path(tmp_path, monkeypatch):
    save_tiny(tmp_path / "assets" / "digits")
    save_tiny(tmp_path / "here" / "digits")
    monkeypatch.setattr(folders, "ASSETS", tmp_path / "assets")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model("digits") == tmp_path / "assets" / "digits"
    assert find_model("./digits") == Path("digits")
    assert find_model(tmp_path / "here" / "digits" / "config.json") == tmp_path / "here" / "digits"


def test_an_unknown_name_is_told_the_nearest(tmp_path, monkeypatch):
    save_tiny(tmp_path / "digits")
    monkeypatch.setattr(folders, "ASSETS", tmp_path)
    with pytest.raises(ModelFileError, match=r'no model "digit": .*did you mean "digits"'):
        load_model("digit")


def cut_in_half(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def cut_in_the_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def one_bit_flipped(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def weights_are_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"embedding": [1.0]}, protocol=4))


def weights_are_a_torch_file(folder: Path) -> None:
    torch.save({"embedding": torch.zeros(3)}, folder / "model.safetensors")


def a_tensor_is_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["skip_weight"]
    rewrite_weights(folder, weights)


def a_tensor_is_extra(folder: Path) -> None:
    rewrite_weights(folder, {**load_file(folder / "model.safetensors"), "skip_wieght": torch.zeros(2)})


def a_shape_is_wrong(folder: Path) -> None:
    rewrite_weights(folder, {**load_file(folder / "model.safetensors"), "skip_bias": torch.zeros(9)})


def a_weight_is_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["skip_bias"][3] = float("nan")
    rewrite_weights(folder, weights)


def weights_are_integers(folder: Path) -> None:
    rewrite_weights(folder, {**load_file(folder / "model.safetensors"), "skip_bias": torch.zeros(8, dtype=torch.int64)})


def sizes_are_absurd(folder: Path) -> None:
    model = json.loads((folder / "config.json").read_text())["model"]
    rewrite_config(folder, model={**model, "residual_channels": 10**8})


def config_key_is_unknown(folder: Path) -> None:
    model = json.loads((folder / "config.json").read_text())["model"]
    rewrite_config(folder, model={**model, "residual_chanels": 8})


DAMAGES = [
    (lambda folder: (folder / "config.json").unlink(), "not a model folder: it has no config.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read as JSON"),
    (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"),
        "config.json cannot be read as JSON",
    ),
    (lambda folder: (folder / "config.json").write_text("[1]"), "not the config of a wavegen model"),
    (
        lambda folder: (folder / "config.json").write_text('{"architectures": []}'),
        "not the config of a wavegen model",
    ),
    (lambda folder: rewrite_config(folder, format_version=2), "format version 2.* upgrade"),
    (lambda folder: rewrite_config(folder, audio={"sample_rate": 0}), '"audio.sample_rate".*greater than 0'),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "its 0 bytes are too few"),
    (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"not json at all."),
        "not a whole saf",
    ),
    (lambda folder: rewrite_vocabulary(folder, durations=[[[1, 2, 3]]]), "a row for each of 3 labels"),
    (
        lambda folder: rewrite_vocabulary(folder, durations=[[[1, 2, 3], [3, 2, 1]]] * 3),
        "they must be above 0 and rise",
    ),
    (config_key_is_unknown, 'unknown key "model.residual_chanels".*did you mean "residual_channels"'),
    (cut_in_half, "damaged: it has .* bytes of weights, its header promises"),
    (cut_in_the_header, "its 100 bytes are too few"),
    (one_bit_flipped, "its sha256 is not the one in config.json"),
    (weights_are_a_pickle, "is a pickle under another name"),
    (weights_are_a_torch_file, "is a pickle under another name"),
    (a_tensor_is_missing, "lacks skip_weight"),
    (a_tensor_is_extra, "unknown skip_wieght"),
    (a_shape_is_wrong, "skip_bias is 9, wanted 8"),
    (a_weight_is_nan, "skip_bias hold NaN"),
    (weights_are_integers, "I64 numbers in skip_bias"),
    (sizes_are_absurd, "do not fit its config"),
]


@pytest.mark.parametrize(("damage", "complaint"), DAMAGES)
def test_every_damage_is_one_clear_error(folder, damage, complaint):
    damage(folder)
    with pytest.raises(ModelFileError, match=complaint) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.exit_code == 3


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model"])
def test_a_pickle_given_as_a_model_is_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ModelFileError, match="a pickle, which can run code"):
        load_model(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_run_given_as_a_model_is_told_to_export(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelFileError, match="is a training run; run `wavegen export"):
        load_model(tmp_path)


def test_another_file_given_as_a_model_says_what_a_model_is(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelFileError, match=r"a model is a folder with config\.json"):
        load_model(tmp_path / "notes.txt")


def test_saving_replaces_a_model_folder_and_nothing_else(folder, tmp_path):
    save_tiny(folder)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")
    (other / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="is not a model folder"):
        save_tiny(other)
    assert (other / "chapter1.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis", "tiny"]


def test_a_save_that_fails_leaves_the_old_folder(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, "_write", full)
    with pytest.raises(WavegenError, match="No space left on device"):
        save_tiny(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    spec = tiny_spec()
    model = tiny_model(spec)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(ModelFileError, match="NaN or infinite"):
        save_model(tmp_path / "bad", model, spec)
    assert not any(tmp_path.iterdir())


def test_shapes_are_read_without_the_weights(folder):
    wanted = {name: tuple(value.shape) for name, value in load_model(folder).model.state_dict().items()}
    assert read_shapes(folder) == wanted


@pytest.fixture
def run(tmp_path):
    """A run folder as the trainer leaves it."""
    spec = tiny_spec()
    recipe = Recipe(
        name="tones",
        audio=spec.audio,
        model=spec.model,
        training=TrainingConfig(max_steps=30, seed=7, optimizer=OptimizerConfig()),
    )
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (9, 10):
        ours = {
            "recipe": recipe.model_dump(mode="json"),
            "vocabulary": spec.vocabulary.model_dump(mode="json"),
            "ema": tiny_model(spec, seed=step).state_dict(),
            "step": step,
            "store_digest": "abc",
            "metrics": {"validation_bits": 5.25, "step": 8},
        }
        torch.save({"wavegen": ours, "state_dict": {}}, folder / f"step-{step}.ckpt")
    return folder.parent


def test_export_takes_the_averaged_weights_of_the_last_checkpoint(run, tmp_path):
    spec = export_run(run, tmp_path / "model")
    assert spec.name == "tones"
    assert spec.training == {
        "recipe": "tones",
        "steps": 10,
        "seed": 7,
        "store_digest": "abc",
        "validation_bits": 5.25,
    }
    weights = load_model(tmp_path / "model").model.state_dict()
    wanted = tiny_model(tiny_spec(), seed=10).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in weights.items())


def test_export_says_how_the_model_draws_by_default(run, tmp_path):
    assert export_run(run, tmp_path / "model").sampling == SamplingDefaults()
    spec = export_run(run, tmp_path / "cool", sampling={"temperature": 0.8, "matching": 2})
    assert read_spec(tmp_path / "cool").sampling == spec.sampling == SamplingDefaults(temperature=0.8, matching=2)
    with pytest.raises(ConfigError, match='sampling: "temperature"'):
        export_run(run, tmp_path / "frozen", sampling={"temperature": 0.0})


def test_half_precision_is_kept_and_told(run, tmp_path):
    export_run(run, tmp_path / "whole")
    export_run(run, tmp_path / "half", dtype="float16")
    whole, half = load_model(tmp_path / "whole"), load_model(tmp_path / "half")
    assert (whole.dtype, half.dtype) == ("float32", "float16")
    for name, value in half.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_export_steps_over_a_damaged_checkpoint(run, tmp_path, caplog):
    os.truncate(run / "checkpoints" / "step-10.ckpt", 1000)
    assert export_run(run, tmp_path / "model", name="other").training["steps"] == 9
    assert "step-10.ckpt cannot be read" in caplog.text
    assert read_spec(tmp_path / "model").name == "other"


def test_export_of_no_run_says_what_is_missing(tmp_path):
    with pytest.raises(ModelFileError, match="no training run"):
        export_run(tmp_path / "none", tmp_path / "model")
    with pytest.raises(ModelFileError, match="holds no checkpoint"):
        export_run(tmp_path, tmp_path / "model")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-1.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ModelFileError, match=r"no checkpoint of .* can be read"):
        export_run(tmp_path, tmp_path / "model")
    assert not (tmp_path / "exploded").exists()
