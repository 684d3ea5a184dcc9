"""Trains the two judges that score generated digits, on the recordings of the training split.

    python recipes/fsdd/judge.py --store stores/fsdd --out recipes/fsdd/judges

- `augmented` has also heard noisy, shifted and stretched copies: the fair judge of what is said;
- `clean` has heard the recordings only, so noise in generated audio throws it off: the difference
  between the two is the noise in the audio.

Both must hear the recordings of the test split right, 99 % of digits and of speakers, or the
script fails. About two minutes of one core for each. Neither ever hears generated audio.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavegen.data.store import Store
from wavegen.errors import WavegenError
from wavegen.metrics.judge_training import examined, train_judge

EPOCHS = {"augmented": 16, "clean": 12}
WANTED_ACCURACY = 0.99  # on the recordings of the test split


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the judges of spoken digits.")
    parser.add_argument("--store", required=True, help="folder that wavegen prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write augmented/ and clean/ into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes over the recordings; fewer only to try the script")
    options = parser.parse_args()
    failed = []
    try:
        store = Store.open(options.store)
        for name, epochs in EPOCHS.items():
            judge = train_judge(store, name == "augmented", options.seed, options.epochs or epochs,
                                on_epoch=lambda done, total, name=name: _show(name, done, total))
            judge = examined(judge, store)
            judge.save(options.out / name)
            digit = judge.config.test_label_accuracy or 0.0
            speaker = judge.config.test_speaker_accuracy or 0.0
            print(f"{name} hears {digit:.1%} of the test digits and {speaker:.1%} of their speakers")
            if min(digit, speaker) < WANTED_ACCURACY:
                failed.append(name)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if failed:
        print(f"error: {' and '.join(failed)} should hear {WANTED_ACCURACY:.0%} of both; "
              "train longer or with another --seed", file=sys.stderr)
        return 1
    return 0


def _show(name: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{name}: epoch {done} of {total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
