"""Audio files in and out: the only place that mixes to mono and resamples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wavegen.audio.headers import damage
from wavegen.audio.streams import file_writer
from wavegen.errors import AudioError, ConfigError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 384_000  # Hz; a header outside is taken for damage
MAX_CHANNELS = 64
MAX_FRAMES = 2**27  # of a file, at its own rate and at the rate wanted: 46 minutes at 48 kHz, 512 MiB
BLOCK_SAMPLES = 2**24  # read at once, all channels together: 64 MiB
PIECE_SAMPLES = 2**16  # that are encoded at a time


def load(path: str | Path, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read an audio file as mono at a wanted rate.

    Args:
        path: any format, rate, depth and channel count soundfile reads.
        sample_rate: Hz to resample to (soxr HQ); None keeps the file's own.

    Returns:
        float32 (T,), T >= 1, the mean of the channels, and its sample rate in Hz. Finite; a lossy
        or float file may exceed [-1, 1].

    Raises:
        AudioError: names the file and the reason.
    """
    waveform, rate = read(path)
    if sample_rate is None:
        return waveform, rate
    waveform = resample(waveform, rate, sample_rate)
    if len(waveform) == 0:
        raise AudioError(f"{path} cannot be used: nothing is left of it at {sample_rate} Hz")
    return waveform, sample_rate


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """Read an audio file as mono at its own rate; see `load`. Needs at most 3 x 4 x `MAX_FRAMES` bytes."""
    import soundfile

    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path} does not exist")
    if not path.is_file():
        raise AudioError(f"{path} is not a file")  # a pipe would make us wait for ever
    try:
        # By number: with a name, libsndfile takes any bytes called .au or .vox for headerless audio.
        with open(path, "rb", buffering=0) as raw:  # else libsndfile starts where our buffer ends
            reason = damage(raw, path.stat().st_size)
            raw.seek(0)
            with soundfile.SoundFile(raw.fileno(), closefd=False) as file:
                reason = reason or _absurd(file)
                if reason is None:
                    return _mono(file, path), int(file.samplerate)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(". ")
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, AudioError):
            raise
        reason = str(error)
    except MemoryError:
        reason = "it needs more memory than there is"
    raise AudioError(f"{path} cannot be used: {reason}")


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample with soxr HQ: float32 (T,) at `from_rate` Hz to float32 (round(T * to / from),).

    Raises:
        AudioError: the result would have more than `MAX_FRAMES` samples.
        ConfigError: `to_rate` makes no sense.
    """
    check_sample_rate(to_rate)
    if from_rate == to_rate:
        return waveform
    if len(waveform) * to_rate > MAX_FRAMES * from_rate:
        raise AudioError(f"a clip of {len(waveform) / from_rate:.0f} s is too long at {to_rate} Hz; cut it")
    import soxr

    resampled: np.ndarray = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return resampled.astype(np.float32, copy=False)


def check_sample_rate(sample_rate: int) -> None:
    """Refuse a rate nobody means: ConfigError."""
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise ConfigError(f"sample_rate must lie in [{MIN_SAMPLE_RATE}, {MAX_SAMPLE_RATE}] Hz, "
                          f"found {sample_rate}")


def save(path: str | Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a 16-bit file, whole or not at all: WAV or, by its name, FLAC. It is encoded a piece at a time.

    Args:
        path: ends in .wav or .flac.
        waveform: float (T,); what exceeds [-1, 1] is clipped.
        sample_rate: Hz.

    Raises:
        ConfigError: another format.
        AudioError: the waveform is not one finite channel, or too long for a WAV.
        WavegenError: the file cannot be written.
    """
    waveform = np.asarray(waveform)
    stretches = range(0, max(1, len(waveform)), PIECE_SAMPLES) if waveform.ndim == 1 else ()
    with file_writer(path, sample_rate) as append:
        for start in stretches:
            append(waveform[start : start + PIECE_SAMPLES])
        if waveform.ndim != 1:
            append(waveform)  # says what is wrong with it


def _absurd(file: object) -> str | None:
    rate, channels, frames = (int(getattr(file, name)) for name in ("samplerate", "channels", "frames"))
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        return f"its header claims {rate} Hz, outside [{MIN_SAMPLE_RATE}, {MAX_SAMPLE_RATE}]"
    if not 1 <= channels <= MAX_CHANNELS:
        return f"its header claims {channels} channels, at most {MAX_CHANNELS} are read"
    if frames > MAX_FRAMES:
        return f"its header claims {frames} frames, at most {MAX_FRAMES} are read; cut it into shorter clips"
    if frames <= 0:
        return "it holds no audio (0 frames)"
    return None


def _mono(file: object, path: Path) -> np.ndarray:
    """The mean of the channels, read block by block: float32 (T,)."""
    import soundfile

    assert isinstance(file, soundfile.SoundFile)
    frames, done = int(file.frames), 0
    waveform = np.empty(frames, np.float32)
    while done < frames:
        # Never past the stated end: libsndfile seeks after each read, and some FLACs cannot.
        block = file.read(min(frames - done, BLOCK_SAMPLES // file.channels), dtype="float32", always_2d=True)
        if len(block) == 0:
            raise AudioError(f"{path} cannot be used: cut short: its header promises {frames} frames, "
                             f"{done} are there")
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float64)
        waveform[done : done + len(block)] = mono
        done += len(block)
    if not np.isfinite(waveform).all():
        count = int(np.count_nonzero(~np.isfinite(waveform)))
        raise AudioError(f"{path} cannot be used: {count} of its {frames} samples are NaN or infinite")
    return waveform
