"""The GPU engine, interpreted: against the float64 reference, and the laws bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import (
    assert_layers_agree,
    assert_same_codes,
    make_coefficients,
    make_uniforms,
    make_wavenet,
    random_codes,
)
from wavegen.engines import ModelConditioning, TableConditioning, build_engine
from wavegen.engines.packing import network_of
from wavegen.engines.triton_engine import Plan, TritonEngine
from wavegen.errors import ConfigError, EngineUnavailableError, WavegenError
from wavegen.models import ConditioningInputs

MODELS = {
    "odd": make_wavenet(24, 37, 19, (1, 4, 3), 100, kernel_size=3, input_taps=5, input_tanh=True, residual_scale=0.8,
                        skip_scale=0.4, label=True),
    "even": make_wavenet(32, 64, 32, (1, 2, 8), 64),
    "lpc": make_wavenet(16, 16, 32, (1, 2), 64, signal_path="lpc", lpc_order=6, input_taps=20),
}
COEFFICIENTS = make_coefficients(0, 3, 4, 6)
LABELS, LENGTHS = torch.tensor([2, 0, 1]), torch.tensor([50, 70, 60])
TOLERANCE = {"f16": 5e-3, "bf16": 5e-2, "f32": 1e-4}
_made: dict = {}


def engine_of(name, precision="f16", **options):
    key = (name, precision, *options)
    if key not in _made:
        _made[key] = TritonEngine(network_of(MODELS[name]), conditioning(name, (0, 1)), precision, **options)
    return _made[key]


def reference_of(name):
    if name not in _made:
        _made[name] = build_engine(MODELS[name], "reference")
        _made[name].default_conditioning = conditioning(name, (0, 1))
    return _made[name]


def conditioning(name, rows):
    """Of these rows of one batch of three; "even" is told nothing."""
    model, rows = MODELS[name], list(rows)
    if name == "lpc":
        layers, columns = model.config.num_layers, 2 * model.config.residual_channels
        table = np.random.default_rng(5).normal(scale=0.3, size=(3, 4, layers, columns))
        return TableConditioning(table[rows], 9, COEFFICIENTS[rows])
    inputs = ConditioningInputs(label=LABELS[rows], num_samples=LENGTHS[rows]) if name == "odd" else None
    return ModelConditioning(model, inputs)


def start(name, rows=(0, 1, 2), precision="f16"):
    return engine_of(name, precision).start(len(rows), conditioning(name, rows), seeds=2**63 + 9, streams=list(rows),
                                            temperature=[(1.0, 0.8, 1.3)[row] for row in rows],
                                            min_p=[(0, 0.05, 0)[row] for row in rows])


@pytest.mark.parametrize(("name", "precision"), [("odd", "f16"), ("even", "f16"), ("lpc", "f16"), ("odd", "f32"),
                                                 ("even", "bf16")])
def test_every_layer_and_the_logits_agree_with_float64(name, precision):
    engine, reference = engine_of(name, precision), reference_of(name)
    codes = random_codes(engine.network.quantization_channels, 2, 24)
    assert_layers_agree(engine, reference, codes, TOLERANCE[precision])
    state = engine.start(2)
    found = np.concatenate([engine.prefill(state, part, want_logits=True) for part in np.split(codes, [7], 1)], 1)
    assert np.abs(found - reference.logits(codes)).max() < TOLERANCE[precision]


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_the_references_under_the_same_uniforms(name):
    engine, reference = engine_of(name, "f32"), reference_of(name)
    options = {"seeds": [3, 4], "temperature": [0.9, 1.2], "min_p": [0.02, 0.0]}
    found = engine.step(engine.start(2, **options), 18)
    expected = reference.step(reference.start(2, **options), 18)
    assert_same_codes(found, expected, reference, reference.start(2, **options).rows.uniforms(0, 18))
    uniforms = make_uniforms(1, 2, 5)
    found = engine.step(engine.start(2), 5, uniforms)
    assert_same_codes(found, reference.step(reference.start(2), 5, uniforms), reference, uniforms)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_copies_and_company_never_change_a_sample(name):
    engine, state = engine_of(name), start(name)
    first = engine.step(state, 6)
    copy = state.copy()
    rest = engine.step(state, 7)
    assert np.array_equal(np.concatenate([engine.step(copy, 1), engine.step(copy, 6)], 1), rest)
    together = np.concatenate([first, rest], 1)
    assert np.array_equal(engine.step(start(name, (2, 0)), 13), together[[2, 0]])
    crowd = engine.step(start(name, (0, 1, 2) * 6), 13)
    assert np.array_equal(crowd[[0, 4, 17]], together)


def test_a_redraw_changes_the_future_of_its_rows_alone():
    engine, state = engine_of("lpc"), start("lpc")
    engine.step(state, 6)
    again = state.copy()
    again.redraw(streams=[0, 77, 2], temperature=[1.0, 0.5, 1.3])
    future, other = engine.step(state, 9), engine.step(again, 9)
    assert np.array_equal(other[[0, 2]], future[[0, 2]]) and not np.array_equal(other[1], future[1])


@pytest.mark.parametrize("name", MODELS)
def test_prefill_then_generate_is_generate(name):
    engine, state = engine_of(name), start(name)
    codes = engine.step(state, 18)
    warm = start(name)
    assert engine.prefill(warm, codes[:, :9]) is None
    engine.prefill(warm, codes[:, 9:13])
    assert warm.position == 13
    assert np.array_equal(engine.step(warm, 5), codes[:, 13:])


@pytest.mark.parametrize("name", ["odd", "lpc"])
def test_rows_come_and_go_and_the_others_never_notice(name):
    engine, state = engine_of(name), start(name)
    alone = {row: engine.step(start(name, (row,)), 15)[0] for row in range(3)}
    parts = [engine.step(state, 4)]
    engine.retire(state, [1])
    parts.append(engine.step(state, 3))
    engine.admit(state, [1, 0], conditioning(name, (2, 1)), seeds=2**63 + 9, streams=[2, 1], temperature=[1.3, 0.8],
                 min_p=[0, 0.05])
    twin = state.copy()
    parts.append(engine.step(state, 8))
    assert np.array_equal(engine.step(twin, 8), parts[2])
    codes, silence = np.concatenate(parts, 1), engine.silence
    assert np.array_equal(codes[2], alone[2])
    assert np.array_equal(codes[0], np.concatenate([alone[0][:7], alone[1][:8]]))
    assert np.array_equal(codes[1], np.concatenate([alone[1][:4], [silence] * 3, alone[2][:8]]))
    engine.retire(state, [0, 1, 2])
    assert (engine.step(state, 4) == silence).all() and state.position == 19


def test_a_small_device_gets_the_conditioning_piece_by_piece(monkeypatch):
    expected = engine_of("odd").step(start("odd"), 12)
    monkeypatch.setattr("wavegen.engines.triton_engine.TABLE_BYTES", 1)
    monkeypatch.setattr("wavegen.engines.triton_engine.LAUNCH_SAMPLES", 5)
    assert np.array_equal(engine_of("odd").step(start("odd"), 12), expected)


def test_tiles_and_parts_give_the_same_sound():
    codes = random_codes(64, 2, 6)
    for plan in (Plan(rows=32, parts=2), Plan(stages=1), Plan(fast=True)):
        other = TritonEngine(network_of(MODELS["even"]), plan=plan)
        assert np.abs(other.logits(codes) - engine_of("even").logits(codes)).max() < 1e-3


def test_build_engine_takes_it_by_name():
    engine = build_engine(MODELS["even"], "triton", device="cpu")
    assert (engine.name, engine.precision) == ("triton", "f16")
    assert build_engine(MODELS["even"], "triton", "f32").precision == "f32"
    fast = build_engine(MODELS["even"], "triton", "f16-fast")
    assert fast.precision == "f16-fast" and fast.plan_for(1).fast and fast.step(fast.start(), 1).shape == (1, 1)
    with pytest.raises(ConfigError, match="f32-fast"):
        build_engine(MODELS["even"], "triton", "f32-fast")
    assert engine.step(engine.start(), 0).shape == (1, 0)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_numbers_that_overflow_are_an_error_not_a_sound():
    model = make_wavenet(16, 16, 16, (1, 2), 64)
    with torch.no_grad():
        model.output_bias.fill_(1e6)
    engine = TritonEngine(network_of(model), plan=Plan())
    state = engine.start(2)
    with pytest.raises(WavegenError, match='leave the range of f16 in row 0, sample 0; use precision="bf16"'):
        engine.step(state, 6)
    with pytest.raises(ConfigError, match="lost when a generation was broken off"):
        engine.step(state, 1)
    with torch.no_grad():
        model.skip_weight[0, 0] = 1e6
    with pytest.raises(EngineUnavailableError, match="skip weights of this model leave the range of f16"):
        TritonEngine(network_of(model))
    assert TritonEngine(network_of(model), precision="bf16").precision == "bf16"


def test_wrong_arguments_are_named():
    engine = engine_of("even")
    state = engine.start(2)
    with pytest.raises(ConfigError, match=r"rows must be different whole numbers in \[0, 2\)"):
        engine.retire(state, [2])
    with pytest.raises(ConfigError, match="rows must be different"):
        engine.admit(state, [0, 0])
    with pytest.raises(ConfigError, match="share one hop_length"):
        engine.admit(state, [0], TableConditioning(np.zeros((1, 3, 64)), 7))
    with pytest.raises(ConfigError, match=r"codes must have shape \(2, T\)"):
        engine.prefill(state, random_codes(64, 3, 4))
    with pytest.raises(ConfigError, match="of another engine"):
        engine.step(engine_of("even", "f32").start(), 1)
    assert state.position == 0 and engine.step(state, 1).shape == (2, 1)
