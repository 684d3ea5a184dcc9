"""Checkpoints of a running training: atomic, and never trusted blindly when read back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from wavegen.audio.atomic import replacing
from wavegen.errors import ConfigError, TrainingError

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then renames: a killed run leaves the old file or the new one.

    Whatever Lightning asks for (before 2.6 its `fit` could not be told), nothing that is read is unpickled.
    """

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(target) as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"cannot write checkpoint {target}: {error}; the checkpoints before it are intact, "
                                "free some space and continue with --resume auto") from error


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; damaged ones are stepped over with a warning."""
    found = sorted((run / "checkpoints").glob("step-*.ckpt"), key=_step_of, reverse=True)
    for path in found:
        try:
            read_checkpoint(path)
            return path
        except ConfigError as error:
            logger.warning("%s; trying the one before", error)
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a training checkpoint without unpickling code.

    Raises:
        ConfigError: if it is missing, damaged or not one of wavegen's.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["wavegen"]["step"]
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ConfigError(f"checkpoint {path} cannot be read ({type(error).__name__}: {str(error)[:120]})") from error
    return checkpoint


def _step_of(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1
