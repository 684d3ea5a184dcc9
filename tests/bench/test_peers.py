"""What the benchmarks compare the engines with computes the same network; the table says what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import load_script
from networks import make_wavenet, random_codes
from wavegen.engines import ModelConditioning, build_engine
from wavegen.engines.packing import network_of
from wavegen.errors import MissingBackendError

FOLDER = Path(__file__).resolve().parents[2] / "kernels/benchmarks"
ODD = {"residual": 7, "skip": 13, "output": 5, "dilations": (1, 3, 2), "quantization_channels": 30, "kernel_size": 3,
       "residual_scale": 0.7, "skip_scale": 0.3}


@pytest.fixture(scope="module")
def peers():
    sys.path.insert(0, str(FOLDER))
    try:
        return load_script("kernels/benchmarks/peers.py").PEERS
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("name", ["onnxruntime", "queues"])
@pytest.mark.parametrize("options", [{"input_taps": 4, "input_tanh": True}, {"input_kernel_size": 1}])
def test_a_peer_computes_the_network(peers, name, options):
    try:
        peers[name].check()
    except MissingBackendError as error:
        pytest.skip(str(error))
    model, codes = make_wavenet(**ODD, **options), random_codes(30, 1, 15)
    expected = torch.log_softmax(torch.from_numpy(build_engine(model, "reference").logits(codes)[0]), 1).numpy()
    step = peers[name](network_of(model), ModelConditioning(model).frames(0, 1)[0, 0])
    for _ in range(2):
        for t, code in enumerate(codes[0]):
            with torch.no_grad():
                found = torch.log_softmax(step.logits().double(), 0).numpy()
            assert np.abs(found - expected[t]).max() < 1e-4
            step.feed(int(code))
        step.restart()
    assert len(step.generate(5)) == 5


def test_a_peer_that_is_not_installed_says_so(peers, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match="onnxruntime"):
        peers["onnxruntime"].check()


def row(op="synthesis", model="D", **facts):
    return {"op": op, "model": model, "shape": "R1", "sample_rate": 22050, "batch": 1, "threads": 1, **facts}


def test_the_table_says_what_was_measured(tmp_path):
    rows = [row(precision="f32", samples_per_second=3000.0, times_realtime=0.1, fraction_of_floor=0.5),
            row(precision="i8", samples_per_second=9000.0, times_realtime=0.4, fraction_of_floor=0.7),
            row(precision="i8", samples_per_second=18000.0, times_realtime=0.8, threads=2, fraction_of_floor=0.6),
            row(precision="i8", samples_per_second=50000.0, times_realtime=2.2, batch=8, fraction_of_floor=0.6),
            row("baseline", name="eager", samples_per_second=1000.0),
            row("baseline", name="queues", samples_per_second=100.0),
            row("baseline", name="compiled", skipped="no compiler")]
    path = tmp_path / "machine-engines.json"
    path.write_text(json.dumps({"rows": rows}))
    script = [sys.executable, str(FOLDER / "table.py"), str(path)]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert "| D | R1 | 3,000 |  |  | 9,000 |  | 18,000 | 1,000 |  |  |" in text
    assert "| D | i8, two threads | 0.8 at 22.05 kHz | 3.0 | 18.0 |  | 50% | 70% |" in text
    assert "i8 on one thread is 90.0 times that" in text.replace("\n", " ")
    assert "| D |  |  | 50,000 |  |" in text
