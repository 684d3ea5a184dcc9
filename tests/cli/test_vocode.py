"""wavegen synth of a vocoder: mels, recordings, manifests, stdin and stdout."""

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
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import wavegen as package
from helpers import full_disk
from tiny import save_tiny_vocoder, tiny_mel
from wavegen.audio import io as audio_io
from wavegen.audio import levels, wav
from wavegen.cli import app
from wavegen.synth.manifest import Utterance

RATE, HOP, BANDS = 8000, 80, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_vocoder(tmp_path_factory.mktemp("models") / "voc")


@pytest.fixture(scope="module")
def choir(tmp_path_factory):
    return save_tiny_vocoder(tmp_path_factory.mktemp("models") / "choir", conditioning={"speaker": True})


@pytest.fixture(scope="module")
def voc(model):
    return package.load(model)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with mels of 20, 30 and 40 frames and a recording at another rate."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mels").mkdir()
    for number in range(3):
        np.save(f"mels/m{number}.npy", tiny_mel(20 + 10 * number, number))
    time_axis = np.arange(5000) / 11025
    soundfile.write("tone.flac", 0.4 * np.sin(2 * np.pi * 300 * time_axis) * np.exp(-3 * time_axis), 11025)
    return tmp_path


@pytest.fixture
def stdin(monkeypatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))

    return give


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def samples(path: str | Path) -> np.ndarray:
    waveform, sample_rate = soundfile.read(path, dtype="int16")
    assert sample_rate == RATE
    return waveform


def pcm(waveform: np.ndarray) -> np.ndarray:
    return wav.to_pcm16(waveform)


def rows(outcome) -> list[dict]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_mel_is_spoken_as_from_python(wavegen, model, voc, desk):
    outcome = wavegen("synth", model, "--mel", "mels/m0.npy", "-o", "a.wav", "--seed", 3, "--json")
    assert outcome.code == 0 and "times real time" in outcome.err and "first audio after" in outcome.err
    np.testing.assert_array_equal(samples("a.wav"), pcm(voc(tiny_mel(20, 0)[None], seed=3).waveform[0]))
    (row,) = rows(outcome)
    assert (row["id"], row["path"], row["num_samples"], row["seed"], row["temperature"]) == ("m0", "a.wav", 1600, 3, 1)


def test_layouts_types_and_specs_of_a_mel(wavegen, model, voc, desk):
    mel = tiny_mel(20, 0)
    wavegen("synth", model, "--mel", "mels/m0.npy", "-o", "a.wav")
    np.save("b.npy", mel.T.astype(np.float64))
    mel.T.astype("<f4").tofile("c.f32")
    np.savez("d.npz", mel=mel[None])
    for name in ("b.npy", "c.f32", "d.npz"):
        assert wavegen("synth", model, "--mel", name, "-o", "b.wav").code == 0
        np.testing.assert_array_equal(samples("a.wav"), samples("b.wav"))
    np.save("square.npy", mel[:, :BANDS])
    outcome = wavegen("synth", model, "--mel", "square.npy", "-o", "b.wav")
    assert outcome.code == 2 and "say --layout CT" in outcome.error
    assert wavegen("synth", model, "--mel", "square.npy", "--layout", "TC", "-o", "b.wav").code == 0
    outcome = wavegen("synth", model, "--mel", "b.npy", "--mel-spec", "tacotron2", "-o", "c.wav")
    assert outcome.code == 3 and "n_mels 80 against 12" in outcome.error
    np.save("nan.npy", np.full((BANDS, 20), np.nan))
    np.save("linear.npy", np.exp(mel))
    for name, complaint in (("nan.npy", "NaN"), ("linear.npy", "is not a natural log"), ("none.npy", "does not exist")):
        outcome = wavegen("synth", model, "--mel", name, "-o", "c.wav")
        assert outcome.code == 3 and complaint in outcome.error and name in outcome.error
    assert not Path("c.wav").exists()
    assert wavegen("synth", model, "--mel", "linear.npy", "--no-check", "-o", "c.wav").code == 0


def test_a_recording_is_spoken_again_at_its_own_length(wavegen, model, voc, desk):
    pytest.importorskip("matplotlib")
    assert wavegen("synth", model, "--like", "tone.flac", "-o", "a.wav", "--plot", "a.png").code == 0
    recording, _ = audio_io.load("tone.flac", RATE)
    assert len(samples("a.wav")) == len(recording) == round(5000 * RATE / 11025)
    np.testing.assert_array_equal(samples("a.wav"), pcm(voc(voc.mel(recording)[None]).waveform[0])[: len(recording)])
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"
    assert wavegen("synth", model, "--like", "tone.flac", "--normalize", "-o", "b.wav").code == 0
    louder = voc.mel(levels.normalize_peak(recording, 0.9)[0])
    np.testing.assert_array_equal(samples("b.wav"), pcm(voc(louder[None], check=False).waveform[0])[: len(recording)])


@pytest.mark.parametrize("samples_of_clip", [1, 79, 81, 400])
def test_where_frames_are_not_centred_the_length_is_kept(wavegen, tmp_path, samples_of_clip):
    model = save_tiny_vocoder(tmp_path / "voc", mel={"center": False, "edge_padding": 88})
    soundfile.write(tmp_path / "a.wav", np.full(samples_of_clip, 0.1), RATE)
    assert wavegen("synth", model, "--like", tmp_path / "a.wav", "-o", tmp_path / "b.wav").code == 0
    assert len(samples(tmp_path / "b.wav")) == samples_of_clip


def test_speaker_temperature_and_min_p_reach_the_model(wavegen, choir, desk):
    voc = package.load(choir)
    outcome = wavegen("synth", choir, "--mel", "mels/m0.npy", "-o", "a.wav")
    assert outcome.code == 2 and "needs a speaker: one of anna, ben" in outcome.error
    wavegen("synth", choir, "--mel", "mels/m0.npy", "--speaker", "ben", "--temperature", 0.5, "--min-p", 0.1,
            "--matching", 1, "--no-guard", "-o", "a.wav")
    wanted = voc(tiny_mel(20, 0)[None], speaker="ben", temperature=0.5, min_p=0.1, matching=1, guard=False)
    np.testing.assert_array_equal(samples("a.wav"), pcm(wanted.waveform[0]))


def test_a_folder_and_several_files(wavegen, model, voc, desk):
    outcome = wavegen("synth", model, "--mel", "mels", "--out", "a", "--json")
    assert outcome.code == 0 and names(desk / "a") == ["m0.wav", "m1.wav", "m2.wav", "manifest.jsonl"]
    assert outcome.out == Path("a/manifest.jsonl").read_text()
    for number, row in enumerate(rows(outcome)):
        alone = voc(tiny_mel(20 + 10 * number, number)[None], streams=Utterance(f"m{number}").stream)
        np.testing.assert_array_equal(samples(f"a/m{number}.wav"), pcm(alone.waveform[0]))
        assert row["stream"] == Utterance(f"m{number}").stream
    assert wavegen("synth", model, "--mel", "mels/m1.npy", "--mel", "mels/m2.npy", "--out", "b").code == 0
    assert Path("a/m2.wav").read_bytes() == Path("b/m2.wav").read_bytes()
    assert wavegen("synth", model, "--like", desk, "--out", "c").code == 0
    assert names(desk / "c") == ["manifest.jsonl", "tone.wav"]


def write_manifest(*lines: dict | str) -> None:
    Path("lists").mkdir(exist_ok=True)
    Path("lists/u.jsonl").write_text("".join(
        (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def test_a_manifest_is_spoken_whatever_is_wrong_with_some(wavegen, choir, desk):
    pytest.importorskip("matplotlib")
    voc = package.load(choir)
    Path("mels/broken.npy").write_bytes(b"\x93NUMPY")
    np.save("mels/loud.npy", np.full((BANDS, 20), 30.0))
    write_manifest({"id": "a", "mel": "../mels/m0.npy", "speaker": "ben", "seed": 5, "temperature": 0.7, "text": "Hi."},
                   {"id": "b", "mel": "../mels/none.npy"}, "{", {"id": "c", "mel": "../mels/broken.npy"},
                   {"id": "d", "mel": "../mels/loud.npy"}, {"id": "e", "mel": "../mels/m1.npy", "speaker": "carl"},
                   {"id": "f", "mel": "../mels/m1.npy", "temperature": 0}, {"id": "a", "mel": "../mels/m1.npy"},
                   {"id": "g/1", "like": "../tone.flac"}, {"id": "h", "mel": "../mels/m1.npy", "seed": -1})
    outcome = wavegen("synth", choir, "--manifest", "lists/u.jsonl", "--speaker", "anna", "--out", "out", "--json",
                      "--plot", "a.png")
    assert outcome.code == 5 and "error: 8 of 10 clips were not written; the first, clip b: " in outcome.err
    assert names(desk / "out") == ["a.wav", "g-1.wav", "manifest.jsonl"]
    found = rows(outcome)
    assert [row["id"] for row in found if "error" not in row] == ["a", "g/1"]
    assert found[0]["text"] == "Hi." and found[8]["path"] == "g-1.wav" and found[8]["speaker"] == "anna"
    for place, complaint in ((1, "none.npy"), (2, "line 3"), (3, "broken.npy"), (4, "louder than full scale"),
                             (5, 'no speaker "carl"'), (6, "temperature"), (7, "a.wav is taken"), (9, "seed")):
        assert complaint in found[place]["error"]
    wanted = voc(tiny_mel(20, 0)[None], speaker="ben", seed=5, temperature=0.7, streams=Utterance("a").stream)
    np.testing.assert_array_equal(samples("out/a.wav"), pcm(wanted.waveform[0]))
    assert Path("a.png").exists()


def test_a_run_goes_on_where_it_ended(wavegen, model, desk, monkeypatch):
    lines = [{"id": f"u{number}", "mel": f"../mels/m{number}.npy"} for number in range(3)]
    write_manifest(*lines)
    assert wavegen("synth", model, "--manifest", "lists/u.jsonl", "--out", "out").code == 0
    before = {name: (desk / "out" / name).read_bytes() for name in names(desk / "out")}

    def again(*options: str) -> tuple[set[str], str]:
        """The files that were written anew, and what was said."""
        for path in (desk / "out").glob("*.wav"):
            os.utime(path, (0, 0))
        outcome = wavegen("synth", model, "--manifest", "lists/u.jsonl", "--out", "out", *options)
        assert outcome.code == 0
        return {path.stem for path in (desk / "out").glob("*.wav") if path.stat().st_mtime > 0}, outcome.err

    written, said = again()
    assert written == set() and said == "3 of 3 clips were there already; --overwrite speaks them anew\n"
    # One that was spoilt, one that was lost, one whose mel changed.
    (desk / "out/u0.wav").write_bytes(before["u0.wav"][:-2] + b"xy")
    (desk / "out/u1.wav").unlink()
    assert again()[0] == {"u0", "u1"}
    assert {name: (desk / "out" / name).read_bytes() for name in before} == before
    np.save("mels/m2.npy", tiny_mel(33, 5))
    assert again()[0] == {"u2"}
    assert again("--seed", "1")[0] == {"u0", "u1", "u2"}
    assert again("--seed", "1", "--overwrite")[0] == {"u0", "u1", "u2"}


def test_an_interrupted_run_keeps_what_is_done(wavegen, model, desk, monkeypatch):
    from wavegen.synth import vocode

    write_manifest(*({"id": f"u{number}", "mel": f"../mels/m{number}.npy"} for number in range(3)))
    monkeypatch.setattr(vocode, "WINDOW_CLIPS", 1)
    written = []

    def digest(path):
        written.append(path.name)
        if written.count("u1.wav") == 1:
            written.append("u1.wav")
            os.kill(os.getpid(), signal.SIGINT)
        return real(path)

    real = vocode.file_digest
    monkeypatch.setattr(vocode, "file_digest", digest)
    outcome = wavegen("synth", model, "--manifest", "lists/u.jsonl", "--out", "out")
    assert outcome.code == 130 and outcome.error == "interrupted"
    assert [json.loads(line)["id"] for line in Path("out/manifest.jsonl").read_text().splitlines()] == ["u0"]
    outcome = wavegen("synth", model, "--manifest", "lists/u.jsonl", "--out", "out")
    assert outcome.code == 0 and "1 of 3 clips were there already" in outcome.err
    assert not [name for name in names(desk / "out") if name.startswith(".")]


def test_a_full_disk_ends_the_run(wavegen, model, desk):
    np.save("mels/m1.npy", tiny_mel(400, 1))
    write_manifest(*({"id": f"u{number}", "mel": f"../mels/m{number}.npy"} for number in range(3)))
    with full_disk(20_000):
        outcome = wavegen("synth", model, "--manifest", "lists/u.jsonl", "--out", "out")
    assert outcome.code == 5 and "2 of 3 clips were not written; the first, clip u1: " in outcome.err
    assert names(desk / "out") == ["manifest.jsonl", "u0.wav"]


@pytest.mark.parametrize("kind", ["bare", "npy", "npy frames first"])
def test_frames_from_stdin(model, desk, stdin, kind, capsysbinary):
    mel = tiny_mel(30, 1)
    content = io.BytesIO()
    np.save(content, mel if kind == "npy" else np.ascontiguousarray(mel.T))
    stdin(mel.T.tobytes() if kind == "bare" else content.getvalue())
    assert app.run(["synth", str(model), "--mel", "-", "-o", "a.wav"]) == 0
    stdin(mel.T.tobytes() if kind == "bare" else content.getvalue())
    capsysbinary.readouterr()
    assert app.run(["synth", str(model), "--mel", "-", "-o", "-", "--format", "raw"]) == 0
    out, err = capsysbinary.readouterr()
    assert app.run(["synth", str(model), "--mel", "mels/m1.npy", "-o", "b.wav"]) == 0
    np.testing.assert_array_equal(samples("a.wav"), samples("b.wav"))
    assert out == samples("b.wav").astype("<i2").tobytes()
    assert b"first audio written " in err and b"ms after the first frames came" in err


@pytest.mark.parametrize("where", ["-", "a.wav"])
def test_what_came_of_a_broken_stream_is_spoken(model, desk, stdin, where, capsysbinary):
    stdin(tiny_mel(30, 1).T.tobytes()[:-5])
    assert app.run(["synth", str(model), "--mel", "-", "-o", where, "--format" if where == "-" else "--seed",
                    "raw" if where == "-" else "0"]) == 3
    out, err = capsysbinary.readouterr()
    spoken = np.frombuffer(out, "<i2") if where == "-" else samples("a.wav")
    assert len(spoken) == 29 * HOP
    assert err.endswith(b"error: the input ends inside a frame, 43 bytes into number 30; the 29 frames before it were "
                        b"spoken\n")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "no whole frame was read"), (b"RIFF....WAVE", "is a wav file"),
     (tiny_mel(30).T.astype("<f8").tobytes(), "")],
)
@pytest.mark.parametrize("where", ["a.wav", "-"])
def test_a_stream_that_is_none_makes_no_noise(model, desk, stdin, where, content, complaint, capsysbinary):
    stdin(content)
    assert app.run(["synth", str(model), "--mel", "-", "-o", where]) == 3
    out, err = capsysbinary.readouterr()
    assert out == b"" and complaint.encode() in err and err.startswith(b"error: ")
    assert names(desk) == ["mels", "tone.flac"]


@pytest.mark.parametrize(("name", "option", "complaint"), [
    ("stdin", ["--mel", "-", "-o", "a.wav"], "--mel - reads frames from stdin, which is"),
    ("stdout", ["--mel", "mels/m0.npy", "-o", "-"], "-o - writes audio to stdout, which is")])
def test_neither_a_terminal_nor_nothing_is_a_pipe(model, desk, monkeypatch, capsys, name, option, complaint):
    for stream, state in ((SimpleNamespace(isatty=lambda: True), "a terminal"), (None, "closed")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, stream)
            assert app.run(["synth", str(model), *option]) == 2
        assert f"{complaint} {state}: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["wav", "flac", "raw"])
def test_formats_of_stdout(model, desk, kind, capsysbinary):
    assert app.run(["synth", str(model), "--mel", "mels/m2.npy", "-o", "-", "--format", kind]) == 0
    out, _ = capsysbinary.readouterr()
    options = {"samplerate": RATE, "channels": 1, "subtype": "PCM_16"} if kind == "raw" else {}
    options |= {"format": "RAW"} if kind == "raw" else {}
    waveform, _ = soundfile.read(io.BytesIO(out), dtype="int16", **options)
    assert app.run(["synth", str(model), "--mel", "mels/m2.npy", "-o", "a.flac"]) == 0
    np.testing.assert_array_equal(waveform, samples("a.flac"))


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("-o a.wav", 2, "is a vocoder: give one of --mel (a mel spectrogram), --like"),
        ("--mel mels/m0.npy --like tone.flac -o a.wav", 2, "give only one of --mel"),
        ("--label 7 -o a.wav", 2, "speaks a mel spectrogram and knows no --label: give --mel"),
        ("--mel mels/m0.npy --seconds 2 -o a.wav", 2, "knows no --seconds"),
        ("--mel mels/m0.npy --count 2 --out b", 2, "knows no --count"),
        ("--mel mels -o a.wav", 2, "--mel names several clips: give --out DIR instead of -o"),
        ("--manifest lists/u.jsonl -o a.wav", 2, "--manifest names several clips"),
        ("--mel - --out b", 2, "- reads frames from stdin, for one clip"),
        ("--like - -o a.wav", 2, "- reads frames from stdin, for one clip: --mel - -o OUT"),
        ("--mel mels/m0.npy --overwrite -o a.wav", 2, "--overwrite is for --out DIR"),
        ("--mel mels/m0.npy --normalize -o a.wav", 2, "--normalize is for --like"),
        ("--like tone.flac --layout CT -o a.wav", 2, "--layout is for --mel"),
        ("--mel mels/m0.npy --layout BCT -o a.wav", 2, 'no layout "BCT"'),
        ("--mel mels/m0.npy --mel-spec tacotron -o a.wav", 2, 'did you mean "tacotron2"'),
        ("--mel mels/m0.npy --format raw -o a.wav", 2, "--format is for --out and -o -"),
        ("--mel mels/m0.npy --format mp3 -o -", 2, 'cannot write the format "mp3"'),
        ("--mel mels/m0.npy --temperature 0 -o a.wav", 2, "temperature must be above 0"),
        ("--mel mels/m0.npy --min-p 2 -o a.wav", 2, "min_p must lie in [0, 1]"),
        ("--mel mels/m0.npy --matching 9 -o a.wav", 2, "matching must be a whole number of passes from 0 to 8"),
        ("--mel mels/m0.npy --speaker anna -o a.wav", 2, "has no speakers"),
        ("--like mels/m0.npy -o a.wav", 3, "m0.npy cannot be used"),
        ("--like none.wav -o a.wav", 3, "none.wav does not exist"),
        ("--mel tone.flac -o a.wav", 3, "--like takes audio"),
        ("--manifest none.jsonl --out b", 3, "cannot be read: No such file"),
        ("--mel none.npy --out b", 3, "none.npy cannot be read"),
        ("--mel lists --out b", 3, "holds no file for --mel: none ends in .npy"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(wavegen, model, desk, arguments, code, complaint):
    (desk / "lists").mkdir()
    outcome = wavegen("synth", model, *arguments.split())
    assert (outcome.code, outcome.out) == (code, "")
    assert complaint in outcome.error and "\n" not in outcome.error
    assert names(desk) == ["lists", "mels", "tone.flac"]


@pytest.mark.parametrize("option", ["--mel m.npy", "--like a.flac", "--manifest u", "--layout CT", "--overwrite"])
def test_a_model_of_labels_is_told_no_mel(wavegen, desk, option):
    outcome = wavegen("synth", "digits", *option.split(), "-o", "a.wav")
    assert outcome.code == 2
    assert f'model "digits" is no vocoder and knows no {option.split()[0]}: say what with --label' in outcome.error


def test_info_tells_what_a_vocoder_reads(wavegen, model, tmp_path):
    out = wavegen("info", model).out
    for words in ("mel: no preset, 12 bands of 0 to 4000 Hz at 8000 Hz",
                  "signal path: lpc of order 16, pre-emphasis 0.85",
                  "look-ahead: 1 frame of 10 ms, 10 ms", "sampling: temperature 1, min_p 0"):
        assert words in out
    facts = json.loads(wavegen("info", model, "--json").out)["vocoder"]
    voc = package.load(model)
    assert facts["lookahead_frames"] == voc.lookahead_frames == 1 and facts["mel_preset"] is None
    known = save_tiny_vocoder(tmp_path / "t", mel={"sample_rate": 22050, "n_fft": 1024, "win_length": 1024,
                                                   "hop_length": 256, "n_mels": 80, "fmax": 8000.0})
    assert "mel: preset tacotron2, 80 bands" in wavegen("info", known).out


def synth(*arguments: str, **streams) -> subprocess.Popen:
    # The reference engine starts at once.
    return subprocess.Popen([sys.executable, "-m", "wavegen", "synth", *arguments, "--engine", "reference"], **streams)


def test_it_plays_while_the_frames_arrive(model):
    frames, spoken = tiny_mel(12, 3).T, b""
    with synth(str(model), "--mel", "-", "-o", "-", "--format", "raw", stdin=subprocess.PIPE,
               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        for number, frame in enumerate(frames):
            process.stdin.write(frame.tobytes())
            # With a look-ahead of one frame, the audio of all frames but the last must come now.
            while len(spoken) < 2 * HOP * number:
                piece = process.stdout.read(65536)
                assert piece, process.stderr.read().decode()
                spoken += piece
            assert len(spoken) == 2 * HOP * number
        process.stdin.write(b"123")
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 3 and b"error: the input ends inside a frame, 3 bytes into number 13" in err
    assert len(spoken + rest) == 2 * HOP * 12


def test_a_player_that_stops_ends_it_quietly(model):
    with synth(str(model), "--mel", "-", "-o", "-", "--format", "raw", stdin=subprocess.PIPE,
               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        process.stdin.write(tiny_mel(3).T.tobytes())
        assert process.stdout.read(1)
        process.stdout.close()
        with pytest.raises(BrokenPipeError):  # nobody reads the frames any more either
            for _ in range(1000):
                process.stdin.write(tiny_mel(10).T.tobytes())
                time.sleep(0.01)
        said = process.stderr.read()
    assert process.returncode == 1
    assert b"error" not in said and b"Traceback" not in said


def test_an_interruption_leaves_no_half_file(wavegen, model, desk, monkeypatch):
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as reading, os.fdopen(sink, "wb", buffering=0) as writing:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=reading, isatty=lambda: False))

        def interrupt() -> None:
            writing.write(tiny_mel(300).T.tobytes())
            while not any(part.stat().st_size for part in desk.glob(".*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)  # while it waits for more

        thread = threading.Thread(target=interrupt)
        thread.start()
        outcome = wavegen("synth", model, "--mel", "-", "-o", "a.wav")
        thread.join()
    assert outcome.code == 130 and outcome.error == "interrupted"
    assert names(desk) == ["mels", "tone.flac"]
