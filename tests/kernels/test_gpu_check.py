"""The check of the GPU kernels where there is no GPU: every section runs, and says why it could not measure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from helpers import load_script

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
script = load_script("kernels/benchmarks/gpu_check.py")


def test_without_a_gpu_it_runs_to_the_end_in_the_interpreter(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", script.PEER)}
    run = subprocess.run([sys.executable, script.__file__, "--interpret", "--out", "check.json"], cwd=tmp_path,
                         env=environment, capture_output=True, text=True, timeout=400)
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
    assert found["voices"]["vocoder_laws"]["fine"] and found["voices"]["vocoder_logits"]["samples"] == 8
    assert found["training"]["resumed"]["step"] == 9
    assert re.search(r"checks that hold +([0-9]+) of \1 +all +reached\n", run.stdout)
    assert re.search(r"batch 1, samples/s per stream +[0-9.]+ +50,000 / 100,000 +no GPU\n", run.stdout)


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


def measured(speed, graphed, error, fine=True):
    return {"device": {"device": {"name": "X1"}, "date": "2026-01-01", "commit": "abc",
                       "versions": {"torch": "2.11", "triton": "3.6"}},
            "correctness": {"A batch": {"largest_error": error, "fine": fine}},
            "speed": {"A latency 1": {"samples_per_second": speed}, "A batch 16896": {"samples_per_second": 2e8},
                      "A latency 1 fast=True": {"samples_per_second": 9e9}},
            "baselines": {"A graphed 1": {"samples_per_second": graphed},
                          "A graphed 16896": {"error": "OutOfMemoryError: 3 GiB\nmore"}}}


def test_the_table_at_the_end_says_what_is_reached():
    results = measured(60e3, 2e3, 1e-3)
    results["summary"] = script.summary(results)
    verdicts = {line[0]: line[1:] for line in script.verdicts(results)}
    assert verdicts["batch 1, samples/s per stream"] == ("60,000", "50,000 / 100,000", "reached")
    assert verdicts["aggregated, large batch, samples/s"][2] == "reached, and what was gone for"
    assert verdicts["times the CUDA-graphed torch step, batch 1"] == ("30.0", "10 / 20",
                                                                     "reached, and what was gone for")
    assert verdicts["times the CUDA-graphed torch step, large batch"][2] == "not measured"
    assert verdicts["logits against float64 (f16), largest error"] == ("1.0e-03", "5e-3", "reached")
    assert verdicts["baselines: A graphed 16896"] == ("OutOfMemoryError: 3 GiB", "", "FAILED")
    assert "laws that hold" in script.show(script.verdicts(results)) and not script.is_right(results["summary"])


@pytest.mark.parametrize(("fine", "right"), [(True, True), (False, False)])
def test_what_is_slow_is_no_failure_but_what_is_wrong_is(fine, right):
    results = measured(1.0, 2e3, 1e-3 if fine else 0.3, fine)
    results["baselines"].popitem()
    assert script.is_right(script.summary(results)) == right


def test_the_row_of_the_readme_comes_from_the_findings():
    table = load_script("kernels/benchmarks/table.py").gpu_table(measured(60e3, 2e3, 1e-3))
    assert "| 1 | 60,000 | 60,000 | 2,000 | 30.0 |" in table and "on one X1" in table
    assert "| 16,896 | 11,837 | 200,000,000 |  |  |" in table and "Triton 3.6 at commit abc" in table


def test_without_librosa_the_mel_has_the_same_bands():
    librosa = pytest.importorskip("librosa", reason="librosa is not installed")
    voices = load_script("kernels/benchmarks/gpu_voices.py")
    for options in ({"sr": 16000, "n_fft": 1024, "n_mels": 80, "fmin": 80.0, "fmax": 7600.0, "htk": False,
                     "norm": "slaney"},
                    {"sr": 22050, "n_fft": 512, "n_mels": 40, "fmin": 0.0, "fmax": None, "htk": True, "norm": None}):
        wanted = librosa.filters.mel(**options)
        found = voices.mel_filters(**options)
        assert found.shape == wanted.shape and np.abs(found - wanted).max() < 1e-6 * wanted.max()


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
