"""Model folders: config.json, model.safetensors and a card, written whole, read without trust.

    config.json         all that is needed to build the model, and the sha256 of the weights
    model.safetensors   the weights; the config again in its metadata
    README.md           the card: what it is, how it was trained, how to use it

Nothing is ever unpickled. Every kind of damage is one `ModelFileError`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wavegen.audio.atomic import sync, sync_folder, write_error
from wavegen.config import ModelFolder, Recipe, Vocabulary, parse
from wavegen.errors import ConfigError, ModelFileError, WavegenError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

ASSETS = Path(__file__).parent / "assets"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
MAX_CONFIG_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 100 * 2**20  # the limit of safetensors itself
FLOATS = ("F64", "F32", "F16", "BF16")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model read from disk, in evaluation mode on the CPU."""

    spec: ModelFolder
    model: nn.Module
    path: Path


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with wavegen."""
    return tuple(sorted(folder.name for folder in ASSETS.iterdir() if (folder / CONFIG).is_file()))


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a bundled model or of a path, in this order.

    Raises:
        ModelFileError: neither; names the nearest bundled model, or says what the path is instead.
    """
    name = os.fspath(name_or_path)
    if name in bundled_models():
        return ASSETS / name
    path = Path(name)
    if path.is_file() and path.name in (CONFIG, WEIGHTS):
        path = path.parent
    if path.is_file():
        raise ModelFileError(_not_a_folder(path))
    if not path.is_dir():
        raise ModelFileError(f'no model "{name}": neither a bundled name nor a folder; '
                             f"{did_you_mean(name, bundled_models())}")
    if not (path / CONFIG).is_file():
        if (path / "checkpoints").is_dir():
            raise ModelFileError(f"{path} is a training run; run `wavegen export {path} --out MODEL` first")
        raise ModelFileError(f"{path} is not a model folder: it has no {CONFIG}")
    return path


def read_spec(folder: Path) -> ModelFolder:
    """The checked `config.json` of a model folder, without reading its weights.

    Raises:
        ModelFileError: names the file and what is wrong with it.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != "wavegen-model":
        raise ModelFileError(f'{path} is not the config of a wavegen model: it lacks "format": "wavegen-model"')
    version = values.get("format_version")
    if isinstance(version, int) and version > 1:
        raise ModelFileError(f"{path} has format version {version}, written by wavegen "
                             f"{values.get('wavegen_version')}; this wavegen reads version 1: upgrade it "
                             "(pip install -U wavegen)")
    try:
        return parse(ModelFolder, values, str(path))
    except ConfigError as error:
        raise ModelFileError(str(error)) from error


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a model folder, from the header alone.

    Raises:
        ModelFileError: names the file and what is wrong with it.
    """
    path = folder / WEIGHTS
    try:
        size, header = _read_header(path)
        header.pop("__metadata__", None)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        numbers = {name: entry["dtype"] for name, entry in header.items()}
        promised = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder} is not a whole model folder: it has no {WEIGHTS}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if _is_pickle(path):
            raise ModelFileError(f"{path} is a pickle under another name; wavegen never unpickles a model") from error
        raise ModelFileError(f"{path} is not a whole safetensors file: {error}; {_FETCH_AGAIN}") from error
    if promised != size:
        raise ModelFileError(f"{path} is damaged: it has {size} bytes of weights, its header promises {promised}; "
                             f"{_FETCH_AGAIN}")
    wrong = sorted(name for name, number in numbers.items() if number not in FLOATS)
    if wrong:
        raise ModelFileError(f"{path} holds {numbers[wrong[0]]} numbers in {wrong[0]}; weights are {', '.join(FLOATS)}")
    return shapes


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Bytes of weights in a safetensors file, and its header: 8 bytes of length, then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"its {size} bytes are too few for its header")
        header = json.loads(file.read(length))
    return size - 8 - length, header


def _is_pickle(path: Path) -> bool:
    """Whether a file starts as a pickle does, or a zip archive such as torch.save writes."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False
    return start[:1] == b"\x80" or start == b"PK\x03\x04"


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
    found = read_shapes(folder)
    try:
        # On the meta device nothing is allocated, so a config of absurd sizes is refused by its shapes.
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in
                      build_model(spec.model, spec.audio, spec.vocabulary).state_dict().items()}
    except (WavegenError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{folder / CONFIG} does not describe a model: {error}") from error
    _compare(found, wanted, path)
    content = path.read_bytes()
    if spec.weights_sha256 and hashlib.sha256(content).hexdigest() != spec.weights_sha256:
        raise ModelFileError(f"{path} is damaged: its sha256 is not the one in {CONFIG}; {_FETCH_AGAIN}")
    weights = _parse_weights(content, path)
    with torch.random.fork_rng(devices=[]):  # loading a model leaves the caller's random numbers alone
        model = build_model(spec.model, spec.audio, spec.vocabulary)
    model.load_state_dict(weights)
    return LoadedModel(spec, model.eval(), folder)


def save_model(folder: str | Path, model: nn.Module, spec: ModelFolder, card: str | None = None,
               dtype: Literal["float32", "float16"] = "float32") -> Path:
    """Write a model folder; it appears whole or not at all, the same bytes for the same model.

    Args:
        folder: replaced if it already is a model folder.
        card: text of README.md; None writes one from the spec.
        dtype: how weights are stored; float16 halves the file.

    Raises:
        ModelFileError: the weights are not finite, or `folder` exists and is something else.
    """
    import torch
    from safetensors.torch import save

    folder = Path(folder)
    number = torch.float32 if dtype == "float32" else torch.float16
    weights = {name: value.detach().cpu().to(number).contiguous() for name, value in model.state_dict().items()}
    _check_finite(weights, f"the model for {folder}")
    # One key of metadata: safetensors writes several in no fixed order.
    content = save(weights, metadata={"wavegen": _to_json(spec.model_copy(update={"weights_sha256": ""}))})
    spec = spec.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
    with _folder_appears(folder) as new:
        _write(new / WEIGHTS, content)
        _write(new / CONFIG, _to_json(spec).encode())
        _write(new / CARD, (model_card(spec) if card is None else card).encode())
    return folder


def export_run(run: str | Path, out: str | Path, name: str | None = None, card: str | None = None,
               dtype: Literal["float32", "float16"] = "float32") -> ModelFolder:
    """Turn a training run into a model folder, with the averaged weights of its last checkpoint.

    Args:
        run: folder `wavegen train` wrote.
        out: model folder to write.
        name: None takes the recipe's.

    Raises:
        ModelFileError: no run, no checkpoint, or a damaged one.
    """
    import wavegen
    from wavegen.models import build_model

    path, ours = _last_checkpoint(Path(run))
    try:
        recipe = parse(Recipe, ours["recipe"], f"the recipe in {path}")
        vocabulary = parse(Vocabulary, ours["vocabulary"], f"the vocabulary in {path}")
        model = build_model(recipe.model, recipe.audio, vocabulary)
    except ConfigError as error:
        raise ModelFileError(str(error)) from error
    state = model.state_dict()
    _compare({key: tuple(value.shape) for key, value in ours["ema"].items()},
             {key: tuple(value.shape) for key, value in state.items()}, path)
    model.load_state_dict(ours["ema"])
    facts = {"recipe": recipe.name, "steps": int(ours["step"]), "seed": recipe.training.seed,
             "store_digest": str(ours["store_digest"]), **_figures(ours.get("metrics", {}))}
    spec = ModelFolder(wavegen_version=wavegen.__version__, name=name or recipe.name, audio=recipe.audio,
                       model=recipe.model, vocabulary=vocabulary, training=facts)
    save_model(out, model, spec, card, dtype)
    return spec


def model_card(spec: ModelFolder) -> str:
    """README.md of a model folder, from what the spec knows."""
    vocabulary, told = spec.vocabulary, spec.model.conditioning
    facts = [f"- family: {spec.model.family}", f"- sample rate: {spec.audio.sample_rate} Hz",
             f"- output: {spec.audio.quantization_channels} mu-law codes ({spec.audio.codec})"]
    if told.label:
        facts.append(f"- labels: {', '.join(vocabulary.labels)}")
    if told.speaker:
        facts.append(f"- speakers: {', '.join(vocabulary.speakers)}")
    facts += [f"- training, {key}: {value}" for key, value in spec.training.items()]
    options = "".join([f" --label {vocabulary.labels[0]}" if told.label else "",
                       f" --speaker {vocabulary.speakers[0]}" if told.speaker else "",
                       "" if vocabulary.durations else " --seconds 1"])
    return "\n".join([f"# {spec.name}", "", "An audio model for wavegen.", "", *facts, "",
                      f"    wavegen synth {spec.name}{options} -o out.wav", ""])


_FETCH_AGAIN = "fetch or export it again"


def _not_a_folder(path: Path) -> str:
    if path.suffix.lower() in PICKLES or _is_pickle(path):
        return (f"{path} is a PyTorch checkpoint or a pickle, which can run code when read, so wavegen never opens one; "
                "a model is a folder made by `wavegen export RUN --out MODEL`")
    return f"{path} is a file; a model is a folder with {CONFIG} and {WEIGHTS}, made by `wavegen export`"


def _compare(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], path: Path) -> None:
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    wrong = [f"{name} is {_shape(found[name])}, wanted {_shape(wanted[name])}"
             for name in sorted(set(found) & set(wanted)) if found[name] != wanted[name]]
    problems = [f"lacks {_some(missing)}"] if missing else []
    problems += [f"has the unknown {_some(extra)}"] if extra else []
    problems += [_some(wrong)] if wrong else []
    if problems:
        raise ModelFileError(f"the weights in {path} do not fit its config: {'; '.join(problems)}")


def _parse_weights(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged: {error}; {_FETCH_AGAIN}") from error
    weights = {name: value.to(torch.float32) for name, value in weights.items()}
    _check_finite(weights, str(path))
    return weights


def _check_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise ModelFileError(f"{where}: the weights {name} hold NaN or infinite numbers")


def _last_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that can be read, and our part of it."""
    if not run.is_dir():
        raise ModelFileError(f"no training run at {run}; `wavegen train` makes one")
    found = sorted((run / "checkpoints").glob("*.ckpt"), key=_step_of, reverse=True)
    if not found:
        raise ModelFileError(f"{run} holds no checkpoint (checkpoints/*.ckpt): not a training run, or one that "
                             "has not come that far")
    problems = []
    for path in found:
        try:
            return path, _read_checkpoint(path)
        except ModelFileError as error:
            logger.warning("%s", error)
            problems.append(error)
    raise problems[0]


def _step_of(path: Path) -> float:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else float("inf")  # last.ckpt


def _read_checkpoint(path: Path) -> dict[str, Any]:
    import torch

    try:
        # weights_only refuses everything but tensors and plain values: nothing in the file can run.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, depending on where the damage is
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path} cannot be read: {first}") from error
    ours = checkpoint.get("wavegen") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or not {"recipe", "vocabulary", "ema", "step", "store_digest"} <= set(ours):
        raise ModelFileError(f"{path} is not a checkpoint of `wavegen train`")
    return ours


def _figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What training measured last, for the card."""
    return {str(key): round(float(value), 4) for key, value in metrics.items()
            if key != "step" and isinstance(value, (int, float))}


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
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
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
