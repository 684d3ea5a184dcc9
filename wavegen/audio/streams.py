"""Audio written piece by piece, to a file or to a pipe, as 16-bit wav, flac or bare samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wavegen.audio import wav
from wavegen.audio.atomic import atomic_write
from wavegen.errors import ConfigError, did_you_mean

FORMATS = ("wav", "flac", "raw")
FLAC_TOTAL = slice(21, 26)  # bytes of a flac whose last 36 bits say how many samples follow


@contextmanager
def file_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends float (T,) in [-1, 1] to a wav or, by its name, a flac file.

    The file appears when the block ends well and else not at all; memory does not grow with its length.

    Raises:
        ConfigError: another ending.
        WavegenError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".wav":
        with wav.WavWriter(path, sample_rate) as writer:
            yield writer.write
    elif kind == ".flac":
        encoder = _FlacEncoder(sample_rate)
        with atomic_write(path) as file:

            def append(waveform: np.ndarray) -> None:
                file.write(encoder.encode(wav.to_pcm16(waveform)))

            yield append
            file.write(encoder.finish())
            for place, content in encoder.patches:
                file.seek(place)
                file.write(content)
    else:
        raise ConfigError(f'cannot write "{path}": unknown format "{kind}"; {did_you_mean(kind, (".wav", ".flac"))}')


class PipeWriter:
    """Writes audio into an open file that cannot go back, each piece as soon as it is there.

    Nothing is written before the first piece: where there is no audio, there is no header either.
    Call `close` for what an encoder still holds; the file stays open.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, kind: str = "wav", num_samples: int | None = None) -> None:
        """
        Args:
            kind: "wav", "flac", or "raw": little-endian signed 16-bit samples and nothing else.
            num_samples: how many there will be, for the header; None where nobody knows yet: players then read
                to the end.

        Raises:
            ConfigError: another kind.
        """
        check_format(kind)
        self.num_samples = 0  # written so far
        self._file, self._kind = file, kind
        self._encoder = _FlacEncoder(sample_rate, num_samples) if kind == "flac" else None
        fits = num_samples is not None and wav.HEADER_BYTES + 2 * num_samples <= wav.MAX_WAV_BYTES
        self._header = wav.wav_header(sample_rate, num_samples if fits else None) if kind == "wav" else b""

    def write(self, waveform: np.ndarray) -> None:
        """Append float (T,) in [-1, 1] and hand it on at once; what exceeds the range is clipped."""
        samples = wav.to_pcm16(waveform)
        if len(samples) == 0:
            return
        self._hand_on(self._header + (self._encoder.encode(samples) if self._encoder else samples.tobytes()))
        self._header = b""
        self.num_samples += len(samples)

    def close(self) -> None:
        """Write what is still held back."""
        if self._encoder is not None and self.num_samples:
            self._hand_on(self._encoder.finish())

    def _hand_on(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()


def check_format(kind: str) -> None:
    """Raise ConfigError for a format that no pipe is written in."""
    if kind not in FORMATS:
        raise ConfigError(f'cannot write the format "{kind}"; {did_you_mean(kind, FORMATS)}')


class _FlacEncoder:
    """Samples int16 (T,) to flac, in pieces. `patches` are (place, bytes) for a file that can go back."""

    def __init__(self, sample_rate: int, num_samples: int | None = None) -> None:
        import soundfile

        self._bytes = _Growing()
        self._sound = soundfile.SoundFile(self._bytes, "w", sample_rate, 1, "PCM_16", format="FLAC")
        self._total = num_samples

    @property
    def patches(self) -> list[tuple[int, bytes]]:
        return self._bytes.patches

    def encode(self, samples: np.ndarray) -> bytes:
        self._sound.write(samples)
        return self._take()

    def finish(self) -> bytes:
        self._sound.close()
        return self._take()

    def _take(self) -> bytes:
        taken, self._bytes.fresh = self._bytes.fresh, bytearray()
        if self._total is not None and len(taken) >= FLAC_TOTAL.stop:  # the first to be taken, with the header
            word = int.from_bytes(taken[FLAC_TOTAL], "big") >> 36 << 36 | self._total % 2**36
            taken[FLAC_TOTAL] = word.to_bytes(5, "big")
            self._total = None
        return bytes(taken)


class _Growing:
    """The file libsndfile thinks it writes. No error may arise in here: it would end in libsndfile's own code."""

    def __init__(self) -> None:
        self.fresh = bytearray()  # behind what was taken
        self.patches: list[tuple[int, bytes]] = []
        self._place = self._end = 0

    def write(self, data: bytes) -> int:
        data = bytes(data)
        if self._place == self._end:
            self.fresh += data
            self._end += len(data)
        else:
            self.patches.append((self._place, data))
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place
