"""Trains the two judges of a data set on the recordings of its training split.

    python recipes/judge.py --store stores/fsdd --out recipes/fsdd/judges
    python recipes/judge.py --store stores/drums --out recipes/drums/judges --frames 104 --wanted 0.8
    python recipes/judge.py --store stores/sc09 --out recipes/speech_commands/judges --labels-only --wanted 0.9

- `augmented` has also heard noisy, shifted and stretched copies: the fair judge of what is said;
- `clean` has heard the recordings only, so noise in generated audio throws it off: the difference
  between the two is the noise in the audio.

Both must hear the share --wanted of the test split's recordings right, labels and speakers, or the script fails.
About two minutes of one core for each: small data sets are gone through more often. Neither ever hears generated
audio.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavegen.data.store import Store
from wavegen.errors import WavegenError
from wavegen.metrics.judge_training import examined, train_judge

CLIPS = {"augmented": 36_000, "clean": 27_000}  # heard in training, over all epochs


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the judges of a data set.")
    parser.add_argument("--store", required=True, help="folder that wavegen prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write augmented/ and clean/ into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=80, help="of 10 ms that are heard of a clip")
    parser.add_argument("--labels-only", action="store_true", help="leave speakers out, where there are too many")
    parser.add_argument("--wanted", type=float, default=0.99, help="share of the test split to be heard right")
    parser.add_argument("--epochs", type=int, help="passes over the recordings; fewer only to try the script")
    options = parser.parse_args()
    failed = []
    try:
        store = Store.open(options.store)
        for name, clips in CLIPS.items():
            epochs = options.epochs or max(1, round(clips / len(store.rows("train"))))
            judge = train_judge(store, name == "augmented", options.seed, epochs, num_frames=options.frames,
                                with_speakers=not options.labels_only,
                                on_epoch=lambda done, total, name=name: _show(name, done, total))
            judge = examined(judge, store)
            judge.save(options.out / name)
            label, speaker = judge.config.test_label_accuracy or 0.0, judge.config.test_speaker_accuracy
            print(f"{name} hears {label:.1%} of the test labels"
                  + (f" and {speaker:.1%} of their speakers" if speaker is not None else ""))
            if min(label, 1.0 if speaker is None else speaker) < options.wanted:
                failed.append(name)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if failed:
        print(f"error: {' and '.join(failed)} should hear {options.wanted:.0%} of all; "
              "train longer or with another --seed", file=sys.stderr)
        return 1
    return 0


def _show(name: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{name}: epoch {done} of {total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
