"""Code of pages that no other test runs, as it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wavegen
from tiny import save_tiny_vocoder
from wavegen.audio.mel_formats import PRESETS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def execute(block: str, page: str) -> None:
    exec(compile(block, page, "exec"), {})


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_getting_started():
    for block in blocks("getting-started.md"):
        execute(block, "getting-started.md")
    assert soundfile.info("seven.wav").samplerate == 8000


def test_labels_in_a_table():
    Path("recordings").mkdir()
    Path("recordings/labels.csv").write_text("file,label\na b.wav,yes\nc.wav,no\n")
    (block,) = blocks("recipes.md")
    execute(block, "recipes.md")
    rows = [json.loads(line) for line in Path("recordings/manifest.jsonl").read_text().splitlines()]
    assert rows == [{"path": "a b.wav", "label": "yes"}, {"path": "c.wav", "label": "no"}]


def test_mels_for_the_command_line(tmp_path, monkeypatch):
    folder = save_tiny_vocoder(tmp_path / "kathleen", mel=PRESETS["speecht5"].model_dump())
    load = wavegen.load
    monkeypatch.setattr(wavegen, "load", lambda name: load(folder, precision="f32"), raising=False)
    convert, of_a_recording, acoustic_model = blocks("synth.md")
    torch.save(torch.ones(80, 4), "hello.pt")
    execute(convert, "synth.md")
    assert np.array_equal(np.load("hello.npy"), np.ones((80, 4)))
    soundfile.write("recording.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 1600), 16000)
    execute(of_a_recording, "synth.md")
    mel = np.load("hello.npy")
    assert mel.shape == (80, 7)
    Path("acoustic_model.py").write_text(acoustic_model)
    sent = subprocess.run([sys.executable, "acoustic_model.py"], capture_output=True, check=True).stdout
    assert np.array_equal(np.frombuffer(sent, "<f4").reshape(-1, 80), mel.T)
