"""The `wavegen` command. It parses, calls and prints; the work is done on the floors below."""

from __future__ import annotations


def main() -> None:
    """Entry point of the installed command."""
    from wavegen.cli.app import main as run_and_exit

    run_and_exit()
