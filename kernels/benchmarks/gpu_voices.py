"""Sections of `gpu_check.py` that need the whole of wavegen: its bundled models, and training on the device.

Where the packages it needs are missing, `carry.py` brings them in one archive.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
import tempfile
import time
import wave
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

LIMIT_KL = 1e-3  # nats a sample, as `wavegen export` asks of a precision
# A vocoder so small that it can be interpreted; names are fields of the recipe.
TINY_MEL = {"sample_rate": 400, "n_fft": 16, "win_length": 16, "hop_length": 2, "n_mels": 4}


def missing(module: str) -> str:
    """What keeps a part of wavegen from being imported here, empty if nothing does."""
    try:
        importlib.import_module(module)
        stand_in_for_librosa()  # which is imported where it is needed
    except ImportError as error:
        return (f"wavegen needs a package that is not installed here: {error}; kernels/benchmarks/carry.py brings what "
                "is missing in one archive")
    return ""


def stand_in_for_librosa() -> None:
    """Where librosa is not installed, what wavegen takes of it to speak: `librosa.filters.mel`.

    It would bring scipy, for which `carry.py` has no room.
    """
    if importlib.util.find_spec("librosa") is None and "librosa" not in sys.modules:
        module = sys.modules["librosa"] = ModuleType("librosa")
        module.__spec__ = ModuleSpec("librosa", None)  # others look whether it is there
        module.filters = SimpleNamespace(mel=mel_filters)  # type: ignore[attr-defined]


def mel_filters(*, sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float | None, htk: bool,
                norm: str | None) -> Any:
    """Triangles over the bins of a spectrum, float32 (n_mels, n_fft // 2 + 1), as `librosa.filters.mel`."""
    import numpy as np

    def to_mel(hertz: Any) -> Any:
        if htk:
            return 2595 * np.log10(1 + np.asarray(hertz) / 700)
        return np.where(np.asarray(hertz) < 1000, np.asarray(hertz) * 3 / 200,
                        15 + np.log(np.maximum(hertz, 1e-9) / 1000) * 27 / np.log(6.4))

    def to_hertz(mel: Any) -> Any:
        if htk:
            return 700 * (10 ** (mel / 2595) - 1)
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = to_hertz(np.linspace(to_mel(fmin), to_mel(sr / 2 if fmax is None else fmax), n_mels + 2))
    bins = np.linspace(0, sr / 2, n_fft // 2 + 1)
    up = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    weights = np.maximum(0, np.minimum(up, down))
    if norm == "slaney":
        weights *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return weights.astype(np.float32)


# --- bundled models ---------------------------------------------------------------------------------------------


def voices(report: Any) -> None:
    """The bundled vocoder and the bundled digits, whole, as batches and as a stream, beside the CPU's float32."""
    if reason := missing("wavegen.synth"):
        report.put("all", {"skipped": reason})
        return
    import wavegen

    name, options = "kathleen", {}
    if report.interpret:
        name, options = str(tiny_vocoder(report.path.parent)), {"device": "cpu"}
    begin = time.perf_counter()
    voc = wavegen.load(name, engine="triton", **options)
    report.put("load_seconds", round(time.perf_counter() - begin, 2))
    frames = 4 if report.interpret else 125
    mel = noise(voc, frames)
    report.attempt("vocoder_logits", lambda: against_float64(name, voc, mel[:, :min(frames, 60)]))
    report.attempt("vocoder_laws", lambda: vocoder_laws(voc, mel[:, :min(frames, 30)], not report.interpret))
    if report.interpret:
        return
    report.attempt("vocoder_stream", lambda: streams(voc))
    for rows in (1, 8, 64, 256):
        for guard in (True, False):
            name = f"vocoder_batch_{rows}" + ("" if guard else "_plain")
            report.attempt(name, lambda rows=rows, guard=guard: batch(voc, mel, rows, guard))
    report.attempt("digits", digits)


WARM = [f"voice:vocoder:{rows}:{mode}" for rows, mode in ((1, "logits"), (1, "draw"), (3, "draw"), (64, "draw"),
                                                          (256, "draw"))] + ["voice:digits:16:draw"]


def warm(rows: int, mode: str) -> None:
    """Compile what the bundled models need for so many rows, for the GPU and on the host."""
    import numpy as np

    import wavegen
    from wavegen.engines import TableConditioning

    if rows == 16:
        voice = wavegen.load("digits", engine="triton")
        voice.generate("7", voice.speakers[0], 0.01, count=50)
        return
    voc = wavegen.load("kathleen", engine="triton")
    if mode == "logits":
        order = voc.folder.audio.lpc_order
        told = TableConditioning(np.zeros((1, 1, *voc._voice.network.columns)), voc.hop_length, np.zeros((1, 1, order)))
        codes = np.zeros((1, 8), np.int64)
        voc.engine.logits(codes, told)
        voc.engine.prefill(voc.engine.start(1, told), codes, want_logits=True)
        wavegen.load("kathleen", engine="numba", precision="f32").codes(noise(voc, 8)[None], guard=False)
    else:
        mel = noise(voc, 8)
        voc(np.stack([mel] * rows), seed=list(range(rows)))
        if rows == 1:
            list(voc.stream(mel))


def tiny_vocoder(folder: Path) -> Path:
    """A model folder with random weights."""
    import torch

    import wavegen
    from wavegen.checkpoint import save_model
    from wavegen.config import ModelFolder
    from wavegen.models import build_model

    told = {"hidden_channels": 8, "hop_length": 2, "features": 4, "context_frames": 1, "feature_mean": -4.0,
            "feature_scale": 3.0}
    spec = ModelFolder.model_validate({
        "wavegen_version": wavegen.__version__, "name": "tiny", "training": {},
        "audio": {"sample_rate": 400, "mel": TINY_MEL, "signal_path": "lpc", "preemphasis": 0.85},
        "model": {"family": "wavenet", "residual_channels": 16, "skip_channels": 16, "output_channels": 16,
                  "dilations": (1, 2), "conditioning": told}})
    torch.manual_seed(0)
    return save_model(folder / "tiny-vocoder", build_model(spec.model, spec.audio, spec.vocabulary), spec)


def noise(voc: Any, frames: int) -> Any:
    """The mel (n_mels, F) of a noise that rises and falls."""
    from wavegen.bench.streams import noise_mel

    return noise_mel(voc, frames)


def against_float64(name: str, voc: Any, mel: Any) -> dict[str, Any]:
    """Teacher-forced logits of what the CPU's float32 engine speaks, against float64."""
    import numpy as np

    import wavegen
    from wavegen.engines.calibration import divergence
    from wavegen.engines.frames import FrameTable
    from wavegen.engines.packing import network_of
    from wavegen.synth.utterances import FrameWindow

    cpu = wavegen.load(name, engine="numba", precision="f32")
    codes = np.asarray(cpu.codes(mel[None], guard=False, seed=1))[0]
    network, voice = network_of(voc.model), voc._voice
    window = FrameWindow(voice, voice.network.base())
    window.push(mel)
    window.ended = True
    rows = mel.shape[1] * voice.network.upsampling
    table = np.zeros((1, rows, *voice.network.columns), np.float32)
    order = voice.predictor.order if voice.predictor else 0
    coefficients = np.zeros((1, rows, order), np.float32)
    window.rows(0, table[0], coefficients[0])
    told = FrameTable(voice.row_length, voice.network.columns, 1, order)
    told.hold(0, table, coefficients)
    found = divergence(voc.engine, network, [(codes, told)])
    same = np.asarray(voc.codes(mel[None], guard=False, seed=1))[0] == codes
    state = voc.engine.start(1, told)
    fed = voc.engine.prefill(state, codes[None], want_logits=True)
    largest = float(np.abs(fed - voc.engine.logits(codes[None], told)).max())
    return {"samples": len(codes), "kl": found.kl, "bits": found.bits, "bits_change": found.bits_change,
            "first_code_unlike_the_cpu": None if same.all() else int(np.argmin(same)),
            "prefill_against_step_by_step": largest, "fine": found.kl < LIMIT_KL and largest < 0.05}


def vocoder_laws(voc: Any, mel: Any, guard: bool) -> dict[str, Any]:
    """A stream is the whole, whatever its pieces; a copy has the same future; a row is itself in company."""
    import numpy as np

    options = {"matching": 0, "guard": guard}
    whole = voc(mel[None], **options).waveform[0]
    stream, given = voc.stream(**options), []
    half = mel.shape[1] // 2
    given.append(stream.push(mel[:, :half]))
    copy = stream.copy()
    rest = [np.concatenate([*(one.push(mel[:, frame:frame + 1]) for frame in range(half, mel.shape[1])), one.finish()])
            for one in (stream, copy)]
    rows = voc([mel, mel[:, :half], mel], seed=[0, 1, 2], **options)
    laws = {"a_stream_is_the_whole": np.array_equal(np.concatenate([*given, rest[0]]), whole),
            "a_copy_has_the_same_future": np.array_equal(*rest),
            "a_row_is_itself_in_company": np.array_equal(rows[0].waveform, whole)}
    return laws | {"fine": all(laws.values()), "peak": float(np.abs(whole).max())}


def streams(voc: Any) -> dict[str, Any]:
    """Time to the first audio and of a frame, while the mel arrives frame by frame."""
    from wavegen.bench.streams import bench_streams

    return {"guarded": bench_streams(voc, True, 5), "plain": bench_streams(voc, False, 5)}


def batch(voc: Any, mel: Any, rows: int, guard: bool) -> dict[str, Any]:
    """Some utterances at once; without guard and matching it is what the engine alone allows."""
    import numpy as np

    mels, options = np.stack([mel] * rows), {} if guard else {"guard": False, "matching": 0}
    voc(mels[:, :, :8], seed=list(range(rows)), **options)
    voc(mels, seed=list(range(rows)), **options)
    return {"times_realtime": round(voc.report.times_realtime, 1),
            "samples_per_second": round(voc.report.samples_per_second)}


def digits() -> dict[str, Any]:
    """Fifty spoken digits end to end, beside the CPU's."""
    import numpy as np

    import wavegen

    voice, cpu = wavegen.load("digits", engine="triton"), wavegen.load("digits", engine="numba", precision="f32")
    said = {"label": "7", "speaker": voice.speakers[0], "count": 50}
    voice.generate(**{**said, "count": 10})
    clips, wanted = voice.generate(**said), cpu.generate(**said)
    loudness = [float(np.sqrt(np.mean([np.mean(clip.waveform**2) for clip in some]))) for some in (clips, wanted)]
    alike = [len(a.waveform) == len(b.waveform) for a, b in zip(clips, wanted, strict=True)]
    return {"times_realtime": round(voice.report.times_realtime, 1), "rms": loudness[0], "rms_on_the_cpu": loudness[1],
            "fine": all(alike) and 0.8 < loudness[0] / loudness[1] < 1.25}


# --- training ---------------------------------------------------------------------------------------------------


def training(report: Any) -> None:
    """A WaveNet on tones, by the real trainer: in float32 and bfloat16, plain and compiled, and resumed."""
    if reason := missing("wavegen.training.trainer"):
        report.put("all", {"skipped": reason})
        return
    from wavegen.config import Recipe
    from wavegen.data.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        place, small = Path(folder), report.interpret
        write_tones(place / "data", 6 if small else 60, 900 if small else 16_000)
        steps = 6 if small else 200
        recipe = Recipe.model_validate(tone_recipe(steps, small))
        prepare(recipe, place / "data", place / "store", workers=0, progress=False)
        cases = [("32", False)] if small else [("bf16", False), ("32", False), ("bf16", True)]
        for precision, is_compiled in cases:
            name = precision + " compiled" * is_compiled
            made = with_training(recipe, precision=precision, compile=is_compiled)
            report.attempt(name, lambda made=made, name=name: train(made, place, name))
            if precision == cases[0][0] and not is_compiled:
                report.attempt("resumed", lambda made=made, name=name: resume(made, place, name))


def write_tones(folder: Path, count: int, num_samples: int) -> None:
    """Recordings at 8 kHz, each a decaying tone and a little noise: recordings/{digit}_{index}.wav."""
    import numpy as np

    (folder / "recordings").mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        times = np.arange(num_samples) / 8000
        tone = 0.5 * np.sin(2 * np.pi * (200 + 90 * (index % 3)) * times) * np.exp(-2 * times)
        clip = (32767 * (tone + 0.01 * rng.standard_normal(num_samples))).astype("<i2")
        with wave.open(str(folder / "recordings" / f"{index % 3}_{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(clip.tobytes())


def tone_recipe(steps: int, small: bool) -> dict[str, Any]:
    size = {"residual_channels": 8, "skip_channels": 8, "output_channels": 8, "dilations": [1, 2, 4]} if small else {
        "residual_channels": 64, "skip_channels": 256, "output_channels": 256,
        "dilations": [2**exponent for exponent in range(10)] * 2}
    return {
        "name": "tones", "audio": {"sample_rate": 8000},
        "prepare": {"pattern": r"recordings/(?P<label>\d)_(?P<index>\d+)\.wav",
                    "splits": {"test": {"index": ["0", "1", "2"]}}},
        "model": {"family": "wavenet", **size, "input_taps": 4,
                  "conditioning": {"label": True, "hidden_channels": 16, "progress_steps": 4}},
        "training": {"max_steps": steps, "samples_per_batch": 2000 if small else 128_000, "tail_samples": 80,
                     "chunk_samples": None if small else 8000,
                     "checkpoint_interval": 1000, "validation_interval": max(2, steps // 2), "log_interval": steps // 3,
                     "ema_decay": 0.95, "optimizer": {"warmup_steps": 10}}}


def with_training(recipe: Any, **changes: Any) -> Any:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


class _Speeds(logging.Handler):
    """Keeps the speed of each line of progress, in times real time."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        match = re.search(r"([0-9.]+)x real time", record.getMessage())
        if match:
            self.found.append(float(match.group(1)))


def train(recipe: Any, place: Path, name: str, resume: str | None = None) -> dict[str, Any]:
    """Train and say whether the loss fell, how fast it went and how much memory it took."""
    import torch

    from wavegen.checkpoint.run import read_checkpoint
    from wavegen.training.trainer import fit

    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    log, speeds = logging.getLogger("wavegen.training"), _Speeds()
    level = log.level
    log.addHandler(speeds)
    log.setLevel(logging.INFO)
    begin = time.perf_counter()
    try:
        last = fit(recipe, place / "store", place / name, resume=resume)
    finally:
        log.removeHandler(speeds)
        log.setLevel(level)
    saved = read_checkpoint(last)["wavegen"]
    bits, steps = saved["metrics"]["validation_bits"], recipe.training.max_steps
    return {"step": saved["step"], "validation_bits": bits, "wall_seconds": round(time.perf_counter() - begin, 1),
            "samples_per_second": round(speeds.found[-1] * recipe.audio.sample_rate) if speeds.found else None,
            "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
            "fine": bits < (8.0 if steps < 50 else 4.5) and saved["step"] == steps}


def resume(recipe: Any, place: Path, name: str) -> dict[str, Any]:
    """Go on from where a training ended, for half as long again."""
    before = train_bits(place / name)
    found = train(with_training(recipe, max_steps=recipe.training.max_steps * 3 // 2), place, name, "auto")
    fine = found["fine"] and found["validation_bits"] < before + 0.05
    return found | {"validation_bits_before": before, "fine": fine}


def train_bits(run: Path) -> float:
    from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint

    last = latest_checkpoint(run)
    assert last is not None
    bits: float = read_checkpoint(last)["wavegen"]["metrics"]["validation_bits"]
    return bits
