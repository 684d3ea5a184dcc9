"""A page to listen to: the figures, spectrograms, and a player for every generated clip."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import io
from wavegen.audio.atomic import atomic_write
from wavegen.errors import ConfigError
from wavegen.evaluate.clips import Pairs, Spoken
from wavegen.evaluate.copy_synthesis import Copies
from wavegen.evaluate.report import FIGURES, KINDS, bits_lines, company_lines, copy_lines, copy_table, table
from wavegen.metrics.clips import ClipCheck
from wavegen.metrics.judge import Verdict
from wavegen.synth import Synthesizer
from wavegen.synth.spectrogram import check_plot, plot_clips

SHOWN_PAIRS = 10  # recordings beside their reconstructions
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .3rem .5rem; text-align: right }
td:first-child, th:first-child { text-align: left } 
audio { height: 1.8rem; width: 9rem; vertical-align: middle }
img { max-width: 100% } .wrong { background: #fde3df } .clips td { text-align: left; vertical-align: top }
"""


def check_page(folder: Path) -> None:
    """Fail before anything is measured rather than after it.

    Raises:
        MissingBackendError: matplotlib is not installed.
        ConfigError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --html needs a folder to write index.html into")
    check_plot("spectrograms.png")


def write_page(
    folder: Path,
    report: Mapping[str, Any],
    spoken: Spoken,
    checks: Sequence[ClipCheck],
    verdicts: Mapping[str, Verdict],
    synthesizer: Synthesizer,
    pairs: Pairs | None = None,
) -> None:
    """Write `index.html`, `audio/*.wav` and one picture of spectrograms a speaker.

    Clips a judge heard as something else, and clips with a fault, are marked. Of an auto-encoder there are also
    some recordings beside their reconstructions.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    labels, speakers = synthesizer.labels or ("",), synthesizer.speakers or ("",)
    cells: dict[tuple[int, int], list[str]] = {}
    for i, waveform in enumerate(spoken.waveforms):
        label, speaker = max(0, int(spoken.label_ids[i])), max(0, int(spoken.speaker_ids[i]))
        name = "_".join(part for part in (labels[label], speakers[speaker], str(spoken.seeds[i])) if part)
        path = f"audio/{''.join(c if c.isalnum() or c in '-_' else '-' for c in name)}.wav"
        io.save(folder / path, waveform, synthesizer.sample_rate)
        faults = _faults(i, spoken, checks, verdicts, synthesizer)
        cells.setdefault((label, speaker), []).append(
            f'<div{" class=wrong" if faults else ""} title="{html.escape(faults or name)}">'
            f'<audio controls preload="none" src="{html.escape(path)}"></audio> {html.escape(faults)}</div>'
        )
    pictures = [_picture(folder, place, name, spoken, synthesizer) for place, name in enumerate(speakers)]
    body = [
        f"<h1>{html.escape(str(report['model']))}</h1>",
        _facts(report),
        _table(table(dict(report))),
        *(
            f'<h2>{html.escape(name)}</h2><img src="{picture}" alt="spectrograms, {html.escape(name)}">'
            for name, picture in zip(speakers, pictures, strict=True)
        ),
        "<h2>All clips</h2><p>Marked clips were heard as something else or have a fault.</p>",
        _players(labels, speakers, cells),
        *(_reconstructions(folder, pairs, synthesizer.sample_rate) if pairs is not None else ()),
    ]
    title = html.escape(str(report["model"]))
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode())


def write_vocoder_page(folder: Path, report: Mapping[str, Any], copies: Copies, sample_rate: int) -> None:
    """Write `index.html`, `audio/*.wav` and a picture of spectrograms a clip: recording and copies side by side."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    kinds = {"recording": copies.recordings, **copies.copies}
    titles = {"recording": "recording", **KINDS}
    rows = []
    for place, name in enumerate(copies.names):
        cells = []
        for kind, waveforms in kinds.items():
            path = f"audio/{place}-{kind}.wav"
            io.save(folder / path, waveforms[place], sample_rate)
            said = _judged(copies.figures[kind][place]) if kind in copies.figures else ""
            cells.append(f'<audio controls preload="none" src="{html.escape(path)}"></audio><br>{html.escape(said)}')
        plot_clips(folder / f"spectrograms-{place}.png",
                   [(titles[kind], waveforms[place]) for kind, waveforms in kinds.items()], sample_rate)
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
                    f'<tr><td colspan="{len(cells) + 1}"><img src="spectrograms-{place}.png" '
                    f'alt="spectrograms of {html.escape(name)}"></td></tr>')
    copied = report["copy_synthesis"]
    facts = [f"{report['family']}, {report['parameters']:,} parameters, split {report['split']}",
             *bits_lines(report["bits_per_sample"]), *copy_lines(copied),
             f"{copied['speed']['times_realtime']:.2f} times real time, engine {copied['speed']['engine']}, "
             f"{report['machine']['cpu']}"]
    head = "".join(f"<th>{html.escape(titles[kind])}</th>" for kind in kinds)
    title = html.escape(str(report["model"]))
    body = (f"<h1>{title}</h1><ul>{''.join(f'<li>{html.escape(fact)}</li>' for fact in facts)}</ul>"
            f"{_table(copy_table(dict(report)))}<h2>Clips</h2><table class=clips><tr><th></th>{head}</tr>"
            f"{''.join(rows)}</table>")
    with atomic_write(folder / "index.html") as file:
        file.write((f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
                    f"<body>{body}</body></html>\n").encode())


def _judged(figures: Mapping[str, float | None]) -> str:
    """STOI and PESQ of one copy."""
    return ", ".join(f"{name.upper()} {value:{FIGURES[name][1]}}" for name, value in figures.items()
                     if name in ("stoi", "pesq") and value is not None)


def _faults(
    i: int,
    spoken: Spoken,
    checks: Sequence[ClipCheck],
    verdicts: Mapping[str, Verdict],
    synthesizer: Synthesizer,
) -> str:
    faults = [fault.replace("_", "-") for fault in checks[i].faults]
    for name, verdict in verdicts.items():
        for meant, names, heard in (
            (spoken.label_ids[i], synthesizer.labels, verdict.labels),
            (spoken.speaker_ids[i], synthesizer.speakers, verdict.speakers),
        ):
            if meant >= 0 and int(heard[i].argmax()) != meant:
                faults.append(f"{name} hears {names[int(heard[i].argmax())]}")
    return ", ".join(faults)


def _picture(folder: Path, speaker: int, name: str, spoken: Spoken, synthesizer: Synthesizer) -> str:
    """Spectrograms of the first seed's labels in one voice."""
    chosen = np.flatnonzero((np.maximum(spoken.speaker_ids, 0) == speaker) & (spoken.seeds == 0))
    titles = synthesizer.labels or ("",)
    file = f"spectrograms-{speaker}.png"
    plot_clips(
        folder / file,
        [(titles[max(0, int(spoken.label_ids[i]))], spoken.waveforms[i]) for i in chosen],
        synthesizer.sample_rate,
    )
    return file


def _reconstructions(folder: Path, pairs: Pairs, sample_rate: int) -> list[str]:
    """Players and spectrograms of a few recordings, each beside what became of it."""
    chosen = np.linspace(0, len(pairs.names) - 1, min(SHOWN_PAIRS, len(pairs.names))).round().astype(int)
    (folder / "reconstructions").mkdir(exist_ok=True)
    rows, pictures = [], []
    for i in chosen:
        players = []
        for kind, waveform in (("recording", pairs.wanted[i]), ("reconstruction", pairs.found[i])):
            path = f"reconstructions/{i}-{kind}.wav"
            io.save(folder / path, waveform, sample_rate)
            players.append(f'<td><audio controls preload="none" src="{path}"></audio></td>')
            pictures.append((f"{pairs.names[i]}, {kind}"[-32:], waveform))
        rows.append(f"<tr><th>{html.escape(pairs.names[i])}</th>{''.join(players)}</tr>")
    plot_clips(folder / "reconstructions.png", pictures, sample_rate)
    head = "<tr><th></th><th>recording</th><th>reconstruction</th></tr>"
    return ["<h2>Reconstructions</h2>", '<img src="reconstructions.png" alt="spectrograms of reconstructions">',
            f"<table class=clips>{head}{''.join(rows)}</table>"]


def _facts(report: Mapping[str, Any]) -> str:
    generated = report["generated"]
    facts = [
        f"{report['family']}, {report['parameters']:,} parameters, split {report['split']}",
        *bits_lines(report["bits_per_sample"]),
        *company_lines(dict(report)),
        f"{generated['times_realtime']:.2f} times real time, engine {generated['engine']}, {report['machine']['cpu']}",
        f"temperature {generated['temperature']}, min_p {generated['min_p']}, {generated['seeds']} seeds",
    ]
    return "<ul>" + "".join(f"<li>{html.escape(fact)}</li>" for fact in facts) + "</ul>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rest]
    return f"<table>{''.join(lines)}</table>"


def _players(
    labels: Sequence[str], speakers: Sequence[str], cells: Mapping[tuple[int, int], list[str]]
) -> str:
    head = "<tr><th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in speakers) + "</tr>"
    lines = [
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(f"<td>{''.join(cells.get((row, column), []))}</td>" for column in range(len(speakers)))
        + "</tr>"
        for row, label in enumerate(labels)
    ]
    return f"<table class=clips>{head}{''.join(lines)}</table>"
