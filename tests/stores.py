"""A small store of tones, for tests of what reads a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import write_tones
from wavegen.config import AudioConfig, MelSpec, PrepareConfig, Recipe, RNNConfig, TrainingConfig
from wavegen.data.prepare import prepare
from wavegen.data.store import Store


def tones_store(folder: Path, mel: MelSpec | None = None, **tones: Any) -> Store:
    """`write_tones` prepared: takes 0 and 1 are the test split, the rest is for training."""
    recordings = write_tones(folder / "data", **tones) / "recordings"
    recipe = Recipe(
        name="tones",
        audio=AudioConfig(sample_rate=tones.get("sample_rate", 8000), mel=mel),
        prepare=PrepareConfig(
            pattern=r"(?P<label>\w+)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav",
            splits={"test": {"index": ("0", "1")}},
        ),
        model=RNNConfig(hidden_channels=1, output_channels=1),
        training=TrainingConfig(max_steps=1),
    )
    prepare(recipe, recordings, folder / "store", workers=0, progress=False)
    return Store.open(folder / "store")
