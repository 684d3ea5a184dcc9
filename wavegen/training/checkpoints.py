"""Checkpoints of a running training are written whole or not at all; `wavegen.checkpoint.run` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from wavegen.audio.atomic import replacing
from wavegen.checkpoint.run import read_checkpoint
from wavegen.errors import TrainingError


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
