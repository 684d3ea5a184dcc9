"""wavegen eval and bench: how good and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wavegen.cli.options import Engine, Json, Model, Precision, StoreFolder, Verbose, print_json


def evaluate(
    model: Model,
    store: StoreFolder,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the store to measure on.")] = "test",
    json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="DIR", help="Write a page to listen to.")] = None,
    verbose: Verbose = False,
) -> None:
    """Measure how good a model is: bits per sample and what a judge hears."""
    report = measure_quality(model, store, split, html)
    if json:
        print_json(report)
    else:
        _print_facts(report)


def bench(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A bundled model or a model folder.")] = None,
    config: Annotated[str | None, typer.Option(metavar="A|B|C|D", help="A benchmark size instead of a model.")] = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(metavar="N", help="Rows spoken at once.")] = 1,
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads.")] = 1,
    train: Annotated[bool, typer.Option("--train", help="Measure training instead of synthesis.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure how fast a model or a benchmark size speaks or trains on this machine."""
    from wavegen.bench import bench as measure

    report = measure(
        model, config=config, engine=engine, precision=precision, batch=batch, threads=threads, train=train
    )
    if json:
        print_json(report)
    else:
        _print_facts(report)


def measure_quality(model: str, store: Path, split: str, html: Path | None) -> dict[str, Any]:
    from wavegen.evaluate import evaluate as measure

    return measure(model, store, split=split, html=html)


def _print_facts(facts: dict[str, object]) -> None:
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
