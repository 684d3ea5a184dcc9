import math

import numpy as np
import pytest
import torch
from torch import nn

from tiny import LABELS, SPEAKERS, tiny_model, tiny_spec
from wavegen.errors import ConfigError
from wavegen.metrics.bits import bits_per_sample
from wavegen.metrics.tally import tally
from wavegen.models import ConditioningInputs


class Recorder(nn.Module):
    """Even odds for every code; remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, previous_codes, inputs):
        self.seen.append((previous_codes, inputs, self.training))
        return torch.zeros(*previous_codes.shape, 256) + self.weight


def test_even_odds_cost_eight_bits_everywhere(store):
    bits = bits_per_sample(Recorder(), store)
    assert bits.mean == pytest.approx(8) and set(bits.groups) == set(SPEAKERS)
    assert all(value == pytest.approx(8) for value in bits.groups.values())
    rows = store.rows("test")
    assert (bits.num_clips, bits.num_samples) == (len(rows), store.lengths[rows].sum())


def test_the_model_sees_the_codes_before_each_sample_and_the_conditions(store):
    model = Recorder()
    bits_per_sample(model, store, batch_samples=1)  # every clip is a batch of its own
    shown = 0
    for row in store.rows("test"):
        codes = torch.from_numpy(store.codes(int(row)).astype(np.int64))
        previous, inputs, training = next(
            one for one in model.seen if one[0].shape[1] == len(codes) and torch.equal(one[0][0, 1:], codes[:-1])
        )
        assert previous[0, 0] == 128 and not training
        assert inputs.label.tolist() == [store.label_ids[row]]
        assert inputs.speaker.tolist() == [store.speaker_ids[row]]
        assert inputs.num_samples.tolist() == [len(codes)]
        shown += 1
    assert shown == len(model.seen)


def test_neither_padding_nor_company_changes_the_bits(store):
    model = tiny_model(tiny_spec())
    alone = bits_per_sample(model, store, batch_samples=1)
    together = bits_per_sample(model, store, batch_samples=10**9)
    assert alone.mean == pytest.approx(together.mean, rel=1e-6)
    assert alone.groups == pytest.approx(together.groups, rel=1e-6)


def test_bits_are_the_likelihood_of_each_clip(store):
    model = tiny_model(tiny_spec()).eval()
    total, count = 0.0, 0
    for row in store.rows("test"):
        codes = torch.from_numpy(store.codes(int(row)).astype(np.int64))
        previous = torch.cat([torch.tensor([128]), codes[:-1]])[None]
        told = ConditioningInputs(
            torch.tensor([store.label_ids[row]]).long(),
            torch.tensor([store.speaker_ids[row]]).long(),
            torch.tensor([len(codes)]),
        )
        with torch.no_grad():
            likelihood = model(previous, told).log_softmax(-1)[0].gather(1, codes[:, None])
        total, count = total - likelihood.sum().item() / math.log(2), count + len(codes)
    assert bits_per_sample(model, store).mean == pytest.approx(total / count, rel=1e-6)


def test_the_model_is_left_in_its_mode(store):
    model = Recorder().train()
    bits_per_sample(model, store)
    assert model.training
    bits_per_sample(model.eval(), store)
    assert not model.training


def test_progress_ends_with_all_clips(store):
    told = []
    bits_per_sample(Recorder(), store, on_clip=told.append)
    assert told[-1] == len(store.rows("test")) and told == sorted(told)


def test_an_unknown_split_is_named(store):
    with pytest.raises(ConfigError, match="tset"):
        bits_per_sample(Recorder(), store, split="tset")


def test_a_tally_weighs_clips_by_their_samples():
    bits = tally(np.array([10.0, 60.0, 0.0]), np.array([10, 20, 0]), np.array([0, 1, 2]), ("a", "b", "c"))
    assert bits.mean == pytest.approx(70 / 30)
    assert bits.groups == {"a": 1.0, "b": 3.0}  # c has no samples
    assert bits.to_dict()["num_clips"] == 3


def test_a_tally_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        tally(np.zeros(0), np.zeros(0, np.int64))


def test_the_tones_are_the_tiny_model_s_vocabulary(store):
    assert (store.labels, store.speakers) == (LABELS, SPEAKERS)
