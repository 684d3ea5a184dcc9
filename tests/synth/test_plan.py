"""What a request means: labels, lengths, streams, and which mistakes it may hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tiny import tiny_spec
from wavegen.config import Vocabulary
from wavegen.errors import ConfigError
from wavegen.synth.plan import LABEL_STREAM, Request, clip_samples, plan_clip, split_labels

SPEC = tiny_spec()
GOOD = Request(label="1", speaker="ben")


def test_the_length_lies_between_the_quartiles_and_a_tail_follows():
    plans = [plan_clip(replace(GOOD, clip=clip), SPEC)[0] for clip in range(200)]
    lengths = [plan.intended_samples for plan in plans]
    shortest, _, longest = SPEC.vocabulary.durations[1][1]
    assert shortest <= min(lengths) < shortest + 5
    assert longest - 5 < max(lengths) <= longest
    assert all(plan.num_samples == plan.intended_samples + 480 for plan in plans)


def test_the_length_is_a_function_of_seed_and_clip():
    def length(**changes):
        return plan_clip(replace(GOOD, **changes), SPEC)[0].intended_samples

    assert length(seed=3, clip=5) == length(seed=3, clip=5)
    assert len({length(seed=seed) for seed in range(20)}) > 10
    assert len({length(clip=clip) for clip in range(20)}) > 10


def test_what_the_model_is_not_told_is_averaged_over():
    told = SPEC.model.conditioning.model_copy(update={"label": False})
    spec = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"conditioning": told})})
    lengths = [plan_clip(Request(speaker="ben", clip=clip), spec)[0].intended_samples for clip in range(100)]
    assert (min(lengths) // 10, max(lengths) // 10) == (60, 67)  # of 440 to 520, 600 to 680, 760 to 840


def test_seconds_override_the_usual_length():
    assert plan_clip(replace(GOOD, seconds=0.25), SPEC)[0].intended_samples == 2000


def test_a_model_without_a_clock_gets_no_tail():
    spec = tiny_spec(conditional=False)
    assert plan_clip(Request(seconds=0.25), spec)[0].num_samples == 2000


def test_a_sequence_is_planned_label_by_label():
    plans = plan_clip(replace(GOOD, label=["2", 0, "2"], clip=7), SPEC)
    assert [plan.label for plan in plans] == ["2", "0", "2"]
    assert [plan.stream for plan in plans] == [7, 7 + LABEL_STREAM, 7 + 2 * LABEL_STREAM]
    assert plans[0] == plan_clip(replace(GOOD, label="2", clip=7), SPEC)[0]
    assert clip_samples(plans, SPEC) == sum(plan.num_samples for plan in plans) + 2 * 640


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (None, None),
        ("7", "7"),
        ("3,1,4", ["3", "1", "4"]),
        ("3, 1", ["3", "1"]),
        ("yes,no", "yes,no"),
        ("x,y", ["x", "y"]),
    ],
)
def test_labels_are_split_at_commas_unless_one_has_a_comma(text, labels):
    assert split_labels(text, ["7", "yes,no"]) == labels


def test_numpy_numbers_are_numbers():
    request = Request(label=np.int64(1), speaker="ben", seconds=np.float32(0.5), seed=np.int64(3), clip=np.uint8(2))
    assert plan_clip(request, SPEC) == plan_clip(Request("1", "ben", 0.5, 3, 2), SPEC)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"label": None}, 'model "tiny" needs a label: one of 0, 1, 2'),
        ({"label": []}, "needs a label"),
        ({"label": "7"}, 'no label "7"'),
        ({"label": ["1", "x"]}, 'no label "x"'),
        ({"speaker": None}, 'model "tiny" needs a speaker: one of anna, ben'),
        ({"speaker": "ana"}, 'no speaker "ana"; did you mean "anna"'),
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"seconds": -1.0}, "seconds must be a number above 0"),
        ({"seconds": math.nan}, "seconds must be .* found nan"),
        ({"seconds": math.inf}, "seconds must be .* found inf"),
        ({"seconds": 1e9}, "at most 86400"),
        ({"seconds": 1e-6}, "less than one sample at 8000 Hz"),
        ({"seconds": "1"}, "found '1'"),
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"min_p": -0.1}, r"min_p must be a number in \[0, 1\)"),
        ({"min_p": 1}, r"min_p must be a number in \[0, 1\)"),
        ({"min_p": math.nan}, "min_p"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"clip": -1}, "clip must be a whole number"),
    ],
)
def test_a_mistake_is_named_with_what_would_fit(changes, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        plan_clip(replace(GOOD, **changes), SPEC)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (Request(label="1", seconds=1), 'has no labels, found label "1"'),
        (Request(speaker="anna", seconds=1), 'has no speakers, found speaker "anna"'),
        (Request(), "knows no usual length; say how many seconds"),
    ],
)
def test_a_model_without_conditions_takes_none(request_, complaint):
    with pytest.raises(ConfigError, match=complaint):
        plan_clip(request_, tiny_spec(conditional=False))


def test_an_unconditional_model_may_know_its_usual_length():
    spec = tiny_spec(conditional=False).model_copy(update={"vocabulary": Vocabulary(durations=(((100, 100, 100),),))})
    assert plan_clip(Request(), spec)[0].num_samples == 100
