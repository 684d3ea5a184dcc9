"""The vocabulary against numpy, and what it becomes on processors that are not here."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import njit

from wavegen_kernels.cpu import host
from wavegen_kernels.cpu.lanes import POINTER, VECTOR, Lanes, address_kernel
from wavegen_kernels.cpu.layout import make_shape, padded, panel_width
from wavegen_kernels.cpu.micro import Matrix

needs_vectors = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")


def _functions(lanes, x, y, out):
    u, v = lanes.load(x), lanes.load(y)
    for place, value in enumerate((lanes.exp2(u), lanes.tanh(u), lanes.gate(u, v), lanes.largest(u))):
        lanes.store(value, out, VECTOR * place)


_functions_kernel = address_kernel(3, _functions)


@njit
def _evaluate(x, y, out):
    for i in range(x.shape[0]):
        _functions_kernel(x[i].ctypes.data, y[i].ctypes.data, out[i].ctypes.data)


@needs_vectors
def test_functions_are_accurate_to_float32():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 1, 4000), rng.uniform(-30, 30, 4000), [0.0, -0.0, 1e-8, 100.0] * 4])
    x = np.ascontiguousarray(np.resize(x, (500, 16)), np.float32)
    y = rng.uniform(-40, 40, x.shape).astype(np.float32)
    out = np.full((len(x), 4, 16), np.nan, np.float32)
    _evaluate(x, y, out)
    u, v = x.astype(float), y.astype(float)
    assert np.abs(out[:, 0] / 2**u - 1).max() < 3e-7
    assert np.abs(out[:, 1] - np.tanh(u)).max() < 3e-7
    assert np.abs(out[:, 2] - np.tanh(u) / (1 + np.exp(-v))).max() < 3e-7
    assert np.array_equal(out[:, 3], np.repeat(x.max(1, keepdims=True), 16, 1))


def _assembly(triple: str, cpu: str, features: str, registers: int, precision: str = "f32",
              products: str = "generic", rows: int = 1) -> str:
    """A matrix-vector product and a gate compiled for another processor."""
    shape = make_shape(2, 64, 64, 64, 64, 2, 2, 0, False, registers, precision=precision)
    matrix = Matrix(shape, shape.format, 64, 128, 2 * shape.gate_pairs, rows, unit=2)
    module = ir.Module("m")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER]), "f")
    lanes = Lanes(ir.IRBuilder(function.append_basic_block()), products)
    weights, x, out = function.args

    def finish(block, row, sums):
        sums = [lanes.to_float(total) for total in sums] if shape.format.is_integer else sums
        for j in range(len(sums) // 2):
            place = lanes.offset(lanes.scaled(block, matrix.columns // 2 * VECTOR), VECTOR * j)
            lanes.store(lanes.gate(sums[2 * j], sums[2 * j + 1]), lanes.at(out, 512 * row), place)

    matrix.emit(lanes, weights, weights, [lanes.at(x, 512 * row) for row in range(rows)], None, finish)
    lanes.builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    module.triple = triple
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return str(machine.emit_assembly(parsed))


def test_avx2_gets_256_bit_multiply_adds_and_no_library_call():
    text = _assembly("x86_64-unknown-linux-gnu", "haswell", "", host.TARGETS["avx2"].registers)
    assert len(re.findall(r"vfmadd\w+ps.*%ymm", text)) > 16 and "zmm" not in text and "call" not in text


def test_avx512_gets_512_bit_multiply_adds_only():
    text = _assembly("x86_64-unknown-linux-gnu", "skylake-avx512", "", host.TARGETS["avx512"].registers)
    assert len(re.findall(r"vfmadd\w+ps.*%zmm", text)) >= 16 and "ymm" not in text and "call" not in text
    loop = re.search(r"\.LBB0_1:.*?\bj[a-z]+\s+\.LBB0_1", text, re.DOTALL)
    assert loop is not None and not re.search(r"\(%rsp", loop.group()), "the inner loop spills registers"


def test_neon_gets_vector_multiply_adds():
    text = _assembly("aarch64-unknown-linux-gnu", "neoverse-n1", "", host.TARGETS["neon"].registers)
    assert len(re.findall(r"fmla\s+v\d+\.4s", text)) > 16 and not re.search(r"\bbl\b", text)


def test_targets_follow_the_features_numba_compiles_for(monkeypatch):
    def found(triple, name, *features):
        monkeypatch.setattr(host, "machine", lambda: (triple, name, ",".join(features)))
        return host.vector_target()

    x86, full = "x86_64-unknown-linux-gnu", ("+avx512f", "+avx512vl", "+avx512bw", "+avx512dq", "+avx2", "+fma")
    assert found(x86, "icelake-server", *full) == host.TARGETS["avx512"]
    assert found(x86, "znver5", *full).prefetch == host.ZEN_PREFETCH
    assert found(x86, "haswell", "+avx2", "+fma", "-avx512f").name == "avx2"
    assert found(x86, "skylake-avx512", "") is None  # the features were hidden from Numba on purpose
    assert found("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon").name == "neon"
    assert found("riscv64-unknown-linux-gnu", "generic", "+v") is None


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
def test_padding_gives_whole_panels_and_little_waste(limit):
    for channels in range(1, 600):
        size = padded(channels, limit)
        assert size >= channels and size % 16 == 0
        assert size - channels < 16 * max(2, limit)
        assert panel_width(size // 16, limit) * 2 >= min(limit, size // 16)


@pytest.mark.parametrize(("precision", "instruction"), [("i16", "vpdpwssd"), ("i8", "vpdpbusd"), ("i8x15", "vpdpbusd")])
@pytest.mark.parametrize("rows", [1, 4])
def test_vnni_multiplies_integers_on_512_bits(precision, instruction, rows):
    for cpu in ("cascadelake", "znver5"):
        text = _assembly("x86_64-unknown-linux-gnu", cpu, "", 8, precision, "vnni", rows)
        assert len(re.findall(rf"{instruction}\s.*%zmm", text)) >= 16 and "call" not in text
        assert not re.search(r"\b(vfmadd|vpdp|vpmadd)\w+\s.*%ymm", text)
        loop = re.search(r"\.LBB0_(\d+):(?:(?!\.LBB).)*vpdp.*?\bj[a-z]+\s+\.LBB0_\1", text, re.DOTALL)
        assert loop is not None and not re.search(r"\(%rsp", loop.group()), "the inner loop spills registers"


@pytest.mark.parametrize(("cpu", "products", "registers", "width"), [
    ("skylake-avx512", "avx512bw", 8, "zmm"), ("haswell", "avx2", 4, "ymm")])
@pytest.mark.parametrize("precision", ["i16", "i8", "i8x15"])
def test_without_vnni_pairs_are_multiplied(cpu, products, registers, width, precision):
    text = _assembly("x86_64-unknown-linux-gnu", cpu, "", registers, precision, products)
    assert len(re.findall(rf"vpmaddwd\s.*%{width}", text)) >= 8 and "vpdp" not in text and "call" not in text


@pytest.mark.parametrize("cpu", ["cortex-a76", "neoverse-n1"])
@pytest.mark.parametrize("precision", ["i16", "i8", "i8x15"])
def test_neon_multiplies_integers_in_vectors(cpu, precision):
    text = _assembly("aarch64-unknown-linux-gnu", cpu, "", 4, precision)
    assert len(re.findall(r"\b(?:mla|smlal2?|mul)\s+v\d+\.4s", text)) >= 16 and not re.search(r"\bbl\b", text)


def _dots(lanes, x, w, out):
    total, a, b = (lanes.load_ints(address) for address in (out, x, w))
    lanes.store(lanes.dot2(total, a, b), out)
    lanes.store(lanes.dot4(total, a, b), out, VECTOR)


@needs_vectors
@pytest.mark.parametrize("products", sorted({"generic", host.integer_products()}))
def test_integer_products_are_exact(products):
    def emit(lanes, x, w, out):
        lanes.products = products
        _dots(lanes, x, w, out)

    kernel = address_kernel(3, emit)

    @njit
    def evaluate(x, w, out):
        for i in range(x.shape[0]):
            kernel(x[i].ctypes.data, w[i].ctypes.data, out[i].ctypes.data)

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (50, 64)).astype(np.uint8)
    w = rng.integers(-128, 128, (50, 64)).astype(np.int8)
    w[0], x[0] = -128, 255
    total = rng.integers(-2**31, 2**31, (50, 16)).astype(np.int32)
    out = np.zeros((50, 32), np.int32)
    out[:, :16] = total
    evaluate(x, w, out)
    fours = (x.astype(np.int64) * w).reshape(50, 16, 4).sum(-1) + total
    pairs = (x.view(np.int16).astype(np.int64) * w.view(np.int16)).reshape(50, 16, 2).sum(-1) + total
    assert np.array_equal(out[1:, :16], pairs[1:].astype(np.int32))
    assert np.array_equal(out[:, 16:], fours.astype(np.int32))


def test_instructions_for_integers_follow_the_features(monkeypatch):
    def found(triple, *features):
        monkeypatch.setattr(host, "machine", lambda: (triple, "any", ",".join(features)))
        return host.integer_products.__wrapped__()

    x86, full = "x86_64-unknown-linux-gnu", ("+avx2", "+fma", "+avx512f", "+avx512bw")
    assert found(x86, *full, "+avx512vnni") == "vnni"
    assert found(x86, *full, "-avx512vnni") == "avx512bw"
    assert found(x86, "+avx2", "-avx512f", "+avx512vnni") == "avx2"
    assert found(x86, "+sse2") == "generic"
    assert found("aarch64-unknown-linux-gnu", "+neon", "+dotprod") == "generic"
