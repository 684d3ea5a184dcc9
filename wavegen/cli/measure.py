"""wavegen eval and bench: how good and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.options import Engine, Json, Model, Precision, StoreFolder, Threads, Verbose, print_json, stages


def evaluate(
    model: Model,
    store: StoreFolder,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the store to measure on.")] = "test",
    judge: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judges that say what the clips sound like.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Clips of each label and speaker; 0 speaks none.")] = 10,
    temperature: Annotated[float, typer.Option(metavar="T", help="Of the clips.")] = 1.0,
    min_p: Annotated[float, typer.Option("--min-p", metavar="P", help="Of the clips.")] = 0.0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    html: Annotated[Path | None, typer.Option("--html", metavar="DIR", help="Write a page to listen to.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure how good a model is."""
    from wavegen.evaluate import evaluate as measure
    from wavegen.evaluate import summary

    with stages() as progress:
        report = measure(
            model,
            store,
            split=split,
            judge=judge,
            seeds=seeds,
            engine=engine,
            precision=precision,
            temperature=temperature,
            min_p=min_p,
            html=html,
            progress=progress,
        )
    if json:
        print_json(report)
    else:
        print(summary(report))


def bench(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A bundled model or a model folder.")] = None,
    config: Annotated[str | None, typer.Option(metavar="A|B|C|D", help="A benchmark size instead of a model.")] = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(metavar="N", help="Rows spoken at once.")] = 1,
    threads: Threads = "1",
    train: Annotated[bool, typer.Option("--train", help="Measure training instead of synthesis.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure how fast this machine speaks or trains."""
    from wavegen.bench import bench as measure

    report = measure(
        model, config=config, engine=engine, precision=precision, batch=batch, threads=threads, train=train
    )
    if json:
        print_json(report)
    else:
        _print_facts(report)


def _print_facts(facts: dict[str, object]) -> None:
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
