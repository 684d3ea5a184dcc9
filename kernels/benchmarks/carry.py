"""What wavegen needs and a machine with torch, triton and numpy lacks, in one archive.

    python kernels/benchmarks/carry.py --python 3.12         writes build/gpu_site.tar.xz, some 45 MB

`gpu_check.py` unpacks it where it lies and imports from it what the machine does not have: for a machine without a
network, whose Python may be another than that of this one.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "build" / "gpu_site.tar.xz"
PACKAGES = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions", "numba",
            "llvmlite", "safetensors", "packaging", "soundfile", "cffi", "pycparser", "soxr", "omegaconf",
            "antlr4-python3-runtime", "PyYAML", "tensorboardX", "protobuf")
# For librosa and scipy there is no room: see `gpu_voices.py`.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def pinned() -> list[str]:
    """The packages in the versions that are installed here; the newest of those that are not."""
    from importlib.metadata import PackageNotFoundError, version

    out = []
    for name in PACKAGES:
        try:
            out.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            out.append(name)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="version of Python on the other machine")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheels, site = Path(scratch) / "wheels", Path(scratch) / "gpu_site"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(wheels),
                   "--implementation", "cp", "--python-version", options.python]
        subprocess.run([*command, *(f"--platform={name}" for name in PLATFORMS), *pinned()], check=True)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        for tests in sorted(site.rglob("tests"), reverse=True):
            shutil.rmtree(tests)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(options.out, "wb", preset=6) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            archive.add(site, "gpu_site")
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
