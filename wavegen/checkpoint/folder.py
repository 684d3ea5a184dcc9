"""What a model folder holds, read from its config and the header of its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wavegen.config import ModelFolder, Vocabulary, parse
from wavegen.errors import ConfigError, ModelFileError, did_you_mean

ASSETS = Path(__file__).parents[1] / "assets"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
MAX_CONFIG_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 100 * 2**20  # the limit of safetensors itself
FLOATS = ("F64", "F32", "F16", "BF16")
RANGES = "activation_range."  # names of the tensors that hold how large activations grow, not weights
FETCH_AGAIN = "fetch or export it again"

T = TypeVar("T")


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with wavegen."""
    return tuple(sorted(config.parent.name for config in ASSETS.glob(f"*/{CONFIG}")))


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
        raise ModelFileError(
            f'no model "{name}": neither a bundled name nor a folder; {did_you_mean(name, bundled_models())}'
        )
    if not (path / CONFIG).is_file():
        if (path / "checkpoints").is_dir():
            raise ModelFileError(f"{path} is a training run; run `wavegen export {path} --out MODEL` first")
        raise ModelFileError(f"{path} is not a model folder: it has no {CONFIG}")
    return path


def is_model(name_or_path: str | Path) -> bool:
    """Whether `find_model` would find one."""
    return os.fspath(name_or_path) in bundled_models() or (Path(name_or_path) / CONFIG).is_file()


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
        raise ModelFileError(
            f"{path} has format version {version}, written by wavegen "
            f"{values.get('wavegen_version')}; this wavegen reads version 1: upgrade it "
            "(pip install -U wavegen)"
        )
    try:
        spec = parse(ModelFolder, values, str(path))
    except ConfigError as error:
        raise ModelFileError(str(error)) from error
    _check_durations(spec.vocabulary, path)
    return spec


def _check_durations(vocabulary: Vocabulary, path: Path) -> None:
    shape = (max(1, len(vocabulary.labels)), max(1, len(vocabulary.speakers)))
    durations = vocabulary.durations
    if durations and (len(durations), *{len(row) for row in durations}) != shape:
        raise ModelFileError(
            f'{path}: "vocabulary.durations" must have a row for each of {shape[0]} labels and in it '
            f"quartiles for each of {shape[1]} speakers"
        )
    for first, middle, last in (cell for row in durations for cell in row):
        if not 0 < first <= middle <= last:
            raise ModelFileError(
                f'{path}: "vocabulary.durations" holds the quartiles {first}, {middle}, {last}; '
                "they must be above 0 and rise"
            )


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in a model folder, from the header alone.

    Raises:
        ModelFileError: names the file and what is wrong with it.
    """
    return split_ranges(read_all_shapes(folder))[0]


def split_ranges(tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """The weights of a model folder, and its activation ranges by their short names."""
    weights = {name: value for name, value in tensors.items() if not name.startswith(RANGES)}
    return weights, {name[len(RANGES):]: value for name, value in tensors.items() if name not in weights}


def read_all_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """`read_shapes` with the activation ranges.

    Raises:
        ModelFileError: names the file and what is wrong with it.
    """
    path = folder / WEIGHTS
    try:
        size, header = _read_header(path)
        header.pop("__metadata__", None)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        numbers = {name: entry["dtype"] for name, entry in header.items()}
        promised = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder} is not a whole model folder: it has no {WEIGHTS}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if _is_pickle(path):
            raise ModelFileError(f"{path} is a pickle under another name; wavegen never unpickles a model") from error
        raise ModelFileError(f"{path} is not a whole safetensors file: {error}; {FETCH_AGAIN}") from error
    if promised != size:
        raise ModelFileError(
            f"{path} is damaged: it has {size} bytes of weights, its header promises {promised}; {FETCH_AGAIN}"
        )
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


def _not_a_folder(path: Path) -> str:
    if path.suffix.lower() in PICKLES or _is_pickle(path):
        return (
            f"{path} is a PyTorch checkpoint or a pickle, which can run code when read: wavegen never opens "
            "one; a model is a folder made by `wavegen export RUN --out MODEL`"
        )
    return f"{path} is a file; a model is a folder with {CONFIG} and {WEIGHTS}, made by `wavegen export`"
