"""From a synthesizer to files: one file, standard output, or a folder with a manifest.

Audio is written chunk by chunk, so memory does not depend on its length. A file appears whole
or not at all; the same requests give the same bytes.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wavegen.audio.streams import PipeWriter, file_writer
from wavegen.config import ModelFolder
from wavegen.errors import BadInputError, ConfigError, PartialFailureError, WavegenError, did_you_mean
from wavegen.synth.finish import ENDINGS as ENDING_OF
from wavegen.synth.finish import Finish
from wavegen.synth.manifest import MANIFEST, Ledger, file_digest
from wavegen.synth.plan import Near, Plan, Request, clip_samples, is_one_pass, plan_clip, window_samples
from wavegen.synth.synthesizer import AudioChunk, Report, Synthesizer

ENDINGS = (".wav", ".flac")
PLAIN = Finish()
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


def write_clip(synthesizer: Synthesizer, request: Request, path: Path, progress: Progress | None = None,
               finish: Finish = PLAIN) -> Delivery:
    """Speak one clip into a wav file (or flac, by the name's ending).

    Args:
        finish: what is done to it on the way; but for the plain one it is made in memory.

    Raises:
        ConfigError: the folder of `path` does not exist, or the request does not fit the model.
        WavegenError: the file cannot be written; nothing is left behind.
    """
    check_place(path, ENDINGS)
    if not finish.is_plain:
        pieces = [chunk.waveform for chunk in _chunks(synthesizer, request, progress)]
        waveform, rate = finish.apply(np.concatenate(pieces), synthesizer.sample_rate)
        finish.save(path, waveform, rate)
        facts = {**_row(synthesizer, request, str(path)), **finish.facts(), **_length(len(waveform), rate)}
        return Delivery([Written(facts)], synthesizer.report)
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


def write_clips(synthesizer: Synthesizer, requests: Sequence[Request], folder: Path,
                progress: Progress | None = None, finish: Finish = PLAIN, overwrite: bool = False) -> Delivery:
    """Speak each request into its own file in `folder`, beside a manifest with a JSON line each.

    A clip that is there already, whole and made as it is asked for now, is left as it is, so that a run that was
    stopped goes on. A clip that cannot be written is reported in its row and the others go on; a full disk ends the
    batch (`check_delivery` raises what it ends with). Clips done before an interruption stay, with a manifest that
    names them; rows of other clips in the folder stay too.

    Args:
        finish: what is done to each clip on the way.
        overwrite: speak all anew, in place of whatever has their names.

    Raises:
        ConfigError: a request does not fit the model, or a file of that name is another clip; nothing is written.
    """
    total_samples(synthesizer, requests)  # checks them all
    folder_is_new = not folder.exists()
    ledger = Ledger(folder)
    wanted = {}
    for request in requests:
        plans = plan_clip(request, synthesizer.spec)
        wanted[clip_name(plans, request.clip, ENDING_OF[finish.kind])] = request
    try:
        there = {} if overwrite else _there(synthesizer, wanted, ledger, finish)
    except ConfigError:
        if folder_is_new:
            folder.rmdir()
        raise
    written = {path: Written(row) for path, row in there.items()}
    reports = []
    if progress and there:
        kept = [request for path, request in wanted.items() if path in there]
        progress(total_samples(synthesizer, kept))
    try:
        for window in _windows(synthesizer, [request for path, request in wanted.items() if path not in there]):
            for clip in _write_window(synthesizer, window, ledger, progress, finish):
                written[clip.row["path"]] = clip
                if clip.error is None:
                    clip.row["sha256"] = file_digest(folder / clip.row["path"])
                if clip.error is None or not is_disk_full(clip.error):
                    ledger.add(clip.row)
            reports.append(synthesizer.report)
            if is_disk_full(clip.error):
                break
    finally:
        for path in wanted:
            # What was begun when the run was stopped, or the disk full, has a row of neither end, and perhaps no file.
            if not {"sha256", "error"} & set(ledger.row(path) or {}) and not (folder / path).is_file():
                ledger.drop(path)
        _close(ledger, list(wanted), any(clip.error is not None for clip in written.values()))
    report = sum(reports[1:], reports[0]) if reports else synthesizer.no_report()
    return Delivery([written[path] for path in wanted if path in written], report, len(there))


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


def clip_name(plans: Sequence[Plan], clip: int, ending: str = ".wav") -> str:
    """File name of a clip: label, speaker, seed but for 0, and number, such as `7_george_seed5_00003.wav`."""
    parts = ["-".join(plan.label or "" for plan in plans), plans[0].speaker or ""]
    safe = [re.sub(r"[^\w.-]", "-", part)[:60] for part in parts if part]
    seed = [f"seed{plans[0].seed}"] if plans[0].seed else []
    return "_".join([*safe, *seed, f"{clip:05d}"]) + ending


def near_clip(path: Path, spec: ModelFolder, spread: float | None = None) -> tuple[Near, dict[str, Any]]:
    """Where to draw from for more clips like one that `write_clips` has written, and its row in the manifest.

    Args:
        path: of the clip, its manifest beside it.
        spec: of the model that is to draw, which must be the one that drew the clip.
        spread: how far from it, in [0, 1]; None is that of a `Near`.

    Raises:
        BadInputError: no manifest beside the clip names it.
        ConfigError: another model drew it, or what it says is a sequence of labels.
    """
    if window_samples(spec.model) is None:
        raise ConfigError(f'model "{spec.name}" is a {spec.model.family}, which has no latents to draw near to: take '
                          "another seed, or a lower temperature")
    row = Ledger(path.parent).row(path.name) if path.parent.is_dir() else None
    if row is None or not isinstance(row.get("clip"), int):
        raise BadInputError(f"no {MANIFEST} beside {path} says how it was drawn; name a clip that "
                            "`wavegen synth ... --out DIR` has written, in the folder it was written to")
    if row.get("weights_sha256") != spec.weights_sha256:
        raise ConfigError(f'{path} was drawn by model "{row.get("model")}" with other weights than those of '
                          f'"{spec.name}"; only the model that drew it knows what lies near it')
    if isinstance(row.get("label"), list):
        raise ConfigError(f"{path} says several labels, and has latents for each; name a clip of one label")
    near = _near(row, spec)
    return (near if spread is None else replace(near, spread=spread)), row


def _near(row: Mapping[str, Any], spec: ModelFolder) -> Near:
    """The draw of a row."""
    # A decoder that draws codes has a temperature for these, not for its latents.
    temperature = float(row["temperature"]) if is_one_pass(spec.model) else 1.0
    other = row.get("near")
    return Near(int(row["seed"]), int(row["clip"]), temperature,
                replace(_near(other, spec), spread=float(other["spread"])) if other else None)


def _there(synthesizer: Synthesizer, wanted: Mapping[str, Request], ledger: Ledger,
           finish: Finish) -> dict[str, dict[str, Any]]:
    """The rows of the clips that are there already; ConfigError if a file of that name is not the clip asked for."""
    found = {}
    for path, request in wanted.items():
        file = ledger.folder / path
        if not file.is_file():
            continue
        row, asked = ledger.row(path), {**_row(synthesizer, request, path), **finish.facts()}
        if not finish.is_plain:
            asked = {name: value for name, value in asked.items() if name not in ("num_samples", "seconds")}
            asked["sample_rate"] = finish.sample_rate or synthesizer.sample_rate
        advice = "choose another --out or another --seed, or --overwrite it"
        if row is not None and "sha256" not in row and "error" not in row:
            continue  # begun by a run that was stopped: nobody has had it yet
        if row is None or "error" in row:
            raise ConfigError(f"{file} is there already and {MANIFEST} does not say how it was made: {advice}")
        made = [name for name in dict.fromkeys(["near", "tidy", "one_shot", "bits", *asked])
                if row.get(name) != asked.get(name)]
        if made:
            raise ConfigError(f"{file} is there already, made otherwise: {made[0]} {json.dumps(row.get(made[0]))}, "
                              f"now {json.dumps(asked.get(made[0]))}; {advice}")
        if file_digest(file) != row.get("sha256"):
            raise ConfigError(f"{file} is there already and was changed since it was made: {advice}")
        found[path] = row
    return found


def _close(ledger: Ledger, order: Sequence[str], has_failed: bool) -> None:
    try:
        ledger.close(order)
    except WavegenError as error:
        # Where the disk is full the clips' own error is the one to end with.
        if not (has_failed and is_disk_full(error)):
            raise
        logger.warning("%s", error)


def _write_window(
    synthesizer: Synthesizer, window: Sequence[Request], ledger: Ledger, progress: Progress | None, finish: Finish
) -> Iterator[Written]:
    """Speak and write; the last to be yielded is the one the disk was too full for."""
    if len(window) == 1:
        (request,) = window
        yield _guarded(synthesizer, request, ledger, finish, lambda path: write_clip(
            synthesizer, request, path, progress, finish).clips[0].row)
        return

    def save(audio: AudioChunk, path: Path) -> dict[str, Any]:
        if finish.is_plain:
            audio.save(path)
            return {}
        waveform, rate = finish.apply(audio.waveform, audio.sample_rate)
        finish.save(path, waveform, rate)
        return _length(len(waveform), rate)

    for request, audio in zip(window, synthesizer.generate_batch(window), strict=True):
        outcome = _guarded(synthesizer, request, ledger, finish, functools.partial(save, audio))
        yield outcome
        if is_disk_full(outcome.error):
            return
        if progress:
            progress(audio.num_samples)


def _guarded(synthesizer: Synthesizer, request: Request, ledger: Ledger, finish: Finish,
             write: Callable[[Path], dict[str, Any]]) -> Written:
    """Write one clip; what its writer returns is true of the file rather than of what was drawn."""
    path = ledger.folder / clip_name(plan_clip(request, synthesizer.spec), request.clip, ENDING_OF[finish.kind])
    # Before the file, so that a run that is killed leaves none that nobody knows.
    ledger.add({**_row(synthesizer, request, path.name), **finish.facts()})
    try:
        found = write(path)
    except (WavegenError, OSError) as error:
        return Written({"path": path.name, "clip": request.clip, "error": str(error)}, error)
    return Written({**_row(synthesizer, request, path.name), **finish.facts(), **found, "path": path.name})


def _windows(synthesizer: Synthesizer, requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Neighbouring requests whose audio fits in memory together."""
    window: list[Request] = []
    num_samples = 0
    if not requests:
        return
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
        "weights_sha256": synthesizer.spec.weights_sha256,
        "label": labels[0] if len(labels) == 1 else labels,
        "speaker": plans[0].speaker,
        "clip": int(request.clip),
        "seed": plans[0].seed,
        "temperature": plans[0].temperature,
        "min_p": plans[0].min_p,
        **({"near": _near_facts(request.near)} if request.near else {}),
        **_length(num_samples, synthesizer.sample_rate),
        "engine": synthesizer.engine.name,
        "precision": synthesizer.engine.precision,
    }


def _near_facts(near: Near) -> dict[str, Any]:
    facts: dict[str, Any] = {"seed": int(near.seed), "clip": int(near.stream), "temperature": near.temperature,
                             "spread": near.spread}
    return facts | ({"near": _near_facts(near.near)} if near.near else {})


def _length(num_samples: int, sample_rate: int) -> dict[str, Any]:
    return {"num_samples": num_samples, "sample_rate": sample_rate, "seconds": round(num_samples / sample_rate, 6)}
