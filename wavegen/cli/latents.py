"""wavegen encode, decode, morph: clips as latents of a variational auto-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.options import Engine, Json, Model, Precision, Verbose, note, print_json
from wavegen.errors import ConfigError

Label = Annotated[str | None, typer.Option(metavar="L", help="What is said or played, where the decoder is told.")]
Speaker = Annotated[str | None, typer.Option(metavar="S", help="In whose voice, where the decoder is told.")]
Normalize = Annotated[bool, typer.Option("--normalize", help="Bring the peak to 0.9 first, where recipes put it.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of a decoder that draws, as a WaveNet does.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="Of a decoder that draws.")]


def encode(
    model: Model,
    clip: Annotated[Path, typer.Argument(metavar="A.wav", help="Audio file of any rate.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="F.npz", help="File of latents to write.")],
    label: Label = None,
    speaker: Speaker = None,
    normalize: Normalize = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turn a clip into latents."""
    from wavegen.audio import io
    from wavegen.synth import latents as codec
    from wavegen.synth import load_synthesizer

    codec.check_latents_place(output)
    synthesizer = load_synthesizer(model)
    codec.check_encodes(synthesizer)
    found = codec.encode(synthesizer, *io.read(clip), label, speaker, normalize)
    found.save(output)
    facts = {"path": str(output), "channels": found.values.shape[0], "frames": found.values.shape[1],
             "num_samples": found.num_samples, "sample_rate": synthesizer.sample_rate}
    if json:
        print_json(facts)
    note(f"{found.num_samples / synthesizer.sample_rate:.2f} s of audio as {found.values.size} latents "
         f"({found.values.shape[0]} channels x {found.values.shape[1]} frames)")


def decode(
    model: Model,
    latents: Annotated[Path, typer.Argument(metavar="F.npz", help="Latents that `wavegen encode` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="B.wav", help="File to write, .wav or .flac.")],
    label: Label = None,
    speaker: Speaker = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    verbose: Verbose = False,
) -> None:
    """Turn latents back into a clip."""
    from wavegen.synth import files, load_synthesizer
    from wavegen.synth import latents as codec

    files.check_place(output, files.ENDINGS)
    given = codec.load_latents(latents)
    synthesizer = load_synthesizer(model, engine, precision)
    codec.decode(synthesizer, given, label, speaker, seed, temperature).save(output)
    note(str(synthesizer.report))


def morph(
    model: Model,
    first: Annotated[Path, typer.Argument(metavar="A.wav", help="Where the way begins.")],
    second: Annotated[Path, typer.Argument(metavar="B.wav", help="Where it ends.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", file_okay=False, help="Folder for the files.")],
    steps: Annotated[int, typer.Option(metavar="N", help="Clips, both ends included.")] = 9,
    label: Annotated[
        str | None, typer.Option(metavar="L", help="Of both clips, or of each with a comma: piano,guitar.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(metavar="S", help="Of both clips, or of each with a comma.")] = None,
    normalize: Normalize = False,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    engine: Engine = "auto",
    precision: Precision = "auto",
    verbose: Verbose = False,
) -> None:
    """Go from one clip to another, along the latents between them.

    Writes step-00.wav to step-08.wav, and morph.wav with all of them one after the other.
    """
    from wavegen.audio import io
    from wavegen.synth import latents as codec
    from wavegen.synth import load_synthesizer, split_labels

    synthesizer = load_synthesizer(model, engine, precision)
    codec.check_encodes(synthesizer)
    labels = _pair("label", split_labels(label, synthesizer.labels))
    speakers = _pair("speaker", split_labels(speaker, synthesizer.speakers))
    ends = [codec.encode(synthesizer, *io.read(path), name, voice, normalize)
            for path, name, voice in zip((first, second), labels, speakers, strict=True)]
    way = codec.morph(synthesizer, ends[0], ends[1], steps, seed, temperature)
    clips, reports = [], []
    for clip in way:
        clips.append(clip)
        reports.append(synthesizer.report)
    out.mkdir(parents=True, exist_ok=True)
    width = max(2, len(str(steps - 1)))
    for number, clip in enumerate(clips):
        clip.save(out / f"step-{number:0{width}d}.wav")
    codec.joined(clips).save(out / "morph.wav")
    note(str(sum(reports[1:], reports[0])))


def _pair(name: str, given: str | list[str] | None) -> tuple[str | None, str | None]:
    if not isinstance(given, list):
        return given, given
    if len(given) != 2:
        raise ConfigError(f"--{name} names {len(given)} of them; give one for both clips or two with a comma")
    return given[0], given[1]
