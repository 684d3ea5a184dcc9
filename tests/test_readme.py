"""The code blocks of README.md run as they stand, in one empty folder, one after the other.

Python blocks run as scripts of their own. Of shell blocks, the lines that begin with `wavegen`
or `python` run, cut short: on recordings the test makes, with two steps of training.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import load_script, write_tones
from wavegen.config import load_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
CUT_SHORT = {
    "train": [
        "training.max_steps=2",
        "training.validation_batches=1",
        "training.samples_per_batch=2000",
        "training.sample_interval=0",
    ],
    "eval": ["--seeds", "0"],
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """An empty folder that sees what a clone holds besides the packages."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "recipes").symlink_to(REPOSITORY / "recipes")
    recipe = load_recipe(REPOSITORY / "recipes/fsdd/wavenet.yaml").prepare
    write_tones(folder / "tones", recipe.labels or (), recipe.speakers or (), takes=(0, 5))
    return folder


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_python_block_runs(block, desk):
    run([sys.executable, "-W", "error", "-c", block], desk)
    for written in re.findall(r'save\("(.+?)"\)', block):
        assert (desk / written).stat().st_size > 1000


@pytest.mark.slow
def test_commands_run(desk):
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            words = [*words[1:], "--data", "tones"]
        elif words[0] == "wavegen":
            words = ["-m", *words, *CUT_SHORT.get(words[1], [])]
        else:
            continue
        run([sys.executable, *words], desk)
        if "-o" in words:
            assert (desk / words[words.index("-o") + 1]).stat().st_size > 1000


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake (\w+)", README)) <= set(targets)


def test_links_and_pictures_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (REPOSITORY / link).exists(), f"README.md links to {link}"


def test_code_stands_within_the_first_twenty_lines():
    assert "import wavegen" in "\n".join(README.splitlines()[:20])


def test_the_speed_table_is_what_was_measured():
    (source,) = re.findall(r"\((kernels/benchmarks/results/.+?-engines\.json)\)", README)
    measured = json.loads((REPOSITORY / source).read_text())
    for table in load_script("kernels/benchmarks/table.py").tables(measured).split("\n\n"):
        assert table in README, "run `python kernels/benchmarks/table.py` and copy what it prints"


def quality_row(name: str, bits: str, measured: dict) -> str:
    """A line of the table of quality, from what `recipes/fsdd/evaluate.py` wrote."""
    heard = [measured["judges"][judge][f"{what}_accuracy"] for judge in ("augmented", "clean")
             for what in ("label", "speaker")]
    shares = [*heard, measured["silent"], measured["noise_like"]]
    unended = "" if measured["unended"] is None else f"{measured['unended']:.1%}"
    distance = measured["judges"]["augmented"].get("frechet_distance")
    return " | ".join([f"| {name}", bits, *(f"{share:.1%}" for share in shares), unended,
                       "" if distance is None else f"{distance:.1f}"]) + " |"


def test_the_table_of_quality_is_what_was_measured():
    folder = REPOSITORY / "recipes/fsdd/results"
    rows = {"**`digits`**, WaveNet": "digits", "the same after as much audio as the GRU": "wavenet_equal_data",
            "GRU of equal size, an eighth of the audio": "rnn", "WGAN": "wgan", "VAE, samples of its prior": "vae"}
    results = {name: json.loads((folder / f"{name}.json").read_text()) for name in rows.values()}
    for name, model in rows.items():
        measured = results[model]
        bits = f"{measured['bits_per_sample']['all']:.2f}" if measured["family"] in ("wavenet", "rnn") else ""
        assert quality_row(name, bits, measured["generated"]) in README
    recordings = results["digits"]["recordings"]
    assert quality_row("250 test recordings", "", recordings["test"]) in README
    assert quality_row("500 training recordings", "", recordings["train"]) in README
    spoken = json.loads((folder / "digits_auto.json").read_text())["generated"]
    heard = spoken["judges"]["augmented"]
    assert (f"In {spoken['precision']}, which" in README
            and f"in {heard['label_accuracy']:.1%} (digit) and {heard['speaker_accuracy']:.1%} (speaker)" in README
            and f"at a distance of {heard['frechet_distance']:.1f}" in README)


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_table_of_the_vocoder_is_what_was_measured():
    results = REPOSITORY / "recipes/kathleen/results"
    matched, drawn = (json.loads((results / f"{name}.json").read_text())["copy_synthesis"]["columns"]
                      for name in ("kathleen", "kathleen_as_drawn"))
    for found in (matched["model"], drawn["model"], matched["griffin_lim"], matched["round_trip"]):
        means = {name: figure["mean"] for name, figure in found.items()}
        line = (f"| {means['stoi']:.3f} | {means['pesq']:.2f} | {means['mcd']:.2f} | {means['f0_cents']:.0f} | "
                f"{means['voicing_error']:.1%} | {means['log_mel']:.2f} |")
        assert line in README and line in (REPOSITORY / "recipes/kathleen/README.md").read_text()
