"""A training: what it writes, that it resumes bit-equal, how it stops."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.conftest import tiny_recipe
from wavegen.checkpoint.run import latest_checkpoint, read_checkpoint
from wavegen.config import Recipe, load_recipe
from wavegen.errors import ConfigError, StoreError, TrainingError
from wavegen.training import fit
from wavegen.training.sequence import SequenceModule

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from wavegen.config import load_recipe
from wavegen.training import fit
fit(load_recipe(sys.argv[1]), sys.argv[2], sys.argv[3], resume="auto")
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(latest_checkpoint(run))
    return {**checkpoint["state_dict"], **{f"ema:{k}": v for k, v in checkpoint["wavegen"]["ema"].items()}}


def assert_bit_equal(run: Path, other: Path) -> None:
    a, b = weights(run), weights(other)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(tiny_store, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run") / "whole"
    fit(tiny_recipe(), tiny_store, run)
    return run


def start(recipe: Path, store: Path, run: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, recipe, store, run], cwd=REPOSITORY,
                            env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_run_holds_what_export_needs(uninterrupted):
    assert load_recipe(uninterrupted / "recipe.yaml") == tiny_recipe()
    saved = read_checkpoint(latest_checkpoint(uninterrupted))["wavegen"]
    assert saved["step"] == 24 and saved["vocabulary"]["speakers"] == ["anna", "ben"]
    assert 0 < saved["metrics"]["validation_bits"] < 8.5
    lower, median, upper = saved["vocabulary"]["durations"][0][0]
    assert 0 < lower <= median <= upper


def test_training_lowers_the_bits(tiny_store, tmp_path):
    fit(tiny_recipe(max_steps=120, validation_interval=120, checkpoint_interval=120, ema_decay=0.9), tiny_store,
        tmp_path / "run")
    saved = read_checkpoint(latest_checkpoint(tmp_path / "run"))["wavegen"]
    assert saved["metrics"]["validation_bits"] < 7.0


def test_killed_training_resumes_bit_equal(tiny_store, uninterrupted, tmp_path):
    """SIGKILL at random moments, also while a checkpoint is written, until the training is through."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((uninterrupted / "recipe.yaml").read_text())
    moments, kills = random.Random(0), 0
    for _attempt in range(12):
        process = start(recipe, tiny_store, tmp_path / "run")
        # Far enough to have started training, which the first checkpoint shows.
        before = latest_step(tmp_path / "run")
        while kills < 2 and process.poll() is None and latest_step(tmp_path / "run") == before:
            time.sleep(0.005)
        if kills < 2 and process.poll() is None:
            time.sleep(moments.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
        kills += 1
    assert kills >= 2
    assert_bit_equal(tmp_path / "run", uninterrupted)


def latest_step(run: Path) -> int:
    return max((int(p.stem[5:]) for p in run.glob("checkpoints/step-*.ckpt")), default=0)


def test_a_damaged_checkpoint_is_stepped_over(tiny_store, uninterrupted, tmp_path):
    run = tmp_path / "run"
    fit(tiny_recipe(), tiny_store, run)
    newest = latest_checkpoint(run)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert latest_checkpoint(run) == run / "checkpoints" / "step-20.ckpt"
    fit(tiny_recipe(), tiny_store, run, resume="auto")
    assert_bit_equal(run, uninterrupted)


def test_two_processes_train_as_one(tiny_store, tmp_path):
    """The same loss and, up to rounding, the same weights as one process with the same global batch."""
    recipe = tmp_path / "recipe.yaml"
    quick = tiny_recipe(max_steps=6, checkpoint_interval=6, validation_interval=6, precision="32")
    # Dropout masks depend on the rank, so that ranks differ; without it the two must agree.
    quick = Recipe.model_validate({**quick.model_dump(), "model": {**quick.model.model_dump(), "dropout": 0.0}})
    fit(quick, tiny_store, tmp_path / "one")
    recipe.write_text((tmp_path / "one" / "recipe.yaml").read_text())
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone",
                    program, recipe, tiny_store, tmp_path / "two"], cwd=REPOSITORY, check=True, timeout=120,
                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}, capture_output=True)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), two[name].float(), atol=2e-4), name
    bits = [read_checkpoint(latest_checkpoint(tmp_path / run))["wavegen"]["metrics"]["validation_bits"]
            for run in ("one", "two")]
    assert bits[0] == pytest.approx(bits[1], abs=1e-4)


def test_training_stops_when_the_gradient_stays_not_finite(tiny_store, tmp_path, monkeypatch):
    step = SequenceModule.training_step

    def poisoned(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.global_step >= 9 else loss

    monkeypatch.setattr(SequenceModule, "training_step", poisoned)
    with pytest.raises(TrainingError, match=r"not finite for 3 steps in a row.*--resume auto"):
        fit(tiny_recipe(), tiny_store, tmp_path / "run")
    saved = weights(tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


def test_a_run_folder_is_never_overwritten(tiny_store, uninterrupted):
    with pytest.raises(ConfigError, match="already holds a training"):
        fit(tiny_recipe(), tiny_store, uninterrupted)


def test_recipe_and_store_must_agree(tiny_store, tmp_path):
    recipe = Recipe.model_validate({**tiny_recipe().model_dump(), "audio": {"sample_rate": 16000}})
    with pytest.raises(StoreError, match="sample_rate 8000 but recipe tiny wants 16000"):
        fit(recipe, tiny_store, tmp_path / "run")
    with pytest.raises(StoreError, match='no clips in split "tests"'):
        fit(tiny_recipe(validation_split="tests"), tiny_store, tmp_path / "run")


def test_resuming_with_another_model_is_refused(tiny_store, uninterrupted):
    recipe = tiny_recipe()
    wider = Recipe.model_validate({**recipe.model_dump(), "model": {**recipe.model.model_dump(), "skip_channels": 9}})
    with pytest.raises(ConfigError, match="model of another size"):
        fit(wider, tiny_store, uninterrupted, resume="auto")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processes need two CPUs")
def test_loader_processes_change_nothing(tiny_store, uninterrupted, tmp_path):
    fit(tiny_recipe(loader_workers=2), tiny_store, tmp_path / "run")
    assert_bit_equal(tmp_path / "run", uninterrupted)


def test_sounds_and_spectrograms_are_logged(tiny_store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    quick = {"max_steps": 4, "checkpoint_interval": 4, "validation_interval": 4, "log_interval": 2}
    fit(tiny_recipe(sample_interval=4, **quick), tiny_store, run)
    fit(tiny_recipe(**quick), tiny_store, tmp_path / "silent")
    assert_bit_equal(run, tmp_path / "silent")  # to listen does not change the training
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"audio": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert sorted(tags["audio"]) == ["samples/0-anna", "samples/0-ben", "samples/1-anna", "samples/2-ben"]
    assert len(tags["images"]) == 4
    assert {"train/bits_per_sample", "train/learning_rate", "validation/bits_per_sample"} <= set(tags["scalars"])
    clip = events.Audio("samples/0-anna")[0]
    assert clip.sample_rate == 8000 and clip.length_frames > 500


def test_a_full_disk_leaves_the_checkpoints_before_it(tiny_store, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full(checkpoint, stream):
        calls.append(1)
        if len(calls) == 3:
            stream.write(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        save(checkpoint, stream)

    monkeypatch.setattr("wavegen.training.checkpoints.torch.save", full)
    with pytest.raises(TrainingError, match=r"step-12.ckpt: .*No space left on device.*--resume auto"):
        fit(tiny_recipe(), tiny_store, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-4.ckpt", "step-8.ckpt"]
    assert latest_checkpoint(tmp_path / "run").name == "step-8.ckpt"


def test_long_clips_train_in_windows(tiny_store, tmp_path):
    fit(tiny_recipe(max_steps=3, checkpoint_interval=3, chunk_samples=240), tiny_store, tmp_path / "run")
    assert read_checkpoint(latest_checkpoint(tmp_path / "run"))["wavegen"]["step"] == 3


def test_a_store_without_the_split_to_validate_on_says_what_to_do(tiny_store, tmp_path):
    with pytest.raises(StoreError, match=r'no clips in split "held", .* it has .*train \(\d+ clips\).*hash_splits'):
        fit(tiny_recipe(validation_split="held"), tiny_store, tmp_path / "run")
