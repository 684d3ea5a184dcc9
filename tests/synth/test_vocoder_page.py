"""The code of docs/vocoder.md runs as it stands, one block after the other, with a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import wavegen
from tiny import save_tiny_vocoder
from wavegen.audio.mel_formats import PRESETS

PAGE = Path(__file__).resolve().parents[2] / "docs/vocoder.md"


def test_the_page_runs(tmp_path, monkeypatch):
    folder, names = save_tiny_vocoder(tmp_path / "kathleen", mel=PRESETS["speecht5"].model_dump()), {}
    load = wavegen.load
    monkeypatch.setattr(wavegen, "load", lambda name: load(folder, precision="f32"), raising=False)
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert Path("out.wav").stat().st_size > 50 * 256 * 2 and np.abs(names["play"]).max() > 0
