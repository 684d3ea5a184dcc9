"""The lecture's first experiment, from the committed evaluations."""

from __future__ import annotations

import json

import pytest

from helpers import load_script

script = load_script("recipes/lecture/sequences.py")


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["sequences.py", *map(str, arguments)])
    return script.main()


def test_the_table_and_the_picture_come_from_the_results(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out, plot = tmp_path / "table.json", tmp_path / "img" / "plot.svg"
    assert run(monkeypatch, "--out", out, "--plot", plot) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == list(script.KINDS) and "<svg" in plot.read_text()
    assert capsys.readouterr().out.count("|\n") == 5
    gru, same_audio, whole = rows
    # The statement: at equal size and equal audio the WaveNet needs fewer bits and is understood better.
    assert abs(gru["parameters"] / same_audio["parameters"] - 1) < 0.01
    assert whole["bits_per_sample"] < same_audio["bits_per_sample"] < gru["bits_per_sample"]
    assert whole["label_augmented"] > same_audio["label_augmented"] > gru["label_augmented"]


def test_what_is_missing_is_one_clear_line(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "--results", tmp_path) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert run(monkeypatch, "--runs", tmp_path) == 1
    assert "needs --store" in capsys.readouterr().err
