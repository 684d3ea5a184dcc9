"""The wheel holds what the checkout holds and can be imported without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("wavegen-*.whl"))


def test_the_wheel_holds_every_file_of_both_packages(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for base in (REPOSITORY, REPOSITORY / "kernels"):
        package = base / ("wavegen" if base == REPOSITORY else "wavegen_kernels")
        files = [f for f in package.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        missing = {f.relative_to(base).as_posix() for f in files} - held
        assert not missing
    assert {"wavegen/py.typed", "wavegen_kernels/py.typed"} <= held


def test_the_wheel_holds_nothing_else(wheel):
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"wavegen", "wavegen_kernels"}


def test_the_wheel_says_under_which_terms_its_models_are(wheel):
    with zipfile.ZipFile(wheel) as file:
        (notice,) = [name for name in file.namelist() if name.endswith(".dist-info/licenses/NOTICE")]
        terms = dict(re.findall(r"^(\w+) {2,}(CC[\w -]*[\d.]+)", file.read(notice).decode(), re.MULTILINE))
        models = {name.split("/")[2] for name in file.namelist() if name.startswith("wavegen/assets/")}
        assert set(terms) == models
        for model, licence in terms.items():
            assert licence in file.read(f"wavegen/assets/{model}/README.md").decode()


def test_the_wheel_is_small_enough_for_the_index(wheel):
    assert wheel.stat().st_size < 12e6  # four bundled models of two to four megabytes


def test_the_unpacked_wheel_is_imported_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    script = "import wavegen, wavegen_kernels; print(wavegen.__file__, wavegen_kernels.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=empty, env=environment, check=True, capture_output=True, text=True
    )
    assert all(place.startswith(str(site)) for place in run.stdout.split())


def test_the_version_is_the_same_everywhere():
    import wavegen

    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert wavegen.__version__ == declared == metadata.version("wavegen")
    assert f"[{declared}]" in (REPOSITORY / "CHANGELOG.md").read_text()
