"""The fused engine against the float64 reference: layer by layer, logits, codes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from networks import assert_layers_agree, assert_same_codes, make_uniforms, make_wavenet, random_codes
from wavegen.engines import ModelConditioning, TableConditioning, build_engine
from wavegen.engines.numba_engine import NumbaEngine
from wavegen.engines.packing import network_of
from wavegen_kernels.cpu import host

needs_vectors = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
CYCLE = tuple(2 ** (layer % 10) for layer in range(30))

# Sizes that each compile a vector loop; together they reach every branch of packing and kernels.
SHAPES = {
    "tiny": {"residual": 8, "skip": 8, "output": 8, "dilations": (1,), "quantization_channels": 16},
    "odd": {"residual": 24, "skip": 37, "output": 19, "dilations": (1, 2, 4, 8, 3), "kernel_size": 3,
            "quantization_channels": 100, "input_taps": 5, "input_tanh": True, "residual_scale": 0.8,
            "skip_scale": 0.4},
    "three vectors": {"residual": 48, "skip": 130, "output": 80, "dilations": (5, 1, 7), "kernel_size": 4,
                      "input_kernel_size": 1, "bias": False, "quantization_channels": 257},
    "config B": {"residual": 32, "skip": 128, "output": 256, "dilations": CYCLE, "quantization_channels": 256},
    "digits": {"residual": 64, "skip": 128, "output": 128, "dilations": CYCLE[:20], "input_taps": 32,
               "quantization_channels": 256, "residual_scale": 0.9},
    "wide": {"residual": 128, "skip": 256, "output": 256, "dilations": CYCLE[:6], "kernel_size": 3,
             "quantization_channels": 256},
}
# More, for the plain loop, which is compiled once for all.
MORE = {
    f"R{residual} S{skip} K{kernel} L{layers}": {
        "residual": residual, "skip": skip, "output": output, "dilations": CYCLE[:layers], "kernel_size": kernel,
        "quantization_channels": codes, "input_taps": taps}
    for residual, skip, output, kernel, layers, codes, taps in [
        (9, 1, 3, 2, 2, 2, 0), (16, 16, 16, 3, 7, 64, 1), (17, 31, 65, 2, 5, 255, 33), (63, 64, 30, 2, 4, 30, 0),
        (100, 200, 50, 2, 3, 256, 16), (128, 100, 128, 3, 2, 1024, 0), (8, 24, 40, 5, 30, 64, 7)]
}


@pytest.fixture(scope="module")
def engines():
    """(engine under test, reference) of a named shape, made once."""
    made = {}

    def get(name, kernels):
        if (name, kernels) not in made:
            model = make_wavenet(**(SHAPES | MORE)[name])
            made[name, kernels] = (NumbaEngine(network_of(model), ModelConditioning(model), kernels),
                                   build_engine(model, "reference"))
        return made[name, kernels]

    return get


def cases():
    for name in SHAPES:
        yield pytest.param(name, "vector", marks=needs_vectors)
        yield name, "plain"
    for name in MORE:
        yield name, "plain"


@pytest.mark.parametrize(("name", "kernels"), list(cases()))
def test_every_layer_and_the_logits_agree_with_float64(engines, name, kernels):
    engine, reference = engines(name, kernels)
    codes = random_codes(engine.network.quantization_channels, 2, 70)
    assert_layers_agree(engine, reference, codes)
    spread = reference.logits(codes).std()
    assert 0.3 < spread < 30, f"logits that spread over {spread:.2g} prove little"


@pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
@pytest.mark.parametrize("name", ["odd", "digits"])
def test_free_running_codes_equal_the_reference(engines, name, kernels):
    engine, reference = engines(name, kernels)
    num_samples = 2000 if kernels == "vector" else 300
    uniforms = reference.start(1, seeds=11).rows.uniforms(0, num_samples)
    found = engine.step(engine.start(1, seeds=11), num_samples)
    expected = reference.step(reference.start(1, seeds=11), num_samples)
    assert_same_codes(found, expected, reference, uniforms)


@needs_vectors
@pytest.mark.parametrize("name", SHAPES)
def test_the_plain_loop_is_the_vector_loop_in_other_words(engines, name):
    vector, plain = engines(name, "vector")[0], engines(name, "plain")[0]
    codes = random_codes(vector.network.quantization_channels, 1, 300)
    assert np.abs(vector.logits(codes) - plain.logits(codes)).max() < 5e-5


@pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
def test_drawing_options_act_as_in_the_reference(engines, kernels):
    engine, reference = engines("odd", kernels)
    options = {"seeds": [1, 2, 2**64 - 1], "streams": [5, 2**40, 7], "temperature": [1.0, 0.5, 2.0],
               "min_p": [0.0, 0.1, 0.3]}
    found = engine.step(engine.start(3, **options), 150)
    expected = reference.step(reference.start(3, **options), 150)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, engine.step(engine.start(3), 150))


@pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
def test_given_uniforms_replace_the_drawn_ones(engines, kernels):
    engine, reference = engines("odd", kernels)
    uniforms = make_uniforms(3, 2, 100)
    found = engine.step(engine.start(2), 100, uniforms)
    assert np.array_equal(found, reference.step(reference.start(2), 100, uniforms))
    drawn = engine.start(2).rows.uniforms(0, 100)
    assert np.array_equal(engine.step(engine.start(2), 100, drawn), engine.step(engine.start(2), 100))


@pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
def test_the_conditioning_frame_is_held_for_a_hop(engines, kernels):
    engine, reference = engines("odd", kernels)
    layers, columns = engine.network.num_layers, 2 * engine.network.residual_channels
    table = np.random.default_rng(0).normal(size=(2, 6, layers, columns)).astype(np.float32)
    conditioning = TableConditioning(table, hop_length=13)
    codes = random_codes(100, 2, 90)
    found, expected = engine.logits(codes, conditioning), reference.logits(codes, conditioning)
    assert np.abs(found - expected).max() < 1e-4
    table[:, 2] += 1
    changed = engine.logits(codes, TableConditioning(table, hop_length=13))
    first = np.argmax(np.abs(changed - found).max(axis=(0, 2)) > 0)
    assert first == 2 * 13


@pytest.mark.parametrize("kernels", [pytest.param("vector", marks=needs_vectors), "plain"])
def test_scratch_is_written_before_it_is_read(engines, kernels):
    engine, _ = engines("odd", kernels)
    clean, dirty = engine.start(1), engine.start(1)
    for scratch in dirty.scratch:
        scratch.rows[:] = 255  # NaN
    assert np.array_equal(engine.step(clean, 50), engine.step(dirty, 50))


def test_codes_may_come_in_any_integer_type_and_layout(engines):
    engine, _ = engines("odd", "plain")
    codes = random_codes(100, 2, 40)
    expected = engine.logits(codes)
    assert np.array_equal(engine.logits(codes.astype(np.uint8)), expected)
    assert np.array_equal(engine.logits(np.asfortranarray(codes)), expected)
    assert np.array_equal(engine.logits(np.repeat(codes, 2, axis=1)[:, ::2]), expected)


@pytest.mark.skipif(host.vector_target() is None or platform.machine() != "x86_64", reason="needs an x86-64 with AVX2")
def test_the_loop_for_avx2_runs_and_agrees(engines, tmp_path):
    features = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+f16c,-avx512f"
    script = """
import sys
import numpy as np
from networks import make_wavenet, random_codes
from test_numba_engine import SHAPES
from wavegen.engines.numba_engine import NumbaEngine, host
from wavegen.engines.packing import network_of
assert host.vector_target().name == "avx2", host.vector_target()
engine = NumbaEngine(network_of(make_wavenet(**SHAPES["odd"])), kernels="vector")
np.save(sys.argv[1], engine.logits(random_codes(100, 2, 70)))
"""
    here, out = Path(__file__).parent, tmp_path / "logits.npy"
    paths = [*sys.path, str(here), str(here.parent)]
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features,
                                "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", script, str(out)], env=environment, check=True, timeout=200)
    _, reference = engines("odd", "plain")
    assert np.abs(np.load(out) - reference.logits(random_codes(100, 2, 70))).max() < 1e-4
