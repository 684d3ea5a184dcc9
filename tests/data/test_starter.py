"""A first recipe fits the recordings it was made for, of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import yaml

from wavegen.config import Recipe, is_vocoder, parse
from wavegen.data.plan import build_plan
from wavegen.data.starter import KINDS, kind_of, starter_recipe, survey
from wavegen.errors import BadInputError, ConfigError


def record(folder, names, seconds=0.5, rate=16000):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(round(seconds * rate), 0.1), rate)


@pytest.fixture
def labelled(tmp_path):
    record(tmp_path, [f"my {kind}/take {i}.{'WAV' if i else 'flac'}" for kind in ("kicks", "snares") for i in range(6)])
    (tmp_path / "notes.txt").write_text("no recording")
    (tmp_path / "my kicks" / "broken.wav").write_bytes(b"nothing")
    return tmp_path


def test_a_survey_finds_recordings_and_labels(labelled):
    found = survey(labelled)
    assert len(found.names) == 12 and found.labels == ("my kicks", "my snares")
    assert found.unreadable == ("my kicks/broken.wav",) and found.sample_rate == 16000
    assert "12 recordings, 0.1 minutes, 0.50 to 0.50 s each" in str(found)
    assert "2 labels by folder: my kicks, my snares" in str(found)


@pytest.mark.parametrize("names", [["a.wav", "b.wav"], ["a/1.wav", "b/1.wav", "b/2.wav"], ["one/a.wav", "one/b.wav"]])
def test_folders_that_are_no_labels_are_none(tmp_path, names):
    record(tmp_path, names)
    assert survey(tmp_path).labels == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("with_labels", [True, False])
def test_every_kind_is_a_recipe_that_takes_its_recordings(tmp_path, kind, rate, with_labels):
    names = [f"{'ab'[i % 2]}/{i}.wav" if with_labels else f"{i}.wav" for i in range(5)]
    record(tmp_path / "data", names, 0.7, rate)
    found = survey(tmp_path / "data")
    recipe = parse(Recipe, yaml.safe_load(starter_recipe("mine", found, kind)), "recipe")
    assert recipe.name == "mine"
    assert is_vocoder(recipe.audio, recipe.model) == (kind == "vocoder")
    assert recipe.model.conditioning.label == (with_labels and kind != "vocoder")
    plan = build_plan(tmp_path / "plan.sqlite", tmp_path / "data", recipe.prepare, tmp_path / "store")
    try:
        items = list(plan.items())
    finally:
        plan.close()
    assert [item.reason for item in items] == [None] * 5
    assert {item.split for item in items} == {"train", "test"}
    if recipe.model.conditioning.label:
        assert {item.label for item in items} == {"a", "b"}


@pytest.mark.parametrize(("seconds", "kind"), [(0.3, "sounds"), (3.0, "speech"), (8.0, "long")])
def test_the_length_tells_the_kind(tmp_path, seconds, kind):
    record(tmp_path, ["a.wav"], seconds, 8000)
    assert kind_of(survey(tmp_path)) == kind
    assert kind_of(survey(tmp_path)) in KINDS


def test_what_cannot_be_looked_at_is_told(tmp_path):
    with pytest.raises(BadInputError, match="there is no folder"):
        survey(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadInputError, match=r"no recording found below .*wav, flac, ogg"):
        survey(tmp_path)
    record(tmp_path, ["a.wav"])
    with pytest.raises(ConfigError, match='no kind of recipe "speach"; did you mean "speech"'):
        starter_recipe("x", survey(tmp_path), "speach")
