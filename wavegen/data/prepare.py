"""From a folder of recordings to a store: `wavegen prepare`.

    plan -> (read -> resample -> level -> encode, in worker processes) -> shards and index -> report -> rename

All is written into a hidden folder beside the store and renamed at the end. What is written depends on the
recordings and the recipe alone: not on the number of workers, nor on how often the run was interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wavegen.audio import io, levels
from wavegen.audio.atomic import replacing, sync_folder, write_error
from wavegen.audio.signal import encode_waveform
from wavegen.config import AudioConfig, MelSpec, PrepareConfig, Recipe
from wavegen.data.given import Fit, FitReport, GivenFeatures, given_features, read_given
from wavegen.data.plan import Item, Plan, build_plan, differences
from wavegen.data.pool import Crash, run_ordered
from wavegen.data.report import build_report, summary
from wavegen.data.store import INFO, REPORT, code_dtype, read_info
from wavegen.data.writer import StoreWriter
from wavegen.errors import AudioError, BadInputError, ConfigError, StoreError, WavegenError

logger = logging.getLogger(__name__)

FILE_SECONDS = 300.0  # a file that takes longer is reported and left out
CHECKPOINT_SECONDS = 2.0  # of work a killed run may lose
FILES_PER_WORKER = 16  # fewer are not worth starting another process for


class Clip(NamedTuple):
    """What a worker makes of a recording."""

    codes: bytes
    features: bytes  # float16 (F, n_mels), empty without a MelSpec
    gain: float
    peak: float
    clipped: int
    fit: Fit | None = None  # of features that were given


class Settings(NamedTuple):
    """All a worker needs to know."""

    audio: AudioConfig
    code_dtype: str
    config: PrepareConfig
    basis: np.ndarray | None
    given: MelSpec | None  # what features that are given are


Job = tuple[str, str | None, str | None]  # path; reason not to open it; file of the features that are given


def prepare(recipe: Recipe, data_dir: str | Path, out_dir: str | Path, strict: bool = False,
            workers: int | None = None, progress: bool = True, features: str | Path | None = None,
            features_spec: MelSpec | str | None = None) -> dict[str, Any]:
    """Make the store of a recipe from a folder of recordings.

    A recording that cannot be used is left out and reported with its reason. A killed run is continued
    by running it again; a store that is already there is left as it is.

    Args:
        recipe: `audio` and `prepare` are used.
        data_dir: folder of recordings.
        out_dir: folder of the store; must not exist, be empty, or hold this very store.
        strict: a recording that cannot be used is an error.
        workers: processes; None takes one a CPU, 0 works in this process, where a file that crashes
            the decoder crashes the run.
        progress: show a bar on stderr if that is a terminal.
        features: folder of features that take the place of those computed from the recordings, one ID.npy an
            utterance, (n_mels, F) or (F, n_mels): see `wavegen.data.given`. A recording without is left out.
        features_spec: what they are, a spec or a preset's name; None: as `audio.mel` of the recipe.

    Returns:
        The report, as in `report.json`, and under "status" either "prepared" or "unchanged".

    Raises:
        BadInputError: no recordings, none that can be used, or with `strict` one that cannot.
        ConfigError: settings that cannot be met, such as two recordings of one id.
        MelMismatch: features of another kind than the recipe's.
        StoreError: another store is in the way, or is being written by another process.
        WavegenError: the store cannot be written; nothing half-written is left.
    """
    out, data = Path(os.path.abspath(out_dir)), Path(data_dir)
    partial = out.with_name(f".{out.name}.partial")
    io.check_sample_rate(recipe.audio.sample_rate)
    given = None if features is None else given_features(features, features_spec, recipe)
    if given is None and features_spec is not None:
        raise ConfigError("--features-spec says what --features are; give both")
    _check_free(out, recipe)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial, out):
            try:
                return _prepare(recipe, data, out, partial, strict, workers, progress, given)
            except (WavegenError, OSError, sqlite3.Error):
                shutil.rmtree(partial, ignore_errors=True)
                raise
            except KeyboardInterrupt:
                logger.warning("interrupted; run the same again to continue where it stopped")
                raise
    except OSError as error:
        raise write_error(out, error) from error
    except sqlite3.Error as error:
        raise WavegenError(f"{out} could not be written: {error}") from error


def _prepare(recipe: Recipe, data: Path, out: Path, partial: Path, strict: bool, workers: int | None,
             progress: bool, given: GivenFeatures | None) -> dict[str, Any]:
    plan = build_plan(partial / "plan.sqlite", data, recipe.prepare, leave_out=out)
    try:
        if (out / INFO).is_file():
            report = _unchanged(out, plan, given, strict)
            shutil.rmtree(partial, ignore_errors=True)
            return report
        with StoreWriter(partial, recipe.audio, recipe.prepare, _fingerprint(plan, given)) as writer:
            if strict:
                for left_out in writer.skipped():
                    raise _refused(data / left_out["source"], left_out["reason"])
            if writer.num_done:
                logger.info("continuing %s: %d of %d are done", out, writer.num_done, plan.num_items)
            _write_all(recipe, data, plan, writer, strict, workers, progress, given)
            if writer.num_utterances == 0:
                first = next(writer.skipped())
                raise BadInputError(f"none of the {plan.num_items} files below {data} can be used; "
                                    f"the first is {first['source']}: {first['reason']}")
            info, columns = writer.finish(plan.sources, _features_source(plan, given))
            report = build_report(info, columns, plan.num_items, writer.skipped())
    finally:
        plan.close()
    for line in report["warnings"]:
        logger.warning(line)
    with replacing(writer.folder / REPORT) as file:
        file.write((json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode())
    os.replace(writer.folder, out)
    sync_folder(out.parent)
    shutil.rmtree(partial, ignore_errors=True)
    for line in summary(report):
        logger.info(line)
    logger.info("%s: %d utterances, %d files left out", out, report["utterances"], report["num_skipped"])
    return {"status": "prepared", **report}


def _write_all(recipe: Recipe, data: Path, plan: Plan, writer: StoreWriter, strict: bool, workers: int | None,
               progress: bool, given: GivenFeatures | None) -> None:
    """Take every recording of the plan that is not done, in order."""
    left, fits = plan.num_items - writer.num_done, FitReport()
    clips = _clips(recipe, data, plan, writer.num_done, _num_workers(workers, left), given)
    with contextlib.closing(clips), _bar(progress, plan.num_items, writer.num_done) as advance:
        for item, clip in clips:
            if isinstance(clip, Clip):
                writer.add(item, clip.codes, clip.features, clip.gain, clip.peak, clip.clipped)
                fits.add(clip.fit)
            elif strict:
                raise _refused(data / item.source, clip)
            else:
                writer.skip(item, clip)
            writer.checkpoint(CHECKPOINT_SECONDS)
            advance()
    for line in fits.warnings():
        logger.warning(line)


def _fingerprint(plan: Plan, given: GivenFeatures | None) -> str:
    return plan.fingerprint if given is None else plan.fingerprint + given.fingerprint(plan.items(), with_time=True)


def _features_source(plan: Plan, given: GivenFeatures | None) -> str:
    return "" if given is None else given.fingerprint(plan.items(), with_time=False)


def _refused(path: Path, reason: str) -> AudioError:
    return AudioError(f"{path} cannot be used: {reason}; repair or remove it, narrow prepare.glob, "
                      "or leave out --strict to skip such files")


def _clips(recipe: Recipe, data: Path, plan: Plan, start: int,
           num_workers: int, given: GivenFeatures | None) -> Generator[tuple[Item, Clip | str], None, None]:
    """Each item with its clip, or with the reason there is none."""
    audio, basis = recipe.audio, None
    if audio.mel is not None:
        from wavegen.audio.mel import mel_basis

        basis = mel_basis(audio.mel)
    settings = Settings(audio, code_dtype(audio), recipe.prepare, basis, None if given is None else given.spec)
    function = functools.partial(read_clip, settings)
    jobs = ((str(data / item.source), item.reason, None if given is None else str(given.file(item.id)))
            for item in plan.items(start))
    results = (function(job) for job in jobs)
    if num_workers:
        results = run_ordered(function, jobs, num_workers, FILE_SECONDS)
    with contextlib.closing(results):
        for item, result in zip(plan.items(start), results, strict=True):
            yield item, result.reason if isinstance(result, Crash) else result


def read_clip(settings: Settings, job: Job) -> Clip | str:
    """One recording as codes, or the reason why it cannot be used.

    Args:
        settings: of the recipe.
        job: path, the reason not to open it if there is one already, and the file of its features if given.
    """
    path, reason, features = job
    if reason is not None:
        return reason
    try:
        return _read_clip(settings, path, features)
    except AudioError as error:
        return str(error).removeprefix(f"{path} ").removeprefix("cannot be used: ")
    except MemoryError:
        return "it needs more memory than there is"
    except Exception as error:  # whatever a decoder comes up with costs one file, not the run
        return f"{type(error).__name__}: {error}"


def _read_clip(settings: Settings, path: str, given: str | None) -> Clip:
    waveform, rate = io.read(path)
    clipped = levels.count_clipped(waveform)
    waveform = io.resample(waveform, rate, settings.audio.sample_rate)
    if len(waveform) * 1000 < settings.audio.sample_rate:
        raise AudioError(f"too short: {len(waveform)} samples at {settings.audio.sample_rate} Hz, less than 1 ms")
    waveform, gain, peak = levels.level(waveform, settings.audio.sample_rate, settings.config)
    seconds, shortest, longest = (len(waveform) / settings.audio.sample_rate, settings.config.min_seconds,
                                  settings.config.max_seconds)
    if seconds < shortest:
        raise AudioError(f"too short: {seconds:.3g} s after trimming, min_seconds is {shortest:g}")
    if longest is not None and seconds > longest:
        raise AudioError(f"too long: {seconds:.3g} s after trimming, max_seconds is {longest:g}")
    features, fit = None, None
    if settings.audio.mel is not None:
        from wavegen.audio.mel import log_mel

        _one_thread()
        features = log_mel(waveform, settings.audio.mel, settings.basis)
        if given is not None and settings.given is not None:
            features, fit = read_given(Path(given), settings.given, features, settings.audio.mel)
        features = features.astype("<f2")  # first: the path lpc predicts from what the store holds
    # Where a mel says silence, the network is to learn faint noise: a code that never changes is hard to leave again.
    waveform = levels.dither(waveform, settings.config.dither)
    codes = encode_waveform(waveform, settings.audio, features, settings.basis).astype(settings.code_dtype)
    frames = b"" if features is None else np.ascontiguousarray(features.T).tobytes()
    return Clip(codes.tobytes(), frames, gain, float(np.float32(peak)), clipped, fit)


@functools.cache
def _one_thread() -> None:
    """Workers share the CPUs already."""
    import multiprocessing

    import torch

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def _num_workers(workers: int | None, num_files: int) -> int:
    if workers is not None and workers < 0:
        raise ConfigError(f"workers must be 0 or more, found {workers}")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = cpus if workers is None else workers
    return min(wanted, max(1, num_files // FILES_PER_WORKER))


@contextlib.contextmanager
def _bar(progress: bool, total: int, done: int) -> Iterator[Any]:
    """A progress bar on stderr, if that is a terminal; gives the function that moves it one on."""
    if not progress or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("prepare", total=total, completed=done)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    """Keep a second run away; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on this system: two runs at once are then the user's to avoid
        yield
        return
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{out} is being prepared by another process; wait for it or end it") from error
        except OSError:
            logger.debug("this file system has no locks")
        yield
    finally:
        os.close(handle)


def _check_free(out: Path, recipe: Recipe) -> None:
    """Refuse to touch anything but an empty place or a store of the same settings."""
    if not out.exists():
        return
    if not (out / INFO).is_file():
        if not out.is_dir() or any(out.iterdir()):
            raise StoreError(f"{out} exists and is no store; choose another --out")
        return
    info = read_info(out)
    found, wanted = ({"audio": origin.audio.model_dump(mode="json"),
                      "prepare": origin.prepare.model_dump(mode="json")} for origin in (info, recipe))
    lines = differences(found, wanted)
    if lines:
        raise StoreError(f"store {out} was prepared with other settings: {'; '.join(lines)}. "
                         "Choose another --out, or delete it first")


def _unchanged(out: Path, plan: Plan, given: GivenFeatures | None, strict: bool) -> dict[str, Any]:
    """The report of a store that is already there, if the recordings are still the same."""
    info = read_info(out)
    if info.sources and info.sources != plan.sources:
        raise StoreError(f"store {out} was prepared from other recordings than are there now; "
                         "choose another --out, or delete it first")
    if info.features_source != _features_source(plan, given):
        raise StoreError(f"store {out} was prepared {'with other' if info.features_source else 'without'} features "
                         "than --features gives now; choose another --out, or delete it first")
    report: dict[str, Any] = json.loads((out / REPORT).read_text("utf-8")) if (out / REPORT).is_file() else {}
    skipped = report.get("skipped", [])
    if strict and skipped:
        raise AudioError(f"store {out} was prepared without {len(skipped)} files that cannot be used, the "
                         f"first {skipped[0]['source']}: {skipped[0]['reason']}; repair or remove them, or "
                         "leave out --strict")
    logger.info("%s is already there, with the same settings and recordings; nothing was done", out)
    return {"status": "unchanged", **report}
