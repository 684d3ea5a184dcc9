"""Splits by name and by hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.config import PrepareConfig
from wavegen.data import splits
from wavegen.errors import ConfigError


def test_the_hash_of_an_id_is_the_same_everywhere_and_for_ever():
    assert splits.hash_fraction("0_george_0.wav") == 0.05283303861806821
    assert splits.hash_fraction("é") == 0.291402190516421


@given(st.text())
def test_the_hash_of_an_id_lies_in_0_1(name):
    assert 0 <= splits.hash_fraction(name) < 1


def test_shares_are_met():
    config = PrepareConfig(hash_splits={"test": 0.1, "valid": 0.2})
    found = [splits.split_of(config, f"clip{number}", {}) for number in range(5000)]
    assert found.count("test") == pytest.approx(500, abs=70)
    assert found.count("valid") == pytest.approx(1000, abs=100)
    assert found.count("train") == 5000 - found.count("test") - found.count("valid")


def test_a_larger_share_keeps_what_it_had():
    small, large = PrepareConfig(hash_splits={"test": 0.1}), PrepareConfig(hash_splits={"test": 0.2})
    for number in range(500):
        if splits.split_of(small, f"clip{number}", {}) == "test":
            assert splits.split_of(large, f"clip{number}", {}) == "test"


def test_rules_come_before_the_hash_and_all_must_hold():
    config = PrepareConfig(splits={"test": {"speaker": ("anna",), "index": ("0", "1")}}, hash_splits={"rest": 1.0})
    assert splits.split_of(config, "x", {"speaker": "anna", "index": "1"}) == "test"
    assert splits.split_of(config, "x", {"speaker": "anna", "index": "2"}) == "rest"
    assert splits.split_of(config, "x", {"speaker": None}) == "rest"


def test_an_unknown_group_names_the_nearest():
    with pytest.raises(ConfigError, match='no group "indx"; did you mean "index"'):
        splits.check_splits(PrepareConfig(splits={"test": {"indx": ("0",)}}), {"label", "index"})


@pytest.mark.parametrize("shares", [{"test": 1.5}, {"test": -0.1}, {"a": 0.6, "b": 0.6}, {"a": float("nan")}])
def test_shares_must_be_shares(shares):
    with pytest.raises(ConfigError, match="hash_splits"):
        splits.check_splits(PrepareConfig(hash_splits=shares), set())


def test_all_clips_of_a_speaker_share_a_split():
    config = PrepareConfig(hash_splits={"test": 0.3}, hash_group="speaker")
    found = {splits.split_of(config, f"{take}", {"speaker": "anna"}) for take in range(30)}
    assert len(found) == 1
    assert len({splits.split_of(config, "x", {"speaker": f"speaker{i}"}) for i in range(30)}) == 2
    assert splits.split_of(config, "x", {"speaker": None}) == splits.split_of(PrepareConfig(hash_splits={"test": 0.3}),
                                                                            "x", {})


def test_a_hash_of_an_unknown_group_names_the_nearest():
    config = PrepareConfig(hash_splits={"test": 0.1}, hash_group="speakr")
    with pytest.raises(ConfigError, match='no group "speakr"; did you mean "speaker"'):
        splits.check_splits(config, {"speaker", "label"})


def test_the_split_of_speech_commands_is_the_official_one(data_folder):
    """ORIGIN.csv holds what the corpus's own `which_set` gave for each file."""
    names = {"training": "train", "validation": "validation", "testing": "test"}
    config = PrepareConfig(hash_splits={"validation": 0.1, "test": 0.1}, hash_group="speaker",
                           hash_function="speech_commands")
    lines = (data_folder / "speech_commands" / "ORIGIN.csv").read_text().splitlines()[1:]
    for line in lines:
        path, _, split = line.split(",")
        speaker = path.split("/")[1].split("_nohash_")[0]
        assert splits.split_of(config, path, {"speaker": speaker}) == names[split], path
    assert len(lines) == 528
