"""How a run of the command ends: exit codes, one clear line, nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wavegen as package
from wavegen import info as facts
from wavegen.cli import app, options
from wavegen.errors import MissingBackendError, PartialFailureError, TrainingError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_help_names_every_command(wavegen):
    for command in ("", "prepare", "train", "export", "synth", "eval", "bench", "info"):
        outcome = wavegen(*command.split(), "--help")
        assert outcome.code == 0 and outcome.err == ""
        assert "Usage: wavegen" in outcome.out
    for command in ("prepare", "train", "export", "synth", "eval", "bench", "info"):
        assert f"  {command} " in wavegen("-h").out


def test_the_version_is_that_of_the_project(wavegen):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert package.__version__ == project["version"]
    assert wavegen("--version").out == f"wavegen {package.__version__}\n"


def test_importing_wavegen_imports_nothing_heavy():
    code = "import sys, wavegen; assert not {'torch', 'numpy', 'pydantic', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_front_door_shows_what_it_has():
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'Synthesiser'"):
        _ = package.Synthesiser


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("syth digits", 'wavegen has no command "syth"; did you mean "synth"?'),
        ("synth digits --lable 7", 'wavegen synth has no option "--lable"; did you mean "--label"?'),
        ("synth digits --temprature=7", 'has no option "--temprature"; did you mean "--temperature"?'),
        ("synth digits -q", 'wavegen synth has no option "-q"; Known: --label'),
        ("--jason", 'wavegen has no option "--jason"'),
        ("synth", "missing argument 'MODEL'; see wavegen synth --help"),
        ("synth digits --seed x -o a.wav", "invalid value for '--seed'"),
        ("synth digits --count", "'--count' requires an argument"),
        ("synth digits more -o a.wav", "unexpected extra argument"),
        ("eval digits", "missing option '--store'"),
    ],
)
def test_a_wrong_command_line_names_the_nearest_right_one(wavegen, arguments, complaint):
    outcome = wavegen(*arguments.split())
    assert outcome.code == 2 and outcome.out == ""
    assert complaint in outcome.error[:1].lower() + outcome.error[1:]
    assert "\n" not in outcome.error


def test_no_command_shows_the_help(wavegen):
    outcome = wavegen()
    assert outcome.code == 2
    assert "Commands:" in outcome.err and outcome.err.endswith("error: say which command to run\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TrainingError("diverged"), 1, "diverged"),
        (PartialFailureError("2 of 3"), 5, "2 of 3"),
        (MissingBackendError("no lightning"), 4, "no lightning"),
        (
            ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch"),
            4,
            'pip install "wavegen[train]"',
        ),
        (ModuleNotFoundError("No module named 'soxr'", name="soxr"), 4, 'pip install "soxr"'),
        (PermissionError(13, "Permission denied", "/secret/x"), 1, "Permission denied: /secret/x"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero; this is a bug in wavegen, -v"),
        (SystemExit(3), 3, None),
    ],
)
def test_every_failure_has_its_code_and_one_line(wavegen, monkeypatch, error, code, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(facts, "describe_installation", fail)
    outcome = wavegen("info")
    assert outcome.code == code
    if message is None:
        assert outcome.err == ""
    else:
        assert message in outcome.error and "\n" not in outcome.error


def test_verbose_shows_the_traceback(wavegen, tmp_path):
    for arguments in (["-v", "info", tmp_path], ["info", tmp_path, "-v"]):
        outcome = wavegen(*arguments)
        assert outcome.code == 3
        assert "Traceback" in outcome.err and outcome.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in wavegen("info", tmp_path).err


def test_a_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -m wavegen info --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_the_module_runs_the_command():
    done = subprocess.run([sys.executable, "-m", "wavegen", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_signal_handlers_are_put_back(wavegen):
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    wavegen("--version")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert app.Interrupted.__mro__[1] is BaseException


def test_long_work_shows_a_bar_on_a_terminal(monkeypatch, capsys):
    with options.progress_bar(10, "speaking") as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with options.progress_bar(10, "speaking") as progress:
        progress(4)
        progress(6)
    assert capsys.readouterr().out == ""


def test_the_list_of_commands_cuts_nothing_short(wavegen):
    listed = wavegen("--help").out.split("Commands:")[1]
    assert "synth" in listed and "..." not in listed
