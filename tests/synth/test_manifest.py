"""Manifests of utterances: what a line may say, and what is already done."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wavegen.audio import io
from wavegen.errors import BadInputError
from wavegen.synth.manifest import Ledger, Utterance, file_digest, from_files, read_manifest


def manifest(folder, *lines):
    path = folder / "utts.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_line_is_an_utterance(tmp_path):
    found = read_manifest(manifest(tmp_path, {"id": "a", "mel": "m/a.npy", "seed": 3, "temperature": 0.5, "text": "Hi"},
                                   "", {"id": "b/ü", "like": "/b.wav", "speaker": 7, "min_p": None}))
    assert found == [Utterance("a", mel=tmp_path / "m/a.npy", seed=3, temperature=0.5, text="Hi"),
                     Utterance("b/ü", like=(tmp_path / "/b.wav"), speaker="7")]
    assert [utterance.file_name for utterance in found] == ["a.wav", "b-ü.wav"]
    assert str(found[1].source) == "/b.wav"


def test_ids_make_safe_names_and_streams_of_their_own():
    assert [Utterance(id).file_name for id in ("../x", ".hidden", "a b\n", "..")] == [
        "-.-x.wav", "-hidden.wav", "a-b-.wav", "-..wav"]
    streams = {Utterance(f"utterance {number}").stream for number in range(1000)}
    assert len(streams) == 1000 and max(streams) < 2**32
    assert Utterance("a").stream == Utterance("a", seed=5).stream


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 of the manifest is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"id": "\\ud800", "mel": "a"}', "is not JSON"),
        ("3", "is no object such as"),
        ({"mel": "a.npy"}, 'has no "id"'),
        ({"id": 3, "mel": "a.npy"}, 'has no "id"'),
        ({"id": "a"}, 'under "mel" or under "like", one of them'),
        ({"id": "a", "mel": "a", "like": "b"}, "one of them"),
        ({"id": "a", "mel": "a", "temprature": 1}, 'has "temprature"; did you mean "temperature"'),
        ({"id": "a", "mel": 3}, '"mel": 3, which is no text'),
        ({"id": "a", "mel": "a\0b"}, "which is no text"),
        ({"id": "a", "mel": "a", "seed": True}, '"seed": true, which is no number'),
        ({"id": "a", "mel": "a", "seed": 1.5}, "which is no number"),
        ({"id": "x" * 300, "mel": "a"}, "has an id of 300 bytes"),
        ({"id": "good", "mel": "b"}, 'good.wav is taken by an earlier utterance, "good"'),
        ({"id": "g/ood", "mel": "b"}, None),
    ],
)
def test_a_wrong_line_spoils_no_other(tmp_path, line, complaint):
    good = {"id": "good", "mel": "a.npy"}
    found = read_manifest(manifest(tmp_path, good, line, {"id": "other", "mel": "a.npy"}))
    assert [utterance.error is None for utterance in found] == [True, complaint is None, True]
    if complaint:
        assert complaint in str(found[1].error)


def test_a_manifest_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInputError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(BadInputError, match="is empty"):
        read_manifest(manifest(tmp_path, "", " "))


def test_files_and_folders(tmp_path):
    for name in ("m/b.npy", "m/a.npy", "m/.c.npy", "m/d.txt", "n/a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = from_files([tmp_path / "m", tmp_path / "n/a.npy"], "mel")
    assert [utterance.id for utterance in found] == ["a", "b", "a#3"]
    assert "taken by an earlier" in str(found[2].error) and found[1].mel == tmp_path / "m/b.npy"
    with pytest.raises(BadInputError, match=r"holds no file for --like: none ends in \.wav, "):
        from_files([tmp_path / "m"], "like")


ASKED = {"seed": 3, "input_sha256": "x"}


def written(folder, id="a", **facts):
    io.save(folder / f"{id}.wav", np.zeros(10, np.float32), 8000)
    return {"id": id, "path": f"{id}.wav", "num_samples": 10, "sample_rate": 8000,
            "sha256": file_digest(folder / f"{id}.wav"), **ASKED, **facts}


def test_what_is_there_and_was_asked_for_is_verified(tmp_path):
    ledger = Ledger(tmp_path)
    row = written(tmp_path)
    assert ledger.verified("a", ASKED) is None
    ledger.add(row)
    assert Ledger(tmp_path).verified("a", ASKED) == row  # before `close`
    ledger.close(["a"])
    assert Ledger(tmp_path).verified("a", ASKED) == row
    assert ledger.verified("a", {**ASKED, "seed": 4}) is None
    assert ledger.verified("a", {**ASKED, "speaker": "x"}) is None
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:-2] + b"xy"),
                  lambda path: path.write_bytes(path.read_bytes()[:-2]), lambda path: path.unlink()):
        row = written(tmp_path)
        assert ledger.verified("a", ASKED) == row
        spoil(tmp_path / "a.wav")
        assert ledger.verified("a", ASKED) is None


@pytest.mark.parametrize("wrong", [{"path": None}, {"num_samples": "x"}, {"sample_rate": 16000}, {"error": "x"}])
def test_a_spoilt_line_verifies_nothing(tmp_path, wrong):
    ledger = Ledger(tmp_path)
    ledger.add(written(tmp_path, **wrong))
    assert ledger.verified("a", ASKED) is None


def test_the_ledger_survives_a_kill_and_keeps_the_lines_of_others(tmp_path):
    folder = tmp_path / "out"
    ledger = Ledger(folder)
    for id in "cba":
        ledger.add(written(folder, id))
    with (folder / "manifest.jsonl").open("ab") as file:
        file.write(b'{"id": "d", "pa')
    ledger = Ledger(folder)
    ledger.add(written(folder, "e"))
    assert [Ledger(folder).verified(id, ASKED) is not None for id in "abcde"] == [True, True, True, False, True]
    ledger.close(["e", "b", "none", "b"])
    rows = [json.loads(line)["id"] for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert rows == ["c", "a", "e", "b"]


def test_a_folder_of_failures_is_not_left_behind(tmp_path):
    ledger = Ledger(tmp_path / "out")
    ledger.add({"id": "a", "error": "x"})
    ledger.close(["a"])
    assert not (tmp_path / "out").exists()
