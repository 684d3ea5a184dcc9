"""The integer precisions: the vector kernels against their plain twin bit for bit, both against float64."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import make_coefficients, make_wavenet, random_codes
from wavegen.engines import TableConditioning, build_engine
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen.engines.ranges import ranges_of
from wavegen.errors import ConfigError
from wavegen_kernels.cpu import host

pytestmark = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
PRECISIONS = ("i16", "i8x15", "i8")
# Of random networks whose logits spread over about one unit: mean KL(float64 || engine), and the largest error of a
# layer's input as a share of the largest input.
KL = {"i16": 1e-6, "i8x15": 2e-4, "i8": 4e-4}
INPUT = {"i16": 3e-3, "i8x15": 2e-2, "i8": 3e-2}
SHAPES = {
    "odd": {"residual": 24, "skip": 37, "output": 19, "dilations": (8, 1, 4, 2, 3), "kernel_size": 3,
            "quantization_channels": 30, "input_taps": 5, "input_tanh": True, "residual_scale": 0.8,
            "skip_scale": 0.4},
    "wide": {"residual": 80, "skip": 130, "output": 100, "dilations": (5, 1, 7), "kernel_size": 4,
             "input_kernel_size": 1, "bias": False, "quantization_channels": 1024},
    "digits": {"residual": 64, "skip": 128, "output": 128, "dilations": tuple(2 ** (i % 10) for i in range(20)),
               "input_taps": 32, "quantization_channels": 256},
}
_made: dict = {}


def make(name):
    """Model, reference, and the ranges of a run of random codes."""
    if name not in _made:
        model = make_wavenet(**SHAPES[name])
        reference = build_engine(model, "reference")
        codes = random_codes(SHAPES[name]["quantization_channels"], 1, 100)
        _made[name] = model, reference, codes, reference.layers(codes)
    return _made[name]


def engine_of(name, precision, kernels="vector"):
    if (name, precision, kernels) not in _made:
        model, _, _, layers = make(name)
        _made[name, precision, kernels] = NumbaEngine(network_of(model), None, kernels, precision, ranges_of(layers))
    return _made[name, precision, kernels]


def divergence(truth, logits):
    """Mean KL in nats."""
    p, q = (x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
            for x in (truth, logits.astype(np.float64)))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.mark.parametrize(("name", "precision"), [
    ("odd", "i16"), ("odd", "i8x15"), ("odd", "i8"), ("wide", "i16"), ("digits", "i8x15"), ("digits", "i8")])
def test_logits_and_layer_inputs_stay_close_to_float64(name, precision):
    _, _, codes, layers = make(name)
    engine = engine_of(name, precision)
    assert divergence(layers["logits"], engine.logits(codes)) < KL[precision]
    state = engine.start(1)
    engine.force(state, codes)
    found, truth = engine.layer_inputs(state), layers["h"][:, -1]
    for layer in range(found.shape[1]):
        error = np.abs(found[:, layer] - truth[:, layer]).max() / np.abs(layers["h"][:, :, layer]).max()
        assert error < INPUT[precision], f"the input of layer {layer} is off by {error:.1e} of its range"


@pytest.mark.parametrize(("name", "precision"), [
    ("odd", "i16"), ("odd", "i8x15"), ("odd", "i8"), ("wide", "i16")])
def test_the_plain_loop_gives_the_same_bits(name, precision):
    vector, plain = (engine_of(name, precision, kernels) for kernels in ("vector", "plain"))
    codes = make(name)[2][:, :25]
    assert np.array_equal(vector.logits(codes), plain.logits(codes))
    options = {"seeds": 7, "temperature": 0.7, "min_p": 0.05}
    assert np.array_equal(vector.step(vector.start(1, **options), 40), plain.step(plain.start(1, **options), 40))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_of_any_size_equals_its_rows(precision):
    engine = engine_of("odd", precision)
    together = engine.step(engine.start(7), 60)
    for row in range(7):
        assert np.array_equal(engine.step(engine.start(1, streams=[row]), 60)[0], together[row])


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=8)
@given(chunks=st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_chunks_and_copies_change_nothing(precision, chunks):
    engine = engine_of("odd", precision)
    whole = engine.step(engine.start(3), sum(chunks))
    state, pieces = engine.start(3), []
    for chunk in chunks:
        state = state.copy()
        pieces.append(engine.step(state, chunk))
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)


def test_threads_change_nothing():
    model, _, _, layers = make("odd")
    alone = engine_of("odd", "i8")
    spread = NumbaEngine(network_of(model), None, "vector", "i8", ranges_of(layers), threads=2)
    assert np.array_equal(spread.step(spread.start(5), 50), alone.step(alone.start(5), 50))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_conditioning_is_held_for_a_hop_and_shared(precision):
    engine, reference = engine_of("odd", precision), make("odd")[1]
    table = np.random.default_rng(0).normal(scale=0.3, size=(3, 4, 5, 48)).astype(np.float32)
    codes = random_codes(30, 3, 40)
    told = TableConditioning(table, hop_length=13)
    assert divergence(reference.logits(codes, told), engine.logits(codes, told)) < 5 * KL[precision]
    shared = engine.logits(codes, TableConditioning(table[:1], 13))
    assert np.array_equal(shared, engine.logits(codes, TableConditioning(np.repeat(table[:1], 3, axis=0), 13)))


def test_the_signal_path_lpc_runs_in_integers():
    model, precision = make_wavenet(16, 16, 16, (1, 2, 4), signal_path="lpc"), "i8"
    told = TableConditioning(np.zeros((1, 1, 3, 32)), 20, make_coefficients(0, 1, 5))
    reference = build_engine(model, "reference")
    codes = random_codes(64, 1, 60)
    layers = reference.layers(codes, told)
    engines = [NumbaEngine(network_of(model), told, kernels, precision, ranges_of(layers))
               for kernels in ("vector", "plain")]
    found = [engine.logits(codes, told) for engine in engines]
    assert np.array_equal(*found) and divergence(layers["logits"], found[0]) < KL[precision]


def test_silence_is_exact_and_what_lies_beyond_the_ranges_is_clipped():
    model, _, codes, layers = make("odd")
    engine = engine_of("odd", "i8")
    inputs = engine.packed.stored_inputs(engine.start(1).rings, 0, 0)
    assert not inputs.any()
    narrow = {**layers, "h": layers["h"] / 4, "s": layers["s"] / 4, "o": layers["o"] / 4}
    clipped = NumbaEngine(network_of(model), None, "vector", "i8", ranges_of(narrow)).logits(codes)
    assert np.isfinite(clipped).all()
    assert divergence(layers["logits"], clipped) < 1  # worse, but no wrapped sums


def test_ranges_of_another_network_are_refused():
    model, _, _, layers = make("odd")
    network = network_of(model)
    with pytest.raises(ConfigError, match=r'"hidden" is \(3, 80, 2\), the network needs \(5, 24, 2\)'):
        NumbaEngine(network, precision="i8", ranges=ranges_of(make("wide")[3]))
    broken = ranges_of({**layers, "s": layers["s"] * np.nan})
    with pytest.raises(ConfigError, match='"skip" holds NaN'):
        NumbaEngine(network, precision="i8", ranges=broken)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64")
@pytest.mark.parametrize(("features", "products", "precision"), [
    ("+avx,+avx2,+fma,-avx512f", "avx2", "i16"),
    ("+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl", "avx512bw", "i8")])
def test_a_cpu_without_vnni_gives_the_same_bits(features, products, precision, tmp_path):
    if products == "avx512bw" and host.vector_target().name != "avx512":
        pytest.skip("needs AVX-512")
    script = f"""
import sys
import numpy as np
from test_quantization import engine_of, make
from wavegen_kernels.cpu import host
assert host.integer_products() == "{products}", host.machine()
np.save(sys.argv[1], engine_of("odd", "{precision}").logits(make("odd")[2][:, :30]))
"""
    here, out = Path(__file__).parent, tmp_path / "logits.npy"
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell", "PYTHONPATH": os.pathsep.join([*sys.path, str(here), str(here.parent)]),
        "NUMBA_CPU_FEATURES": f"+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+bmi,+bmi2,+f16c,{features}"}
    subprocess.run([sys.executable, "-c", script, str(out)], env=environment, check=True, timeout=240)
    expected = engine_of("odd", precision, "plain").logits(make("odd")[2][:, :30])
    assert np.array_equal(np.load(out), expected)
