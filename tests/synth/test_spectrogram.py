"""The picture shows what the clip holds, and is the same for the same clip."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from wavegen.errors import ConfigError, MissingBackendError
from wavegen.synth.spectrogram import plot_clips, spectrogram


def tone(hertz: float, num_samples: int = 4000) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(num_samples) / 8000).astype(np.float32)


@pytest.mark.parametrize("num_samples", [1, 129, 4000])
def test_a_tone_is_a_line_at_its_frequency(num_samples):
    picture, seconds = spectrogram(tone(1000, num_samples), 8000)
    assert seconds == pytest.approx(0.005)
    assert picture.shape == (81, num_samples // 40 + 1)
    assert np.isfinite(picture).all()
    if num_samples == 4000:
        assert picture[:, 50].argmax() == 20  # 1000 Hz of 4000 Hz
        assert picture.max() == 0.0


@pytest.mark.parametrize("count", [1, 7])
def test_a_picture_of_any_number_of_clips(count, tmp_path):
    pytest.importorskip("matplotlib")
    clips = [(str(number), tone(100 * number + 100, 500)) for number in range(count)]
    plot_clips(tmp_path / "a.png", clips, 8000)
    plot_clips(tmp_path / "b.png", clips, 8000)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_silence_is_a_picture_too():
    assert np.isfinite(spectrogram(np.zeros(800, np.float32), 8000)[0]).all()


def test_what_cannot_be_drawn_is_told_before(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown format .*\.gif"):
        plot_clips(tmp_path / "a.gif", [("", tone(1))], 8000)
    with pytest.raises(ConfigError, match="there is no folder"):
        plot_clips(tmp_path / "none" / "a.png", [("", tone(1))], 8000)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingBackendError, match="pip install matplotlib") as caught:
        plot_clips(tmp_path / "a.png", [("", tone(1))], 8000)
    assert caught.value.exit_code == 4
