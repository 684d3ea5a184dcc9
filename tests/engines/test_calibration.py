from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import make_coefficients, make_wavenet, random_codes
from wavegen.engines import ModelConditioning, TableConditioning, build_engine
from wavegen.engines.calibration import divergence, divergences, forward, measure_ranges, own_ranges, ranges_of_clips
from wavegen.engines.packing import network_of
from wavegen.engines.ranges import ranges_of
from wavegen.errors import BadInputError
from wavegen.models import ConditioningInputs

MODELS = {
    "plain": {},
    "odd": {"residual": 7, "skip": 13, "output": 5, "dilations": (1, 3, 40), "quantization_channels": 30,
            "kernel_size": 3, "input_kernel_size": 1, "input_taps": 4, "input_tanh": True, "residual_scale": 0.7,
            "skip_scale": 0.3},
    "lpc": {"signal_path": "lpc", "input_taps": 3},
    "no taps, one code": {"input_kernel_size": 1, "bias": False},
}


def told_of(model, rows):
    config = model.config
    table = np.random.default_rng(0).normal(scale=0.3, size=(rows, 4, config.num_layers, 2 * config.residual_channels))
    return TableConditioning(table, 16, make_coefficients(0, rows, 3) if model.lpc_order else None)


@pytest.mark.parametrize("name", MODELS)
def test_the_pass_over_a_clip_is_the_reference_all_at_once(name):
    model = make_wavenet(**MODELS[name])
    network, told = network_of(model), told_of(model, 2)
    codes = random_codes(network.quantization_channels, 2, 75)
    layers = build_engine(model, "reference").layers(codes, told)
    for row in range(2):
        found = forward(network, codes[row], told, row, torch.float64)
        assert np.abs(found.logits - layers["logits"][row]).max() < 1e-10
    expected, found = ranges_of(layers), measure_ranges(network, codes, told)
    for part in ("hidden", "gated", "skip", "output"):
        assert np.allclose(getattr(found, part), getattr(expected, part), atol=1e-5), part


def test_ranges_of_clips_cover_every_clip():
    model = make_wavenet()
    network, told = network_of(model), told_of(model, 1)
    clips = [(random_codes(64, 1, length, seed)[0], told) for seed, length in enumerate((5, 60, 33))]
    whole = ranges_of_clips(network, clips)
    for codes, _ in clips:
        part = measure_ranges(network, codes[None], told)
        assert (part.hidden[..., 0] >= whole.hidden[..., 0]).all() and (part.output <= whole.output).all()


def test_the_divergence_is_nothing_for_float64_and_grows_with_the_error():
    model = make_wavenet()
    network, told = network_of(model), told_of(model, 1)
    clips = [(random_codes(64, 1, 80, seed)[0], told) for seed in range(2)]
    truth = build_engine(model, "reference")
    other = make_wavenet()
    with torch.no_grad():
        other.end_weight.mul_(1.05)
    found = divergences({"same": truth, "off": build_engine(other, "reference")}, network, clips)
    assert found["same"].kl < 1e-12 and abs(found["same"].bits_change) < 1e-10
    assert found["off"].kl > 1e-5 and found["off"].bits - found["off"].bits_change == pytest.approx(found["same"].bits)
    logits = truth.logits(clips[0][0][None], told)[0]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    one = divergence(truth, network, clips[:1])
    assert one.bits == pytest.approx(-np.log2(p[np.arange(80), clips[0][0]]).mean())


def test_own_ranges_need_no_recordings_and_are_the_same_each_time():
    for model in (make_wavenet(label=True), make_wavenet(signal_path="lpc"), make_wavenet(features=3)):
        network = network_of(model)

        def engine(model=model):
            return build_engine(model, "numba", "f32")

        first, second = own_ranges(network, model, engine), own_ranges(network, model, engine)
        first.check(4, 8, 8, 8)
        assert np.array_equal(first.hidden, second.hidden) and (first.hidden[..., 1] > first.hidden[..., 0]).all()


def test_conditioning_that_is_not_finite_is_refused():
    model = make_wavenet(label=True)
    told = ModelConditioning(model, ConditioningInputs(label=torch.tensor([0]), num_samples=torch.tensor([100])))
    with torch.no_grad():
        model.dilated_bias[2, 3] = float("nan")
    with pytest.raises(BadInputError, match="not finite at frame 0, layer 2"):
        measure_ranges(network_of(make_wavenet()), random_codes(64, 1, 20), told)
