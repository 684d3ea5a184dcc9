"""`wavegen info` tells the truth without importing torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tiny import save_tiny
from wavegen import info
from wavegen.checkpoint import load_model
from wavegen.errors import ModelFileError


def test_the_installation_is_described():
    facts = info.describe_installation()
    assert facts["engines"]["numba"]["usable"] and facts["engines"]["reference"]["usable"]
    assert facts["packages"]["torch"]
    assert facts["cpu"]["cores"] >= 1
    json.dumps(facts)


def test_every_engine_is_described():
    from wavegen.engines import ENGINES

    assert set(info.describe_installation()["engines"]) == set(ENGINES) - {"auto"}


def test_nothing_heavy_is_imported(tmp_path):
    folder = save_tiny(tmp_path / "tiny")
    code = (
        "import sys, wavegen.cli.app as app\n"
        "for line in (['--help'], ['synth', '-h'], ['info'], ['info', sys.argv[1]], ['info', '--json']):\n"
        "    assert app.run(line) == 0\n"
        "heavy = {'torch', 'numba', 'librosa', 'scipy', 'lightning', 'matplotlib', 'soundfile'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("torch", "torchaudio", "cuda", "reason"),
    [
        ("2.14.1+cu130", "2.11.0", True, None),
        ("2.11.0", "2.11.0", True, None),
        ("2.15.0", "2.11.0", True, "needs torch >=2.11,<2.15, found 2.15.0"),
        ("2.13.0+cpu", "2.11.0", False, "found torch 2.13.0+cpu for CPU only"),
        ("2.14.1", None, True, "torchaudio is not installed"),
        (None, "2.11.0", True, "torch is not installed"),
    ],
)
def test_torchaudio_is_judged_by_versions(torch, torchaudio, cuda, reason, monkeypatch):
    monkeypatch.setattr(info, "_version", lambda name: {"torch": torch, "torchaudio": torchaudio}.get(name))
    monkeypatch.setattr(info, "_torch_has_cuda_libraries", lambda: cuda)
    facts = info.describe_installation()["torchaudio"]
    assert facts["usable"] is (reason is None)
    assert reason is None or reason in facts["reason"]


def test_a_model_is_described_from_its_headers(tmp_path):
    folder = save_tiny(tmp_path / "tiny")
    facts = info.describe_model(folder)
    assert facts["parameters"] == sum(value.numel() for value in load_model(folder).model.state_dict().values())
    assert facts["labels"] == ["0", "1", "2"]
    assert facts["seconds"] == [0.045, 0.105]
    assert facts["receptive_field"] == 11
    with pytest.raises(ModelFileError):
        info.describe_model(tmp_path)
