"""Where the library's log goes while a command runs: to stderr, as plain lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Long work tells how it goes; the others speak up only when something is odd.
TALKATIVE = ("wavegen.data", "wavegen.training")


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Print the log of wavegen on stderr, from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("wavegen")
    levels = {name: logging.getLogger(name).level for name in ("wavegen", *TALKATIVE)}
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def show_everything() -> None:
    """Print all of the log, for `--verbose`."""
    for name in ("wavegen", *TALKATIVE):
        logging.getLogger(name).setLevel(logging.DEBUG)
