"""The reference engine is judged by the training form of the models, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import make_coefficients, make_rnn, make_wavenet, random_codes
from wavegen.audio import lpc
from wavegen.engines import ModelConditioning, build_engine
from wavegen.errors import ConfigError
from wavegen.models import ConditioningInputs

INPUTS = ConditioningInputs(label=torch.tensor([2, 0]), num_samples=torch.tensor([60, 90]))
MODELS = {
    "plain": lambda: make_wavenet(),
    "odd": lambda: make_wavenet(7, 13, 5, (1, 3, 2), 30, kernel_size=3, input_kernel_size=1, input_taps=4,
                                input_tanh=True, residual_scale=0.7, skip_scale=0.3),
    "no bias": lambda: make_wavenet(bias=False, dilations=(2,)),
    "conditional": lambda: make_wavenet(label=True),
    "rnn": lambda: make_rnn(),
    "conditional rnn": lambda: make_rnn(label=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_the_training_form(name):
    model = MODELS[name]()
    codes = random_codes(model.quantization_channels, 2, 75)
    inputs = INPUTS if "conditional" in name else ConditioningInputs()
    conditioning = ModelConditioning(model, inputs)
    previous = np.concatenate([np.full((2, 1), model.silence), codes[:, :-1]], axis=1)
    with torch.inference_mode():
        expected = model(torch.from_numpy(previous), inputs).numpy()
    found = build_engine(model, "reference").logits(codes, conditioning)
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() < 3e-5
    single = build_engine(model, "reference", "f32").logits(codes, conditioning)
    assert single.dtype == np.float32 and np.abs(found - single).max() < 3e-5


def test_intermediate_results_have_names_and_shapes():
    model = make_wavenet(6, 10, 12, (1, 2, 4))
    layers = build_engine(model, "reference").layers(random_codes(64, 2, 5))
    assert {name: array.shape for name, array in layers.items()} == {
        "h": (2, 5, 3, 6), "z": (2, 5, 3, 6), "s": (2, 5, 10), "o": (2, 5, 12), "logits": (2, 5, 64)}


def test_no_samples_no_trouble():
    engine = build_engine(make_wavenet(), "reference")
    assert engine.logits(np.zeros((2, 0), np.int64)).shape == (2, 0, 64)
    assert engine.step(engine.start(2), 0).shape == (2, 0)


@pytest.mark.parametrize("options", [{}, {"input_taps": 20, "input_tanh": True, "kernel_size": 3}, {"lpc_order": 5}])
@pytest.mark.parametrize("quantization_channels", [64, 99])
def test_the_excitation_of_an_analysis_gives_the_logits_of_the_training_form(options, quantization_channels):
    model = make_wavenet(signal_path="lpc", quantization_channels=quantization_channels, **options)
    coefficients = make_coefficients(0, 2, 5, model.lpc_order)
    signal = np.random.default_rng(0).normal(scale=0.2, size=(2, 75)).astype(np.float32)
    analysis = lpc.analyze(signal, coefficients, model.hop_length, quantization_channels)
    inputs = ConditioningInputs(prediction=torch.from_numpy(coefficients))
    with torch.inference_mode():
        expected = model(torch.from_numpy(analysis.inputs), inputs, torch.from_numpy(analysis.signal)).numpy()
    conditioning = ModelConditioning(model, inputs)
    found = build_engine(model, "reference").logits(analysis.codes, conditioning)
    assert np.abs(found - expected).max() < 3e-5
    single = build_engine(model, "reference", "f32").logits(analysis.codes, conditioning)
    assert np.abs(found - single).max() < 3e-5, "the signal path is float32 in every precision"


def test_codes_of_the_wrong_signal_path_are_refused():
    model = make_wavenet(signal_path="lpc", input_taps=2)
    with pytest.raises(ConfigError, match=r"path lpc takes codes \(B, T, 3\)"):
        model(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ConfigError, match="needs the coded signal"):
        model(torch.zeros(1, 5, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"path direct takes codes \(B, T\)"):
        make_wavenet()(torch.zeros(1, 5, 3, dtype=torch.int64))
