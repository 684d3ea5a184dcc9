"""What users hand a vocoder as a mel: arrays, tensors and lists, whole clips or pieces, checked and converted.

Everything is read a stretch at a time, so that a long mel costs no memory besides itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wavegen.audio.mel_check import FEW_FRAMES, MelCheck
from wavegen.audio.mel_formats import LAYOUTS, MelConverter
from wavegen.config import MelSpec
from wavegen.errors import BadInputError, ConfigError, did_you_mean

Floats = NDArray[np.float32]
# A stream is judged as a whole once so many frames are in: fewer say too little about which logarithm was taken.
JUDGED_FRAMES = 100
READ_FRAMES = 1024  # of a long mel, looked at together


class MelClip:
    """One utterance of a batch: its frames, in whatever array they came.

    Args:
        array: (n_mels, F), or (F, n_mels) where `bands_last`.
        num_frames: frames that count; what lies behind is padding.
    """

    def __init__(self, array: Any, num_frames: int, bands_last: bool) -> None:
        self.array, self.num_frames, self.bands_last = array, num_frames, bands_last

    def read(self, start: int, stop: int) -> Floats:
        """Frames [start, stop) as float32 (n_mels, n)."""
        stop = min(stop, self.num_frames)
        return _floats(self.array[start:stop] if self.bands_last else self.array[:, start:stop], self.bands_last)

    def check(self, spec: MelSpec, plausible: bool, row: int) -> None:
        """Refuse what is not finite, and with `plausible` what cannot be what the spec says: `BadInputError`."""
        check = MelCheck(spec)
        try:
            for start in range(0, self.num_frames, READ_FRAMES):
                check.observe(self.read(start, start + READ_FRAMES))
            if plausible:
                check.conclude()
        except BadInputError as error:
            raise BadInputError(f"row {row} of the batch: {error}" if row >= 0 else str(error)) from None


def read_clips(mel: Any, lengths: Any, layout: str, spec: MelSpec) -> list[MelClip]:
    """The utterances of a batch, their shapes checked.

    Args:
        mel: real numbers in `layout`, an array, a tensor or nested lists; or a list of utterances, each in `layout`
            without its B.
        lengths: frames of each utterance, (B,); None is all.
        layout: "BCT", "BTC", "CT" or "TC".
        spec: what the mel is said to be.

    Raises:
        BadInputError: it is empty, or has another shape.
        ConfigError: no such layout.
    """
    bands_last = _bands_last(layout)
    if isinstance(mel, (list, tuple)) and len(mel) and all(getattr(row, "ndim", 0) == 2 for row in mel):
        rows = [_array(row) for row in mel]
    else:
        array = _array(mel)
        if array.ndim == 2:
            layout = layout.removeprefix("B")  # one utterance, as `Vocoder.mel` gives it
        if array.ndim != len(layout):
            fits = [known for known in LAYOUTS if len(known) == array.ndim and known[-1] == layout[-1]]
            advice = f'; give layout="{fits[0]}" if that is what it is' if fits else ""
            raise BadInputError(f'the mel has shape {tuple(array.shape)}, layout "{layout}" has {len(layout)} axes'
                                f"{advice}")
        rows = [array] if array.ndim == 2 else [*array]
        if 0 in array.shape:
            raise BadInputError(f"the mel is empty: shape {tuple(array.shape)}")
    for row in rows:
        _check_bands(row.shape, spec.n_mels, bands_last, layout)
        if 0 in row.shape:
            raise BadInputError(f"the mel is empty: shape {tuple(row.shape)}")
    available = [row.shape[0 if bands_last else 1] for row in rows]
    counts = available if lengths is None else _lengths(lengths, available)
    return [MelClip(row, count, bands_last) for row, count in zip(rows, counts, strict=True)]


class MelReader:
    """The pieces of one mel that arrives: checked, and converted to what the model reads.

    Args:
        source: what the mel is said to be.
        target: what the model reads.
        layout: of a piece, "CT" or "TC"; with a B in front of it a piece has one row. A piece of one axis is a frame.
        check: refuse implausible values.

    Raises:
        MelMismatch: what is given cannot be converted to what is read.
        ConfigError: no such layout.
    """

    def __init__(self, source: MelSpec, target: MelSpec, layout: str = "CT", check: bool = True) -> None:
        self._convert, self._check, self._judges = MelConverter(source, target), MelCheck(source), check
        self.layout, self._bands_last = layout, _bands_last(layout)
        self.source = source

    @property
    def num_frames(self) -> int:
        """Frames read so far."""
        return self._check.num_frames

    def copy(self) -> MelReader:
        """An independent reader that has read the same."""
        other = copy.copy(self)
        other._check = self._check.copy()
        return other

    def read(self, piece: Any) -> Floats:
        """The frames of a piece as the model reads them: float32 (n_mels, n), n >= 0.

        Raises:
            BadInputError: not real numbers, another shape, NaN or infinity, or values that are not what the spec
                says. Nothing is taken in then.
        """
        array = _array(piece)
        shape = tuple(array.shape)
        if array.ndim == 3 and shape[0] == 1:
            array = array[0]
        elif array.ndim == 3:
            raise BadInputError(f"a piece of shape {shape} has {shape[0]} rows; a stream is one utterance: "
                                "open one for each")
        if array.ndim == 1:
            array = array[None] if self._bands_last else array[:, None]
        if array.ndim != 2:
            raise BadInputError(f"a piece of a mel is ({self.source.n_mels}, frames), found shape {shape}")
        _check_bands(array.shape, self.source.n_mels, self._bands_last, self.layout)
        features = _floats(array, self._bands_last)
        seen = self._check.copy()
        left = JUDGED_FRAMES - seen.num_frames
        seen.observe(features[:, :left] if left > 0 else features)
        if self._judges:
            seen.judge()
            if seen.num_frames == JUDGED_FRAMES and left > 0:
                seen.conclude()
        if 0 < left < features.shape[1]:
            seen.observe(features[:, left:])
            if self._judges:
                seen.judge()
        self._check = seen
        return self._convert(features)

    def finish(self) -> None:
        """Judge a mel too short to have been judged before.

        Raises:
            BadInputError: no frame arrived, or the values are not what the spec says.
        """
        if self.num_frames == 0:
            raise BadInputError("the mel is empty: not one frame arrived")
        if self._judges and FEW_FRAMES <= self.num_frames < JUDGED_FRAMES:
            self._check.conclude()


def pieces_of(frames: Any, layout: str, count: int) -> Iterator[Any]:
    """What `MelReader.read` takes, a few frames at a time, of a whole mel or of an iterable of pieces.

    Args:
        frames: an array or tensor in `layout`, or an iterable of such.
        layout: see `MelReader`.
        count: frames of a piece at most.

    Raises:
        BadInputError: neither; at the first piece.
    """
    bands_last = _bands_last(layout)
    if isinstance(frames, (np.ndarray, torch.Tensor)):
        if frames.ndim < 2:
            yield frames
            return
        for start in range(0, frames.shape[-2 if bands_last else -1], count):
            stretch = slice(start, start + count)
            yield frames[..., stretch, :] if bands_last else frames[..., stretch]
        return
    if isinstance(frames, (str, bytes)) or not hasattr(frames, "__iter__"):
        raise BadInputError(f"frames to stream are an array or an iterable of pieces, found {type(frames).__name__}")
    for piece in frames:
        yield from pieces_of(_array(piece), layout, count)


def _bands_last(layout: str) -> bool:
    if layout not in LAYOUTS:
        raise ConfigError(f'no layout "{layout}"; {did_you_mean(layout, LAYOUTS)}')
    return layout.endswith("TC")


def _array(mel: Any) -> Any:
    """An array or tensor of real numbers, not copied if it is one already."""
    if isinstance(mel, torch.Tensor):
        if mel.is_complex() or mel.dtype == torch.bool:
            raise BadInputError(f"a mel holds real numbers, found {mel.dtype}")
        return mel.detach()
    try:
        array = np.asarray(mel)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"a mel is an array of real numbers: {error}; for utterances of different lengths give a "
                            "list of arrays, or pad them and say `lengths`") from None
    if array.dtype.kind not in "fiu":
        raise BadInputError(f"a mel is an array of real numbers, found {array.dtype}")
    return array


def _floats(array: Any, bands_last: bool) -> Floats:
    if isinstance(array, torch.Tensor):
        array = array.to("cpu", torch.float32).numpy()
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
        return np.ascontiguousarray(array.T if bands_last else array, np.float32)


def _check_bands(shape: Sequence[int], n_mels: int, bands_last: bool, layout: str) -> None:
    bands, frames = (shape[1], shape[0]) if bands_last else (shape[0], shape[1])
    if bands == n_mels:
        return
    other = layout[:-2] + ("CT" if bands_last else "TC")
    swapped = f'; the axes look swapped: give layout="{other}"' if frames == n_mels else ""
    raise BadInputError(f"the mel has {bands} bands, {n_mels} are wanted{swapped}")


def _lengths(lengths: Any, available: Sequence[int]) -> list[int]:
    given = np.asarray(lengths.detach().cpu() if isinstance(lengths, torch.Tensor) else lengths)
    if given.dtype.kind not in "iu":
        raise BadInputError(f"lengths are whole numbers of frames, found {given.dtype}; relative lengths are to be "
                            "multiplied by the frames of the batch and rounded")
    if given.shape != (len(available),):
        raise BadInputError(f"lengths has shape {given.shape} for a batch of {len(available)}")
    counts = [int(count) for count in given]
    for row, (count, most) in enumerate(zip(counts, available, strict=True)):
        if not 1 <= count <= most:
            raise BadInputError(f"lengths[{row}] is {count}; the mel of that row has {most} frames, and one at least "
                                "must count")
    return counts
