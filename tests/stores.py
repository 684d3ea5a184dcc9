"""A small store of tones, for tests of what reads a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from helpers import write_tones
from wavegen.config import (
    AudioConfig,
    ConditioningConfig,
    MelSpec,
    PrepareConfig,
    Recipe,
    TrainingConfig,
    WaveNetConfig,
)
from wavegen.data.prepare import prepare
from wavegen.data.store import Store


def tones_store(folder: Path, mel: MelSpec | None = None, signal_path: Literal["direct", "lpc"] = "direct",
                preemphasis: float = 0.0, **tones: Any) -> Store:
    """`write_tones` prepared: takes 0 and 1 are the test split, the rest is for training."""
    recordings = write_tones(folder / "data", **tones) / "recordings"
    audio = AudioConfig(sample_rate=tones.get("sample_rate", 8000), mel=mel, signal_path=signal_path,
                        preemphasis=preemphasis)
    recipe = Recipe(
        name="tones",
        audio=audio,
        prepare=PrepareConfig(
            pattern=r"(?P<label>\w+)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav",
            splits={"test": {"index": ("0", "1")}},
        ),
        model=WaveNetConfig(residual_channels=1, skip_channels=1, output_channels=1, dilations=(1,),
                            conditioning=ConditioningConfig(hop_length=mel.hop_length if mel else 80)),
        training=TrainingConfig(max_steps=1, tail_samples=0),
    )
    prepare(recipe, recordings, folder / "store", workers=0, progress=False)
    return Store.open(folder / "store")
