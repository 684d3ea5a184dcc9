"""Recipes and recordings for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavegen.config import AudioConfig, MelSpec, PrepareConfig, Recipe, RNNConfig, TrainingConfig


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    def make(quantization_channels: int = 256, mel: MelSpec | None = None, sample_rate: int = 8000,
             **prepare: object) -> Recipe:
        audio = AudioConfig(sample_rate=sample_rate, quantization_channels=quantization_channels, mel=mel)
        return Recipe(name="test", audio=audio, prepare=PrepareConfig.model_validate(prepare),
                      model=RNNConfig(hidden_channels=8, output_channels=8), training=TrainingConfig(max_steps=1))
    return make


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips named {label}_{speaker}_{index}.wav and five files that are none."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for label in range(3):
        for speaker in ("anna", "ben"):
            for index in range(4):
                time = np.arange(int(rng.integers(700, 1200))) / 8000
                clip = 0.5 * np.sin(2 * np.pi * (200 + 90 * label) * time) * np.exp(-8 * time)
                soundfile.write(folder / f"{label}_{speaker}_{index}.wav", clip, 8000)
    whole = (folder / "0_anna_0.wav").read_bytes()
    (folder / "1_anna_90.wav").write_bytes(whole[:700])  # cut short
    (folder / "1_anna_91.wav").write_bytes(b"")
    (folder / "1_anna_92.wav").write_bytes(whole[:44] + bytes(len(whole) - 44))  # silent
    (folder / "README.wav").write_bytes(whole)  # its name does not match
    (folder / ".hidden.wav").write_bytes(whole)
    return folder
