"""Models that give a clip at once: the same requests, files and reports as those that speak."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import wavegen
from tiny import save_tiny, tiny_family
from wavegen.audio import io
from wavegen.cli import app
from wavegen.errors import BadInputError, ConfigError, EngineUnavailableError
from wavegen.synth import Request, load
from wavegen.synth.one_pass import draw_latents

WINDOW = 512
FAMILIES = ("wgan", "vae", "vae_wavenet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    return {family: tiny_family(family, place / family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_is_the_same_in_every_company(folders, family):
    voice = load(folders[family])
    together = voice.generate("1", count=4, seed=7)
    for number, clip in enumerate(together):
        assert len(clip.waveform) == WINDOW and np.abs(clip.waveform).max() <= 1
        assert np.array_equal(voice.generate("1", seed=7, clip=number).waveform, clip.waveform)
    assert not np.array_equal(together[0].waveform, together[1].waveform)
    mixed = voice.generate_batch([Request("2", seed=3), Request("1", seed=7, clip=2)])
    assert np.array_equal(mixed[1].waveform, together[2].waveform)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_label_seed_or_temperature_is_another_clip(folders, family):
    voice = load(folders[family])
    clips = [voice.generate(label, seed=seed, temperature=temperature)
             for label, seed, temperature in (("1", 0, 1), ("2", 0, 1), ("1", 1, 1), ("1", 0, 0.5))]
    for place, clip in enumerate(clips):
        assert not any(np.array_equal(clip.waveform, other.waveform) for other in clips[:place])


@pytest.mark.parametrize("family", ["wgan", "vae"])
def test_the_report_names_the_engine(folders, family):
    voice = wavegen.load(folders[family])
    voice.generate("1", count=2)
    assert (voice.report.engine, voice.report.precision) == ("torch", "f32")
    assert voice.report.num_samples == 2 * WINDOW and voice.report.times_realtime > 0


def test_a_decoder_that_speaks_does_so_on_an_engine(folders):
    voice = load(folders["vae_wavenet"])
    assert voice.engine.name == "numba"
    slow = load(folders["vae_wavenet"], engine="reference")
    assert np.array_equal(voice.generate("1").waveform, slow.generate("1").waveform)
    assert voice.generate("1", min_p=0.1).num_samples == WINDOW


def test_a_stream_is_one_chunk(folders):
    voice = load(folders["wgan"])
    (chunk,) = voice.stream("1")
    assert chunk.is_last and np.array_equal(chunk.waveform, voice.generate("1").waveform)
    pieces = list(voice.stream("1", chunk_samples=200))
    assert [piece.num_samples for piece in pieces] == [200, 200, 112]
    assert np.array_equal(np.concatenate([piece.waveform for piece in pieces]), chunk.waveform)


@pytest.mark.parametrize("family", ["wgan", "vae"])
def test_fewer_seconds_are_the_beginning_with_a_fade(folders, family):
    voice = load(folders[family])
    whole, short = voice.generate("1"), voice.generate("1", seconds=0.04)
    assert short.num_samples == 320 and short.waveform[-1] == 0
    assert np.array_equal(short.waveform[:240], whole.waveform[:240])  # the last 10 ms fade
    both = voice.generate_batch([Request("1"), Request("1", seconds=0.04)])
    assert np.array_equal(both[0].waveform, whole.waveform) and np.array_equal(both[1].waveform, short.waveform)


def test_a_sequence_has_pauses(folders):
    voice = load(folders["wgan"])
    clip = voice.generate(["0", "1"])
    assert clip.num_samples == 2 * WINDOW + 640
    assert np.abs(clip.waveform[WINDOW : WINDOW + 640]).max() < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_told_nothing_needs_nothing(tmp_path, family):
    voice = load(tiny_family(family, tmp_path / "free", label=False))
    assert voice.labels == () and voice.generate().num_samples == WINDOW
    with pytest.raises(ConfigError, match="has no labels"):
        voice.generate("1")


@pytest.mark.parametrize(("arguments", "match"), [
    ({"label": "9"}, 'no label "9"'),
    ({}, "needs a label"),
    ({"label": "1", "speaker": "ben"}, "has no speakers"),
    ({"label": "1", "seconds": 1}, r"seconds is 1, but the clips of model .* are 0.064 s \(512 samples\)"),
    ({"label": "1", "min_p": 0.1}, "draws no codes"),
    ({"label": "1", "temperature": 0}, "temperature"),
])
def test_a_mistake_is_named(folders, arguments, match):
    with pytest.raises(ConfigError, match=match):
        load(folders["wgan"]).generate(**arguments)


def test_another_engine_or_precision_is_refused(folders):
    with pytest.raises(EngineUnavailableError, match='a wgan gives its clips in one pass, which the engine "torch"'):
        load(folders["wgan"], engine="numba")
    with pytest.raises(ConfigError, match='no precision "i16"'):
        load(folders["vae"], precision="i16")


def test_the_command_writes_files_a_manifest_and_a_picture(folders, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    code = app.run(["synth", str(folders["wgan"]), "--label", "2", "--count", "3", "--out", str(tmp_path / "out"),
                 "--plot", str(tmp_path / "plot.png"), "--json"])
    captured = capsys.readouterr()
    assert code == 0 and "engine torch, precision f32" in captured.err and "times real time" in captured.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in captured.out.splitlines()] == rows
    assert [row["path"] for row in rows] == [f"2_{clip:05d}.wav" for clip in range(3)]
    assert {row["engine"] for row in rows} == {"torch"} and {row["num_samples"] for row in rows} == {WINDOW}
    waveform, rate = io.load(tmp_path / "out" / "2_00001.wav")
    expected = load(folders["wgan"]).generate("2", clip=1).waveform
    assert rate == 8000 and np.abs(waveform - expected).max() <= 1 / 32767
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_that_are_given_are_decoded(folders, family):
    voice = load(folders[family])
    request = Request("1", seed=4)
    latents = draw_latents(voice.model, 4, 0)[0]
    (clip,) = voice.decode([latents], [request])
    assert np.array_equal(clip.waveform, voice.generate("1", seed=4).waveform)
    assert not np.array_equal(voice.decode([latents + 0.5], [request])[0].waveform, clip.waveform)


def test_a_sequence_of_windows_is_as_long_as_its_latents(folders):
    voice = load(folders["vae"])
    frames = torch.cat([draw_latents(voice.model, seed, 0)[0] for seed in (1, 2)], dim=1)
    (clip,) = voice.decode([frames], [Request("1")])
    assert clip.num_samples == 2 * WINDOW
    assert np.allclose(clip.waveform[:WINDOW], voice.generate("1", seed=1).waveform, atol=1e-6)
    with pytest.raises(BadInputError, match="latents of this model"):
        voice.decode([frames[:2]], [Request("1")])


def test_a_model_without_latents_decodes_none(tmp_path):
    with pytest.raises(ConfigError, match="is a wavenet, which has no latents"):
        load(save_tiny(tmp_path / "tiny")).decode([], [])


@pytest.mark.parametrize("family", FAMILIES)
def test_info_tells_the_family(folders, family, capsys):
    assert app.run(["info", str(folders[family])]) == 0
    shown = capsys.readouterr().out
    assert f": {family.split('_')[0]}, " in shown and "clips: 512 samples, 0.064 s" in shown
