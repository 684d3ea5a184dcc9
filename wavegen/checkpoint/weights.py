"""Weights in and out of a model folder."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wavegen.audio.atomic import sync, sync_folder, write_error
from wavegen.checkpoint.folder import (
    CARD,
    CONFIG,
    FETCH_AGAIN,
    RANGES,
    WEIGHTS,
    find_model,
    read_all_shapes,
    read_spec,
    split_ranges,
)
from wavegen.config import ModelFolder
from wavegen.errors import ModelFileError, WavegenError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model read from disk, in evaluation mode on the CPU, and what was measured on it."""

    spec: ModelFolder
    model: nn.Module
    path: Path
    ranges: dict[str, np.ndarray] = field(default_factory=dict)  # float32, parts of ActivationRanges; empty if none
    dtype: Literal["float32", "float16"] = "float32"  # of the weights in the file


def load_model(name_or_path: str | Path) -> LoadedModel:
    """Read a model by bundled name or by path.

    Raises:
        ModelFileError: missing, damaged, newer than this wavegen, or not one of ours; names the
            file, what was found and what to do.
    """
    import torch

    from wavegen.models import build_model

    folder = find_model(name_or_path)
    spec, path = read_spec(folder), folder / WEIGHTS
    found, ranges = split_ranges(read_all_shapes(folder))
    _check_ranges(spec, ranges, path)
    _check_size(spec, found, path)
    try:
        with torch.random.fork_rng(devices=[]):  # loading a model leaves the caller's random numbers alone
            model = build_model(spec.model, spec.audio, spec.vocabulary)
    except (WavegenError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{folder / CONFIG} does not describe a model: {error}") from error
    compare_shapes(found, {name: tuple(value.shape) for name, value in model.state_dict().items()}, path)
    content = path.read_bytes()
    if spec.weights_sha256 and hashlib.sha256(content).hexdigest() != spec.weights_sha256:
        raise ModelFileError(f"{path} is damaged: its sha256 is not the one in {CONFIG}; {FETCH_AGAIN}")
    weights, measured = split_ranges(_parse_weights(content, path))
    model.load_state_dict(weights)
    halved = all(value.dtype == torch.float16 for value in weights.values())
    return LoadedModel(spec, model.eval(), folder, {name: value.float().numpy() for name, value in measured.items()},
                       "float16" if halved else "float32")


def save_model(
    folder: str | Path,
    model: nn.Module,
    spec: ModelFolder,
    card: str | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    ranges: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a model folder; it appears whole or not at all, the same bytes for the same model.

    Args:
        folder: replaced if it already is a model folder.
        card: text of README.md; None writes one from the spec.
        dtype: how weights are stored; float16 halves the file.
        ranges: parts of ActivationRanges by name, kept as float32 beside the weights.

    Raises:
        ModelFileError: the weights are not finite, or `folder` exists and is something else.
    """
    import torch
    from safetensors.torch import save

    folder = Path(folder)
    number = torch.float32 if dtype == "float32" else torch.float16
    weights = {name: value.detach().cpu().to(number).contiguous() for name, value in model.state_dict().items()}
    weights |= {RANGES + name: torch.from_numpy(np.array(value, np.float32)) for name, value in (ranges or {}).items()}
    _check_finite(weights, f"the model for {folder}")
    # One key of metadata: safetensors writes several in no fixed order.
    content = save(weights, metadata={"wavegen": _to_json(spec.model_copy(update={"weights_sha256": ""}))})
    spec = spec.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
    with _folder_appears(folder) as new:
        _write(new / WEIGHTS, content)
        _write(new / CONFIG, _to_json(spec).encode())
        _write(new / CARD, (model_card(spec) if card is None else card).encode())
    return folder


def model_card(spec: ModelFolder) -> str:
    """README.md of a model folder, from what the spec knows."""
    vocabulary, told = spec.vocabulary, spec.model.conditioning
    facts = [
        f"- family: {spec.model.family}",
        f"- sample rate: {spec.audio.sample_rate} Hz",
        f"- output: {spec.audio.quantization_channels} mu-law codes ({spec.audio.codec})",
    ]
    if spec.model.family in ("wgan", "vae"):
        window = spec.model.num_samples
        facts.append(f"- clips: {window} samples, {window / spec.audio.sample_rate:g} s")
    if told.label:
        facts.append(f"- labels: {', '.join(vocabulary.labels)}")
    if told.speaker:
        facts.append(f"- speakers: {', '.join(vocabulary.speakers)}")
    facts += [f"- training, {key}: {value}" for key, value in spec.training.items()]
    options = "".join(
        [
            f" --label {vocabulary.labels[0]}" if told.label else "",
            f" --speaker {vocabulary.speakers[0]}" if told.speaker else "",
            "" if vocabulary.durations or spec.model.family in ("wgan", "vae") else " --seconds 1",
        ]
    )
    return "\n".join(
        [
            f"# {spec.name}",
            "",
            "An audio model for wavegen.",
            "",
            *facts,
            "",
            f"    wavegen synth PATH/OF/THIS/FOLDER{options} -o out.wav",
            "",
        ]
    )


def _check_ranges(spec: ModelFolder, found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse ranges that are not those of this network, and figures without ranges."""
    wanted: dict[str, tuple[int, ...]] = {}
    if spec.model.family == "wavenet" and (found or spec.calibration):
        layers, channels = spec.model.num_layers, spec.model.residual_channels
        wanted = {"hidden": (layers, channels, 2), "gated": (layers, channels, 2),
                  "skip": (spec.model.skip_channels,), "output": (spec.model.output_channels,)}
    compare_shapes({RANGES + name: shape for name, shape in found.items()},
                   {RANGES + name: shape for name, shape in wanted.items()}, path)


def _check_size(spec: ModelFolder, found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse a config of absurd sizes before a model of these sizes is built in memory."""
    config, codes = spec.model, spec.audio.quantization_channels
    if config.family == "wavenet":
        channels, skip, layers = config.residual_channels, config.skip_channels, config.num_layers
        wanted = layers * channels * (2 * config.kernel_size * channels + skip) + config.input_taps * channels
        wanted += (skip + codes) * config.output_channels + config.input_kernel_size * codes * channels
    elif config.family == "rnn":
        wanted = 3 * config.hidden_channels * (config.hidden_channels + config.embedding_channels)
        wanted += (config.hidden_channels + codes) * config.output_channels + codes * config.embedding_channels
    elif config.family == "wgan":
        first = config.num_samples // math.prod(config.strides) * config.channels[0]
        pairs = zip(config.channels, (*config.channels[1:], 1), strict=True)
        wanted = config.latent_channels * first + config.kernel_size * sum(a * b for a, b in pairs)
        wanted += config.post_filter_size
    else:
        wanted = 0
    told = config.conditioning
    names = (len(spec.vocabulary.labels) if told.label else 0) + (len(spec.vocabulary.speakers) if told.speaker else 0)
    wanted += told.hidden_channels * (told.hidden_channels + names * told.progress_steps)
    present = sum(math.prod(shape) for shape in found.values())
    if wanted > 2 * present + 1_000_000:
        raise ModelFileError(
            f"the weights in {path} do not fit its config: {present} numbers, wanted at least {wanted}"
        )


def compare_shapes(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise ModelFileError unless both have the same tensors of the same shapes."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    wrong = [
        f"{name} is {_shape(found[name])}, wanted {_shape(wanted[name])}"
        for name in sorted(set(found) & set(wanted))
        if found[name] != wanted[name]
    ]
    problems = [f"lacks {_some(missing)}"] if missing else []
    problems += [f"has the unknown {_some(extra)}"] if extra else []
    problems += [_some(wrong)] if wrong else []
    if problems:
        raise ModelFileError(f"the weights in {path} do not fit its config: {'; '.join(problems)}")


def _parse_weights(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged: {error}; {FETCH_AGAIN}") from error
    _check_finite(weights, str(path))
    return weights


def _check_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise ModelFileError(f"{where}: the weights {name} hold NaN or infinite numbers")


@contextmanager
def _folder_appears(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes its place when the block ends without an error."""
    if folder.exists() and not _replaceable(folder):
        raise ModelFileError(f"{folder} exists and is not a model folder; choose another place or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        sync_folder(new)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        sync_folder(folder.parent)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (CONFIG in names and names <= {CONFIG, WEIGHTS, CARD})


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        sync(file)


def _to_json(spec: ModelFolder) -> str:
    return json.dumps(spec.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
