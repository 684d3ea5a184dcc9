"""How soon a vocoder speaks while its mel arrives, and what a frame costs then."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavegen.synth import Vocoder
from wavegen.synth.utterances import FIRST_SECONDS

STREAMS, FRAMES = 15, 60
NOISE = 0.05  # standard deviation of the noise whose mel is spoken, full scale 1


def bench_streams(vocoder: Vocoder, guard: bool = True, streams: int = STREAMS, frames: int = FRAMES) -> dict[str, Any]:
    """Milliseconds from the frame that completes the look-ahead to the first 20 ms of audio; medians over streams.

    Args:
        vocoder: speaks the mel of a noise that rises and falls, frame by frame, as its defaults say.
        guard: as of `Vocoder.stream`; a random network does not follow its mel and keeps it busy.
        streams, frames: how many, and how long each is at least.
    """
    look, first, each = vocoder.lookahead_frames, [], []
    mel, enough = noise_mel(vocoder, frames + look), int(FIRST_SECONDS * vocoder.sample_rate)
    speaker = vocoder.speakers[0] if vocoder.speakers else None
    for _ in range(streams):
        stream, given, frame = vocoder.stream(guard=guard, speaker=speaker), 0, look
        stream.push(mel[:, :look])
        begin = time.perf_counter()
        while given < enough:
            given += len(stream.push(mel[:, frame]))
            frame += 1
        first.append(time.perf_counter() - begin)
        begin, rest = time.perf_counter(), range(frame, mel.shape[1])
        for late in rest:
            stream.push(mel[:, late])
        each.append((time.perf_counter() - begin) / max(1, len(rest)))
    seconds = float(np.median(each))
    return {"lookahead_frames": look, "first_audio_milliseconds": round(1e3 * float(np.median(first)), 2),
            "first_audio_p80": round(1e3 * float(np.quantile(first, 0.8)), 2),
            "frame_milliseconds": round(1e3 * seconds, 3),
            "stream_times_realtime": round(vocoder.hop_length / vocoder.sample_rate / max(seconds, 1e-9), 2)}


def noise_mel(vocoder: Vocoder, num_frames: int) -> NDArray[np.float32]:
    """The mel (n_mels, F) of a noise that rises and falls."""
    count = vocoder.hop_length * max(num_frames, 8)
    samples = np.random.default_rng(0).normal(0, NOISE, count) * np.sin(np.arange(count) * (16 * np.pi / count))
    return np.ascontiguousarray(vocoder.mel(samples.astype(np.float32))[:, :num_frames])
