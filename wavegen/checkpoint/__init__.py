"""Model folders: config.json, model.safetensors and a card, written whole, read without trust.

    config.json         all that is needed to build the model, and the sha256 of the weights
    model.safetensors   the weights; the config again in its metadata
    README.md           the card: what it is, how it was trained, how to use it

Nothing is ever unpickled. Every kind of damage is one `ModelFileError`. Importing this package
imports no torch.
"""

from __future__ import annotations

from wavegen.checkpoint.export import export_run
from wavegen.checkpoint.folder import bundled_models, find_model, is_model, read_shapes, read_spec
from wavegen.checkpoint.weights import LoadedModel, load_model, model_card, save_model

__all__ = [
    "LoadedModel",
    "bundled_models",
    "export_run",
    "find_model",
    "is_model",
    "load_model",
    "model_card",
    "read_shapes",
    "read_spec",
    "save_model",
]
