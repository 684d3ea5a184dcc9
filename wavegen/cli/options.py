"""Options several commands share, and what they say about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from wavegen.errors import ConfigError

STANDARD = Path("-")  # as a file name: stdin or stdout


class Session:
    """What one run of the command was told for all its parts."""

    verbose = False


def _be_verbose(value: bool) -> bool:
    if value:
        from wavegen.cli.logs import show_everything

        Session.verbose = True
        show_everything()
    return value


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=_be_verbose,
        help="Show what is decided and why, and the traceback of an error.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="Recipe, such as recipes/fsdd/wavenet.yaml.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model such as digits, or a model folder.")]
StoreFolder = Annotated[Path, typer.Option("--store", metavar="STORE", help="Store made by `wavegen prepare`.")]
Engine = Annotated[str, typer.Option("--engine", metavar="NAME", help="auto, reference, numba or triton.")]
Precision = Annotated[str, typer.Option("--precision", metavar="NAME", help="auto, or what the engine offers.")]

Threads = Annotated[
    str, typer.Option("--threads", metavar="N", help="CPU threads; auto takes as many as pay. The sound is the same.")
]


def print_json(value: Any) -> None:
    """One value on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """One line for the user on stderr."""
    print(text, file=sys.stderr)


def require_one(**options: object) -> None:
    """Exactly one of two options must be given.

    Raises:
        ConfigError: names both.
    """
    given = [name for name, value in options.items() if value is not None]
    names = " or ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in options)
    if len(given) != 1:
        raise ConfigError(f"give {'one' if not given else 'only one'} of {names}")


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr that is told how much more is done; none where stderr is not a terminal."""
    with stages() as tell:
        if tell is None:
            yield None
            return
        done = 0

        def more(amount: int) -> None:
            nonlocal done
            done += amount
            tell(what, done, total)

        yield more


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None] | None]:
    """Bars on stderr, one for each thing told about: what, how much is done, of how much."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell
