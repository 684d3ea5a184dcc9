"""What untrained and counting models need for a sample of the test clips: floors for every network.

    python recipes/fsdd/floors.py --store stores/fsdd --out recipes/fsdd/results/floors.json

- context models of the last 0 to 3 codes, counted on the training clips (Witten-Bell);
- adaptive linear predictors of order 4, 12 and 20 that start anew in every clip. Each is given with
  a long memory (0.999, about 1000 samples) and with the memory that is best on 250 training clips.

Everything is averaged inside the clips only. About one minute of one core; no seed: nothing is drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio.atomic import write_json
from wavegen.data.store import Store
from wavegen.errors import WavegenError
from wavegen.info import describe_installation
from wavegen.metrics.context import ContextModel
from wavegen.metrics.linear import linear_prediction_bits
from wavegen.metrics.tally import BitsPerSample, tally

MAX_CONTEXT = 3
ORDERS = (4, 12, 20)
LONG_MEMORY = 0.999
MEMORIES = (0.97, 0.98, 0.985, 0.988, 0.99, 0.992, 0.995, 0.998)
TUNING_CLIPS = 250


def measure(store: Store, split: str = "test") -> dict[str, Any]:
    """All floors of a split, with what they were measured on."""
    test, train = store.rows(split), store.rows("train")
    clips = [store.codes(int(row)) for row in test]
    tuning = train[:: max(1, len(train) // TUNING_CLIPS)][:TUNING_CLIPS]
    tuning_clips = [store.codes(int(row)) for row in tuning]
    channels = store.audio.quantization_channels

    def total(bits: np.ndarray) -> BitsPerSample:
        return tally(bits, store.lengths[test], store.speaker_ids[test], store.speakers)

    counted = ContextModel([store.codes(int(row)) for row in train], MAX_CONTEXT, channels).bits(clips)
    context = [{"order": order, **total(bits).to_dict()} for order, bits in enumerate(counted)]
    linear = []
    for order in ORDERS:
        needed = [linear_prediction_bits(tuning_clips, order, memory, channels).sum() for memory in MEMORIES]
        for kind, memory in (("long", LONG_MEMORY), ("tuned", MEMORIES[int(np.argmin(needed))])):
            bits = total(linear_prediction_bits(clips, order, memory, channels))
            linear.append({"order": order, "memory": kind, "forgetting": memory, **bits.to_dict()})
    installed = describe_installation()
    return {"store_digest": store.digest, "split": split, "unit": "bits per sample, inside the clips",
            "context": context, "linear": linear, "best_context": min(row["mean"] for row in context),
            "cpu": installed["cpu"]["name"], "wavegen": installed["wavegen"]}


def table(floors: dict[str, Any]) -> str:
    """The floors as lines of text, one column a speaker."""
    speakers = list(floors["context"][0]["groups"])
    lines = [f"{'':34}{'all':>8}" + "".join(f"{name[:8]:>9}" for name in speakers)]
    for row in floors["context"]:
        lines.append(_line(f"context, last {row['order']} codes", row, speakers))
    for row in floors["linear"]:
        name = f"linear, order {row['order']}, {row['memory']} ({row['forgetting']})"
        lines.append(_line(name, row, speakers))
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any], speakers: list[str]) -> str:
    return f"{name:34}{row['mean']:8.3f}" + "".join(f"{row['groups'][speaker]:9.3f}" for speaker in speakers)


def main() -> int:
    parser = argparse.ArgumentParser(description="Floors of the test clips, in bits per sample.")
    parser.add_argument("--store", required=True, help="folder that wavegen prepare wrote")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    try:
        floors = measure(Store.open(options.store))
        if options.out is not None:
            write_json(options.out, floors)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(floors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
