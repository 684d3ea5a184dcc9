"""The command itself: its subcommands, and how every run ends.

Exit codes: 0 done, 1 failed, 2 usage or config, 3 bad input data, 4 missing device or back end,
5 part of a batch failed, 130 / 143 interrupted by SIGINT / SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from wavegen import __version__
from wavegen.cli import latents, measure, speak, train
from wavegen.cli.info import info
from wavegen.cli.logs import log_to_stderr
from wavegen.cli.options import Session, Verbose
from wavegen.errors import WavegenError, did_you_mean

# Which extra brings a package that may be missing.
EXTRAS = {
    "lightning": "train",
    "tensorboard": "train",
    "matplotlib": "train",
    "pystoi": "eval",
    "pesq": "eval",
}
HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="wavegen",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=HELP,
    pretty_exceptions_enable=False,
)
# In the list of commands, where a line ends after 60 letters.
for command, name, summary in (
    (train.init, "init", "Write a first recipe for recordings of your own."),
    (train.prepare, "prepare", "Turn a folder of recordings into a store of mu-law codes."),
    (train.train, "train", "Train the model of a recipe on a store."),
    (train.export, "export", "Turn a run into a model folder, or calibrate a model."),
    (speak.synth, "synth", "Generate audio from labels, mels or recordings."),
    (latents.encode, "encode", "Turn a clip into latents."),
    (latents.decode, "decode", "Turn latents back into a clip."),
    (latents.morph, "morph", "Go from one clip to another, along their latents."),
    (measure.evaluate, "eval", "Measure how good a model is."),
    (measure.bench, "bench", "Measure how fast this machine speaks or trains."),
    (info, "info", "Show versions and bundled models, or facts of a model."),
):
    app.command(name, context_settings=HELP, short_help=summary)(command)


class Interrupted(BaseException):
    """SIGTERM; like KeyboardInterrupt it passes every `except Exception`, so temporary files are removed."""


def _show_version(value: bool) -> None:
    if value:
        print(f"wavegen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Generate audio sample by sample: prepare, train, export, speak, measure."""


def main() -> None:
    """Run the command of this process and end it with the exit code."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of third parties; our own go through the log
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        code = code or 1
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line in this process.

    Returns:
        the exit code; an error has been told on stderr.
    """
    Session.verbose = False
    with log_to_stderr(), _signals() as received:
        try:
            code = app(list(arguments), prog_name="wavegen", standalone_mode=False)
            code = code if isinstance(code, int) else 0
        except BaseException as error:
            code = 130 if received else _end(error)
    if received:
        return _tell("interrupted", 128 + received[0])
    return code


def _end(error: BaseException) -> int:
    """Tell the user why the run ends, in one line unless they asked for more; the exit code."""
    if Session.verbose and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, WavegenError):
        return _tell(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):  # whoever read the output has enough of it: nothing to complain about
        _abandon_stdout()
        return 1
    if hasattr(error, "format_message"):  # how typer says that the command line is wrong
        return _tell(_usage(error), 2)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("wavegen"):
        package = error.name.split(".")[0]
        wanted = f"wavegen[{EXTRAS[package]}]" if package in EXTRAS else package
        return _tell(f'the package {package} is not installed: pip install "{wanted}"', 4)
    if isinstance(error, OSError):
        about = f": {error.filename}" if error.filename else ""
        return _tell(f"{error.strerror or error}{about}", 1)
    if isinstance(error, MemoryError):
        return _tell("out of memory", 1)
    hint = "" if Session.verbose else "; this is a bug in wavegen, -v shows where"
    return _tell(f"{type(error).__name__}: {error}{hint}", 1)


def _tell(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """A usage error in the words of the others: what was found, the nearest valid, where help is."""
    context = getattr(error, "ctx", None)
    command = context.command if context is not None else None
    where = context.command_path if context is not None else "wavegen"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return "say which command to run"
    message = " ".join(str(error.format_message()).rstrip(".").split())
    if getattr(error, "option_name", None) and "o such option" in message:
        parameters = command.params if command is not None else []
        known = [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
        return f'{where} has no option "{error.option_name}"; {did_you_mean(error.option_name, known)}'
    if message.startswith("No such command") and command is not None:
        found = message.split("'")[1]
        return f'wavegen has no command "{found}"; {did_you_mean(found, command.commands)}'
    return f"{message[:1].lower()}{message[1:]}; see {where} --help"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Turn SIGTERM into an exception, so that it cleans up as SIGINT does; collects what came."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker that was forked from this run
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Interrupted

    # A signal that is ignored, as for a job in the background, stays ignored.
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abandon_stdout() -> None:
    """Let nothing be flushed into a closed pipe when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
