"""Weights a training begins with: those of a model folder, a bundled model, or another training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from wavegen.checkpoint import bundled_models, is_model, load_model
from wavegen.checkpoint.run import BEST, latest_checkpoint, read_checkpoint
from wavegen.config import Recipe, Vocabulary, parse
from wavegen.data.plan import differences
from wavegen.errors import ConfigError, did_you_mean

FREE = ("dropout",)  # of a model's configuration: may differ, the weights mean the same


def initial_weights(source: str | Path, recipe: Recipe, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The averaged weights of `source`, which must be a model of the recipe's sizes for the same audio.

    Args:
        source: name of a bundled model, a model folder, a run, or a checkpoint (.ckpt) of one.
        recipe: of the training that begins.
        vocabulary: of its store.

    Raises:
        ConfigError: there is no such thing, or it differs; every field that does is named with both values.
        ModelFileError: a model folder that is damaged.
    """
    found, weights = _read(source)
    wanted = _described(recipe, vocabulary)
    lines = differences(found, wanted)
    if lines:
        raise ConfigError(f"{source} cannot be the start of recipe {recipe.name}: {'; '.join(lines)} (there: {source}, "
                          "here: the recipe and its store). Give the recipe the same values, or train it from the "
                          "beginning")
    return weights


def _read(source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if is_model(source):
        loaded = load_model(source)
        return _described(loaded.spec, loaded.spec.vocabulary), loaded.model.state_dict()
    path: Path | None = Path(source)
    if (Path(source) / "checkpoints").is_dir():
        best = Path(source) / "checkpoints" / BEST
        path = best if best.is_file() else latest_checkpoint(Path(source))  # what export would take
        if path is None:
            raise ConfigError(f"{source} is a run without a checkpoint that can be read; train it further, or begin "
                              "with another one")
    if path is None or not path.is_file():
        raise ConfigError(f'there is nothing to begin with at "{source}": neither a bundled model, a model folder, a '
                          f"run nor a checkpoint; {did_you_mean(str(source), bundled_models())}")
    saved = read_checkpoint(path)["wavegen"]
    begun = parse(Recipe, saved["recipe"], f"the recipe in {path}")
    return _described(begun, parse(Vocabulary, saved["vocabulary"], f"the vocabulary in {path}")), saved["ema"]


def _described(described: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """What must be equal for weights to mean the same, of anything with `audio` and `model`."""
    audio, model = described.audio.model_dump(mode="json"), described.model.model_dump(mode="json")
    for part in (model, model.get("decoder", {})):
        for name in FREE:
            part.pop(name, None)
    told = described.model.conditioning
    names = {"labels": list(vocabulary.labels) if told.label else [],
             "speakers": list(vocabulary.speakers) if told.speaker else []}
    return {"audio": audio, "model": model, "vocabulary": names}
