"""wavegen synth: the same bytes each time, and a clear end whatever goes wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import full_disk
from tiny import save_tiny, tiny_family
from wavegen.cli import app


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_clip_is_written_the_same_bytes_twice(wavegen, model, tmp_path):
    for name in ("a.wav", "b.wav"):
        outcome = wavegen("synth", model, "--label", 1, "--speaker", "anna", "--seed", 1, "-o", tmp_path / name)
        assert outcome.code == 0 and outcome.out == ""
        assert "samples/s" in outcome.err and "times real time (engine numba, precision f32 (auto" in outcome.err
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    waveform, sample_rate = soundfile.read(tmp_path / "a.wav")
    assert sample_rate == 8000 and len(waveform) > 480
    assert names(tmp_path) == ["a.wav", "b.wav"]


def test_a_string_of_labels_is_spoken(wavegen, model, tmp_path):
    outcome = wavegen("synth", model, "--label", "2,0,1", "--speaker", "ben", "-o", tmp_path / "a.wav", "--json")
    row = json.loads(outcome.out)
    assert row["label"] == ["2", "0", "1"] and row["path"] == str(tmp_path / "a.wav")
    assert len(soundfile.read(tmp_path / "a.wav")[0]) == row["num_samples"]


def test_a_count_writes_files_and_json_lines(wavegen, model, tmp_path):
    arguments = ["synth", model, "--label", 1, "--speaker", "anna", "--count", 20, "--seed", 3]
    outcome = wavegen(*arguments, "--out", tmp_path / "a", "--json")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 20
    assert outcome.out == (tmp_path / "a" / "manifest.jsonl").read_text()
    assert len(names(tmp_path / "a")) == 21
    assert wavegen(*arguments, "--out", tmp_path / "b").code == 0
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_clips_of_a_count_begin_with_the_clip_alone(wavegen, model, tmp_path):
    arguments = ["synth", model, "--label", 1, "--speaker", "anna", "--seed", 3]
    wavegen(*arguments, "--count", 5, "--out", tmp_path)
    wavegen(*arguments, "-o", tmp_path / "alone.wav")
    assert (tmp_path / "alone.wav").read_bytes() == (tmp_path / "1_anna_seed3_00000.wav").read_bytes()


def test_only_audio_goes_to_stdout(model, capsysbinary):
    assert app.run(["synth", str(model), "--label", "1", "--speaker", "anna", "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    waveform, sample_rate = soundfile.read(io.BytesIO(out))
    assert sample_rate == 8000 and len(out) == 44 + 2 * len(waveform)
    assert b"samples/s" in err


def test_the_picture_is_drawn(model, tmp_path, capsysbinary):
    pytest.importorskip("matplotlib")
    for place in (
        ["a.png", "-o", tmp_path / "a.wav"],
        ["b.png", "-o", "-"],
        ["c.png", "--count", 2, "--out", tmp_path],
    ):
        options = ["--label", 1, "--speaker", "anna", "--plot", tmp_path / place[0], *place[1:]]
        assert app.run(["synth", str(model), *map(str, options)]) == 0
    for name in ("a.png", "b.png", "c.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_a_missing_matplotlib_is_told_before_the_work(wavegen, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = wavegen(
        "synth", model, "--label", 1, "--speaker", "anna", "-o", tmp_path / "a.wav", "--plot", tmp_path / "a.png"
    )
    assert outcome.code == 4 and "pip install matplotlib" in outcome.error
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("--speaker anna -o a.wav", 2, "needs a label: one of 0, 1, 2"),
        ("--label 1 -o a.wav", 2, "needs a speaker: one of anna, ben"),
        ("--label 7 --speaker anna -o a.wav", 2, 'no label "7"'),
        ("--label 1,9 --speaker anna -o a.wav", 2, 'no label "9"'),
        ("--label 1 --speaker ana -o a.wav", 2, 'no speaker "ana"; did you mean "anna"'),
        ("--label 1 --speaker anna", 2, "give one of -o or --out"),
        ("--label 1 --speaker anna -o a.wav --out b", 2, "give only one of -o or --out"),
        ("--label 1 --speaker anna -o a.mp3", 2, 'unknown format ".mp3"'),
        ("--label 1 --speaker anna -o a", 2, 'unknown format ""'),
        ("--label 1 --speaker anna -o none/a.wav", 2, "there is no folder none"),
        ("--label 1 --speaker anna -o a.wav --count 2", 2, "give --out DIR"),
        ("--label 1 --speaker anna --out b --count 0", 2, "count must be a whole number of at least 1, found 0"),
        ("--label 1 --speaker anna -o a.wav --seconds 0", 2, "seconds must be a number above 0"),
        ("--label 1 --speaker anna -o a.wav --seconds nan", 2, "seconds must be"),
        ("--label 1 --speaker anna -o a.wav --seconds 1e9", 2, "at most 86400"),
        ("--label 1 --speaker anna -o a.wav --temperature 0", 2, "temperature must be a number above 0"),
        ("--label 1 --speaker anna -o a.wav --min-p 1", 2, "min_p must be a number in"),
        ("--label 1 --speaker anna -o a.wav --seed -1", 2, "seed must be a whole number"),
        ("--label 1 --speaker anna -o a.wav --engine numbra", 2, 'did you mean "numba"'),
        ("--label 1 --speaker anna -o a.wav --precision f31", 2, "precision"),
        ("--label 1 --speaker anna -o - --json", 2, "both want stdout"),
        ("--label 1 --speaker anna -o a.wav --plot a.gif", 2, 'unknown format ".gif"'),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    wavegen, model, tmp_path, monkeypatch, arguments, code, complaint
):
    monkeypatch.chdir(tmp_path)
    outcome = wavegen("synth", model, *arguments.split())
    assert (outcome.code, outcome.out) == (code, "")
    assert complaint in outcome.error and "\n" not in outcome.error
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["nothing", "half", "pickle"])
def test_a_damaged_model_is_told_apart(wavegen, tmp_path, kind):
    folder = save_tiny(tmp_path / "tiny")
    if kind == "nothing":
        folder = tmp_path / "none"
    elif kind == "half":
        os.truncate(folder / "model.safetensors", 5000)
    else:
        folder = tmp_path / "model.pt"
        folder.write_bytes(b"\x80\x04N.")
    outcome = wavegen("synth", folder, "--label", 1, "--speaker", "anna", "-o", tmp_path / "a.wav")
    assert outcome.code == 3
    assert {"nothing": "no model", "half": "damaged", "pickle": "pickle"}[kind] in outcome.error
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("where", [["-o", "a.wav"], ["-o", "a.flac"], ["--out", "b"]])
def test_a_full_disk_leaves_nothing_half_written(wavegen, model, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    with full_disk(20_000):
        outcome = wavegen("synth", model, "--label", 1, "--speaker", "anna", "--seconds", 3, *where)
    assert outcome.code == 1
    assert "could not be written" in outcome.err.splitlines()[-1]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_part_of_a_batch_that_fails_is_code_5(wavegen, model, tmp_path):
    (tmp_path / "1_anna_00001.wav").mkdir()
    outcome = wavegen("synth", model, "--label", 1, "--speaker", "anna", "--count", 3, "--out", tmp_path)
    assert outcome.code == 5
    assert "error: 1 of 3 clips were not written; the first, clip 1: " in outcome.err
    assert names(tmp_path) == [f"1_anna_0000{clip}.wav" for clip in range(3)] + ["manifest.jsonl"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_removes_what_is_half_written(wavegen, model, tmp_path, number, code):
    def interrupt() -> None:
        while not any(part.stat().st_size for part in tmp_path.glob(".*")):  # the file is being written
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = wavegen("synth", model, "--label", 1, "--speaker", "anna", "--seconds", 80_000, "-o", tmp_path / "a.wav")
    thread.join()
    assert outcome.code == code
    assert outcome.error == "interrupted"
    assert names(tmp_path) == []


def test_a_full_device_behind_stdout_is_told(model):
    command = [
        sys.executable,
        "-m",
        "wavegen",
        "synth",
        str(model),
        "--label",
        "1",
        "--speaker",
        "anna",
        "--engine",
        "reference",
        "--seconds",
        "0.01",
        "-o",
        "-",
    ]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: No space left on device"


def test_temperature_and_min_p_reach_the_engine(wavegen, model, tmp_path):
    waveforms = []
    for options in ([], ["--temperature", 0.3], ["--min-p", 0.999]):
        wavegen("synth", model, "--label", 1, "--speaker", "anna", *options, "-o", tmp_path / "a.wav")
        waveforms.append(soundfile.read(tmp_path / "a.wav")[0])
    assert not np.array_equal(waveforms[0], waveforms[1])
    assert not np.array_equal(waveforms[0], waveforms[2])


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    return tiny_family("wgan", tmp_path_factory.mktemp("models") / "sampler")


def test_each_label_by_itself_to_a_page(wavegen, sampler, tmp_path):
    outcome = wavegen("synth", sampler, "--each", "--count", 2, "--out", tmp_path / "kit", "--page", "--tidy",
                      "--sample-rate", 44100, "--bits", 24, "--format", "flac", "--plot", tmp_path / "a.png")
    assert outcome.code == 0 and f"listen: {tmp_path / 'kit' / 'index.html'}" in outcome.err
    clips = [f"{label}_0000{number}.flac" for label in "012" for number in (0, 1)]
    assert names(tmp_path / "kit") == [*clips, "index.html", "manifest.jsonl"]
    assert soundfile.info(tmp_path / "kit" / clips[0]).samplerate == 44100
    some = wavegen("synth", sampler, "--label", "2,0", "--each", "--out", tmp_path / "some")
    assert some.code == 0 and names(tmp_path / "some") == ["0_00000.wav", "2_00000.wav", "manifest.jsonl"]


def test_a_run_goes_on_and_more_are_drawn_near_a_clip(wavegen, sampler, tmp_path):
    wavegen("synth", sampler, "--label", 1, "--count", 2, "--out", tmp_path / "a")
    outcome = wavegen("synth", sampler, "--label", 1, "--count", 3, "--out", tmp_path / "a")
    assert outcome.err.startswith("2 of 3 clips were there already; --overwrite")
    near = ["synth", sampler, "--near", tmp_path / "a" / "1_00001.wav"]
    assert wavegen(*near, "--count", 3, "--spread", 0.1, "--out", tmp_path / "b").code == 0
    rows = [json.loads(line) for line in (tmp_path / "b" / "manifest.jsonl").read_text().splitlines()]
    assert [(row["label"], row["near"]["clip"], row["near"]["spread"]) for row in rows] == [("1", 1, 0.1)] * 3
    assert wavegen(*near, "--label", 2, "-o", tmp_path / "two.wav", "--bits", 32).code == 0
    assert soundfile.info(tmp_path / "two.wav").subtype == "FLOAT"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--label", 1, "-o", "a.wav", "--each"], "--each is for a folder of clips"),
    (["--label", 1, "-o", "a.wav", "--page"], "--page is for a folder of clips"),
    (["--label", 1, "-o", "a.wav", "--spread", 0.1], "--spread is the distance from --near"),
    (["--label", 1, "-o", "a.flac", "--bits", 32], "a flac file has 16, 24 bits a sample, found 32"),
    (["--label", 1, "--out", "o", "--format", "raw"], 'a file of clips is wav or flac, found "raw"'),
    (["--label", 1, "-o", "a.wav", "--format", "wav"], "--format is for --out and -o -"),
    (["--label", 1, "-o", "a.wav", "--overwrite"], "is no vocoder and knows no --overwrite"),
    (["--near", "no.wav", "-o", "a.wav"], "no manifest.jsonl beside no.wav says how it was drawn"),
])
def test_what_a_folder_or_a_file_cannot_be_told(wavegen, sampler, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = wavegen("synth", sampler, *arguments)
    assert outcome.code in (2, 3) and message in outcome.error
    assert names(tmp_path) == []
