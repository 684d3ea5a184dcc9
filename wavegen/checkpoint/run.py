"""The checkpoints of a training run: found newest first, and read without trust. Imports torch when one is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from wavegen.errors import ModelFileError

logger = logging.getLogger(__name__)

BEST = "best.ckpt"  # of a vocoder's run, by the copies it makes
PARTS = {"recipe", "vocabulary", "ema", "step", "store_digest"}  # what our part of a checkpoint holds at least


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run from the newest on, without the best."""
    return sorted((path for path in (run / "checkpoints").glob("*.ckpt") if path.name != BEST), key=_step_of,
                  reverse=True)


def newest_readable(paths: list[Path]) -> tuple[Path, dict[str, Any]] | None:
    """The first checkpoint that can be read, and what it holds; damaged ones are stepped over with a warning."""
    for path in paths:
        try:
            return path, read_checkpoint(path)
        except ModelFileError as error:
            logger.warning("%s; trying the one before", error)
    return None


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; damaged ones are stepped over with a warning."""
    found = newest_readable(checkpoints(run))
    return None if found is None else found[0]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds; our part is its key "wavegen".

    Raises:
        ModelFileError: it is missing, damaged, or not a checkpoint of `wavegen train`.
    """
    import torch

    try:
        # weights_only refuses everything but tensors and plain values: nothing in the file can run.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, depending on where the damage is
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"checkpoint {path} cannot be read: {first}") from error
    ours = checkpoint.get("wavegen") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or not set(ours) >= PARTS:
        raise ModelFileError(f"{path} is not a checkpoint of `wavegen train`")
    return dict(checkpoint)


def _step_of(path: Path) -> float:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else float("inf")  # last.ckpt
