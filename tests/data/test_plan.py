"""Which recordings there are, what they are called, in which order."""

from __future__ import annotations

import json
import os

import pytest

from wavegen.config import PrepareConfig
from wavegen.data.plan import build_plan, differences
from wavegen.errors import BadInputError, ConfigError


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.wav", "a.WAV", "b/1.wav", "b/c/3.flac", ".git/x.wav", "b/._1.wav", "text.txt", "store/c.u8"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(name.encode())
    return tmp_path / "data"


@pytest.fixture
def plan_of(folder, tmp_path):
    """Builds the plan of a folder and gives its items; keeps the plan open until the test ends."""
    plans = []

    def build(**config):
        plans.append(build_plan(tmp_path / f"{len(plans)}.sqlite", folder, PrepareConfig(**config), folder / "store"))
        return list(plans[-1].items())

    build.plans = plans
    yield build
    for plan in plans:
        plan.close()


@pytest.mark.parametrize(("glob", "names"), [
    ("**/*", ["a.WAV", "b/1.wav", "b/2.wav", "b/c/3.flac", "text.txt"]),
    ("**/*.wav", ["a.WAV", "b/1.wav", "b/2.wav"]),
    ("*.wav", ["a.WAV"]),
    ("b/*", ["b/1.wav", "b/2.wav"]),
    ("b/**", ["b/1.wav", "b/2.wav", "b/c/3.flac"]),
    ("**/[12].wav", ["b/1.wav", "b/2.wav"]),
    ("**/[!1].wav", ["a.WAV", "b/2.wav"]),
    ("?/**/3.*", ["b/c/3.flac"]),
])
def test_files_are_found_in_the_order_of_their_paths(plan_of, glob, names):
    assert [item.source for item in plan_of(glob=glob)] == names


def test_a_pattern_says_what_a_file_is(plan_of):
    items = plan_of(pattern=r"(?:.*/)?(?P<label>\d)\.(?P<kind>wav|flac)", splits={"test": {"kind": ("flac",)}})
    assert [(item.label, item.split, item.reason) for item in items] == [
        (None, "train", "its name does not match prepare.pattern"), ("1", "train", None), ("2", "train", None),
        ("3", "test", None), (None, "train", "its name does not match prepare.pattern")]
    assert items[1].id == "b/1.wav" and items[1].bytes == len("b/1.wav")


def test_rules_name_the_label_first_come_first_served(plan_of):
    rules = (("second", "2[.]wav"), ("upper", r"a\.wav"), ("b", "b/"))
    items = plan_of(pattern=r"(?P<id>.*)\.\w+", label_rules=rules)
    assert [(item.source, item.label) for item in items] == [
        ("a.WAV", "upper"), ("b/1.wav", "b"), ("b/2.wav", "second"), ("b/c/3.flac", "b"), ("text.txt", None)]
    assert items[-1].reason == "no expression of prepare.label_rules is found in its name"


def test_an_unknown_label_names_the_nearest(plan_of):
    items = plan_of(glob="b/*.wav", pattern=r"b/(?P<label>\d)\.wav", labels=("1", "22"))
    assert items[0].reason is None
    assert items[1].reason == 'its label "2" is not in prepare.labels; did you mean "22"? Known: 1, 22'


def test_two_recordings_of_one_id_are_an_error(plan_of):
    with pytest.raises(ConfigError, match=r'2 recordings have the id "b", among them b/1.wav and b/2.wav'):
        plan_of(glob="b/*.wav", pattern=r"(?P<id>b)/\d\.wav")


@pytest.mark.parametrize(("config", "error", "message"), [
    ({"glob": "*.ogg"}, BadInputError, r'no file below .* matches prepare.glob "\*.ogg"'),
    ({"pattern": "(?P<label"}, ConfigError, "not a regular expression"),
    ({"pattern": r"(?P<label>\d)"}, ConfigError, 'none of the 5 files .* for example "'),
    ({"splits": {"test": {"speker": ("x",)}}}, ConfigError, 'no group "speker"; did you mean "speaker"'),
    ({"manifest": "none.jsonl"}, BadInputError, "there is no manifest .*none.jsonl"),
    ({"label_rules": (("a", "(a"),)}, ConfigError, "prepare.label_rules, a is not a regular expression"),
    ({"label_rules": (("a", "a"),), "pattern": r"(?P<label>.*)"}, ConfigError, "both name the label"),
    ({"label_rules": (("a", "a"),), "manifest": "list.jsonl"}, ConfigError, "label_rules is for file names"),
    ({"hash_group": "speker"}, ConfigError, 'no group "speker"; did you mean "speaker"'),
])
def test_settings_that_cannot_be_met_are_named(plan_of, config, error, message):
    with pytest.raises(error, match=message):
        plan_of(**config)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"no folder .*nowhere; --data names"):
        build_plan(tmp_path / "plan.sqlite", tmp_path / "nowhere", PrepareConfig(), tmp_path)


def test_a_manifest_says_everything_in_its_order(plan_of, folder):
    lines = [{"path": "b/2.wav", "label": 2, "speaker": "anna", "id": "second", "text": "zwei é", "split": "dev"},
             {"path": "a.WAV"}, {"path": "b/none.wav", "label": None},
             {"path": "a\0b.wav"}]
    (folder / "list.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    items = plan_of(manifest="list.jsonl", splits={"test": {"id": ("second", "a.WAV")}})
    assert [(item.source, item.id, item.label, item.speaker, item.text, item.split) for item in items] == [
        ("b/2.wav", "second", "2", "anna", "zwei é", "dev"), ("a.WAV", "a.WAV", None, None, None, "test"),
        ("b/none.wav", "b/none.wav", None, None, None, "train"),
        ("a\0b.wav", "a\0b.wav", None, None, None, "train")]


@pytest.mark.parametrize(("line", "message"), [
    ("{", "line 2 is not JSON"), ("[1]", 'line 2 needs a "path"'), ('{"label": "x"}', 'needs a "path"'),
    ('{"path": "a", "speker": "x"}', 'unknown key "speker"; did you mean "speaker"'),
    ('{"path": "a", "text": "\\ud800"}', '"text" must be text'),
    ('{"path": "a", "label": 1.5}', '"label" must be text, found 1.5'), ('{"path": "../a"}', "must lie below"),
    ('{"path": "/a"}', "must lie below"), ('{"path": "a.WAV"}', '2 recordings have the id "a.WAV"'),
])
def test_a_bad_line_of_a_manifest_is_named(plan_of, folder, line, message):
    (folder / "list.jsonl").write_text('{"path": "a.WAV"}\n' + line)
    with pytest.raises(ConfigError, match=message):
        plan_of(manifest="list.jsonl")


def test_an_empty_manifest_is_named(plan_of, folder):
    (folder / "list.jsonl").write_text("\n")
    with pytest.raises(BadInputError, match="is empty"):
        plan_of(manifest="list.jsonl")


def test_links_are_followed_once(plan_of, folder):
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    (folder / "copy.wav").symlink_to(folder / "b/1.wav")
    assert [item.source for item in plan_of(glob="**/*.wav")] == [
        "a.WAV", "b/1.wav", "b/2.wav", "copy.wav", "gone.wav"]


def test_a_name_that_is_not_utf8_is_reported(plan_of, folder):
    try:
        with open(os.fsencode(folder) + b"/b/\xff.wav", "wb"):
            pass
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    items = plan_of(glob="**/*.wav")
    assert [item.source for item in items if item.reason] == ["b/\\xdcff.wav"] or \
        [item.source for item in items if item.reason] == ["b/\\udcff.wav"]


def test_the_fingerprints_notice_what_they_should(plan_of, folder):
    def prints(**config):
        plan_of(**config)
        return plan_of.plans[-1].sources, plan_of.plans[-1].fingerprint

    before = prints()
    assert prints() == before
    os.utime(folder / "b/1.wav", ns=(1, 1))
    touched = prints()
    assert touched[0] == before[0] and touched[1] != before[1]
    (folder / "b/1.wav").write_bytes(b"longer than before")
    assert prints()[0] != before[0]
    assert prints(hash_splits={"test": 0.5})[0] != before[0]


def test_differences_are_named_by_their_path():
    found, wanted = {"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 1, "c": 3}, "d": "x", "e": 0}
    assert differences(found, wanted) == ["a.c is 2 there, 3 here", 'd is null there, "x" here',
                                          "e is null there, 0 here"]
    assert differences(found, found) == []
