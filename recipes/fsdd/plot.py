"""Draws spectrograms of generated digits, such as the picture in the README.

    python recipes/fsdd/plot.py digits --speaker george --speaker theo --out docs/img/digits.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavegen.errors import WavegenError
from wavegen.synth import Request, load
from wavegen.synth.spectrogram import plot_clips


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw spectrograms of generated digits.")
    parser.add_argument("model", help="a bundled model such as digits, or a model folder")
    parser.add_argument("--speaker", action="append", help="one row of pictures, or two; the first if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("docs/img/digits.png"))
    options = parser.parse_args()
    try:
        voice = load(options.model)
        requests = [
            Request(label, speaker, seed=options.seed, temperature=options.temperature)
            for speaker in options.speaker or voice.speakers[:1]
            for label in voice.labels
        ]
        clips = voice.generate_batch(requests)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        titles = [f"{request.label}, {request.speaker}" for request in requests]
        plot_clips(options.out, [(title, clip.waveform) for title, clip in zip(titles, clips, strict=True)],
                   voice.sample_rate)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {len(clips)} clips; {voice.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
