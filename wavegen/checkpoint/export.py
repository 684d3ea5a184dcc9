"""From a training run to a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wavegen.checkpoint.run import BEST, checkpoints, newest_readable, read_checkpoint
from wavegen.checkpoint.weights import compare_shapes, save_model
from wavegen.config import ModelFolder, Recipe, SamplingDefaults, Vocabulary, parse
from wavegen.errors import ConfigError, ModelFileError


def export_run(
    run: str | Path,
    out: str | Path,
    name: str | None = None,
    card: str | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    checkpoint: Literal["best", "last"] | None = None,
    sampling: Mapping[str, float] | None = None,
) -> ModelFolder:
    """Turn a training run into a model folder, with the averaged weights of one of its checkpoints.

    Args:
        run: folder `wavegen train` wrote.
        out: model folder to write.
        name: None takes the recipe's.
        checkpoint: "best" is the one whose copies of held-out clips were the most intelligible, which a vocoder's
            run has (`training.copy_clips`); "last" the newest. None is the best where there is one, else the last.
        sampling: fields of `SamplingDefaults` that take the place of the recipe's.

    Raises:
        ModelFileError: no run, no checkpoint, or a damaged one.
        ConfigError: the best is asked for and the run has none, or another word than best and last.
    """
    from wavegen import __version__
    from wavegen.models import build_model

    path, ours = _checkpoint(Path(run), checkpoint)
    try:
        recipe = parse(Recipe, ours["recipe"], f"the recipe in {path}")
        vocabulary = parse(Vocabulary, ours["vocabulary"], f"the vocabulary in {path}")
        model = build_model(recipe.model, recipe.audio, vocabulary)
    except ConfigError as error:
        raise ModelFileError(str(error)) from error
    state = model.state_dict()
    compare_shapes(
        {key: tuple(value.shape) for key, value in ours["ema"].items()},
        {key: tuple(value.shape) for key, value in state.items()},
        path,
    )
    model.load_state_dict(ours["ema"])
    facts = {
        "recipe": recipe.name,
        "steps": int(ours["step"]),
        "seed": recipe.training.seed,
        "store_digest": str(ours["store_digest"]),
        **_figures(ours.get("metrics", {})),
    }
    spec = ModelFolder(
        wavegen_version=__version__,
        name=name or recipe.name,
        audio=recipe.audio,
        model=recipe.model,
        vocabulary=vocabulary,
        sampling=parse(SamplingDefaults, {**recipe.sampling.model_dump(), **(sampling or {})}, "sampling"),
        training=facts,
    )
    save_model(out, model, spec, card, dtype)
    return spec


def _checkpoint(run: Path, which: str | None) -> tuple[Path, dict[str, Any]]:
    """The best checkpoint of a run, or the newest that can be read, and our part of it."""
    if which not in (None, "best", "last"):
        raise ConfigError(f'checkpoint must be best or last, found "{which}"')
    if not run.is_dir():
        raise ModelFileError(f"no training run at {run}; `wavegen train` makes one")
    best = run / "checkpoints" / BEST
    if which == "best" and not best.is_file():
        raise ConfigError(f"{run} has no best checkpoint: its recipe makes no copies of held-out clips "
                          "(training.copy_clips); export the last one")
    if which != "last" and best.is_file():
        return best, read_checkpoint(best)["wavegen"]
    found = checkpoints(run)
    if not found:
        raise ModelFileError(
            f"{run} holds no checkpoint (checkpoints/*.ckpt): not a training run, or one that has not come that far"
        )
    readable = newest_readable(found)
    if readable is None:
        raise ModelFileError(f"no checkpoint of {run} can be read ({len(found)} found; the warnings say why)")
    return readable[0], readable[1]["wavegen"]


def _figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What training measured last, for the card."""
    return {
        str(key): round(float(value), 4)
        for key, value in metrics.items()
        if key != "step" and isinstance(value, (int, float))
    }
