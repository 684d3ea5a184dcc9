"""Audio files in and out: the only place that mixes to mono and resamples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wavegen.errors import AudioError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 384_000  # Hz; a header outside is taken for damage
MAX_FRAMES = 2**27  # of a file, at its own rate: 46 minutes at 48 kHz, 512 MiB in memory
BLOCK_FRAMES = 2**16


def load(path: str | Path, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read an audio file as mono.

    Args:
        path: any format, rate, depth and channel count soundfile reads.
        sample_rate: Hz to resample to (soxr HQ); None keeps the file's own.

    Returns:
        float32 (T,), the mean of the channels, and its sample rate in Hz. A lossy or float
        file may exceed [-1, 1].

    Raises:
        AudioError: names the file and the reason.
    """
    import soundfile

    path = Path(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, blocks, num_frames = int(file.samplerate), [], 0
            while True:
                block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                num_frames += len(block)
                blocks.append(block.mean(axis=1, dtype=np.float32))
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path} cannot be read as audio: {error}") from error
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if sample_rate is not None and sample_rate != rate:
        import soxr

        waveform, rate = soxr.resample(waveform, rate, sample_rate, quality="HQ").astype(np.float32), sample_rate
    return waveform, rate
