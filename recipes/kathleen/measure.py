"""What the vocoder of this recipe costs and gives, beside what `wavegen eval` measures.

    python recipes/kathleen/measure.py bursts MODEL --store stores/kathleen --out recipes/kathleen/results/bursts.json
    python recipes/kathleen/measure.py precisions MODEL --store stores/kathleen --data ../shared/data/kathleen
    python recipes/kathleen/measure.py speed MODEL --store stores/kathleen
    python recipes/kathleen/measure.py codec --store stores/kathleen --data ../shared/data/kathleen
    python recipes/kathleen/measure.py paths LPC_MODEL DIRECT_MODEL --store STORE DIRECT_STORE --data ...

bursts      200 clips, the test sentences and pieces of training sentences, with and without the guard: bursts and
            silent clips in what comes out, by the guard's own detector and beside the recording
precisions  copies of test sentences in each precision: STOI, and the divergence the model folder states
speed       times real time of each precision, on a core that nobody else uses
codec       test sentences through the codes of the store: the ceiling of any model
paths       copies by two models, such as one of each signal path: STOI on the same sentences
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.audio import io, levels
from wavegen.audio.atomic import write_json
from wavegen.audio.mel import mel_basis
from wavegen.audio.signal import decode_codes
from wavegen.data.store import Store
from wavegen.engines import PRECISIONS
from wavegen.errors import WavegenError
from wavegen.metrics.bursts import burst_rates, check_against_mel, check_against_recording
from wavegen.metrics.copies import compare, means
from wavegen.synth import load_vocoder
from wavegen.synth.guards import GuardReport

BATCH_CLIPS = 16
PIECE_SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the vocoder of this recipe.")
    parser.add_argument("what", choices=("bursts", "precisions", "speed", "codec", "paths"))
    parser.add_argument("models", nargs="*", help="model folders")
    parser.add_argument("--store", nargs="+", required=True, help="folder that wavegen prepare wrote, for each model")
    parser.add_argument("--data", type=Path, help="the recordings, where copies are compared with them")
    parser.add_argument("--clips", type=int, help="200 for bursts, 8 where copies are compared, all for the codec")
    parser.add_argument("--temperatures", type=float, nargs="+", help="the model's own if left out")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        wanted = {"codec": 0, "paths": 2}.get(options.what, 1)
        if len(options.models) != wanted:
            parser.error(f"{options.what} takes {wanted} model folders, found {len(options.models)}")
        if options.data is None and options.what in ("precisions", "codec", "paths"):
            parser.error(f"{options.what} compares with the recordings: name their folder with --data")
        report = globals()[f"measure_{options.what}"](options)
        if options.out is not None:
            write_json(options.out, report)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=1))
    return 0


def measure_bursts(options: argparse.Namespace) -> dict[str, Any]:
    voc, store = load_vocoder(options.models[0]), Store.open(options.store[0])
    longest = round(PIECE_SECONDS * voc.sample_rate / voc.hop_length)
    mels, recorded = pieces(store, options.clips or 200, longest)
    report: dict[str, Any] = {"model": facts(voc), "clips": len(mels)}
    for temperature in options.temperatures or [voc.folder.sampling.temperature]:
        for guard in (False, True):
            checks, witness, seen = [], [], GuardReport()
            for begin in range(0, len(mels), BATCH_CLIPS):
                batch = mels[begin : begin + BATCH_CLIPS]
                audio = voc(batch, seed=list(range(begin, begin + len(batch))), temperature=temperature, guard=guard)
                checks += [check_against_mel(audio[row].waveform, mel, voc.spec) for row, mel in enumerate(batch)]
                witness += [check_against_recording(audio[row].waveform, recorded[begin + row], voc.sample_rate,
                                                    voc.hop_length) for row in range(len(batch))]
                seen += voc.report.guarded or GuardReport()
            found = burst_rates(checks) | {"worst_db": round(max(check.worst for check in checks), 2)}
            if guard:
                found |= {"spoken_again": seen.bursts + seen.silences, "attempts": seen.attempts,
                          "left": seen.bursts_left + seen.silences_left}
            found["beside_the_recording"] = burst_rates(witness) | {
                "worst_db": round(max(check.worst for check in witness), 2)}
            report[f"temperature {temperature:g}, guard {'on' if guard else 'off'}"] = found
    return report


def measure_precisions(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    store = Store.open(options.store[0])
    rows, recorded = sentences(store, options.data, options.clips or 8)
    for precision in PRECISIONS["numba"][1:]:  # without "auto"
        voc = load_vocoder(options.models[0], "numba", precision)
        report.setdefault("model", facts(voc))
        measured = voc.folder.calibration
        figures = None if measured is None else measured.precisions.get(precision)
        divergence = {} if figures is None else {"kl": figures.kl, "bits_change": figures.bits_change}
        report[precision] = divergence | copies(voc, store, rows, recorded, options.temperatures)
    return report


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    store, report = Store.open(options.store[0]), {}
    mel = store.features(int(store.rows("test")[0]))[:125].T.astype(np.float32)[None]
    for precision in PRECISIONS["numba"][1:]:  # without "auto"
        voc = load_vocoder(options.models[0], "numba", precision)
        report.setdefault("model", facts(voc))
        voc(mel[:, :, :20])
        stream = voc.stream(mel[0])
        for _ in stream:
            pass
        row = {"first_audio_ms": round(1e3 * (voc.report.first_audio_seconds or 0.0), 2)}
        for guard in (False, True):
            voc(mel, guard=guard)
            row["guarded" if guard else "unguarded"] = round(voc.report.times_realtime, 2)
        report[precision] = row
    return report


def measure_codec(options: argparse.Namespace) -> dict[str, Any]:
    store = Store.open(options.store[0])
    rows, recorded = sentences(store, options.data, options.clips or len(store.rows("test")))
    audio = store.audio
    basis = None if audio.mel is None else mel_basis(audio.mel)
    clips = []
    for row, wanted in zip(rows, recorded, strict=True):
        features = store.features(row)
        found = decode_codes(store.codes(row), audio, None if features is None else features.T, basis)
        clips.append(compare(found, wanted, audio.sample_rate, ("stoi", "pesq", "log_mel")))
    return {"signal_path": audio.signal_path, "preemphasis": audio.preemphasis, "store_digest": store.digest,
            **rounded(means(clips))}


def measure_paths(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    stores = [Store.open(path) for path in options.store]
    for model, store in zip(options.models, stores * 2, strict=False):
        voc = load_vocoder(model, "numba", "f32")
        rows, recorded = sentences(store, options.data, options.clips or 8)
        report[Path(model).name] = {"model": facts(voc), **copies(voc, store, rows, recorded, options.temperatures)}
    return report


def copies(voc: Any, store: Store, rows: Sequence[int], recorded: Sequence[np.ndarray],
           temperatures: Sequence[float] | None) -> dict[str, Any]:
    """STOI, PESQ and log-mel distance of sentences spoken from their mel, without the guard and with it."""
    mels = [store.features(row).T.astype(np.float32) for row in rows]
    report = {}
    for temperature in temperatures or [voc.folder.sampling.temperature]:
        for guard in (False, True):
            audio = voc(mels, temperature=temperature, guard=guard)
            clips = [compare(audio[row].waveform, wanted, voc.sample_rate, ("stoi", "pesq", "log_mel"))
                     for row, wanted in enumerate(recorded)]
            report[f"temperature {temperature:g}, guard {'on' if guard else 'off'}"] = rounded(means(clips))
    return report


def pieces(store: Store, count: int, longest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Mels (n_mels, F): the test sentences, then pieces of training sentences, each from another place.

    And what their codes say, (F * hop_length,) at most.
    """
    assert store.audio.mel is not None
    hop = store.audio.mel.hop_length
    test, train = store.rows("test"), store.rows("train")
    chosen = [int(row) for row in test[:count]]
    chosen += [int(train[place]) for place in np.linspace(0, len(train) - 1, count - len(chosen)).astype(int)]
    mels, recorded = [], []
    for number, row in enumerate(chosen):
        mel = store.features(row).T.astype(np.float32)
        start, stop = 0, mel.shape[1]
        if number >= len(test):
            start = (number * 37) % max(1, stop - longest + 1)
            stop = min(stop, start + longest)
        mels.append(mel[:, start:stop])
        recorded.append(store.waveform(row)[start * hop : stop * hop])
    return mels, recorded


def sentences(store: Store, data: Path, count: int) -> tuple[list[int], list[np.ndarray]]:
    """Rows of the test split, and their recordings as they were before they were coded."""
    test = store.rows("test")
    rows = [int(test[place]) for place in np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int)]
    rate, recorded = store.audio.sample_rate, []
    for row in rows:
        waveform, found = io.read(data / store.entry(row)["source"])
        recorded.append(levels.level(io.resample(waveform, found, rate), rate, store.info.prepare).waveform)
    return rows, recorded


def facts(voc: Any) -> dict[str, Any]:
    training = voc.folder.training
    return {"name": voc.folder.name, "steps": training.get("steps"), "precision": voc.engine.precision,
            "engine": voc.engine.name, "signal_path": voc.folder.audio.signal_path}


def rounded(table: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            for name, row in table.items()}


if __name__ == "__main__":
    sys.exit(main())
