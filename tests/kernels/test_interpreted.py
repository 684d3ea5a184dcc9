"""Runs `tests/interpreted` in a process of its own, where Triton interprets its kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(600)
def test_the_triton_kernels_compute_what_they_should():
    pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "interpreted")]
    run = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
