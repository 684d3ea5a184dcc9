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
    clips: Annotated[
        int | None, typer.Option(metavar="N", help="Of a vocoder: recordings it copies; at most 20 if left out.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a vocoder: the recordings the store was made of, to compare with."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Of the clips; the model's own default if left out.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", metavar="P", help="Of the clips; the model's own default if left out.")
    ] = None,
    matching: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a vocoder: passes that match its audio to the mel; as above if left out."),
    ] = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    html: Annotated[Path | None, typer.Option("--html", metavar="DIR", help="Write a page to listen to.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure how good a model is: a vocoder by copies of recordings, others by clips of their own."""
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
            clips=clips,
            data_dir=data,
            matching=matching,
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
