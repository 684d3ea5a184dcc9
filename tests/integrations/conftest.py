"""Vocoders with random weights for what the toolkits' acoustic models give."""

from __future__ import annotations

import pytest

from tiny import save_tiny_vocoder
from wavegen import load
from wavegen.audio.mel_formats import mel_spec
from wavegen.config import MelSpec


@pytest.fixture(scope="session")
def vocoder_for(tmp_path_factory):
    """A small vocoder that reads a spec, made once for each."""
    made = {}

    def vocoder(spec: MelSpec | str):
        spec = mel_spec(spec)
        if spec not in made:
            folder = tmp_path_factory.mktemp("vocoder")
            made[spec] = load(save_tiny_vocoder(folder / "tiny", mel=spec.model_dump()), engine="numba")
        return made[spec]

    return vocoder
