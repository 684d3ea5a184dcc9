"""wavegen info, for people and as JSON."""

from __future__ import annotations

import json


def test_the_installation(wavegen):
    outcome = wavegen("info")
    assert outcome.code == 0
    for word in (
        "wavegen ",
        "cpu: ",
        "torch ",
        "numba: usable",
        "reference: usable",
        "torchaudio: ",
        "bundled models: ",
    ):
        assert word in outcome.out
    assert json.loads(wavegen("info", "--json").out)["engines"]["numba"]["usable"] is True


def test_a_model(wavegen, model):
    outcome = wavegen("info", model)
    assert outcome.code == 0
    for word in (
        "tiny: wavenet",
        "8000 Hz",
        "labels: 0, 1, 2",
        "speakers: anna, ben",
        "0.045 to 0.105 s",
        "receptive field: 11 samples",
        "training, validation_bits: 5.5",
    ):
        assert word in outcome.out
    assert json.loads(wavegen("info", model, "--json").out)["family"] == "wavenet"


def test_no_model_of_that_name(wavegen):
    outcome = wavegen("info", "digitz")
    assert outcome.code == 3
    assert 'no model "digitz": neither a bundled name nor a folder' in outcome.error
