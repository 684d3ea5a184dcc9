"""wavegen init, prepare, train, export: from recordings to a model folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.options import Json, RecipeFile, StoreFolder, Verbose, note, print_json, stages
from wavegen.errors import ConfigError


def init(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="Recipe to write.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of your recordings.")],
    kind: Annotated[
        str | None,
        typer.Option(metavar="sounds|speech|long|vocoder", help="What they are for; by their length if left out."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Look at recordings of your own and write a first recipe for them."""
    from wavegen.audio.atomic import atomic_write
    from wavegen.data.starter import kind_of, starter_recipe, survey

    if recipe.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f'a recipe is a YAML file: give "{recipe}" the ending .yaml')
    if recipe.exists():
        raise ConfigError(f"{recipe} exists and is not overwritten; give another name, or delete it first")
    found = survey(data)
    text = starter_recipe(recipe.stem, found, kind)
    with atomic_write(recipe) as file:
        file.write(text.encode())
    note(f"{data}: {found}")
    note(f"{recipe} is a recipe for {kind or kind_of(found)}; look at it, change what you like, then")
    store, run, model = f"stores/{recipe.stem}", f"runs/{recipe.stem}", f"my-{recipe.stem}"
    print(f"wavegen prepare {shlex.quote(str(recipe))} --data {shlex.quote(str(data))} --out {shlex.quote(store)}")
    print(f"wavegen train {shlex.quote(str(recipe))} --store {shlex.quote(store)} --out {shlex.quote(run)}")
    print(f"wavegen export {shlex.quote(run)} --out {shlex.quote(model)}")


def prepare(
    recipe: RecipeFile,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of recordings.")],
    out: Annotated[Path, typer.Option("--out", metavar="STORE", help="Store to write, or to continue.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", show_default=False, help="Such as prepare.normalize=none."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Features of an acoustic model, ID.npy each, in place of the recordings'."),
    ] = None,
    features_spec: Annotated[
        str | None, typer.Option(metavar="PRESET", help="What they are; as audio.mel of the recipe if left out.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A bad file is an error instead of being skipped.")] = False,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes; all usable cores if left out.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turn a folder of recordings into a store of mu-law codes."""
    from wavegen.config import load_recipe
    from wavegen.data.prepare import prepare as prepare_store

    report = prepare_store(load_recipe(recipe, overrides or []), data, out, strict=strict, workers=workers,
                           features=features, features_spec=features_spec)
    if json:
        print_json(report)


def train(
    recipe: RecipeFile,
    store: StoreFolder,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for checkpoints and logs.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", show_default=False, help="Such as training.max_steps=100."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto", help="auto continues the run in --out; or a file.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", metavar="MODEL", help="Fine-tune this model: folder, bundled name, or a run."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Train the model of a recipe on a store."""
    from wavegen.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from wavegen.training import fit

    fit(settings, store, out, resume=resume, init_from=init_from)


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder made by `wavegen train`; with --calibrate also a model.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Model folder to write.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model; the recipe's if left out.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Measure on these recordings what the integer precisions need and cost."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="best|last", help="Of the run; the best where it has one, else the last."),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(metavar="KL", help="With --calibrate: the divergence that --precision auto puts up with; 1e-3."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="What the model draws with by default; the recipe's if left out.")
    ] = None,
    min_p: Annotated[float | None, typer.Option("--min-p", metavar="P", help="The same for min_p.")] = None,
    matching: Annotated[
        int | None, typer.Option(metavar="N", help="The same for the passes that match a vocoder's audio to its mel.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights in float16: half the size.")] = False,
    verbose: Verbose = False,
) -> None:
    """Turn the averaged weights of a run into a model folder, or calibrate one."""
    from wavegen.checkpoint import export_run, is_model

    if limit is not None and calibrate is None:
        raise ConfigError("--limit is measured against figures that --calibrate STORE makes; give both")
    if checkpoint is not None and is_model(run):
        raise ConfigError(f"{run} is a model folder, which has no checkpoints; leave out --checkpoint")
    given = {"temperature": temperature, "min_p": min_p, "matching": matching}
    sampling = {key: value for key, value in given.items() if value is not None}
    if (sampling or half) and is_model(run):
        raise ConfigError(f"{run} is a model folder; how a model draws and how its weights are stored is set where its "
                          "run is exported")
    if not is_model(run):
        spec = export_run(run, out, name, dtype="float16" if half else "float32",
                          checkpoint=checkpoint, sampling=sampling)  # type: ignore[arg-type]
        note(f'model "{spec.name}" after {spec.training["steps"]} steps: {out}')
    elif calibrate is None:
        raise ConfigError(f"{run} is a model folder, which needs no export; --calibrate STORE writes one calibrated")
    if calibrate is not None:
        from wavegen.evaluate.calibrate import calibrate as measure
        from wavegen.evaluate.calibrate import summary

        with stages() as progress:
            spec = measure(run if is_model(run) else out, calibrate, out, name, limit, progress)
        note(summary(spec))
