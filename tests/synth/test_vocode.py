"""A vocoder's files: memory, and what of a folder is spoken together."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import wavegen
from tiny import save_tiny_vocoder, tiny_mel
from wavegen.errors import BadInputError
from wavegen.synth import vocode
from wavegen.synth.manifest import Utterance, from_files
from wavegen.synth.vocode import Options, open_source, vocode_file, vocode_folder


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return wavegen.load(save_tiny_vocoder(tmp_path_factory.mktemp("models") / "voc"))


def test_memory_does_not_grow_with_the_length(voc, tmp_path):
    peaks = []
    for frames in (1100, 1100, 2200):  # the first warms up; a mel is checked 1024 frames at a time
        np.save(tmp_path / "a.npy", np.asfortranarray(np.tile(tiny_mel(100), (1, frames // 100))))
        utterance = Utterance("a", mel=tmp_path / "a.npy")
        tracemalloc.start()
        source = open_source(voc, utterance, Options())
        vocode_file(voc, utterance, Options(), source, tmp_path / "a.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "a.wav").stat().st_size == 44 + 2 * 2200 * 80
    assert peaks[2] < 1.1 * peaks[1] + 100_000


def test_how_clips_are_grouped_changes_none(voc, tmp_path, monkeypatch):
    for number in range(5):
        np.save(tmp_path / f"m{number}.npy", tiny_mel(10 + 7 * number, number))
    utterances, calls = from_files([tmp_path], "mel"), []
    for name, limits in (("a", {}), ("b", {"WINDOW_CLIPS": 2}), ("c", {"WINDOW_SAMPLES": 2500}),
                         ("d", {"LONG_SAMPLES": 2000})):
        with monkeypatch.context() as patch:
            for limit, value in limits.items():
                patch.setattr(vocode, limit, value)
            calls.clear()
            delivery = vocode_folder(voc, utterances, tmp_path / name, Options(), progress=calls.append)
        assert calls == [1] * 5 and delivery.kept == 0
        assert delivery.report.num_samples == 80 * sum(10 + 7 * number for number in range(5))
        assert [clip.row["id"] for clip in delivery.clips] == [f"m{number}" for number in range(5)]
        for number in range(5):
            assert (tmp_path / name / f"m{number}.wav").read_bytes() == (tmp_path / f"a/m{number}.wav").read_bytes()


def test_one_that_fails_in_a_batch_spoils_no_other(voc, tmp_path, monkeypatch):
    for number in range(3):
        np.save(tmp_path / f"m{number}.npy", tiny_mel(20 + number, number))
    stream = voc.stream

    def refuse(*args, **kwargs):
        raise BadInputError("the batch is refused")

    def picky(*args, **options):
        if options["streams"] == Utterance("m1").stream:
            raise BadInputError("m1 is refused")
        return stream(*args, **options)

    monkeypatch.setattr(type(voc), "__call__", refuse)
    monkeypatch.setattr(voc, "stream", picky)
    delivery = vocode_folder(voc, from_files([tmp_path], "mel"), tmp_path / "out", Options())
    assert [str(clip.error) for clip in delivery.clips] == ["None", "m1 is refused", "None"]
