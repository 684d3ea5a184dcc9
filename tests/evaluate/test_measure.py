import json
import sys

import numpy as np
import pytest

from stores import tones_store
from tiny import save_tiny
from wavegen.audio import io
from wavegen.errors import ConfigError, MissingBackendError, ModelFileError, StoreError
from wavegen.evaluate import evaluate, summary
from wavegen.evaluate.clips import all_requests, recordings, speak_all, spread
from wavegen.synth import load


@pytest.fixture(scope="module")
def report(model, store, judges):
    return evaluate(model, store.path, judge=judges, seeds=2)


def test_all_figures_are_there_and_plain(report, store):
    assert json.loads(json.dumps(report)) == report
    assert report["bits_per_sample"]["clips"] == 12 and 4 < report["bits_per_sample"]["all"] < 12
    assert set(report["bits_per_sample"]["speakers"]) == {"anna", "ben"}
    assert report["generated"]["clips"] == 3 * 2 * 2 and report["generated"]["seeds"] == 2
    assert set(report["generated"]["judges"]) == set(report["judges"]) == {"augmented", "clean"}
    heard = report["generated"]["judges"]["clean"]
    assert set(heard["labels"]) == {"0", "1", "2"} and set(heard["speakers"]) == {"anna", "ben"}
    assert heard["frechet_distance"] > 0
    assert set(report["recordings"]) == {"test", "train"}
    assert report["recordings"]["train"]["clips"] == 12
    assert "frechet_distance" not in report["recordings"]["test"]["judges"]["clean"]
    assert report["store_digest"] == store.digest and report["machine"]["cpu"]


def test_faulty_clips_are_named(report):
    faulty = report["generated"]["faulty"]
    assert all(clip["label"] in "012" and clip["speaker"] in ("anna", "ben") for clip in faulty)
    for fault in ("silent", "noise_like", "unended"):
        share = sum(fault in clip["faults"] for clip in faulty) / report["generated"]["clips"]
        assert share == pytest.approx(report["generated"][fault], abs=1e-4)


def test_recordings_have_no_end_to_judge(report):
    assert report["recordings"]["test"]["unended"] is None
    assert 0 <= report["generated"]["unended"] <= 1


def test_the_summary_has_a_row_for_each_set_of_clips(report):
    lines = summary(report).splitlines()
    rows = [line.split("  ")[0] for line in lines]
    assert {"generated", "recordings, test", "recordings, train"} <= set(rows)
    assert "times real time" in lines[-1] and "None" not in "\n".join(lines)


def test_the_same_model_gives_the_same_figures(model, store, judges, report):
    again = evaluate(model, store.path, judge=judges, seeds=2, engine="reference")
    for name in ("silent", "noise_like", "unended"):
        assert again["generated"][name] == report["generated"][name]
    assert again["bits_per_sample"] == report["bits_per_sample"]


def test_without_a_judge_what_needs_none_is_measured(model, store):
    report = evaluate(model, store.path, seeds=1)
    assert report["judges"] == {} and report["generated"]["clips"] == 6
    assert "no judge was given" in summary(report)


def test_without_seeds_only_the_bits_are_measured(model, store):
    report = evaluate(model, store.path, seeds=0)
    assert report["generated"] is None and "bits per sample" in summary(report)


def test_a_model_without_usual_lengths_says_so_first(tmp_path, store, judges):
    folder = save_tiny(tmp_path / "free", conditional=False)
    told = []
    with pytest.raises(ConfigError, match="how many seconds"):
        evaluate(folder, store.path, judge=judges, seeds=3, progress=lambda *what: told.append(what))
    assert told == []  # nothing was measured in vain
    assert evaluate(folder, store.path, seeds=0)["bits_per_sample"]["clips"] == 12


def test_a_clip_is_what_synth_writes(model):
    voice = load(model)
    spoken = speak_all(voice, all_requests(voice, 2))
    for i in (0, 5, 11):
        alone = voice.generate(
            voice.labels[spoken.label_ids[i]],
            voice.speakers[spoken.speaker_ids[i]],
            seed=int(spoken.seeds[i]),
        )
        assert np.array_equal(alone.waveform, spoken.waveforms[i])
    assert spoken.report.num_samples == sum(map(len, spoken.waveforms))


def test_progress_comes_to_its_end(model, store):
    told = []
    evaluate(model, store.path, seeds=1, progress=lambda *what: told.append(what))
    assert ("reading", 12, 12) in told and told[-1] == ("speaking", 6, 6)


def test_recordings_come_in_groups_and_in_order(store):
    rows = store.rows("train")
    waveforms = [waveform for group in recordings(store, rows) for waveform in group]
    assert [len(waveform) for waveform in waveforms] == store.lengths[rows].tolist()


@pytest.mark.parametrize(("per_group", "count"), [(1, 6), (3, 18), (100, 24)])
def test_a_spread_takes_as_many_of_each_kind(store, per_group, count):
    chosen = spread(store, store.rows("train"), per_group)
    kinds = list(zip(store.label_ids[chosen].tolist(), store.speaker_ids[chosen].tolist(), strict=True))
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert {kinds.count(kind) for kind in kinds} == {count // 6}


@pytest.fixture(scope="module")
def other_names(tmp_path_factory):
    """A store whose labels the model and the judges do not know."""
    return tones_store(tmp_path_factory.mktemp("names"), labels=("0", "1", "9"))


def test_a_store_of_other_names_or_rate_is_refused(tmp_path, model, other_names):
    with pytest.raises(StoreError, match="labels 0, 1, 9"):
        evaluate(model, other_names.path)
    fast = tones_store(tmp_path / "rate", sample_rate=16000)
    with pytest.raises(StoreError, match="sample_rate 16000"):
        evaluate(model, fast.path)


def test_a_judge_of_other_names_is_refused(tmp_path, other_names, judges):
    folder = save_tiny(tmp_path / "free", conditional=False)
    with pytest.raises(ConfigError, match="knows other labels"):
        evaluate(folder, other_names.path, judge=judges, seeds=0)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"seeds": -1}, ConfigError, "seeds"),
        ({"seeds": 0, "html": "page"}, ConfigError, "needs clips"),
        ({"split": "tset"}, ConfigError, "tset"),
        ({"judge": "nowhere"}, ModelFileError, "holds no judge"),
        ({"engine": "nunba"}, ConfigError, "numba"),
    ],
)
def test_a_mistake_is_named(model, store, changes, error, match):
    with pytest.raises(error, match=match):
        evaluate(model, store.path, **changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory, model, store, judges):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder = tmp_path_factory.mktemp("page") / "new"
    evaluate(model, store.path, judge=judges, seeds=2, html=folder)
    return folder


def test_every_clip_has_a_player_and_a_file(page):
    text = (page / "index.html").read_text()
    files = sorted(path.name for path in (page / "audio").iterdir())
    assert len(files) == 12 and files[0] == "0_anna_0.wav"
    assert all(f'src="audio/{name}"' in text for name in files)
    waveform, rate = io.load(page / "audio" / files[0])
    assert rate == 8000 and len(waveform) > 0


def test_each_speaker_has_a_picture(page):
    text = (page / "index.html").read_text()
    for place in range(2):
        assert f"spectrograms-{place}.png" in text
        assert (page / f"spectrograms-{place}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_wrong_clip_is_marked(page):
    assert "class=wrong" in (page / "index.html").read_text()


def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path, model, store):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        evaluate(model, store.path, html=tmp_path / "page")


def test_a_page_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path, model, store, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingBackendError, match="matplotlib"):
        evaluate(model, store.path, html=tmp_path / "page")
    assert not (tmp_path / "page").exists()
