"""Texts that a corpus keeps beside its recordings."""

from __future__ import annotations

import logging

import pytest

from wavegen.config import PrepareConfig
from wavegen.data.plan import build_plan
from wavegen.errors import ConfigError

PATTERN = r"(?P<root>.*/)?wavs/(?P<speaker>[^/]+)/(?P<id>[^/]+)\.wav"


@pytest.fixture
def corpus(tmp_path):
    for name in ("anna/a_1", "anna/a_2", "ben/b_1"):
        file = tmp_path / "data/below/wavs" / f"{name}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"sound")
    return tmp_path / "data"


def texts_of(folder, tmp_path, **config):
    plan = build_plan(tmp_path / "plan.sqlite", folder, PrepareConfig(glob="**/*.wav", pattern=PATTERN, **config),
                      tmp_path / "store")
    found = {item.id: item.text for item in plan.items()}
    plan.close()
    return found


@pytest.mark.parametrize("place", ["", "below"])
def test_a_file_a_recording(corpus, tmp_path, place, caplog):
    contents = {"anna/a_1": "\ufeffGr\u00fc\u00df  Gott,\n\"he\" said\n".encode(), "ben/b_1": b"\xff\xfe\xfa"}
    for name, content in contents.items():
        file = corpus / "below/txt" / f"{name}.txt"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = texts_of(corpus / place, tmp_path, text_file="{root}txt/{speaker}/{id}.txt")
    assert found == {"a_1": 'Gr\u00fc\u00df Gott, "he" said', "a_2": None, "b_1": None}
    assert "2 recordings have no text" in caplog.text and "a_2.wav" in caplog.text


def test_a_table_for_all(corpus, tmp_path):
    (corpus / "below/metadata.csv").write_text('a_1|It is 5|It is "five\na_2|Only one\nb_1|raw|\n\nnonsense\n')
    found = texts_of(corpus, tmp_path, text_table="{root}metadata.csv")
    assert found == {"a_1": 'It is "five', "a_2": "Only one", "b_1": "raw"}
    (corpus / "below/metadata.csv").write_text("a_1|changed|\n")
    assert texts_of(corpus, tmp_path, text_table="{root}metadata.csv")["a_1"] == "changed"


@pytest.mark.parametrize(("config", "message"), [
    ({"text_file": "{speakr}.txt"}, "no group \"speakr\".*speaker"),
    ({"text_file": "{id.__class__}.txt"}, "no group"),
    ({"text_file": "{id!r}.txt"}, "no group"),
    ({"text_file": "{id"}, "cannot be read"),
    ({"text_file": "{id}.txt", "text_table": "metadata.csv"}, "keep one of the two"),
])
def test_templates_that_cannot_be_met_are_named(corpus, tmp_path, config, message):
    with pytest.raises(ConfigError, match=message):
        texts_of(corpus, tmp_path, **config)


def test_a_manifest_holds_the_texts_itself(corpus, tmp_path):
    (corpus / "list.jsonl").write_text('{"path": "below/wavs/ben/b_1.wav", "text": "here"}\n')
    config = PrepareConfig(manifest="list.jsonl", text_file="{id}.txt")
    with pytest.raises(ConfigError, match="the manifest holds the text"):
        build_plan(tmp_path / "plan.sqlite", corpus, config, tmp_path)
