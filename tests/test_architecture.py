"""Every import goes down the house of floors; the message points at an arrow that goes up.

The imports are read from the syntax tree, so nothing is run and imports inside functions count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HOUSE = (  # from the ground up; a module knows what stands in the lines above its own, and itself
    ("errors",),
    ("config",),
    ("audio",),
    ("data", "models"),
    ("engines", "checkpoint", "metrics"),
    ("training", "synth"),
    ("integrations",),
    ("bench", "evaluate", "info"),
    ("cli",),
)
FLOORS = {part: floor for floor, parts in enumerate(HOUSE) for part in parts}
# Who may import a third-party package; what is not named here is free.
RESERVED = {
    **dict.fromkeys(("torchaudio", "transformers", "espnet2", "speechbrain", "TTS", "nemo", "wyoming"),
                    ("wavegen/integrations/",)),
    "librosa": ("wavegen/audio/mel.py", "wavegen/audio/griffin_lim.py", "wavegen/metrics/pitch.py"),
    "lightning": ("wavegen/training/",),
    "pytorch_lightning": (),
    "omegaconf": ("wavegen/config.py", "wavegen/training/"),  # reads recipes, writes a run's recipe.yaml
    "yaml": ("wavegen/config.py",),
    "typer": ("wavegen/cli/",),
    "click": ("wavegen/cli/",),
    "wavegen_kernels": ("wavegen/engines/",),
    "pickle": (),
    "sklearn": (),
}
# llvmlite is numba's own: an intrinsic is written in its IR.
KERNELS_MAY_IMPORT = {"numpy", "numba", "llvmlite", "torch", "triton", "wavegen_kernels"}


@dataclass(frozen=True)
class Import:
    module: str  # dotted, absolute
    line: int


def product_files() -> list[str]:
    files = [*REPOSITORY.glob("wavegen/**/*.py"), *REPOSITORY.glob("kernels/wavegen_kernels/**/*.py")]
    return sorted(str(file.relative_to(REPOSITORY)) for file in files)


def imports_of(path: str, source: str) -> Iterator[Import]:
    """All imports of a file; `from wavegen import audio` counts as wavegen.audio."""
    package = list(Path(path).with_suffix("").parts)
    if package[0] == "kernels":
        package = package[1:]
    package = package[:-1]  # of `a/b.py` and of `a/b/__init__.py` alike: where "." points
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", node.lineno)


def part_of(module: str) -> str | None:
    """The part of the house a module belongs to; None for the front door `wavegen` itself."""
    steps = module.split(".")
    return steps[1] if len(steps) > 1 else None


def arrows_up(path: str, source: str) -> list[str]:
    """One line for each import that breaks a rule."""
    complaints = []
    for imported in imports_of(path, source):
        where, root = f"{path}:{imported.line} imports {imported.module}", imported.module.split(".")[0]
        if path.startswith("kernels/"):
            if root not in KERNELS_MAY_IMPORT and root not in sys.stdlib_module_names:
                complaints.append(f"{where}: kernels know {', '.join(sorted(KERNELS_MAY_IMPORT))} only")
            continue
        if root in RESERVED and not path.startswith(RESERVED[root] or ("nowhere",)):
            complaints.append(f"{where}: only {' and '.join(RESERVED[root]) or 'nobody'} may")
        if root == "wavegen":
            complaints += _against_floors(path, imported.module, where)
    return complaints


def _against_floors(path: str, module: str, where: str) -> list[str]:
    here = part_of(path.removesuffix(".py").replace("/", "."))
    there = part_of(module)
    if here in ("__init__", "__main__") or there in (None, "__version__") or here == there:
        return []  # the front door opens on every floor
    if there not in FLOORS:
        return [f"{where}: import a name from its module, not from the front door"]
    if FLOORS[there] >= FLOORS[here]:
        below = ", ".join(part for parts in HOUSE[: FLOORS[here]] for part in parts)
        return [f"{where}: {here} may know only {below or 'itself'}"]
    return []


@pytest.mark.parametrize("path", product_files())
def test_no_arrow_goes_up(path):
    if path.startswith("wavegen/"):
        part = part_of(path.removesuffix(".py").replace("/", "."))
        assert part in (*FLOORS, "__init__", "__main__"), f"{path}: give {part} a place in HOUSE"
    complaints = arrows_up(path, (REPOSITORY / path).read_text())
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("path", product_files())
def test_only_the_command_line_prints(path):
    tree = ast.parse((REPOSITORY / path).read_text())
    prints = [node.lineno for node in ast.walk(tree) if _calls(node, "print")]
    assert path.startswith("wavegen/cli/") or not prints, f"{path}:{prints[0]} prints; the library logs"


@pytest.mark.parametrize("path", product_files())
def test_nothing_is_unpickled(path):
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if _calls(node, "torch.load"):
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            assert safe, f"{path}:{node.lineno}: torch.load without weights_only=True"
        if _calls(node, "np.load", "numpy.load"):
            pickles = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            assert not pickles, f"{path}:{node.lineno}: np.load may unpickle"


def _calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("wavegen/audio/io.py", "from wavegen.data import store", "audio may know only errors, config"),
        ("wavegen/data/store.py", "import wavegen.models", "data may know only errors, config, audio"),
        ("wavegen/data/store.py", "from wavegen import models", "data may know only errors, config, audio"),
        ("wavegen/training/fit.py", "def f():\n    from ..synth import load", ":2 imports wavegen.synth"),
        ("wavegen/synth.py", "from . import cli", "wavegen.cli: synth may know only"),
        ("wavegen/models/wavenet.py", "import wavegen_kernels.philox", "only wavegen/engines/ may"),
        ("wavegen/data/prepare.py", "import torchaudio.functional", "only wavegen/integrations/ may"),
        ("kernels/wavegen_kernels/cpu/loop.py", "from wavegen.config import Recipe", "kernels know"),
    ],
)
def test_an_arrow_that_goes_up_is_pointed_at(path, source, complaint):
    assert complaint in "\n".join(arrows_up(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("wavegen/data/store.py", "from wavegen.audio import mulaw\nfrom .batches import batches"),
        ("wavegen/engines/__init__.py", "from .base import State\nfrom ..config import WaveNetConfig"),
        ("wavegen/__init__.py", "from wavegen.synth import load"),
        ("wavegen/cli/__init__.py", "from wavegen import __version__\nimport typer"),
        ("kernels/wavegen_kernels/cpu/__init__.py", "from .loop import generate\nimport numpy, ctypes"),
    ],
)
def test_an_arrow_that_goes_down_is_fine(path, source):
    assert arrows_up(path, source) == []
