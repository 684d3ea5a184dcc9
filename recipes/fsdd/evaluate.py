"""Scores a model of spoken digits with the judges of this recipe: `wavegen eval` with a default judge.

    python recipes/fsdd/evaluate.py digits --store stores/fsdd --out recipes/fsdd/results/digits.json

Bits per sample on the test split, then 500 clips (10 digits x 5 speakers x 10 seeds). About five
minutes of one core for a WaveNet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavegen.audio.atomic import write_json
from wavegen.errors import WavegenError
from wavegen.evaluate import evaluate, summary

HISSING = ("6",)
JUDGES = Path(__file__).resolve().parent / "judges"


def main() -> int:
    parser = argparse.ArgumentParser(description="Score a model of spoken digits.")
    parser.add_argument("model", help="a bundled model such as digits, or a model folder")
    parser.add_argument("--store", required=True, help="folder that wavegen prepare wrote")
    parser.add_argument("--judge", default=JUDGES, help="folder of judges; those of this recipe if left out")
    parser.add_argument("--seeds", type=int, default=10, help="clips of each digit and speaker")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--min-p", type=float, default=0.0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--html", type=Path, help="folder to write a page to listen to into")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    try:
        report = evaluate(
            options.model, options.store, judge=options.judge, seeds=options.seeds, engine=options.engine,
            temperature=options.temperature, min_p=options.min_p, html=options.html, progress=_show,
        )
        if options.out is not None:
            write_json(options.out, report)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(summary(report))
    if report["generated"] is not None:
        noisy = [clip for clip in report["generated"]["faulty"] if "noise_like" in clip["faults"]]
        others = sum(clip["label"] not in HISSING for clip in noisy) / report["generated"]["clips"]
        print(f"noise-like without {', '.join(HISSING)}, which is mostly hiss by nature: {others:.1%}")
    return 0


def _show(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
