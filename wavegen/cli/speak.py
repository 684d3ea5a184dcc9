"""wavegen synth: from a model to audio."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wavegen.cli import vocode
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

if TYPE_CHECKING:
    from wavegen.config import ModelFolder
    from wavegen.synth import Request, Synthesizer
    from wavegen.synth.files import Delivery
    from wavegen.synth.finish import Finish

MEL_HELP = (
    "Vocoders: mel spectrogram to speak, .npy, .npz or bare float32 frames (.f32); several, or a folder of them, with "
    "--out. - reads stdin while it speaks: .npy arrays, known by their first bytes, else little-endian float32 frames "
    "of n_mels numbers each."
)
MANIFEST_HELP = (
    'Vocoders: JSON lines such as {"id": "s1", "mel": "s1.npy"} (or "like"; optional speaker, seed, temperature, '
    "min_p, text), files relative to it. What --out holds already is checked and left."
)
FORMAT_HELP = "Of --out: wav or flac. Of -o -: also raw, which is bare 16-bit samples (s16le)."
NEAR_HELP = (
    "More like this clip, which --out has written (drums, notes): its latents, moved by --spread, and its label, if no "
    "other is given."
)


def synth(
    model: Model,
    label: Annotated[str | None, typer.Option(metavar="L", help="What to say; several with commas: 3,1,4.")] = None,
    speaker: Annotated[str | None, typer.Option(metavar="S", help="In whose voice.")] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="X", help="Intended length; a usual one if left out.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Number of clips, which differ in their draws; 1 if left out.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Clips of each label by itself, of all if none is given, with --out.")
    ] = False,
    near: Annotated[Path | None, typer.Option(metavar="CLIP", dir_okay=False, help=NEAR_HELP)] = None,
    spread: Annotated[
        float | None, typer.Option(metavar="X", help="How far from --near: 0 is the same, 1 any clip; 0.3 if left out.")
    ] = None,
    tidy: Annotated[
        bool,
        typer.Option("--tidy", help="Cut silence off at both ends, bring the peak to 0.9, fade the ends."),
    ] = False,
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="--tidy, and what sounds after the first sound has died away is cut off.")
    ] = False,
    sample_rate: Annotated[
        int | None, typer.Option("--sample-rate", metavar="HZ", help="Of the files; the model's if left out.")
    ] = None,
    bits: Annotated[int, typer.Option(metavar="16|24|32", help="Of a sample in the files; 32 is floating point.")] = 16,
    page: Annotated[
        bool, typer.Option("--page", help="With --out: an index.html to listen to all clips there and pick.")
    ] = False,
    mel: Annotated[list[Path] | None, typer.Option(metavar="F.npy", allow_dash=True, help=MEL_HELP)] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(metavar="F.wav", help="Vocoders: recording of any format and rate to speak again; also a folder."),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(metavar="F.jsonl", dir_okay=False, help=MANIFEST_HELP)] = None,
    mel_spec: Annotated[
        str | None,
        typer.Option("--mel-spec", metavar="PRESET", help="What the mels are, as tacotron2; else the model's."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="CT|TC", help="Bands first or frames first; told by the shape unless both are n_mels."),
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="With --like: bring the peak to 0.9 first.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Speak mels whose values look wrong.")] = False,
    no_guard: Annotated[bool, typer.Option("--no-guard", help="Vocoders: leave bursts as they were drawn.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Speak also what --out holds already.")] = False,
    matching: Annotated[
        int | None,
        typer.Option(metavar="N", help="Vocoders: passes that bring the audio to the levels of its mel, 0 to 8."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Below 1 is safer and duller; the model's own if left out.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", metavar="P", help="Never draw codes below this share of the likeliest; as above."),
    ] = None,
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
            help="File to write, .wav or .flac; - is stdout, written while it speaks.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", file_okay=False, help="Folder for the clips and their manifest.jsonl."),
    ] = None,
    format: Annotated[str | None, typer.Option(metavar="wav|flac|raw", help=FORMAT_HELP)] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Draw the spectrograms, with --like beside the recording's.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Generate audio with a model: from a label, or with a vocoder from a mel spectrogram.

    \b
    wavegen synth digits --label 7 --speaker george -o seven.wav
    wavegen synth VOCODER --mel F.npy -o F.wav
    ... | wavegen synth VOCODER --mel - -o - --format raw | aplay -f S16_LE -r 16000
    """
    require_one(o=output, out=out)
    told = vocode.Told(mel, like, manifest, mel_spec, layout, normalize, no_check, no_guard, overwrite, matching)
    place = vocode.Place(output, out, _format(format, output), plot)
    if spread is not None and near is None:
        raise ConfigError("--spread is the distance from --near CLIP; give both")
    for name, given_too in (("--each", each), ("--page", page)):
        if given_too and out is None:
            raise ConfigError(f"{name} is for a folder of clips: give --out DIR instead of -o")
    if output == STANDARD and json:
        raise ConfigError("-o - and --json both want stdout; leave one out")
    if output == STANDARD and (sys.stdout is None or sys.stdout.isatty()):
        state = "closed" if sys.stdout is None else "a terminal"
        raise ConfigError(f"-o - writes audio to stdout, which is {state}: send it to a file or a player")
    from wavegen.checkpoint import find_model, read_spec

    spec = read_spec(find_model(model))
    if spec.is_vocoder:
        given = {"--format": format if out is not None else None, "--label": label,
                 "--seconds": seconds, "--count": count, "--near": near, "--each": each or None,
                 "--tidy": tidy or None, "--one-shot": one_shot or None, "--sample-rate": sample_rate,
                 "--bits": None if bits == 16 else bits, "--page": page or None}
        _check_kind(spec, [name for name, value in given.items() if value is not None])
        vocode.check(told, spec, place)
    else:
        _check_kind(spec, [name for name in told.given() if name != "--overwrite" or out is None])
        if count not in (None, 1) and out is None:
            raise ConfigError(f"--count {count} writes more than one file: give --out DIR instead of -o")

    from wavegen.synth import files
    from wavegen.synth.spectrogram import check_plot

    if plot is not None:
        check_plot(plot)
    if output is not None and output != STANDARD:
        files.check_place(output, files.ENDINGS)
    if spec.is_vocoder:
        from wavegen.synth import load_vocoder
        from wavegen.synth.vocode import Options

        options = Options(mel_spec, layout, normalize, not no_check, not no_guard, speaker, seed, temperature, min_p,
                          matching)
        delivery, asked = vocode.speak(load_vocoder(model, engine, precision, threads=threads), told, options, place)
    else:
        from wavegen.synth import Request, load_synthesizer, split_labels
        from wavegen.synth.finish import Finish

        kind = place.kind if out is not None or output is None else output.suffix.lower().removeprefix(".")
        finish = Finish(tidy, sample_rate, bits, "wav" if output == STANDARD else kind, one_shot)
        if output == STANDARD and not finish.is_plain:
            raise ConfigError("--tidy, --one-shot, --sample-rate and --bits are for files; -o - is the clip while it "
                              "is made")
        usual, origin = spec.sampling, None
        row: dict[str, Any] = {}
        if near is not None:
            origin, row = files.near_clip(near, spec, spread)
        synthesizer = load_synthesizer(model, engine, precision, threads=threads)
        said = split_labels(label, synthesizer.labels) or row.get("label")
        request = Request(said, row.get("speaker") if speaker is None else speaker, seconds, seed,
                          temperature=row.get("temperature", usual.temperature) if temperature is None else temperature,
                          min_p=usual.min_p if min_p is None else min_p, near=origin)
        requests = _requests(synthesizer, request, 1 if count is None else count, each)
        delivery, asked = _say(synthesizer, requests, place, finish, overwrite), len(requests)
        if delivery.kept:
            note(f"{delivery.kept} of {asked} clips were there already; --overwrite speaks them anew")
        if page and out is not None:
            from wavegen.synth.page import write_page

            note(f"listen: {write_page(out, model)}")
    if json:
        for clip in delivery.clips:
            print(clip.to_json())
    if delivery.report.num_samples:
        note(str(delivery.report))
    files.check_delivery(delivery, asked)


def _requests(synthesizer: Synthesizer, first: Request, count: int, each: bool) -> list[Request]:
    """What is asked for, clip by clip."""
    from wavegen.synth import numbered

    if not each:
        return numbered(first, count)
    if not synthesizer.labels:
        raise ConfigError(f'model "{synthesizer.spec.name}" has no labels to make clips of each; leave --each out')
    labels = [first.label] if isinstance(first.label, str) else first.label or synthesizer.labels
    assert not isinstance(labels, int)
    return [request for label in labels for request in numbered(replace(first, label=label), count)]


def _say(synthesizer: Synthesizer, requests: list[Request], place: vocode.Place, finish: Finish,
         overwrite: bool) -> Delivery:
    """Speak clips of a model that is told a label, or nothing."""
    from wavegen.synth import files
    from wavegen.synth.spectrogram import plot_written

    with progress_bar(files.total_samples(synthesizer, requests), "speaking") as progress:
        if place.out is not None:
            delivery = files.write_clips(synthesizer, requests, place.out, progress, finish, overwrite)
        elif place.output == STANDARD:
            delivery = files.write_stream(synthesizer, requests[0], sys.stdout.buffer, place.kind, progress)
        else:
            assert place.output is not None
            delivery = files.write_clip(synthesizer, requests[0], place.output, progress, finish)
    if place.plot is not None:
        plot_written(place.plot, synthesizer, requests, delivery, place.out)
    return delivery


def _check_kind(spec: ModelFolder, wrong: list[str]) -> None:
    """Refuse options that the other kind of model is told."""
    if not wrong:
        return
    if spec.is_vocoder:
        raise ConfigError(f'model "{spec.name}" is a vocoder, which speaks a mel spectrogram and knows no {wrong[0]}: '
                          "give --mel, --like or --manifest instead")
    instead = "say what with --label" if spec.model.conditioning.label else "leave it out"
    raise ConfigError(f'model "{spec.name}" is no vocoder and knows no {wrong[0]}: {instead}')


def _format(kind: str | None, output: Path | None) -> str:
    if kind is None:
        return "wav"
    from wavegen.audio.streams import check_format

    if output is not None and output != STANDARD:
        raise ConfigError("--format is for --out and -o -; that of a file is the ending of its name")
    check_format(kind)
    return kind
