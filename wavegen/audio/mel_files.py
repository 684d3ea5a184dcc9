"""Mel spectrograms from files and from streams of frames. Nothing is unpickled.

    F.npy                 one array, in either layout
    F.npz                 one array, or the one named "mel"
    F.f32, F.raw          little-endian float32, frame after frame, n_mels numbers each
    a stream              .npy arrays, known by their first bytes, one or several; else frames as in F.f32
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from wavegen.errors import BadInputError, ConfigError, did_you_mean

LAYOUTS = ("CT", "TC")
RAW_ENDINGS = (".f32", ".raw")
ENDINGS = (".npy", ".npz", *RAW_ENDINGS)
MAGIC = b"\x93NUMPY"
BLOCK_BYTES = 65536  # read at once at most: what a pipe holds
FRAME = np.dtype("<f4")  # a number of a bare frame
# How numpy says that a file is not what it seems; the last are of the parsers it reads a header with.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, zipfile.BadZipFile, SyntaxError,
              RecursionError, tokenize.TokenError)
# What is piped in by mistake, and what it is.
NOT_FRAMES = {b"RIFF": "a wav file", b"fLaC": "a flac file", b"OggS": "an ogg file",
              b"PK\x03\x04": "a zip archive, such as an .npz file or a PyTorch checkpoint"}


def load_mel(path: str | Path, n_mels: int, layout: str | None = None) -> NDArray[Any]:
    """A mel spectrogram in a file, read as it is used where the format allows.

    Args:
        path: .npy, .npz, or bare frames (.f32, .raw).
        n_mels: bands wanted.
        layout: "CT" (bands first) or "TC" (frames first) of a numpy array, with or without a batch of one before
            it; None tells by the axis that is n_mels long.

    Returns:
        (n_mels, F), of the type it was saved with.

    Raises:
        BadInputError: missing, damaged, a pickle, not one spectrogram of n_mels bands.
        ConfigError: both axes are n_mels long, and the layout was not said; or there is no such layout.
    """
    path = Path(path)
    _check_layout(layout)
    if not path.is_file():
        raise BadInputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}; "
                            "--mel takes a mel spectrogram such as numpy.save writes")
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise BadInputError(f'{path} is no mel spectrogram: unknown format "{path.suffix}"; {_instead(kind)}')
    try:
        if kind in RAW_ENDINGS:
            return _bare(path, n_mels)
        if kind == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                array.close()
                raise ValueError("it is an .npz file under another name")
        else:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
                array = arrays[_only(arrays.files, path)]
    except BadInputError:
        raise
    except UNREADABLE as error:
        raise BadInputError(f"{path} cannot be read as {kind[1:]}: {_reason(error)}") from error
    return bands_first(array, n_mels, layout, str(path))


def bands_first(array: NDArray[Any], n_mels: int, layout: str | None, name: str) -> NDArray[Any]:
    """One spectrogram as a view (n_mels, F); see `load_mel`."""
    _check_type(array.dtype, name)
    layout = _layout(array.shape, n_mels, layout, name)
    matrix = array.reshape(array.shape[-2:])
    return matrix if layout == "CT" else matrix.T


class FrameReader:
    """The frames of a stream as they arrive: iterate once, for float (n_mels, n) blocks, n >= 1.

    Bare frames, and .npy arrays whose frames lie one after the other, are handed on as soon as they are whole; of
    an .npy array with bands first nothing is known before its end. A stream that ends inside a frame gives its
    whole frames first: ask `check_whole` behind the last.

        reader = FrameReader(sys.stdin.buffer, n_mels=80)
        for frames in reader:
            ...
        reader.check_whole()

    Attributes:
        num_frames: handed on so far.
    """

    def __init__(self, file: BinaryIO, n_mels: int, layout: str | None = None) -> None:
        """
        Args:
            file: buffered, such as sys.stdin.buffer or open(path, "rb").
            layout: of an .npy array, as for `load_mel`; bare frames are "TC".

        Raises:
            ConfigError: no such layout.
        """
        _check_layout(layout)
        self.n_mels, self.num_frames = n_mels, 0
        self._file, self._layout = file, layout
        self._rest = 0  # bytes of a frame that was never completed
        self._missing = 0  # frames an array promised and did not give

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """
        Raises:
            BadInputError: the stream is no stream of frames, or has none.
            ConfigError: layout "CT" of bare frames, or a layout that must be said.
        """
        start = _read_exactly(self._file, len(MAGIC))
        found = next((what for magic, what in NOT_FRAMES.items() if start.startswith(magic)), None)
        if found:
            raise BadInputError(f"what was read is {found}, not frames: send an .npy file, or float32 frames of "
                                f"{self.n_mels} numbers")
        if start != MAGIC and self._layout == "CT":
            raise ConfigError("bare frames follow one another, so their layout is TC; leave --layout out, or send "
                              "an .npy file")
        for block in self._arrays() if start == MAGIC else self._frames(FRAME, start):
            self.num_frames += block.shape[1]
            yield block
        if not self.num_frames:
            raise BadInputError("no whole frame was read" + (f", only {self._rest} bytes" if self._rest else "")
                                + f"; a frame is {self.n_mels} numbers")

    def check_whole(self) -> None:
        """Raise BadInputError if the stream ended before its last frame was whole."""
        if self._rest:
            raise BadInputError(f"the input ends inside a frame, {self._rest} bytes into number {self.num_frames + 1}; "
                                f"the {self.num_frames} frames before it were spoken")
        if self._missing:
            raise BadInputError(f"the input ends {self._missing} frames before the end its header promises; "
                                f"the {self.num_frames} that came were spoken")

    def _arrays(self) -> Iterator[NDArray[Any]]:
        """The frames of one array behind another."""
        start = MAGIC
        while start == MAGIC and not self._missing:
            yield from self._array()
            start = _read_exactly(self._file, len(MAGIC)) if not self._missing else b""
        if start:
            raise BadInputError(f"behind frame {self.num_frames} the input goes on with what is no .npy array; "
                                "send arrays one after the other and nothing between them")

    def _array(self) -> Iterator[NDArray[Any]]:
        shape, fortran, number = _header(self._file)
        _check_type(number, "the array")
        # The first array says it for all: a later one may happen to have as many frames as bands.
        layout = self._layout = _layout(shape, self.n_mels, self._layout, "the array")
        frames = shape[-1] if layout == "CT" else shape[-2]
        if (layout == "TC") != fortran:  # the numbers of a frame are neighbours
            yield from self._frames(number, promised=frames)
            return
        size = self.n_mels * frames * number.itemsize
        content = _read_exactly(self._file, size)
        if len(content) < size:
            raise BadInputError(f"the input ends after {len(content)} bytes of an array of {size}; with its bands "
                                "first, none of its frames is whole")
        # In both cases left the numbers of a band are neighbours.
        yield np.frombuffer(content, number).reshape(self.n_mels, frames)

    def _frames(self, number: np.dtype[Any], held: bytes = b"", promised: int | None = None) -> Iterator[NDArray[Any]]:
        """Blocks (n_mels, n) of frames that follow one another; how they end is noted."""
        size, given = self.n_mels * number.itemsize, 0
        left = None if promised is None else promised * size
        while True:
            whole = len(held) // size * size
            if whole:
                given += whole // size
                yield np.frombuffer(held[:whole], number).reshape(-1, self.n_mels).T
                held = held[whole:]
            content = _read_some(self._file, BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))
            if not content:
                break
            held += content
            left = None if left is None else left - len(content)
        if promised is None:
            self._rest = len(held)
        else:
            self._missing = promised - given


def _bare(path: Path, n_mels: int) -> NDArray[Any]:
    size, frame = path.stat().st_size, n_mels * FRAME.itemsize
    if size == 0 or size % frame:
        raise BadInputError(f"{path} has {size} bytes, which is no whole number of frames of {n_mels} float32 numbers "
                            f"({frame} bytes each)")
    return np.memmap(path, FRAME, "r").reshape(-1, n_mels).T


def _only(names: list[str], path: Path) -> str:
    if len(names) == 1 or "mel" in names:
        return "mel" if "mel" in names else names[0]
    raise BadInputError(f"{path} holds {len(names)} arrays ({', '.join(names) or 'none'}) and none of them is named "
                        '"mel"; save the spectrogram alone')


def _check_layout(layout: str | None) -> None:
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f'no layout "{layout}"; {did_you_mean(layout, LAYOUTS)}')


def _check_type(number: np.dtype[Any], name: str) -> None:
    if number.kind not in "fiu":
        raise BadInputError(f"{name} holds {number}; a mel spectrogram is an array of real numbers")


def _layout(shape: tuple[int, ...], n_mels: int, layout: str | None, name: str) -> str:
    """The layout of an array, with everything checked that its shape shows."""
    many = len(shape) == 3 and shape[0] != 1
    if many or len(shape) not in (2, 3):
        raise BadInputError(f"{name} has shape {shape}; wanted is one spectrogram ({n_mels}, frames) or "
                            f"(frames, {n_mels})" + ("; save each of the batch alone, or name each in a --manifest"
                                                     if many else ""))
    bands, frames = shape[-2] == n_mels, shape[-1] == n_mels
    if layout is None and bands and frames:
        raise ConfigError(f"{name} has shape {shape}, {n_mels} both ways: say --layout CT (bands first) or TC")
    if not (bands if layout == "CT" else frames if layout == "TC" else bands or frames):
        other = (f"; it looks like --layout {'TC' if layout == 'CT' else 'CT'}" if bands or frames else
                 ": it was computed for another model")
        raise BadInputError(f"{name} has shape {shape}, the model wants {n_mels} bands{other}")
    if 0 in shape:
        raise BadInputError(f"{name} has shape {shape}: it holds no frames")
    return layout or ("CT" if bands else "TC")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, memory order and type of an .npy stream behind its magic bytes."""
    exact = _Exact(file)
    try:
        version = exact.read(2)
        read = {b"\x01\x00": np.lib.format.read_array_header_1_0, b"\x02\x00": np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"version {'.'.join(map(str, version))} of the format")
        shape, fortran, number = read[version](cast(Any, exact))
    except UNREADABLE as error:
        raise BadInputError(f"the input begins like an .npy file and is none: {_reason(error)}") from error
    return shape, fortran, number


class _Exact:
    """A file whose `read` waits for all it was asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return _read_exactly(self._file, size)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer at the end of the file; a lying header costs no memory before the bytes are there."""
    pieces, left = [], size
    while left > 0:
        piece = _read_some(file, min(left, 2**20))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _read_some(file: BinaryIO, most: int) -> bytes:
    """What is there already, or else what comes next; nothing at the end."""
    read: Any = getattr(file, "read1", file.read)
    content: bytes = read(most)
    return content


def _instead(kind: str) -> str:
    if kind in (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib"):
        return ("it may be a pickle, which can run code when read, so wavegen opens none: "
                'numpy.save("F.npy", mel.numpy()) writes what it reads')
    if kind in (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"):
        return "--like takes audio"
    return did_you_mean(kind, ENDINGS)


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return "it is a pickle, and nothing is unpickled" if "pickle" in text or "Python objects" in text else text
