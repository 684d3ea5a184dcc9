"""The check of the GPU kernels where there is no GPU: every section runs, and says why it could not measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import load_script

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
script = load_script("kernels/benchmarks/gpu_check.py")


def test_without_a_gpu_it_runs_to_the_end_in_the_interpreter(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", script.PEER)}
    run = subprocess.run([sys.executable, script.__file__, "--interpret", "--out", "check.json"], cwd=tmp_path,
                         env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "check.json").read_text())
    assert list(found) == [*script.SECTIONS, "summary"]
    assert all(found[name]["finished"] for name in script.SECTIONS)
    summary = found["summary"]
    assert summary["failures"] == 0 and summary["checks_that_hold"] == summary["checks"] > 5
    assert summary["laws_that_hold"] == summary["laws"] > 5
    assert found["correctness"]["D latency"]["largest_error"] < 5e-3
    assert found["speed"]["A latency 1"]["samples_per_second"] > 0
    assert "two programs must run at once" in found["micro"]["all"]["skipped"]
    assert "names no executable" in found["peer"]["all"]["skipped"]


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path):
    mark = tmp_path / "alive"
    started = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
    command = [sys.executable, "-c", "import subprocess, sys, time; print('begun', flush=True); "
               f"subprocess.Popen([sys.executable, '-c', {started!r}]); time.sleep(60)"]
    problem, output = script.run_limited(command, 1)
    assert problem == "took longer than 1 s" and output == "begun\n"
    assert script.run_limited([sys.executable, "-c", "import time; time.sleep(2)"], 10) == ("", "")
    assert not mark.exists()
    assert script.run_limited([sys.executable, "-c", "print('x' * 5000); raise SystemExit(3)"], 9)[0] == "ended with 3"


def test_what_fails_costs_one_finding_and_leaves_its_reason(tmp_path):
    report = script.Report(tmp_path / "part.json", True, script.time.time() + 60)
    assert report.attempt("good", lambda: {"fine": True}) == {"fine": True}
    assert report.attempt("bad", lambda: 1 // 0) is None
    report.deadline = 0
    report.attempt("late", lambda: {"fine": False})
    found = json.loads((tmp_path / "part.json").read_text())
    assert found["bad"]["error"].startswith("ZeroDivisionError") and "1 // 0" in found["bad"]["traceback"]
    assert found["late"] == {"skipped": "out of time"}
    summary = script.summary({"correctness": found, "speed": {"A latency 1": {"samples_per_second": 30.0}},
                              "baselines": {"A graphed 1": {"samples_per_second": 2.0}}})
    assert (summary["checks"], summary["checks_that_hold"], summary["failures"]) == (1, 1, 1)
    assert summary["A, 1 rows, times graphed"] == 15.0


def test_the_configurations_are_those_of_the_bench():
    from wavegen.bench import CONFIGURATIONS

    for name, sizes in script.CONFIGURATIONS.items():
        config = CONFIGURATIONS[name]
        assert (sizes.residual, sizes.skip, sizes.output, sizes.dilations, sizes.kernel_size) == (
            config.residual_channels, config.skip_channels, config.output_channels, config.dilations,
            config.kernel_size)


@pytest.mark.gpu
def test_on_a_gpu_the_kernels_are_right(tmp_path):
    run = subprocess.run([sys.executable, script.__file__, "--only", "correctness,determinism", "--out", "check.json"],
                         cwd=tmp_path, capture_output=True, text=True, timeout=280)
    summary = json.loads((tmp_path / "check.json").read_text())["summary"]
    assert summary["checks_that_hold"] == summary["checks"] and summary["laws_that_hold"] == summary["laws"], run.stdout
