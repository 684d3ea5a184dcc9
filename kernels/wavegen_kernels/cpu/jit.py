"""Loading a generation loop: a generated module per shape, cached on disk across processes.

Numba's cache sees changes of the cached function's own file only. So the loop's source is copied
into a folder named by a hash of this package's sources, the versions and the CPU: an edit, an
upgrade or another machine gets another folder. Every file in it is written under a temporary name
and renamed, and two processes that race write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import stat
import sys
import tempfile
import threading
import types
from functools import cache
from pathlib import Path
from typing import Any

from wavegen_kernels.cpu.host import machine
from wavegen_kernels.cpu.layout import Shape

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "WAVEGEN_CACHE_DIR"
_FOLDER = Path(__file__).parent
_STAMP = 1_000_000_000  # fixed modification time: Numba compares it, and racing writers must agree
_lock = threading.Lock()  # two threads must not make one module twice


def load_plain(precision: str = "f32") -> Any:
    """The plain loop of float32 or of the integer precisions: every shape, every CPU."""
    return _load("loop_plain" if precision == "f32" else "loop_integer", "plain", None, 0).generate


def load_vector(shape: Shape, rows: int = 1) -> Any:
    """The vector loop of one shape for so many rows. The host must have a `vector_target`."""
    name = hashlib.sha256(repr(shape).encode()).hexdigest()[:16]
    kind = f"{shape.precision}_r{shape.residual}s{shape.skip}l{shape.num_layers}_x{rows}"
    return _load("loop_vector", f"{kind}_{name}", shape, rows).generate


def load_pair(shape: Shape) -> tuple[Any, Any]:
    """The loop of one shape for one row on two threads: `generate` and `assist` of `loop_pair.py`."""
    name = hashlib.sha256(repr(shape).encode()).hexdigest()[:16]
    kind = f"{shape.precision}_r{shape.residual}s{shape.skip}l{shape.num_layers}"
    module = _load("loop_pair", f"{kind}_{name}", shape, 0)
    return module.generate, module.assist


def _load(source: str, name: str, shape: Shape | None, rows: int) -> Any:
    with _lock:
        return _load_once(source, name, shape, rows)


@cache
def _load_once(source: str, name: str, shape: Shape | None, rows: int) -> Any:
    text = (_FOLDER / f"{source}.py").read_text(encoding="utf-8")
    if shape is not None:
        lines = text.splitlines(keepends=True)
        for word, value in ({"SHAPE": repr(shape)} | ({"ROWS": str(rows)} if rows else {})).items():
            (place,) = (i for i, line in enumerate(lines) if line.startswith(f"{word} = "))
            lines[place] = f"{word} = {value}\n"
        text = "".join(lines)
    name = f"wavegen_generated_{_fingerprint()}_{source}_{name}"
    try:
        path = cache_folder() / f"{name}.py"
        _write(path, text)
        return _import(name, path)
    except OSError as error:  # a full disk, or a folder that has vanished
        logger.warning("compiled kernels cannot be kept (%s); they are compiled anew each time", error)
        module = types.ModuleType(name)
        exec(compile(text.replace("cache=True", "cache=False"), name, "exec"), vars(module))
        return module


def _import(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Numba's cached code names its module, so it must be findable by that name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.utime(temporary, (_STAMP, _STAMP))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@cache
def _fingerprint() -> str:
    import llvmlite
    import numba

    digest = hashlib.sha256(repr((machine(), numba.__version__, llvmlite.__version__, sys.version)).encode())
    for path in sorted([*_FOLDER.glob("*.py"), _FOLDER.parent / "philox.py"]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """Where compiled loops are kept: $WAVEGEN_CACHE_DIR, the user's cache, else a private temporary one."""
    for folder in _candidates():
        if _usable(folder):
            return folder
        if os.environ.get(CACHE_VARIABLE):
            logger.warning("$%s names %s, which cannot be written by us alone; using a temporary folder",
                           CACHE_VARIABLE, folder)
    return Path(tempfile.mkdtemp(prefix="wavegen-"))


def _candidates() -> list[Path]:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return [Path(named)]
    folders = []
    if os.environ.get("XDG_CACHE_HOME"):
        folders.append(Path(os.environ["XDG_CACHE_HOME"]) / "wavegen")
    with contextlib.suppress(RuntimeError):  # no home at all
        folders.append(Path.home() / ".cache" / "wavegen")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [*folders, Path(tempfile.gettempdir()) / f"wavegen-{user}"]


def _usable(folder: Path) -> bool:
    """Writable, and by us alone: what is cached is code."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if hasattr(os, "getuid"):
            status = folder.stat()
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
