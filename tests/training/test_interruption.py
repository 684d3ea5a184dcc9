"""Ctrl-C keeps what was learned, and nothing of it shows in the end."""

from __future__ import annotations

import logging
import signal

import pytest

from tests.training.conftest import tiny_recipe
from tests.training.test_trainer import assert_bit_equal
from wavegen.checkpoint.run import latest_checkpoint
from wavegen.training import fit
from wavegen.training.interruption import KeepWork
from wavegen.training.progress import ProgressLine


class Ended(BaseException):
    """What the handler of a test raises."""


@pytest.fixture
def handler():
    """In place of the one pytest has."""
    def end(number, frame):
        raise Ended

    before = signal.signal(signal.SIGINT, end)
    yield end
    signal.signal(signal.SIGINT, before)


def interrupt_after(monkeypatch, step, times=1):
    """Ctrl-C while the step after so many is on its way."""
    done = ProgressLine.on_train_batch_end

    def on_train_batch_end(self, trainer, *arguments):
        done(self, trainer, *arguments)
        if trainer.global_step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "on_train_batch_end", on_train_batch_end)


@pytest.mark.filterwarnings("ignore::UserWarning")  # lightning says that it was interrupted
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tiny_store, tmp_path, monkeypatch, handler, caplog):
    fit(tiny_recipe(), tiny_store, tmp_path / "whole")
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "wavegen.training"), \
            pytest.raises((Ended, SystemExit)):
        interrupt_after(patch, 6)
        fit(tiny_recipe(), tiny_store, tmp_path / "run")
    assert latest_checkpoint(tmp_path / "run").name == "step-6.ckpt"  # the interval is 4
    assert "--resume auto goes on from there" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler
    fit(tiny_recipe(), tiny_store, tmp_path / "run", resume="auto")
    assert_bit_equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_second_interruption_does_not_wait(tiny_store, tmp_path, monkeypatch, handler):
    interrupt_after(monkeypatch, 6, times=2)
    with pytest.raises((Ended, SystemExit)):
        fit(tiny_recipe(), tiny_store, tmp_path / "run")
    assert latest_checkpoint(tmp_path / "run").name == "step-4.ckpt"


def test_a_handler_in_another_language_is_left_alone(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with KeepWork(tmp_path).listening():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_how_long_it_takes_is_told_before_the_first_line(tiny_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "wavegen.training"):
        fit(tiny_recipe(max_steps=16, log_interval=16), tiny_store, tmp_path / "run")
    lines = [record.message for record in caplog.records]
    assert lines[0].startswith("tiny: 30 clips, ") and lines[0].endswith("parameters; 16 steps")
    (early,) = [line for line in lines if "at the pace of the first steps" in line]
    assert lines.index(early) < lines.index(next(line for line in lines if line.startswith("step 16/16")))
