"""Where compiled loops are kept, and that processes share them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wavegen_kernels.cpu import host, jit, layout

KERNELS = Path(jit.__file__).parents[2]
LOAD = """
import sys
from wavegen_kernels.cpu import host, jit, layout
target = host.vector_target() or host.Target("plain", 8)
shape = layout.make_shape(1, 16, 16, 16, 16, 2, 1, 0, False, target.registers, target.prefetch)
generate = jit.load_vector(shape) if host.vector_target() else jit.load_plain()
print(sum(generate.stats.cache_hits.values()), jit.cache_folder())
"""


@pytest.fixture
def folder_of(monkeypatch):
    """cache_folder() as a fresh process with these variables finds it."""
    def find(**variables):
        for name in (jit.CACHE_VARIABLE, "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return jit.cache_folder.__wrapped__()

    return find


def test_the_cache_folder_can_be_named(folder_of, tmp_path):
    assert folder_of(**{jit.CACHE_VARIABLE: tmp_path / "mine"}) == tmp_path / "mine"
    assert folder_of(HOME=tmp_path) == tmp_path / ".cache" / "wavegen"
    assert folder_of(HOME=tmp_path, XDG_CACHE_HOME=tmp_path / "x") == tmp_path / "x" / "wavegen"


def test_a_home_that_cannot_be_written_falls_back_to_a_private_temporary_folder(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(jit.tempfile, "tempdir", str(tmp_path))
    folder = folder_of(HOME="/dev/null")
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_others_may_write_is_not_trusted(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(jit.tempfile, "tempdir", str(tmp_path))
    shared = tmp_path / f"wavegen-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    folder = folder_of(HOME="/dev/null")
    assert folder != shared and folder.parent == tmp_path


def test_processes_that_start_together_share_one_cache(tmp_path):
    environment = os.environ | {jit.CACHE_VARIABLE: str(tmp_path / "cache"), "PYTHONPATH": str(KERNELS)}

    def start():
        return subprocess.Popen([sys.executable, "-c", LOAD], env=environment, stdout=subprocess.PIPE, text=True)

    together = [start(), start()]
    for process in together:
        assert process.communicate(timeout=120)[0].split()[1] == str(tmp_path / "cache")
        assert process.returncode == 0
    later = start()
    assert later.communicate(timeout=120)[0].split()[0] == "1", "the third process compiled again"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".writing")]


def test_an_edit_or_another_processor_gets_another_module(monkeypatch):
    before = jit._fingerprint.__wrapped__()
    monkeypatch.setattr(jit, "machine", lambda: (*host.machine()[:2], "+another"))
    assert jit._fingerprint.__wrapped__() != before


def test_an_edit_of_any_source_gets_another_module(monkeypatch, tmp_path):
    copy = tmp_path / "cpu"
    shutil.copytree(jit._FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(jit._FOLDER.parent / "philox.py", tmp_path)
    monkeypatch.setattr(jit, "_FOLDER", copy)
    found = {jit._fingerprint.__wrapped__()}
    for name in ("lanes.py", "micro.py", "predict.py", "../philox.py"):
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write("# an edit\n")
        found.add(jit._fingerprint.__wrapped__())
    assert len(found) == 5


def test_without_any_folder_it_compiles_anew(tmp_path):
    """No home, no temporary folder: as in a container whose file system is read-only."""
    script = "import tempfile\ntempfile.tempdir = '/dev/null/none'\n" + LOAD.rpartition("print")[0] + (
        "assert generate.signatures\n"
        "try:\n    jit.cache_folder()\nexcept OSError:\n    print('nowhere')\n")
    environment = os.environ | {"HOME": "/dev/null", "PYTHONPATH": str(KERNELS), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in (jit.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        environment.pop(name, None)
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["nowhere"] and "compiled anew each time" in found.stderr


def test_a_full_disk_costs_the_cache_and_no_more(monkeypatch, caplog):
    def fail(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jit, "_write", fail)
    target = host.vector_target()
    if target is None:
        module = jit._load_once.__wrapped__("loop_plain", "full_disk", None, 0)
    else:
        shape = layout.make_shape(1, 16, 16, 16, 16, 2, 1, 0, False, target.registers)
        module = jit._load_once.__wrapped__("loop_vector", "full_disk", shape, 1)
    assert "No space left on device" in caplog.text
    assert module.generate.signatures
