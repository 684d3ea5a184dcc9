"""The count of second strokes, on sounds whose strokes are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import load_script
from stores import tones_store
from tiny import tiny_family

script = load_script("recipes/drums/strokes.py")


def strokes(*times, level=1.0):
    """Tones that begin at `times` (seconds) and decay, at 16 kHz."""
    t = np.arange(16000) / 16000
    parts = [(t >= time) * np.exp(-(t - time).clip(0) * 30) * (level if time else 1.0) for time in times]
    return (np.sin(2 * np.pi * 80 * t) * sum(parts)).astype(np.float32)


@pytest.mark.parametrize(("waveform", "expected"), [
    (strokes(0.0), False), (strokes(0.0, 0.7), True), (strokes(0.0, 0.3), False),
    (strokes(0.0, 0.7, level=0.01), False),  # too quiet to be heard as one
    (strokes(0.0)[:8000], False), (np.zeros(16000, np.float32), False),
])
def test_a_second_stroke_is_a_rise_to_a_level_that_is_heard(waveform, expected):
    assert script.strikes_again(waveform, 16000) is expected


def test_a_model_is_counted_beside_recordings(tmp_path, monkeypatch, capsys):
    tones_store(tmp_path)
    model = tiny_family("wgan", tmp_path / "model")
    monkeypatch.setattr("sys.argv", ["strokes.py", str(model), "--store", str(tmp_path / "store"), "--out",
                                     str(tmp_path / "out.json"), "--count", "2", "--temperature", "1"])
    assert script.main() == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["recordings"]) == set(report["generated"]["1.0"]) == {"0", "1", "2"}
