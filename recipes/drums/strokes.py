"""How often a drum strikes a second time: generated sounds beside recordings.

    python recipes/drums/strokes.py drums --store stores/drums --out recipes/drums/results/strokes.json

A second stroke is a rise by more than 6 dB after 0.6 s, over what lies between 0.5 s and 0.6 s, to a level above -30 dB
of the loudest 20 ms of the sound. Cost: 10 s of one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import wavegen
from wavegen.audio.atomic import write_json
from wavegen.audio.mulaw import decode
from wavegen.data.store import Store
from wavegen.errors import WavegenError
from wavegen.synth import Request

FRAME_SECONDS, BEFORE_SECONDS, AFTER_SECONDS = 0.02, 0.5, 0.6
RISE_DB, LOUD_DB = 6.0, -30.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Count second strokes of generated drums and of recordings.")
    parser.add_argument("model", help="model folder or bundled name")
    parser.add_argument("--store", type=Path, required=True, help="drums, made by recipes/drums/prepare.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--count", type=int, default=80, help="generated sounds of each class")
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0, 0.6])
    options = parser.parse_args()
    try:
        store, model = Store.open(options.store), wavegen.load(options.model)
        report: dict[str, Any] = {"model": options.model, "count": options.count, "recordings": {}, "generated": {}}
        for label in model.labels:
            rows = np.flatnonzero(np.asarray(store.label_ids) == store.labels.index(label))
            clips = [decode(store.codes(int(row)).astype(np.int64)) for row in rows]
            report["recordings"][label] = share(clips, store.audio.sample_rate)
        for temperature in options.temperature:
            report["generated"][str(temperature)] = {
                label: share([clip.waveform for clip in model.generate_batch(
                    Request(label, clip=clip, temperature=temperature) for clip in range(options.count))],
                    model.sample_rate)
                for label in model.labels}
        write_json(options.out, report)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{'':8} {'recordings':>10} " + " ".join(f"{f'T = {name}':>10}" for name in report["generated"]))
    for label in model.labels:
        shares = [report["recordings"][label], *(found[label] for found in report["generated"].values())]
        print(f"{label:8} " + " ".join(f"{value:>10.1%}" for value in shares))
    return 0


def share(clips: list[np.ndarray], sample_rate: int) -> float:
    """The share of clips (T,) that strike a second time."""
    return round(float(np.mean([strikes_again(clip, sample_rate) for clip in clips])), 4)


def strikes_again(waveform: np.ndarray, sample_rate: int) -> bool:
    """Whether a clip float32 (T,) rises again after its first stroke; one that ends before does not."""
    frame = round(FRAME_SECONDS * sample_rate)
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    before, after = round(BEFORE_SECONDS / FRAME_SECONDS), round(AFTER_SECONDS / FRAME_SECONDS)
    if len(frames) <= after:
        return False
    power = np.square(frames, dtype=np.float64).mean(1) + 1e-10
    level = 10 * np.log10(power / power.max())
    late = float(level[after:].max())
    return late > LOUD_DB and late - float(level[before:after].min()) > RISE_DB


if __name__ == "__main__":
    sys.exit(main())
