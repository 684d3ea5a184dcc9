"""wavegen eval and bench hand everything over and show what comes back."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest


def test_bench_hands_everything_over(wavegen, monkeypatch):
    calls = []

    def measure(model, **options):
        calls.append((model, options))
        return {"samples_per_second": 5.0, "cpu": "a fast one"}

    monkeypatch.setattr(importlib.import_module("wavegen.bench"), "bench", measure)
    outcome = wavegen("bench", "--config", "B", "--engine", "numba", "--batch", 2, "--threads", 2, "--train")
    assert outcome.out == "samples per second: 5.0\ncpu: a fast one\n"
    assert json.loads(wavegen("bench", "digits", "--json").out)["samples_per_second"] == 5.0
    assert calls == [
        (None, {"config": "B", "engine": "numba", "precision": "auto", "batch": 2, "threads": "2", "train": True}),
        ("digits", {"config": None, "engine": "auto", "precision": "auto", "batch": 1, "threads": "1", "train": False}),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config", "F"], 'no configuration "F"; Known: A, B, C, D'),
        (["digits", "--config", "A"], "not both"),
        (["--batch", 0], "at least 1"),
    ],
)
def test_a_bench_that_makes_no_sense_is_refused(wavegen, arguments, complaint):
    outcome = wavegen("bench", *arguments)
    assert outcome.code == 2
    assert complaint in outcome.error


def test_eval_hands_everything_over(wavegen, monkeypatch):
    package = importlib.import_module("wavegen.evaluate")
    calls = []

    def measure(model, store, **options):
        calls.append((model, store, options))
        return {"bits_per_sample": 5.0}

    monkeypatch.setattr(package, "evaluate", measure)
    monkeypatch.setattr(package, "summary", lambda report: f"{report['bits_per_sample']} bits")
    outcome = wavegen(
        "eval",
        "digits",
        "--store",
        "s",
        "--split",
        "dev",
        "--judge",
        "j",
        "--seeds",
        3,
        "--clips",
        5,
        "--data",
        "d",
        "--matching",
        2,
        "--html",
        "h",
        "--temperature",
        0.9,
        "--min-p",
        0.01,
        "--engine",
        "reference",
        "--precision",
        "f64",
    )
    assert outcome.out == "5.0 bits\n"
    assert calls == [
        (
            "digits",
            Path("s"),
            {
                "split": "dev",
                "judge": Path("j"),
                "seeds": 3,
                "engine": "reference",
                "precision": "f64",
                "temperature": 0.9,
                "min_p": 0.01,
                "html": Path("h"),
                "progress": None,
                "clips": 5,
                "data_dir": Path("d"),
                "matching": 2,
            },
        )
    ]


def test_eval_of_what_is_not_there(wavegen, model, tmp_path):
    assert wavegen("eval", tmp_path / "none", "--store", tmp_path).code == 3
    outcome = wavegen("eval", model, "--store", tmp_path / "none")
    assert outcome.code == 3 and str(tmp_path / "none") in outcome.error
