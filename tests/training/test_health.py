from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from stores import tones_store
from wavegen.config import MelSpec
from wavegen.metrics.bursts import MelCheck
from wavegen.training import health
from wavegen.training.health import warn_of_collapse, what_is_wrong

MEL = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=20)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_store(tmp_path_factory.mktemp("tones"), MEL, takes=range(3), num_samples=4600)


def spoken_by(monkeypatch, change):
    """Let the network say what its recordings say, changed."""

    def speak(model, store, rows, max_seconds):
        assert max_seconds <= 10
        return [change(store.waveform(int(row)).copy()) for row in rows]

    monkeypatch.setattr(health, "speak_rows", speak)


def burst(waveform):
    for place in range(200, len(waveform) - 100, 1600):
        waveform[place : place + 60] = 0.95 * (-1) ** np.arange(60)
    return waveform


@pytest.mark.parametrize(("change", "words"), [
    (lambda waveform: waveform, None),
    (np.zeros_like, "2 of 2 held-out clips, .* hold one value throughout: the network has collapsed"),
    (lambda waveform: 1e-3 * waveform, "2 of 2 held-out clips, .* fall silent where their mel speaks"),
    (burst, "bursts of noise in .* s of held-out clips, .* more than a vocoder's guard can put right"),
], ids=["well", "stuck", "silent", "bursting"])
def test_what_is_wrong_is_said(store, monkeypatch, caplog, change, words):
    spoken_by(monkeypatch, change)
    with caplog.at_level(logging.WARNING):
        said = warn_of_collapse(None, store, "test", 2)
    if words is None:
        assert not said and not caplog.records
    else:
        assert len(said) == 1 and [record.message for record in caplog.records] == said
        assert re.search(words, said[0])
        assert "Train longer" in said[0]


def test_a_few_bursts_are_left_to_the_guard():
    assert what_is_wrong([MelCheck(4.0, 1, 0, 2.0, False), MelCheck(4.0, 2, 0, 2.0, False)]) == []
    assert len(what_is_wrong([MelCheck(4.0, 9, 0, 2.0, False), MelCheck(4.0, 0, 3, 2.0, False)])) == 2
