from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import torch

from networks import make_rnn, make_wavenet, random_codes
from wavegen.engines import build_engine, numba_engine
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError, EngineUnavailableError, ModelFileError
from wavegen_kernels.cpu import host


@pytest.fixture(scope="module")
def model():
    return make_wavenet()


def test_auto_takes_the_fused_engine_and_says_why(model, caplog):
    with caplog.at_level(logging.INFO, logger="wavegen.engines"):
        engine = build_engine(model)
    assert (engine.name, engine.precision) == ("numba", "f32")
    assert 'engine "auto" is numba: the fastest on a CPU' in caplog.text


def test_auto_takes_the_reference_where_nothing_else_runs(model, caplog):
    with caplog.at_level(logging.INFO, logger="wavegen.engines"):
        assert build_engine(make_rnn()).name == "reference"
        assert build_engine(model, precision="f64").name == "reference"
    assert "this model is rnn" in caplog.text and "the only engine with precision f64" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "numbra"}, 'no engine "numbra"; did you mean "numba"'),
        ({"engine": "refrence"}, 'did you mean "reference"'),
        ({"engine": "numba", "precision": "f23"}, 'the numba engine has no precision "f23"; did you mean "f32"'),
        ({"engine": "numba", "precision": "f64"}, "Known: auto, f32"),
        ({"engine": "reference", "device": "cpux"}, 'no device "cpux"'),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(model, arguments, message):
    with pytest.raises(ConfigError) as raised:
        build_engine(model, **arguments)
    assert message in str(raised.value)


def test_an_explicit_engine_never_falls_back(model, monkeypatch):
    with pytest.raises(EngineUnavailableError, match='runs WaveNet only, this model is "rnn"'):
        build_engine(make_rnn(), "numba")
    with pytest.raises(EngineUnavailableError, match='not on device "cuda"'):
        build_engine(model, "numba", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailableError, match="finds no NVIDIA GPU"):
        build_engine(model, "reference", device="cuda")


def test_the_gpu_engine_says_what_is_missing(model, monkeypatch, caplog):
    pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailableError, match='runs WaveNet only, this model is "rnn"'):
        build_engine(make_rnn(), "triton")
    with pytest.raises(EngineUnavailableError, match="needs an NVIDIA GPU, and torch finds none here"):
        build_engine(model, "triton")
    with pytest.raises(EngineUnavailableError, match='NVIDIA GPUs only, not on device "cpu"'):
        build_engine(model, "triton", device="cpu")
    with pytest.raises(ConfigError, match='no device "cuda1"'):
        build_engine(model, "triton", device="cuda1")
    with pytest.raises(ConfigError, match='the triton engine has no precision "i8"'):
        build_engine(model, "triton", "i8")
    with pytest.raises(ConfigError, match="runs on the threads torch is set to"):
        build_engine(model, "triton", threads=2)
    with pytest.raises(EngineUnavailableError, match="finds no NVIDIA GPU"), \
            caplog.at_level(logging.INFO, logger="wavegen.engines"):
        build_engine(model, "auto", device="cuda")
    assert 'the only engine that runs on device "cuda": the triton engine needs an NVIDIA GPU' in caplog.text


def test_the_gpu_engine_says_that_triton_is_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.runtime.errors", None)
    monkeypatch.delitem(sys.modules, "wavegen.engines.triton_engine", raising=False)
    with pytest.raises(EngineUnavailableError, match="needs the package triton, which exists for Linux only"):
        build_engine(model, "triton")


def test_kernels_can_be_forced_by_the_environment(model, monkeypatch):
    monkeypatch.setenv(numba_engine.KERNELS_VARIABLE, "plain")
    assert build_engine(model, "numba").kernels == "plain"
    monkeypatch.setenv(numba_engine.KERNELS_VARIABLE, "plane")
    with pytest.raises(ConfigError, match=r'no kernels "plane".*did you mean "plain"'):
        build_engine(model, "numba")


def test_an_unknown_processor_gets_plain_loops(model, monkeypatch):
    monkeypatch.setattr(host, "vector_target", lambda: None)
    assert build_engine(model).kernels == "plain"
    with pytest.raises(EngineUnavailableError, match="need AVX-512, AVX2 with FMA, or NEON"):
        numba_engine.NumbaEngine(network_of(model), kernels="vector")


@pytest.mark.parametrize("make", [make_wavenet, make_rnn])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_weights_that_are_not_finite_are_refused(make, engine):
    broken = make()
    with torch.no_grad():
        broken.end_weight[0, 0] = float("nan")
    with pytest.raises(ModelFileError, match='"end_weight" holds NaN or infinity'):
        build_engine(broken, engine)


@pytest.mark.parametrize("engine", ["numba", "reference"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, found 0"),
        ({"seeds": -1}, r"seeds must be whole numbers in \[0, 2\*\*64\), found -1"),
        ({"seeds": [1, 2]}, "seeds has 2 entries for a batch of 1"),
        ({"streams": [0.5]}, "streams must be whole numbers"),
        ({"temperature": 0.0}, "temperature must be above 0, found 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"min_p": 1.5}, r"min_p must lie in \[0, 1\]"),
        ({"min_p": [0.1, 0.2]}, "min_p has shape"),
    ],
)
def test_options_out_of_range_are_named(model, engine, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_engine(model, engine).start(**arguments)


@pytest.mark.parametrize("engine", ["numba", "reference"])
def test_wrong_arguments_of_step_and_logits_are_named(model, engine):
    engine = build_engine(model, engine)
    state = engine.start(2)
    for num_samples in (-1, 2.0, True):
        with pytest.raises(ConfigError, match="num_samples must be a whole number"):
            engine.step(state, num_samples)
    with pytest.raises(ConfigError, match=r"uniforms must have shape \(2, 5\)"):
        engine.step(state, 5, np.zeros((2, 4)))
    with pytest.raises(ConfigError, match=r"uniforms must lie in \[0, 1\)"):
        engine.step(state, 1, np.ones((2, 1)))
    with pytest.raises(ConfigError, match=r"codes must lie in \[0, 64\)"):
        engine.logits(random_codes(100, 1, 50))
    with pytest.raises(ConfigError, match="codes must be integers of shape"):
        engine.logits(np.zeros((2, 3)))
    assert state.position == 0


def test_a_state_belongs_to_its_engine(model):
    fused, reference = build_engine(model, "numba"), build_engine(model, "reference")
    with pytest.raises(ConfigError, match="NumbaState"):
        reference.step(fused.start(), 1)
    with pytest.raises(ConfigError, match="ReferenceState"):
        fused.step(reference.start(), 1)
    for name in ("numba", "reference"):
        with pytest.raises(ConfigError, match="of another engine"):
            build_engine(model, name).step(build_engine(model, name).start(), 1)


@pytest.mark.parametrize("engine", ["numba", "reference"])
def test_extreme_options_give_codes(model, engine):
    engine = build_engine(model, engine)
    greedy = engine.step(engine.start(2, temperature=1e-30), 20)
    top = engine.step(engine.start(2, seeds=5, min_p=1.0), 20)
    assert np.array_equal(greedy[0], greedy[1]) and np.array_equal(greedy, top)
    hot = engine.step(engine.start(1, temperature=1e6), 400)
    assert len(np.unique(hot)) > 50
