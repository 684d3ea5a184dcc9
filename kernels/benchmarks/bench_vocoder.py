"""What a vocoder costs besides the network: time to the first audio, share of the conditioning, memory of a long mel.

    python kernels/benchmarks/bench_vocoder.py --out results/NAME.json [MODEL ...] [--only latency | memory]

Sizes are drawn at random and speak on one thread a mel of noise: `tiny` and a real-time size, in several
precisions; models named are measured beside them, on a mel of the same noise. A random network does not follow its mel,
so its guard is off; that of a named model is on. Medians over streams; memory is the peak of a process of its own, less
the mel and the audio, which the caller holds anyway.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.audio.atomic import write_json
from wavegen.audio.mel_formats import PRESETS
from wavegen.bench import bench_streams, machine
from wavegen.bench.streams import noise_mel
from wavegen.checkpoint import LoadedModel
from wavegen.config import AudioConfig, ConditioningConfig, ModelFolder, Vocabulary, WaveNetConfig
from wavegen.models import build_model
from wavegen.synth import Vocoder, load_vocoder

SPEC = PRESETS["speecht5"]
CYCLE = tuple(2**exponent for exponent in range(10))
SIZES = {"tiny": (16, 32, CYCLE[:6]), "R64 S128 L20": (64, 128, CYCLE * 2)}
PRECISIONS = {"tiny": ("f32",), "R64 S128 L20": ("i8", "i8x15", "i16", "f32")}
SHORT, LONG = 10, 600  # seconds


def random_vocoder(size: str, precision: str) -> Vocoder:
    """A vocoder of a size with random weights, on the signal path lpc with three frames of look-ahead."""
    residual, skip, dilations = SIZES[size]
    told = ConditioningConfig(features=SPEC.n_mels, context_frames=3, hidden_channels=128, hop_length=SPEC.hop_length,
                              feature_mean=-2.0, feature_scale=0.8)
    config = WaveNetConfig(residual_channels=residual, skip_channels=skip, output_channels=skip, dilations=dilations,
                           conditioning=told)
    audio = AudioConfig(sample_rate=SPEC.sample_rate, mel=SPEC, signal_path="lpc", preemphasis=0.85)
    torch.manual_seed(0)
    model = build_model(config, audio, Vocabulary()).eval()
    folder = ModelFolder(wavegen_version="", name=size, audio=audio, model=config)
    return Vocoder(LoadedModel(folder, model, Path(".")), precision=precision)


def latency(voc: Vocoder, name: str, guard: bool) -> dict[str, Any]:
    """What `bench_streams` finds, the speed of a whole mel, and the share of the conditioning in a frame."""
    streams = bench_streams(voc, guard)
    mel = noise_mel(voc, 60)
    voc(mel[None], guard=guard)
    conditioning = _conditioning_seconds(voc, mel)
    return {"op": "first audio", "model": name, "engine": voc.engine.name, "precision": voc.engine.precision,
            "guard": guard, "hop_length": voc.hop_length, **streams,
            "whole_samples_per_second": round(voc.report.samples_per_second),
            "whole_times_realtime": round(voc.report.times_realtime, 2),
            "conditioning_microseconds": round(1e6 * conditioning, 1),
            "conditioning_share": round(1e3 * conditioning / streams["frame_milliseconds"], 4)}


def _conditioning_seconds(voc: Vocoder, mel: np.ndarray, rounds: int = 300) -> float:
    """Of one frame: its prediction, the conditioning network and the projection of every layer."""
    voice = voc._voice
    network, window = voice.network, np.ascontiguousarray(mel.T[: 2 * voice.network.context + 2])
    out = np.empty((network.upsampling, *network.columns), np.float32)
    base, lags = network.base(speaker=0 if voc.speakers else None), np.ones((2, voc.folder.audio.lpc_order + 1))
    begin = time.perf_counter()
    for _ in range(rounds):
        network.rows(window, 0, 2**62, network.context * network.upsampling, base, out)
        if voice.predictor is not None:
            lags[1:] = voice.predictor.autocorrelation(mel[:, :1])
            voice.predictor.coefficients(lags, 0, 2**62, 0, 1)
    return (time.perf_counter() - begin) / rounds


def memory(way: str) -> list[dict[str, Any]]:
    """Peak memory of a short and of a long mel, spoken whole or as a stream, each in a process of its own."""
    found = []
    for seconds in (SHORT, LONG):
        command = [sys.executable, __file__, "--peak", way, str(seconds)]
        found.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return [{"op": "memory", "way": way, "short_seconds": SHORT, "long_seconds": LONG,
             "short_megabytes": round(found[0] / 1e6, 1), "long_megabytes": round(found[1] / 1e6, 1),
             "growth": round(found[1] / found[0] - 1, 4)}]


def peak(way: str, seconds: int) -> int:
    """Bytes at the peak of this process, without mel and audio."""
    voc = random_vocoder("tiny", "f32")
    num_frames = seconds * voc.sample_rate // voc.hop_length
    stretch = noise_mel(voc, 50)

    def frames() -> Iterator[np.ndarray]:
        for _ in range(num_frames // 50):
            yield stretch

    held = 0
    if way == "stream":
        for _ in voc.stream(frames(), guard=False):
            pass
    else:
        mel = np.tile(stretch, num_frames // 50)[None]
        held = mel.nbytes + voc(mel, guard=False).waveform.nbytes
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 - held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("latency", "memory"))
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(options.peak[0], int(options.peak[1])))
        return
    rows: list[dict[str, Any]] = []
    if options.only != "memory":
        for size, precisions in PRECISIONS.items():
            rows += [latency(random_vocoder(size, precision), size, False) for precision in precisions]
        rows += [latency(load_vocoder(model), model, True) for model in options.models]
    if options.only != "latency":
        rows += memory("whole") + memory("stream")
    for row in rows:
        print(json.dumps(row))
    if options.out:
        known = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
        kept = [row for row in known if row["op"] not in {row["op"] for row in rows}]
        write_json(options.out, {**machine(), "rows": rows + kept})


if __name__ == "__main__":
    main()
