"""Audio files in and out: the only place that mixes to mono and resamples."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from wavegen.audio.atomic import part_of, sync, sync_folder, write_error
from wavegen.audio.headers import damage
from wavegen.errors import AudioError, ConfigError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 384_000  # Hz; a header outside is taken for damage
MAX_CHANNELS = 64
MAX_FRAMES = 2**27  # of a file, at its own rate and at the rate wanted: 46 minutes at 48 kHz, 512 MiB
BLOCK_SAMPLES = 2**24  # read at once, all channels together: 64 MiB
MAX_WAV_BYTES = 2**32 - 1
PIECE_SAMPLES = 2**16  # that are encoded at a time
HEADER_BYTES = 44


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
    from wavegen.audio.streams import file_writer  # which builds on this module

    waveform = np.asarray(waveform)
    stretches = range(0, max(1, len(waveform)), PIECE_SAMPLES) if waveform.ndim == 1 else ()
    with file_writer(path, sample_rate) as append:
        for start in stretches:
            append(waveform[start : start + PIECE_SAMPLES])
        if waveform.ndim != 1:
            append(waveform)  # says what is wrong with it


class WavWriter:
    """A 16-bit WAV written piece by piece; it appears under its name when the block ends well.

        with WavWriter("out.wav", 8000) as writer:
            for chunk in chunks:
                writer.write(chunk)

    Memory does not grow with the length. If the block fails, nothing is left behind.
    """

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.num_samples = 0
        self._part = part_of(self.path)
        self._file: BinaryIO | None = None

    def __enter__(self) -> WavWriter:
        try:
            self._file = open(self._part, "wb")
            self._file.write(wav_header(self.sample_rate, 0))
        except BaseException as error:  # a signal too: __exit__ is not called before the block begins
            self._discard()
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise
        return self

    def write(self, waveform: np.ndarray) -> None:
        """Append float (T,) in [-1, 1]; what exceeds it is clipped.

        Raises:
            AudioError: not one finite channel, or the file would pass 4 GiB.
            WavegenError: the disk is full.
        """
        assert self._file is not None, "WavWriter is used in a `with` block"
        samples = to_pcm16(waveform)
        if HEADER_BYTES + 2 * (self.num_samples + len(samples)) > MAX_WAV_BYTES:
            raise AudioError(f"{self.path} would exceed 4 GiB, the most a WAV can hold; write several files")
        try:
            self._file.write(samples.tobytes())
        except OSError as error:
            raise write_error(self.path, error) from error
        self.num_samples += len(samples)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if kind is not None or self._file is None:
            self._discard()
            return
        try:
            self._file.seek(0)
            self._file.write(wav_header(self.sample_rate, self.num_samples))
            sync(self._file)
            self._file.close()
            self._part.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            self._discard()
            raise write_error(self.path, error) from error

    def _discard(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError:  # the disk is full and the last buffer cannot be written: it is not wanted either
                self._file = None
        self._part.unlink(missing_ok=True)


def to_pcm16(waveform: np.ndarray) -> np.ndarray:
    """Round float (T,) in [-1, 1] to int16 (T,), little-endian; a 16-bit file read and written stays equal.

    Raises:
        AudioError: more than one axis, or samples that are not finite.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1:
        raise AudioError(f"a mono waveform has one axis, found shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise AudioError("the waveform holds NaN or infinite samples and was not written")
    samples: np.ndarray = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype("<i2")
    return samples


def wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    """The 44 bytes before 16-bit mono samples; None marks a length not known yet, for a pipe."""
    num_bytes = 2 * num_samples if num_samples is not None else MAX_WAV_BYTES - 36
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", num_bytes + 36, b"WAVE", b"fmt ", 16, 1, 1,
                       sample_rate, 2 * sample_rate, 2, 16, b"data", num_bytes)


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
