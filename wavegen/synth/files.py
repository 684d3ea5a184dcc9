"""From a synthesizer to files: one file, standard output, or a folder with a manifest.

Audio is written chunk by chunk, so memory does not depend on its length. A file appears whole
or not at all; the same requests give the same bytes.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wavegen.audio.atomic import atomic_write
from wavegen.audio.streams import PipeWriter, file_writer
from wavegen.errors import ConfigError, PartialFailureError, WavegenError, did_you_mean
from wavegen.synth.plan import Plan, Request, clip_samples, plan_clip
from wavegen.synth.synthesizer import AudioChunk, Report, Synthesizer

ENDINGS = (".wav", ".flac")
MANIFEST = "manifest.jsonl"
WINDOW_CLIPS = 64  # made at once, so that rows of like length share a batch
WINDOW_SAMPLES = 2**22  # 16 MiB of float32

logger = logging.getLogger(__name__)
Progress = Callable[[int], None]  # told how many more samples are done


@dataclass(frozen=True)
class Written:
    """What happened to one clip: its row in the manifest."""

    row: dict[str, Any]
    error: WavegenError | OSError | None = None

    def to_json(self) -> str:
        return json.dumps(self.row, ensure_ascii=False)


@dataclass(frozen=True)
class Delivery:
    """What became of all clips, how fast they were spoken, and how many were there already."""

    clips: list[Written]
    report: Report
    kept: int = 0


def write_clip(synthesizer: Synthesizer, request: Request, path: Path, progress: Progress | None = None) -> Delivery:
    """Speak one clip into a wav file (or flac, by the name's ending).

    Raises:
        ConfigError: the folder of `path` does not exist, or the request does not fit the model.
        WavegenError: the file cannot be written; nothing is left behind.
    """
    check_place(path, ENDINGS)
    with file_writer(path, synthesizer.sample_rate) as write:
        for chunk in _chunks(synthesizer, request, progress):
            write(chunk.waveform)
    return Delivery([Written(_row(synthesizer, request, str(path)))], synthesizer.report)


def write_stream(synthesizer: Synthesizer, request: Request, file: BinaryIO, kind: str = "wav",
                 progress: Progress | None = None) -> Delivery:
    """Speak one clip into an open file or pipe; a player can begin at once.

    Args:
        kind: "wav", "flac" or "raw", see `PipeWriter`.
    """
    writer = PipeWriter(file, synthesizer.sample_rate, kind, total_samples(synthesizer, [request]))
    for chunk in _chunks(synthesizer, request, progress):
        writer.write(chunk.waveform)
    writer.close()
    return Delivery([Written(_row(synthesizer, request, "-"))], synthesizer.report)


def write_clips(
    synthesizer: Synthesizer, requests: Sequence[Request], folder: Path, progress: Progress | None = None
) -> Delivery:
    """Speak each request into its own wav file in `folder`, beside a manifest with a JSON line each.

    A clip that cannot be written is reported in its row and the others go on; a full disk ends the
    batch (`check_delivery` raises what it ends with). Clips done before an interruption stay, with
    a manifest that names them.

    Raises:
        ConfigError: a request does not fit the model; nothing is written.
    """
    total_samples(synthesizer, requests)  # checks them all
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Written] = []
    reports = []
    try:
        for window in _windows(synthesizer, requests):
            for clip in _write_window(synthesizer, window, folder, progress):
                written.append(clip)
            reports.append(synthesizer.report)
            if is_disk_full(written[-1].error):
                break
    finally:
        if any(clip.error is None for clip in written):
            _write_manifest(folder / MANIFEST, written)
        elif is_new:
            with suppress(OSError):
                folder.rmdir()
    return Delivery(written, sum(reports[1:], reports[0]))


def check_delivery(delivery: Delivery, num_requests: int) -> None:
    """Raise what a batch that did not fully succeed ends with.

    Raises:
        WavegenError, OSError: every clip failed; the first reason.
        PartialFailureError: some failed, or a full disk left some undone.
    """
    failed = [clip for clip in delivery.clips if clip.error is not None]
    if not failed:
        return
    first = failed[0].error
    assert first is not None
    done = len(delivery.clips) - len(failed)
    if not done:
        raise first
    raise PartialFailureError(
        f"{num_requests - done} of {num_requests} clips were not written; the first, "
        f"clip {failed[0].row.get('clip', failed[0].row.get('id'))}: {first}"
    )


def check_place(path: Path, endings: Sequence[str]) -> None:
    """Fail before the work is done rather than after it.

    Raises:
        ConfigError: a name without one of the endings, or a folder that does not exist.
    """
    if path.suffix.lower() not in endings:
        raise ConfigError(
            f'cannot write "{path}": unknown format "{path.suffix}"; {did_you_mean(path.suffix, endings)}'
        )
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")


def total_samples(synthesizer: Synthesizer, requests: Sequence[Request]) -> int:
    """Length of all clips together.

    Raises:
        ConfigError: a request does not fit the model.
    """
    return sum(clip_samples(plan_clip(request, synthesizer.spec), synthesizer.spec) for request in requests)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk, a quota or a limit on file size."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__
    return False


def clip_name(plans: Sequence[Plan], clip: int) -> str:
    """File name of a clip: label, speaker and number, such as `7_george_00003.wav`."""
    parts = ["-".join(plan.label or "" for plan in plans), plans[0].speaker or ""]
    safe = [re.sub(r"[^\w.-]", "-", part)[:60] for part in parts if part]
    return "_".join([*safe, f"{clip:05d}"]) + ".wav"


def _write_manifest(path: Path, written: Sequence[Written]) -> None:
    try:
        with atomic_write(path) as file:
            file.write("".join(outcome.to_json() + "\n" for outcome in written).encode())
    except WavegenError as error:
        # Where the disk is full the clips' own error is the one to end with.
        if not is_disk_full(error):
            raise
        logger.warning("%s", error)


def _write_window(
    synthesizer: Synthesizer, window: Sequence[Request], folder: Path, progress: Progress | None
) -> Iterator[Written]:
    """Speak and write; the last to be yielded is the one the disk was too full for."""
    if len(window) == 1:
        (request,) = window
        yield _guarded(synthesizer, request, folder, lambda path: write_clip(synthesizer, request, path, progress))
        return
    for request, audio in zip(window, synthesizer.generate_batch(window), strict=True):
        outcome = _guarded(synthesizer, request, folder, audio.save)
        yield outcome
        if is_disk_full(outcome.error):
            return
        if progress:
            progress(audio.num_samples)


def _guarded(synthesizer: Synthesizer, request: Request, folder: Path, write: Callable[[Path], object]) -> Written:
    path = folder / clip_name(plan_clip(request, synthesizer.spec), request.clip)
    try:
        write(path)
    except (WavegenError, OSError) as error:
        return Written({"path": path.name, "clip": request.clip, "error": str(error)}, error)
    return Written(_row(synthesizer, request, path.name))


def _windows(synthesizer: Synthesizer, requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Neighbouring requests whose audio fits in memory together."""
    window: list[Request] = []
    num_samples = 0
    for request in requests:
        size = clip_samples(plan_clip(request, synthesizer.spec), synthesizer.spec)
        if window and (len(window) == WINDOW_CLIPS or num_samples + size > WINDOW_SAMPLES):
            yield window
            window, num_samples = [], 0
        window.append(request)
        num_samples += size
    yield window


def _chunks(synthesizer: Synthesizer, request: Request, progress: Progress | None) -> Iterator[AudioChunk]:
    for chunk in synthesizer.stream_request(request):
        yield chunk
        if progress:
            progress(chunk.num_samples)


def _row(synthesizer: Synthesizer, request: Request, path: str) -> dict[str, Any]:
    plans = plan_clip(request, synthesizer.spec)
    num_samples, labels = clip_samples(plans, synthesizer.spec), [plan.label for plan in plans]
    return {
        "path": path,
        "model": synthesizer.spec.name,
        "label": labels[0] if len(labels) == 1 else labels,
        "speaker": plans[0].speaker,
        "clip": int(request.clip),
        "seed": plans[0].seed,
        "temperature": plans[0].temperature,
        "min_p": plans[0].min_p,
        "num_samples": num_samples,
        "sample_rate": synthesizer.sample_rate,
        "seconds": round(num_samples / synthesizer.sample_rate, 6),
        "engine": synthesizer.engine.name,
        "precision": synthesizer.engine.precision,
    }
