"""16-bit samples and the WAV around them: a header, a file written piece by piece."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from wavegen.audio.atomic import part_of, sync, sync_folder, write_error
from wavegen.errors import AudioError

MAX_WAV_BYTES = 2**32 - 1
HEADER_BYTES = 44


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
