"""Workers that crash, hang or cannot start. Jobs are expressions, `eval` is the function: both are importable."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from wavegen.data.pool import Crash, run_ordered

QUIT, ABORT = "__import__('os')._exit(7)", "__import__('os').abort()"


def test_results_come_in_the_order_of_the_jobs():
    jobs = [f"__import__('time').sleep({0.2 if number == 0 else 0}) or {number}" for number in range(100)]
    assert list(run_ordered(eval, jobs, 2, 60)) == list(range(100))


def test_a_job_that_kills_its_worker_costs_itself_only():
    jobs = ["1", ABORT, "2", QUIT, "3", QUIT, QUIT, "4"]
    crashes = ["SIGABRT", "exit code 7", "exit code 7", "exit code 7"]
    results = list(run_ordered(eval, jobs, 2, 60))
    assert [result for result in results if not isinstance(result, Crash)] == [1, 2, 3, 4]
    for number, how in zip((1, 3, 5, 6), crashes, strict=True):
        assert results[number] == Crash(f"the process that read it died ({'signal ' * (how == 'SIGABRT')}{how})")


def test_a_job_that_does_not_end_is_killed():
    begun = time.monotonic()
    results = list(run_ordered(eval, ["1", "__import__('time').sleep(600)", "2"], 1, 1.5))
    assert results == [1, Crash("no result after 1.5 s"), 2]
    assert time.monotonic() - begun < 60


def test_what_a_job_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(run_ordered(eval, ["1", "1 / 0"], 1, 60))


def test_jobs_are_drawn_only_a_little_ahead():
    drawn = []

    def jobs():
        for number in range(1000):
            drawn.append(number)
            yield str(number)

    results = run_ordered(eval, jobs(), 1, 60)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(drawn) < 50
    results.close()


def test_no_jobs_need_no_workers():
    assert list(run_ordered(eval, [], 2, 60)) == []


def test_a_script_without_a_guard_is_told_so(tmp_path):
    (tmp_path / "script.py").write_text("from wavegen.data.pool import run_ordered\n"
                                        "print(list(run_ordered(eval, ['1'], 1, 60)))\n")
    run = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and 'if __name__ == "__main__"' in run.stderr
