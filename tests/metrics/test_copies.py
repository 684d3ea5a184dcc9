"""Figures of a copy: what the packages say of known clips, what is missing, means over clips."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from wavegen.metrics import perception
from wavegen.metrics.copies import FIGURES, QUICK, compare, means
from wavegen.metrics.perception import pesq, stoi, unavailable

STOI = pytest.mark.skipif(importlib.util.find_spec("pystoi") is None, reason="pystoi is not installed (extra eval)")
PESQ = pytest.mark.skipif(importlib.util.find_spec("pesq") is None, reason="pesq is not installed (extra eval)")


def speech(num_samples: int = 16000, sample_rate: int = 16000) -> np.ndarray:
    """Syllables: a buzz of changing colour that swells four times a second."""
    rng = np.random.default_rng(0)
    time = np.arange(num_samples) / sample_rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * time + k) * (1 + np.sin(2 * np.pi * (1.5 + k / 9) * time)) / k
               for k in range(1, 40))
    swell = np.clip(np.sin(2 * np.pi * 4 * time), 0.02, 1)
    return (0.05 * buzz * swell + 0.002 * rng.standard_normal(num_samples)).astype(np.float32)


def noisy(level: float) -> np.ndarray:
    return speech() + np.float32(level) * np.random.default_rng(1).standard_normal(16000).astype(np.float32)


@STOI
def test_stoi_is_1_for_the_same_and_falls_with_noise():
    assert stoi(speech(), speech(), 16000) == pytest.approx(1)
    values = [stoi(noisy(level), speech(), 16000) for level in (0.01, 0.1, 1.0)]
    assert values == sorted(values, reverse=True) and values[0] > 0.9 and values[2] < 0.5


@STOI
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_too_little_speech_has_no_stoi(size):
    assert stoi(speech()[:size], speech()[:size], 16000) is None


@PESQ
def test_pesq_is_highest_for_the_same_and_falls_with_noise():
    assert pesq(speech(), speech(), 16000) == pytest.approx(4.64, abs=0.01)
    values = [pesq(noisy(level), speech(), 16000) for level in (0.001, 0.03)]
    assert values == sorted(values, reverse=True) and values[1] < 3


@PESQ
@pytest.mark.parametrize("waveform", [np.zeros(16000, np.float32), speech()[:1000], speech()[:1]])
def test_where_there_is_no_speech_there_is_no_pesq(waveform):
    assert pesq(waveform, waveform, 16000) is None
    assert pesq(speech(), speech(), 8000) is None  # the wide band needs 16 kHz


def test_every_figure_of_a_copy():
    found = compare(noisy(0.02), speech(), 16000)
    assert tuple(found) == FIGURES
    for name, value in found.items():
        assert name in unavailable() or (isinstance(value, float) and np.isfinite(value)), name
    assert set(compare(noisy(0.02), speech(), 16000, QUICK)) == set(QUICK)
    same = compare(speech(), speech()[:15000], 16000)  # the longer one is cut
    for name in ("mcd", "f0_cents", "voicing_error", "log_mel", "stft"):
        assert same[name] == pytest.approx(0, abs=1e-6), name


def test_what_is_not_installed_is_said_and_left_out(monkeypatch):
    monkeypatch.setattr(perception.importlib.util, "find_spec", lambda name: None)
    assert unavailable()["pesq"] == "the package pesq is not installed; pip install 'wavegen[eval]'"
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "pystoi", None)
    found = compare(speech(), speech(), 16000, ("stoi", "pesq", "log_mel"))
    assert found == {"stoi": None, "pesq": None, "log_mel": 0.0}


def test_means_have_standard_errors_and_know_what_is_missing():
    table = means([{"a": 1.0, "b": None, "c": 2.0}, {"a": 3.0, "b": None, "c": None}])
    assert table["a"] == {"mean": 2.0, "standard_error": 1.0, "clips": 2}
    assert table["b"] == {"mean": None, "standard_error": None, "clips": 0}
    assert table["c"] == {"mean": 2.0, "standard_error": None, "clips": 1}
    assert means([]) == {}
