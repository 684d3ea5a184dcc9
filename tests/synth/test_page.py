"""The page of a folder names every clip, and nothing in a name can break it."""

from __future__ import annotations

import json

import pytest

import wavegen
from tiny import tiny_family
from wavegen.synth import Request, files, numbered
from wavegen.synth.page import write_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    voice = wavegen.load(tiny_family("wgan", tmp_path_factory.mktemp("models") / "sampler"))
    out = tmp_path_factory.mktemp("out") / "Snärs & </script>".replace("/", "-")
    files.write_clips(voice, [*numbered(Request("1"), 2), Request("2")], out)
    return out


def clips_of(page):
    line = next(line for line in page.read_text().splitlines() if line.startswith("const clips = "))
    return json.JSONDecoder().raw_decode(line.removeprefix("const clips = "))[0]


def test_every_clip_is_on_the_page(folder):
    page = write_page(folder, "my model")
    clips = clips_of(page)
    assert page == folder / "index.html"
    assert [(clip["path"], clip["label"]) for clip in clips] == [("1_00000.wav", "1"), ("1_00001.wav", "1"),
                                                                 ("2_00000.wav", "2")]
    assert all(max(clip["wave"]) == 100 and clip["seconds"] == 0.064 for clip in clips)
    assert all(0 < clip["brightness"] < 4000 and 0 <= clip["noise"] <= 1 for clip in clips)
    assert clips[0]["more"].startswith("wavegen synth 'my model' --near ")
    assert page.read_text().count("</script>") == 1 and "Snärs &amp; &lt;" in page.read_text()


def test_a_title_may_be_a_word_of_the_template(folder):
    page = write_page(folder, "m", title="DATA")
    assert len(clips_of(page)) == 3 and "<b>DATA</b>" in page.read_text()


def test_a_clip_that_is_gone_or_spoiled_is_left_out(folder):
    (folder / "1_00001.wav").unlink()
    (folder / "2_00000.wav").write_bytes(b"nothing")
    assert [clip["path"] for clip in clips_of(write_page(folder, "m"))] == ["1_00000.wav"]
