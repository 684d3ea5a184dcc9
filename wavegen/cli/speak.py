"""wavegen synth: from a model to audio files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.options import (
    STANDARD,
    Engine,
    Json,
    Model,
    Precision,
    Threads,
    Verbose,
    note,
    progress_bar,
    require_one,
)
from wavegen.errors import ConfigError


def synth(
    model: Model,
    label: Annotated[str | None, typer.Option(metavar="L", help="What to say; several with commas: 3,1,4.")] = None,
    speaker: Annotated[str | None, typer.Option(metavar="S", help="In whose voice.")] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="X", help="Intended length; a usual one if left out.")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Number of clips, which differ in their draws.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")] = 0,
    temperature: Annotated[float, typer.Option(metavar="T", help="Below 1 is safer and duller.")] = 1.0,
    min_p: Annotated[
        float,
        typer.Option("--min-p", metavar="P", help="Never draw codes below this share of the likeliest."),
    ] = 0.0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            dir_okay=False,
            allow_dash=True,
            help="File to write, .wav or .flac; - is stdout.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", file_okay=False, help="Folder for the clips and their manifest.jsonl."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="F.png", help="Draw the spectrograms.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Generate audio with a model."""
    require_one(o=output, out=out)
    if count != 1 and out is None:
        raise ConfigError(f"--count {count} writes more than one file: give --out DIR instead of -o")
    if output == STANDARD and json:
        raise ConfigError("-o - and --json both want stdout; leave one out")
    if output == STANDARD and sys.stdout.isatty():
        raise ConfigError("-o - writes audio to stdout, which is a terminal: send it to a file or a player")

    from wavegen.synth import Request, files, load_synthesizer, numbered, split_labels
    from wavegen.synth.spectrogram import check_plot, plot_written

    if plot is not None:
        check_plot(plot)
    if output is not None and output != STANDARD:
        files.check_place(output, files.ENDINGS)
    synthesizer = load_synthesizer(model, engine, precision, threads=threads)
    first = Request(split_labels(label, synthesizer.labels), speaker, seconds, seed, 0, temperature, min_p)
    requests = numbered(first, count)
    with progress_bar(files.total_samples(synthesizer, requests), "speaking") as progress:
        if out is not None:
            delivery = files.write_clips(synthesizer, requests, out, progress)
        elif output == STANDARD:
            delivery = files.write_stream(synthesizer, first, sys.stdout.buffer, progress)
        else:
            assert output is not None
            delivery = files.write_clip(synthesizer, first, output, progress)
    if json:
        for clip in delivery.clips:
            print(clip.to_json())
    note(str(delivery.report))
    if plot is not None:
        plot_written(plot, synthesizer, requests, delivery, out)
    files.check_delivery(delivery, len(requests))
