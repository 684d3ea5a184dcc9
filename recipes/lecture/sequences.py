"""Sequence prediction: a recurrence against a WaveNet of the same number of parameters.

    python recipes/lecture/sequences.py --plot sequences.svg                         # from committed results
    python recipes/lecture/sequences.py --store stores/fsdd --runs runs/lecture --plot sequences.svg   # train again

Three trainings with seed 0 on the same recordings: the GRU, the WaveNet after as much audio as the GRU has heard, and
the WaveNet to its end. Bits per sample are those of the test split; 500 clips of each are heard by judges that never
heard generated audio. Cost of training again: 35 min, 13 min and 1 h 42 min of one core. A run that is there already
is continued, or not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from wavegen.audio.atomic import write_json
from wavegen.errors import WavegenError

FSDD = Path(__file__).resolve().parents[1] / "fsdd"
KINDS = {  # name of its results: title, recipe, settings
    "rnn": ("GRU", "rnn.yaml", []),
    "wavenet_equal_data": ("WaveNet, as much audio", "wavenet.yaml", ["training.max_steps=2830"]),
    "digits": ("WaveNet, to its end", "wavenet.yaml", []),
}
JUDGES = ("augmented", "clean")


def main() -> int:
    parser = argparse.ArgumentParser(description="A recurrence against a WaveNet of the same size.")
    parser.add_argument("--results", type=Path, default=FSDD / "results", help="folder of evaluations, read or written")
    parser.add_argument("--runs", type=Path, help="folder of trainings; with it everything is trained again")
    parser.add_argument("--store", type=Path, help="spoken digits, made by `wavegen prepare`")
    parser.add_argument("--out", type=Path, help="JSON of the table")
    parser.add_argument("--plot", type=Path, help="picture to draw, .svg or .png")
    options = parser.parse_args()
    try:
        if options.runs is not None:
            if options.store is None:
                raise WavegenError("--runs trains again, which needs --store STORE")
            for name in KINDS:
                train(name, options.store, options.runs, options.results)
        rows = [row_of(name, json.loads((options.results / f"{name}.json").read_text())) for name in KINDS]
        print(table(rows))
        if options.out is not None:
            write_json(options.out, {"rows": rows})
        if options.plot is not None:
            draw(rows, options.plot)
    except (WavegenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


def train(name: str, store: Path, runs: Path, results: Path) -> None:
    """One training, exported and evaluated."""
    from wavegen.checkpoint import export_run
    from wavegen.config import load_recipe
    from wavegen.evaluate import evaluate
    from wavegen.training import fit

    _, recipe, settings = KINDS[name]
    fit(load_recipe(FSDD / recipe, settings), store, runs / name, resume="auto")
    export_run(runs / name, runs / f"{name}-model", name)
    write_json(results / f"{name}.json", evaluate(runs / f"{name}-model", store, judge=FSDD / "judges"))


def row_of(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """What the table and the picture show of an evaluation."""
    heard = report["generated"]["judges"]
    return {
        "name": name, "title": KINDS[name][0], "parameters": report["parameters"],
        "steps": report["training"]["steps"], "bits_per_sample": report["bits_per_sample"]["all"],
        **{f"{what}_{judge}": heard[judge][key] for judge in JUDGES
           for what, key in (("label", "label_accuracy"), ("speaker", "speaker_accuracy"),
                             ("distance", "frechet_distance"))},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| | parameters | steps | bits per sample | digit heard: augmented / clean | speaker | distance |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = [f"{row[f'{what}_augmented']:.1%} / {row[f'{what}_clean']:.1%}" for what in ("label", "speaker")]
        lines.append(f"| {row['title']} | {row['parameters']:,} | {row['steps']} | {row['bits_per_sample']:.3f} | "
                     f"{shares[0]} | {shares[1]} | {row['distance_augmented']:.1f} / {row['distance_clean']:.1f} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Bits per sample, digits heard and distance, one bar a model."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wavegen"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3))
    names, colours = [row["title"].replace(", ", ",\n") for row in rows], ["tab:orange", "tab:cyan", "tab:blue"]
    for axis, key, title, factor in ((axes[0], "bits_per_sample", "bits per sample (axis from 3.5)", 1),
                                     (axes[1], "label_augmented", "digits heard right, %", 100),
                                     (axes[2], "distance_augmented", "Frechet distance to recordings", 1)):
        bars = axis.bar(names, [factor * row[key] for row in rows], color=colours)
        axis.bar_label(bars, fmt="%.3g", fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
    axes[0].set_ylim(3.5, None)
    axes[1].set_ylim(0, 110)
    axes[2].margins(y=0.1)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
