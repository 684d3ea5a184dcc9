"""Laws of the networks: causality, receptive field, rows, conditioning."""

from __future__ import annotations

import pytest
import torch

from wavegen.config import AudioConfig, ConditioningConfig, RNNConfig, Vocabulary, WaveNetConfig
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs, build_model
from wavegen.training.losses import shift

AUDIO = AudioConfig(sample_rate=8000)
VOCABULARY = Vocabulary(labels=("a", "b", "c"), speakers=("x", "y"))
TOLD = ConditioningConfig(label=True, speaker=True, progress_steps=4, hidden_channels=6, hop_length=8)


def wavenet(**changes):
    torch.manual_seed(0)
    sizes = {"residual_channels": 6, "skip_channels": 10, "output_channels": 9, "dilations": (1, 2, 4)} | changes
    return build_model(WaveNetConfig(**sizes), AUDIO, VOCABULARY).double().eval()


def rnn(**changes):
    torch.manual_seed(0)
    sizes = {"hidden_channels": 11, "embedding_channels": 5, "output_channels": 9} | changes
    return build_model(RNNConfig(**sizes), AUDIO, VOCABULARY).double().eval()


def codes(batch: int, num_samples: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, num_samples), generator=torch.Generator().manual_seed(7))


def told(batch: int) -> ConditioningInputs:
    return ConditioningInputs(label=torch.arange(batch) % 3, speaker=torch.arange(batch) % 2,
                              num_samples=torch.arange(batch) * 13 + 20)


@pytest.mark.parametrize("changes", [
    {}, {"kernel_size": 3}, {"input_kernel_size": 1}, {"input_taps": 9}, {"dilations": (5, 1, 3), "input_taps": 1},
    {"input_tanh": True, "bias": False, "residual_scale": 0.5, "skip_scale": 2.0}])
def test_receptive_field_is_the_measured_one(changes):
    model = wavenet(**changes)
    field, last = model.receptive_field, model.receptive_field + 5
    x = codes(1, last + 1)
    before = model(x)[0, last]

    def changed_by(age: int) -> bool:
        y = x.clone()
        y[0, last + 1 - age] = (y[0, last + 1 - age] + 128) % 256
        return not torch.equal(model(y)[0, last], before)

    # x holds previous codes: x[last] is one sample old.
    assert changed_by(1) and changed_by(field)
    assert not changed_by(field + 1)


@pytest.mark.parametrize("build", [wavenet, rnn])
def test_a_later_input_never_changes_an_earlier_output(build):
    model, x = build(conditioning=TOLD), codes(2, 40)
    y = x.clone()
    y[:, 25:] = 0
    assert torch.equal(model(x, told(2))[:, :25], model(y, told(2))[:, :25])
    assert not torch.equal(model(x, told(2))[:, 25:], model(y, told(2))[:, 25:])


@pytest.mark.parametrize("build", [wavenet, rnn])
def test_a_batch_equals_its_rows(build):
    model, x, given = build(conditioning=TOLD), codes(3, 33), told(3)
    whole = model(x, given)
    for row in range(3):
        alone = ConditioningInputs(given.label[row, None], given.speaker[row, None], given.num_samples[row, None])
        assert torch.allclose(model(x[row, None], alone), whole[row, None], atol=1e-12)


def test_a_step_of_the_rnn_is_a_sample_of_its_forward_pass():
    model, x, given = rnn(conditioning=TOLD), codes(2, 30), told(2)
    table = model.conditioning_table(given, 0, 4)[:, :, 0]
    state, logits = model.initial_state(2), []
    for t in range(30):
        out, state = model.step(x[:, t], state, table[:, t // 8])
        logits.append(out)
    assert torch.allclose(torch.stack(logits, 1), model(x, given), atol=1e-12)


def test_every_condition_reaches_the_output():
    model, x, given = wavenet(conditioning=TOLD), codes(1, 16), told(1)
    base = model(x, given)
    for change in ({"label": torch.tensor([1])}, {"speaker": torch.tensor([1])}, {"num_samples": torch.tensor([50])}):
        other = ConditioningInputs(**{**{"label": given.label, "speaker": given.speaker,
                                         "num_samples": given.num_samples}, **change})
        assert not torch.allclose(model(x, other), base), change


def test_conditioning_comes_in_pieces():
    model, given = wavenet(conditioning=TOLD), told(3)
    whole = model.conditioning_table(given, 0, 10)
    assert whole.shape == (3, 10, 3, 12)
    assert torch.allclose(torch.cat([model.conditioning_table(given, 0, 3), model.conditioning_table(given, 3, 7)], 1),
                          whole, atol=1e-12)
    # After the end the clock stands still.
    late = model.conditioning_table(given, 100, 2)
    assert torch.allclose(late[:, 0], late[:, 1]) and not torch.allclose(late[:, 0], whole[:, 0])


def test_a_window_continues_the_clock_of_its_clip():
    model, given = wavenet(conditioning=TOLD), told(2)
    window = ConditioningInputs(given.label, given.speaker, given.num_samples, start_frame=torch.tensor([2, 0]))
    whole, shifted = model.conditioning_table(given, 0, 4), model.conditioning_table(window, 0, 2)
    assert torch.allclose(shifted[0], whole[0, 2:]) and torch.allclose(shifted[1], whole[1, :2])


def test_missing_conditions_are_named():
    with pytest.raises(ConfigError, match="conditioned on a label"):
        wavenet(conditioning=TOLD)(codes(1, 8), ConditioningInputs())
    with pytest.raises(ConfigError, match="intended length"):
        wavenet(conditioning=TOLD)(codes(1, 8), ConditioningInputs(torch.tensor([0]), torch.tensor([0])))
    with pytest.raises(ConfigError, match="the store has no labels"):
        build_model(WaveNetConfig(residual_channels=2, skip_channels=2, output_channels=2, dilations=(1,),
                                  conditioning=TOLD), AUDIO, Vocabulary())


def test_codes_and_inputs_are_one_sample_apart():
    assert shift(torch.tensor([[5, 6, 7]]), 128).tolist() == [[128, 5, 6]]


def test_silence_before_the_start_changes_nothing():
    """A clip that begins with silence continues as if the silence had not been there."""
    model = wavenet(dilations=(1,), input_taps=3)
    quiet = torch.full((1, 4), model.silence)
    x = codes(1, 20)
    # h is zero before the start but not in silence, so only the embedding is compared.
    assert torch.allclose(model.embed(torch.cat([quiet, x], 1))[4:], model.embed(x))
