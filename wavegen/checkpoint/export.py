"""From a training run to a model folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wavegen.checkpoint.weights import compare_shapes, save_model
from wavegen.config import ModelFolder, Recipe, SamplingDefaults, Vocabulary, parse
from wavegen.errors import ConfigError, ModelFileError

logger = logging.getLogger(__name__)

BEST = "best.ckpt"  # of a vocoder's run, by the copies it makes


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
        return best, _read_checkpoint(best)
    found = sorted((path for path in (run / "checkpoints").glob("*.ckpt") if path.name != BEST), key=_step_of,
                   reverse=True)
    if not found:
        raise ModelFileError(
            f"{run} holds no checkpoint (checkpoints/*.ckpt): not a training run, or one that has not come that far"
        )
    problems = []
    for path in found:
        try:
            return path, _read_checkpoint(path)
        except ModelFileError as error:
            logger.warning("%s", error)
            problems.append(error)
    raise problems[0]


def _step_of(path: Path) -> float:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else float("inf")  # last.ckpt


def _read_checkpoint(path: Path) -> dict[str, Any]:
    import torch

    try:
        # weights_only refuses everything but tensors and plain values: nothing in the file can run.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, depending on where the damage is
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path} cannot be read: {first}") from error
    ours = checkpoint.get("wavegen") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or not {"recipe", "vocabulary", "ema", "step", "store_digest"} <= set(ours):
        raise ModelFileError(f"{path} is not a checkpoint of `wavegen train`")
    return ours


def _figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What training measured last, for the card."""
    return {
        str(key): round(float(value), 4)
        for key, value in metrics.items()
        if key != "step" and isinstance(value, (int, float))
    }
