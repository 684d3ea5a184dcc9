"""Preparing: the same store however it is made, whatever the recordings are, whenever it is killed."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavegen.config import MelSpec
from wavegen.data import prepare as module
from wavegen.data.prepare import prepare
from wavegen.data.report import summary
from wavegen.data.store import Store
from wavegen.data.writer import StoreWriter
from wavegen.errors import AudioError, BadInputError, ConfigError, StoreError, WavegenError

PATTERN = r"(?P<label>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav"
SETTINGS = {"pattern": PATTERN, "splits": {"test": {"index": ["0"]}}, "shard_samples": 5000}
REASONS = {
    "1_anna_90.wav": "cut short: the header promises", "1_anna_91.wav": "Format not recognised",
    "1_anna_92.wav": "silent: its peak is 0", "README.wav": "its name does not match prepare.pattern",
}

KILLED = """
import os, random, signal, sys
from wavegen.config import Recipe
from wavegen.data import prepare as module

recipe, data, out, seed = sys.argv[1:]
rng, left = random.Random(int(seed)), 0

def counted(function):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

os.fsync, os.replace = counted(os.fsync), counted(os.replace)
module.StoreWriter._append = counted(module.StoreWriter._append)
module.shutil.rmtree = counted(module.shutil.rmtree)
for attempt in range(500):
    left, module.CHECKPOINT_SECONDS = rng.randint(1, 40), rng.choice([0.0, 0.005])
    child = os.fork()
    if child == 0:
        module.prepare(Recipe.model_validate_json(recipe), data, out, workers=0)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, os.path.exists(out))
    if status == 0:
        break
    assert status == -signal.SIGKILL
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="session")
def recipe(make_recipe):
    return make_recipe(**SETTINGS)


@pytest.fixture(scope="session")
def expected(tmp_path_factory, recordings, recipe):
    """The files of the store, made in one go in this process."""
    folder = tmp_path_factory.mktemp("expected") / "store"
    prepare(recipe, recordings, folder, workers=0)
    return contents(folder)


def test_a_store_has_the_files_of_the_design(expected):
    assert set(expected) == {"store.json", "index.jsonl", "columns.npy", "report.json", "codes-00000.u8",
                             *(f"codes-0000{shard}.u8" for shard in range(6))}
    rows = [json.loads(line) for line in expected["index.jsonl"].splitlines()]
    assert list(rows[0]) == ["id", "shard", "offset", "num_samples", "split", "label", "speaker", "text", "source",
                             "gain", "clipped", "peak"]
    assert [row["source"] for row in rows] == sorted(row["source"] for row in rows)
    assert sum(row["num_samples"] for row in rows) == sum(len(expected[f"codes-0000{i}.u8"]) for i in range(6))
    assert max(len(data) for name, data in expected.items() if name.startswith("codes")) <= 5000


def test_what_is_left_out_is_reported(expected):
    report = json.loads(expected["report.json"])
    assert (report["files"], report["utterances"], report["num_skipped"]) == (28, 24, 4)
    assert {row["source"] for row in report["skipped"]} == set(REASONS)
    assert all(row["reason"].startswith(REASONS[row["source"]]) for row in report["skipped"])
    assert report["labels"] == {"0": 8, "1": 8, "2": 8} and report["speakers"] == {"anna": 12, "ben": 12}
    assert report["splits"]["test"]["utterances"] == 6 and report["warnings"] == []
    assert report["durations"]["lowest"] <= report["durations"]["median"] <= report["durations"]["highest"] < 0.2
    assert report["levels"]["highest"] == pytest.approx(20 * np.log10(0.5), abs=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_byte(recipe, recordings, tmp_path, expected, workers, monkeypatch):
    monkeypatch.setattr(module, "FILES_PER_WORKER", 4)
    report = prepare(recipe, recordings, tmp_path / "store", workers=workers)
    assert report["status"] == "prepared"
    assert contents(tmp_path) == {f"store/{name}": data for name, data in expected.items()}


def test_features_do_not_depend_on_workers(make_recipe, recordings, tmp_path):
    mel = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=20)
    recipe = make_recipe(65536, mel, glob="0_*.wav")
    for workers in (0, 1):
        prepare(recipe, recordings, tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    assert {"codes-00000.u16", "features-00000.f16"} <= set(contents(tmp_path / "0"))


def test_a_second_run_does_nothing_and_says_so(recipe, recordings, tmp_path, expected, monkeypatch, caplog):
    prepare(recipe, recordings, tmp_path / "store", workers=0)
    monkeypatch.setattr(module, "read_clip", None)
    with caplog.at_level(logging.INFO):
        report = prepare(recipe, recordings, tmp_path / "store", workers=0)
    assert report["status"] == "unchanged" and report["utterances"] == 24 and "nothing was done" in caplog.text
    assert contents(tmp_path) == {f"store/{name}": data for name, data in expected.items()}
    with pytest.raises(AudioError, match=r"without 4 files .* the first 1_anna_90.wav: cut short"):
        prepare(recipe, recordings, tmp_path / "store", strict=True, workers=0)


def test_other_settings_are_named_and_the_store_is_kept(make_recipe, recipe, recordings, tmp_path, expected):
    prepare(recipe, recordings, tmp_path / "store", workers=0)
    other = make_recipe(1024, **SETTINGS | {"peak": 0.8})
    with pytest.raises(StoreError, match=r"audio.quantization_channels is 256 there, 1024 here; prepare.peak is 0.9 "
                                         r"there, 0.8 here. Choose another --out"):
        prepare(other, recordings, tmp_path / "store")
    assert contents(tmp_path) == {f"store/{name}": data for name, data in expected.items()}


def test_other_recordings_are_noticed_and_the_store_is_kept(make_recipe, tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 500)
        soundfile.write(_below(tmp_path / "data") / f"{number}.wav", noise, 8000)
    prepare(make_recipe(), tmp_path / "data", tmp_path / "store", workers=0)
    before = contents(tmp_path / "store")
    (tmp_path / "data/1.wav").unlink()
    with pytest.raises(StoreError, match="from other recordings"):
        prepare(make_recipe(), tmp_path / "data", tmp_path / "store", workers=0)
    assert contents(tmp_path / "store") == before


def _below(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_a_place_that_is_taken_is_left_alone(recipe, recordings, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/mine.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"exists and is no store; choose another --out"):
        prepare(recipe, recordings, tmp_path / "store", workers=0)
    with pytest.raises(StoreError, match="exists and is no store"):
        prepare(recipe, recordings, tmp_path / "store/mine.txt", workers=0)
    assert [file.name for file in tmp_path.rglob("*")] == ["store", "mine.txt"]


def test_an_empty_folder_may_become_the_store(make_recipe, recordings, tmp_path):
    (tmp_path / "data/store").mkdir(parents=True)
    (tmp_path / "data/a.wav").write_bytes((recordings / "0_anna_0.wav").read_bytes())
    for status in ("prepared", "unchanged"):  # the store below the recordings is not taken for one
        assert prepare(make_recipe(), tmp_path / "data", tmp_path / "data/store", workers=0)["status"] == status


def test_strict_names_the_first_bad_file_and_leaves_nothing(recipe, recordings, tmp_path):
    with pytest.raises(AudioError, match=r"1_anna_90.wav cannot be used: cut short.*; repair or remove it"):
        prepare(recipe, recordings, tmp_path / "store", strict=True, workers=0)
    assert not list(tmp_path.iterdir())


def test_no_usable_file_is_an_error(make_recipe, recordings, tmp_path):
    with pytest.raises(BadInputError, match=r"none of the 3 files below .* the first is 1_anna_90.wav: cut short"):
        prepare(make_recipe(glob="1_anna_9?.wav"), recordings, tmp_path / "store", workers=0)
    with pytest.raises(BadInputError, match="no folder"):
        prepare(make_recipe(), tmp_path / "nowhere", tmp_path / "store", workers=0)
    with pytest.raises(ConfigError, match="workers must be 0 or more"):
        prepare(make_recipe(), recordings, tmp_path / "store", workers=-1)
    with pytest.raises(ConfigError, match="sample_rate must lie in"):
        prepare(make_recipe(sample_rate=100), recordings, tmp_path / "store", workers=0)
    assert not list(tmp_path.iterdir())


def test_clips_outside_the_limits_are_reported(make_recipe, recordings, tmp_path):
    limits = {"glob": "0_*.wav", "trim": None, "min_seconds": 0.1, "max_seconds": 0.14}
    skipped = prepare(make_recipe(**limits), recordings, tmp_path / "store", workers=0)["skipped"]
    lengths = {file.name: soundfile.info(file).frames for file in sorted(recordings.glob("0_*.wav"))}
    wanted = {name: "short" if frames < 800 else "long" for name, frames in lengths.items()
              if not 800 <= frames <= 1120}
    assert wanted and {row["source"]: row["reason"][4:9].strip(":") for row in skipped} == \
        {name: kind.ljust(4) for name, kind in wanted.items()}


def test_names_of_the_recipe_that_no_file_has_are_warned_of(make_recipe, recordings, tmp_path, caplog):
    recipe = make_recipe(pattern=PATTERN, labels=["0", "1", "2", "seven"], speakers=["anna", "bem"],
                         splits={"dev": {"index": ["7"]}})
    report = prepare(recipe, recordings, tmp_path / "store", workers=0)
    assert report["warnings"] == ['prepare.labels has "seven", which is on no recording; Known: 0, 1, 2',
                                  'prepare.speakers has "bem", which is on no recording; Known: anna',
                                  'split "dev" is empty; check prepare.splits']
    assert all(line in caplog.text for line in report["warnings"])
    reasons = {row["reason"] for row in report["skipped"] if "_ben_" in row["source"]}
    assert reasons == {'its speaker "ben" is not in prepare.speakers; did you mean "bem"? Known: anna, bem'}
    assert Store.open(tmp_path / "store").labels == ("0", "1", "2", "seven")


def test_a_manifest_gives_texts_and_splits(make_recipe, recordings, tmp_path):
    data = _below(tmp_path / "data")
    (data / "a b.wav").write_bytes((recordings / "0_anna_0.wav").read_bytes())
    lines = [{"path": "a b.wav", "id": "one", "text": "null é", "label": 7, "split": "dev"},
             {"path": "gone.wav"}, {"path": "a b.wav", "id": "two"}, {"path": "nul\0.wav"}]
    (data / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = prepare(make_recipe(manifest="list.jsonl"), data, tmp_path / "store", workers=0)
    store = Store.open(tmp_path / "store")
    assert [store.entry(row)["id"] for row in range(2)] == ["one", "two"]
    assert store.entry(0)["text"] == "null é" and store.splits == ("train", "dev") and store.labels == ("7",)
    assert report["skipped"] == [{"source": name, "reason": "does not exist"} for name in ("gone.wav", "nul\0.wav")]


def test_a_file_that_kills_its_reader_is_reported(make_recipe, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_clip", crash_on_second)
    report = prepare(make_recipe(glob="0_*.wav"), recordings, tmp_path / "store", workers=1)
    assert report["skipped"] == [{"source": "0_anna_1.wav", "reason": "the process that read it died (exit code 9)"}]
    assert report["utterances"] == 7


def crash_on_second(settings, job):
    if job[0].endswith("0_anna_1.wav"):
        os._exit(9)
    return _read_clip(settings, job)


_read_clip = module.read_clip


def test_a_full_disk_is_named_and_nothing_is_left(recipe, recordings, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    for target, name in ((StoreWriter, "_append"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, full)
            with pytest.raises(WavegenError, match="store could not be written: No space left on device"):
                prepare(recipe, recordings, tmp_path / "store", workers=0)
        assert not list(tmp_path.iterdir())


def test_two_runs_at_once_do_not_meet(recipe, recordings, tmp_path, expected, monkeypatch):
    def meet(settings, job):
        with pytest.raises(StoreError, match="is being prepared by another process"):
            prepare(recipe, recordings, tmp_path / "store", workers=0)
        return _read_clip(settings, job)

    monkeypatch.setattr(module, "read_clip", meet)
    prepare(recipe, recordings, tmp_path / "store", workers=0)
    assert contents(tmp_path / "store") == expected


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_on_a_terminal_only(recipe, recordings, tmp_path, monkeypatch, capsys):
    prepare(recipe, recordings, tmp_path / "a", workers=0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    prepare(recipe, recordings, tmp_path / "b", workers=0, progress=False)
    assert capsys.readouterr() == ("", "") and sys.stderr.getvalue() == ""
    prepare(recipe, recordings, tmp_path / "c", workers=0)
    assert "28/28" in sys.stderr.getvalue() and capsys.readouterr().out == ""


@pytest.mark.parametrize("stop", [0, 13, 27])
def test_an_interrupted_run_is_continued_and_nothing_is_done_twice(recipe, recordings, tmp_path, expected,
                                                                    monkeypatch, stop):
    read = []

    def interrupted(settings, job):
        if len(read) == stop:
            raise KeyboardInterrupt
        read.append(job[0])
        return _read_clip(settings, job)

    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(module, "read_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe, recordings, tmp_path / "store", workers=0)
    assert [file.name for file in tmp_path.iterdir()] == [".store.partial"]
    monkeypatch.setattr(module, "read_clip", lambda settings, job: read.append(job[0]) or _read_clip(settings, job))
    prepare(recipe, recordings, tmp_path / "store", workers=0)
    assert len(read) == len(set(read)) == 28
    assert contents(tmp_path) == {f"store/{name}": data for name, data in expected.items()}


def test_continuing_strictly_names_what_was_left_out_before(recipe, recordings, tmp_path, monkeypatch):
    _interrupt_after(25, recipe, recordings, tmp_path / "store", monkeypatch)
    with pytest.raises(AudioError, match=r"1_anna_90\.wav cannot be used: cut short"):
        prepare(recipe, recordings, tmp_path / "store", strict=True, workers=0)


@pytest.mark.parametrize("change", ["settings", "recordings", "damage"])
def test_an_unfinished_store_that_no_longer_fits_is_begun_again(make_recipe, recipe, recordings, tmp_path, expected,
                                                               monkeypatch, change):
    data = _below(tmp_path / "data")
    for file in recordings.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    first = make_recipe(**SETTINGS | {"peak": 0.5}) if change == "settings" else recipe
    if change == "recordings":
        (data / "0_anna_1.wav").write_bytes((data / "0_anna_2.wav").read_bytes())
    _interrupt_after(20, first, data, tmp_path / "store", monkeypatch)
    if change == "recordings":
        (data / "0_anna_1.wav").write_bytes((recordings / "0_anna_1.wav").read_bytes())
    if change == "damage":
        os.truncate(tmp_path / ".store.partial/store/codes-00001.u8", 5)
    prepare(recipe, data, tmp_path / "store", workers=0)
    found = contents(tmp_path / "store")
    assert found == expected


def _interrupt_after(number, recipe, data, out, monkeypatch):
    with monkeypatch.context() as patch:
        done = []

        def interrupted(settings, job):
            if len(done) == number:
                raise KeyboardInterrupt
            done.append(job)
            return _read_clip(settings, job)

        patch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(module, "read_clip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe, data, out, workers=0)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_run_killed_again_and_again_ends_with_the_same_store(recipe, recordings, tmp_path, expected, seed):
    arguments = [recipe.model_dump_json(), str(recordings), str(tmp_path / "store"), str(seed)]
    run = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("-9") >= 3 and run.stdout.endswith("0 True\n")
    assert contents(tmp_path) == {f"store/{name}": data for name, data in expected.items()}


SLOW = """
import sys, time
from wavegen.config import Recipe
from wavegen.data import prepare as module

fast = module.read_clip

def slow(settings, job):
    time.sleep(0.3)
    return fast(settings, job)

if __name__ == "__main__":
    module.read_clip, module.CHECKPOINT_SECONDS, module.FILES_PER_WORKER = slow, 0.0, 1
    module.prepare(Recipe.model_validate_json(sys.argv[1]), sys.argv[2], sys.argv[3], workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_run_that_is_stopped(recipe, recordings, tmp_path, expected, how):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), recipe.model_dump_json(), str(recordings),
               str(tmp_path / "out/store")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    index = tmp_path / "out/.store.partial/store/index.jsonl"
    _wait(lambda: index.exists() and index.stat().st_size, 60)
    children = _children(process.pid)
    assert len(children) >= 2
    process.send_signal(how)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == -how
    assert how != signal.SIGINT or "run the same again to continue" in stderr
    _wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 60)
    prepare(recipe, recordings, tmp_path / "out/store", workers=0)
    assert contents(tmp_path / "out/store") == expected


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_folder_of_odd_files_becomes_a_store(make_recipe, nasty_folder, tmp_path):
    report = prepare(make_recipe(), nasty_folder, tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    files = {file.relative_to(nasty_folder).as_posix() for file in nasty_folder.rglob("*") if file.is_file()}
    sources = {store.entry(row)["source"] for row in range(len(store))}
    skipped = {row["source"]: row["reason"] for row in report["skipped"]}
    assert sources | set(skipped) == files and not sources & set(skipped)
    assert all(skipped.values()) and len(sources) >= 28
    assert "made/truncated_data.wav" in skipped and "made/UPPERCASE.WAV" in sources
    for row in range(len(store)):
        codes = store.codes(row).astype(int)
        assert len(codes) >= 8 and abs(codes - 128).max() > 60, store.entry(row)["id"]  # there is sound in it


def test_the_digits_become_the_store_they_were(make_recipe, fsdd_folder, tmp_path):
    recipe = make_recipe(glob="?_theo_[0-7].wav", pattern=PATTERN, splits={"test": {"index": list("01234")}})
    report = prepare(recipe, fsdd_folder / "recordings", tmp_path / "store", workers=0)
    store = Store.open(tmp_path / "store")
    assert report["num_skipped"] == 0 and len(store.rows("test")) == 50 and len(store.rows("train")) == 30
    # The codes of a trained model: a change of the pipeline is a change of what the model hears.
    assert store.info.codes[0].sha256 == "b67b4080cd92e6c4802eabb41145a22b8e2efe299f76ef5d2e0c10241d1d7d2d"


def test_dither_is_in_the_codes_and_not_in_the_mel(make_recipe, recordings, tmp_path):
    mel = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=20)
    plain = make_recipe(256, mel, glob="0_*.wav")
    dithered = plain.model_copy(update={"prepare": plain.prepare.model_copy(update={"dither": 1e-3})})
    for name, recipe in (("plain", plain), ("dithered", dithered), ("again", dithered)):
        prepare(recipe, recordings, tmp_path / name, workers=0, progress=False)
    stores = [Store.open(tmp_path / name) for name in ("plain", "dithered", "again")]
    assert stores[1].digest == stores[2].digest != stores[0].digest
    assert np.array_equal(stores[0].features(0), stores[1].features(0))
    assert not np.array_equal(stores[0].codes(0), stores[1].codes(0))


def test_a_person_is_told_what_a_store_holds_and_lacks(expected):
    report = json.loads(expected["report.json"])
    skipped = [{"source": f"{i}.wav", "reason": "silent"} for i in range(7)]
    lines = summary({**report, "num_skipped": 7, "skipped": skipped})
    assert lines[:2] == ["left out 0.wav: silent", "left out 1.wav: silent"]
    assert lines[5] == "left out 2 more, which report.json names"
    train = report["splits"]["train"]
    assert f"train: {train['utterances']} clips, {train['seconds']:.1f} s" in lines
    assert any(line.startswith("a clip lasts ") for line in lines)
