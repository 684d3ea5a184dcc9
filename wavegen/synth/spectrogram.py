"""A picture of clips: their spectrograms, in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from wavegen.audio import io
from wavegen.audio.atomic import atomic_write
from wavegen.errors import MissingBackendError
from wavegen.synth.files import Delivery, check_place
from wavegen.synth.plan import Request
from wavegen.synth.synthesizer import Synthesizer

MAX_CLIPS = 25
MAX_SECONDS = 60.0  # a picture of more shows nothing
WINDOW_SECONDS = 0.02
RANGE_DB = 80.0  # below the loudest point, the darkest colour


def check_plot(path: str | Path) -> None:
    """Fail before the work is done rather than after it.

    Raises:
        MissingBackendError: matplotlib is not installed.
        ConfigError: the name or the folder of the picture will not do.
    """
    path = Path(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingBackendError(f"--plot needs matplotlib ({error}): pip install matplotlib") from error
    check_place(path, (".png",))


def plot_written(
    path: str | Path,
    synthesizer: Synthesizer,
    requests: Sequence[Request],
    delivery: Delivery,
    folder: Path | None = None,
) -> None:
    """Draw clips that were written; what went to stdout is spoken again, to the same samples.

    Args:
        folder: of a batch; None where the rows name the file itself.
    """
    pictures = []
    for request, clip in list(zip(requests, delivery.clips, strict=False))[:MAX_CLIPS]:
        if clip.error is not None:
            continue
        if clip.row["path"] == "-":
            waveform = _beginning(synthesizer, request)
        else:
            waveform, _ = io.load((folder or Path()) / clip.row["path"], synthesizer.sample_rate)
        label = clip.row["label"]
        said = " ".join(label) if isinstance(label, list) else label
        title = ", ".join(name for name in (said, clip.row["speaker"]) if name is not None)
        pictures.append((title or f"clip {request.clip}", waveform))
    if pictures:
        plot_clips(path, pictures, synthesizer.sample_rate)


def spectrogram(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Decibels below the loudest point, float32 (frequencies, F), and the seconds between frames."""
    size = max(16, 2 * round(WINDOW_SECONDS * sample_rate / 2))
    hop = size // 4
    padded = np.pad(waveform, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(waveform) + 1 : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)).astype(np.float32) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    return np.maximum(decibels - decibels.max(), -RANGE_DB).T, hop / sample_rate


class Excerpt:
    """Keeps of the pieces it is called with what a picture shows: their first `MAX_SECONDS`."""

    def __init__(self, sample_rate: int) -> None:
        self._left = int(MAX_SECONDS * sample_rate)
        self._pieces: list[np.ndarray] = [np.zeros(0, np.float32)]

    def __call__(self, waveform: np.ndarray) -> None:
        if self._left > 0:
            self._pieces.append(waveform[: self._left].copy())
            self._left -= len(waveform)

    @property
    def waveform(self) -> np.ndarray:
        return np.concatenate(self._pieces)


def plot_pairs(path: str | Path, clips: Sequence[tuple[str, np.ndarray | None, np.ndarray]], sample_rate: int) -> None:
    """Draw (name, recording, synthesis) beside each other, or the synthesis alone where there is no recording.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    titled: list[tuple[str, np.ndarray]] = []
    for name, recording, synthesis in clips:
        if recording is not None:
            titled.append((f"{name}, recorded", recording))
        titled.append((f"{name}, spoken" if recording is not None else name, synthesis))
    paired = all(recording is not None for _, recording, _ in clips)
    plot_clips(path, titled, sample_rate, 2 if paired and len(clips) < 4 else 4 if paired else 5)


def plot_clips(path: str | Path, clips: Sequence[tuple[str, np.ndarray]], sample_rate: int,
               most_columns: int = 5) -> None:
    """Draw titled waveforms as a grid of spectrograms on one frequency axis.

    Args:
        path: picture to write, whole or not at all.
        clips: (title, waveform); the first `MAX_CLIPS` of them, the first `MAX_SECONDS` of each.
        most_columns: of the grid.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    clips = clips[:MAX_CLIPS]
    columns = min(len(clips), most_columns)
    rows = math.ceil(len(clips) / columns)
    width = 8.0 if len(clips) == 1 else max(8.0 if most_columns == 2 else 0.0, 2.4 * columns)
    height = 0.5 + 2.2 * rows
    figure = Figure(figsize=(width, height))
    # Margins in inches for the labels; matplotlib's own layouts take seconds for a full grid.
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height, wspace=0.15, hspace=0.5)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for place, axis in enumerate(axes.flat):
        if place >= len(clips):
            axis.set_visible(False)
            continue
        title, waveform = clips[place]
        waveform = waveform[: int(MAX_SECONDS * sample_rate)]
        picture, _ = spectrogram(waveform, sample_rate)
        axis.imshow(
            picture,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0.0,
            extent=(0.0, len(waveform) / sample_rate, 0.0, sample_rate / 2000),
        )
        axis.set_title(title, fontsize=9)
        if place % columns == 0:
            axis.set_ylabel("kHz")
        if place >= len(clips) - columns:
            axis.set_xlabel("s")
    content = BytesIO()
    # Without the program's name in it, the same audio gives the same picture.
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    with atomic_write(path) as file:
        file.write(content.getvalue())


def _beginning(synthesizer: Synthesizer, request: Request) -> np.ndarray:
    chunks, num_samples = [], 0
    for chunk in synthesizer.stream_request(request):
        chunks.append(chunk.waveform)
        num_samples += chunk.num_samples
        if num_samples >= MAX_SECONDS * synthesizer.sample_rate:
            break
    return np.concatenate(chunks)
