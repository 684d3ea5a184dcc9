"""The batch and the prefill kernel against their plain-torch twins, and against each other bit for bit."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from networks import make_wavenet, random_codes
from wavegen.engines.packing import network_of
from wavegen.engines.triton_engine import pack_network
from wavegen_kernels.gpu import batch, memory, prefill

ODD = {"residual": 24, "skip": 37, "output": 19, "dilations": (1, 4, 3), "kernel_size": 3,
       "quantization_channels": 100, "input_taps": 5, "input_tanh": True, "residual_scale": 0.8, "skip_scale": 0.4}
WIDE = {"residual": 32, "skip": 128, "output": 64, "dilations": (1, 2, 8), "quantization_channels": 64,
        "input_kernel_size": 1}
HOP, SAMPLES = 5, 14
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
TOLERANCE = {"f16": 2e-3, "bf16": 5e-2, "f32": 1e-5}


def packed_of(shape, precision):
    return pack_network(network_of(make_wavenet(**shape)), DTYPES[precision], "cpu")


def begun(packed, rows, tick=0, silence=5):
    """Memory of rows that draw differently, and a conditioning table of their own."""
    made = memory.make_memory(packed, rows)
    numbers = np.arange(rows, dtype=np.uint64)
    made.begin(packed, list(range(rows)), tick, silence, numbers + 2**40, numbers, np.linspace(0.7, 1.4, rows),
               np.linspace(0, 0.2, rows))
    sizes = packed.sizes
    table = np.random.default_rng(3).normal(0, 0.3, (rows, 8, sizes.layers, 2 * sizes.residual)).astype(np.float32)
    made.table_row[:] = torch.arange(rows)
    made.table_origin[:] = tick - torch.arange(rows) % HOP
    return made, torch.from_numpy(table)


def assert_same_memory(found, expected, tolerance=0.0):
    for field in fields(found):
        a, b = getattr(found, field.name).double(), getattr(expected, field.name).double()
        assert (a - b).abs().max() <= tolerance if a.numel() else True, field.name


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("shape", [ODD, WIDE], ids=["odd", "wide"])
def test_forced_codes_give_the_logits_of_the_twin(shape, precision):
    packed = packed_of(shape, precision)
    rows, codes = 3, torch.from_numpy(random_codes(shape["quantization_channels"], 3, SAMPLES)).int()
    (found, table), (expected, _) = begun(packed, rows), begun(packed, rows)
    logits, truth = torch.full((2, rows, SAMPLES, packed.sizes.codes), torch.nan)
    for start, stop in ((0, 5), (5, SAMPLES)):  # the second launch goes on from the memory of the first
        part = torch.full((rows, stop - start, packed.sizes.codes), torch.nan)
        batch.generate(packed, found, table, HOP, start, codes[:, start:stop].contiguous(), part, forced=True)
        logits[:, start:stop] = part
    batch.generate_ref(packed, expected, table, HOP, 0, codes.clone(), truth, forced=True)
    assert truth[..., :shape["quantization_channels"]].std() > 0.3
    assert (logits - truth).abs().max() < TOLERANCE[precision]
    assert_same_memory(found, expected, TOLERANCE[precision])


@pytest.mark.parametrize("rows", [1, 19])
def test_drawn_codes_are_those_of_the_twin(rows):
    packed = packed_of(ODD, "f32")
    (found, table), (expected, _) = begun(packed, rows), begun(packed, rows)
    codes, truth = torch.zeros(2, rows, SAMPLES, dtype=torch.int32)
    batch.generate(packed, found, table, HOP, 0, codes)
    batch.generate_ref(packed, expected, table, HOP, 0, truth)
    assert torch.equal(codes, truth)
    assert_same_memory(found, expected, 1e-5)


@pytest.mark.parametrize("shape", [ODD, WIDE], ids=["odd", "wide"])
def test_parts_of_a_layer_add_up_to_it(shape):
    packed = packed_of(shape, "f16")
    results = []
    for parts in (1, 2):
        found, table = begun(packed, 2)
        codes, logits = torch.zeros(2, SAMPLES, dtype=torch.int32), torch.zeros(2, SAMPLES, packed.sizes.codes)
        batch.generate(packed, found, table, HOP, 0, codes, logits, parts=parts)
        results.append((codes, logits, found))
    assert torch.equal(results[0][0], results[1][0])
    assert (results[0][1] - results[1][1]).abs().max() < 1e-3
    assert_same_memory(results[0][2], results[1][2], 1e-3)


@pytest.mark.parametrize("shape", [ODD, WIDE], ids=["odd", "wide"])
def test_output_layers_that_read_from_memory_give_the_same_bits(shape):
    packed, results = packed_of(shape, "f16"), []
    for by_memory in (False, True):
        found, table = begun(packed, 18)  # two programs, each with its own place
        codes, logits = torch.zeros(18, 3, dtype=torch.int32), torch.zeros(18, 3, packed.sizes.codes)
        batch.generate(packed, found, table, HOP, 0, codes, logits, by_memory=by_memory)
        results.append((codes, logits))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("shape", [ODD, WIDE], ids=["odd", "wide"])
def test_prefill_leaves_what_the_batch_kernel_leaves(shape):
    packed, rows, tick = packed_of(shape, "f16"), 2, 2**31 - 5  # ticks pass the range of 32 bits
    codes = torch.from_numpy(random_codes(shape["quantization_channels"], rows, 20)).int()
    (found, table), (expected, _) = begun(packed, rows, tick), begun(packed, rows, tick)
    logits, truth = torch.full((2, rows, 20, packed.sizes.codes), torch.nan)
    batch.generate(packed, expected, table, HOP, tick, codes.clone(), truth, forced=True)
    for start, stop in ((0, 3), (3, 20)):  # the second one reads the rings of the first
        part = torch.full((rows, stop - start, packed.sizes.codes), torch.nan)
        prefill.prefill(packed, found, table, HOP, tick + start, codes[:, start:stop], part)
        logits[:, start:stop] = part
    assert_same_memory(found, expected)
    assert torch.equal(logits, truth)


def test_prefill_in_blocks_is_prefill(monkeypatch):
    packed = packed_of(ODD, "f16")
    codes = torch.from_numpy(random_codes(100, 2, 37)).int()
    (found, table), (expected, _) = begun(packed, 2), begun(packed, 2)
    logits, truth = torch.full((2, 2, 37, packed.sizes.codes), torch.nan)
    prefill.prefill(packed, expected, table, HOP, 0, codes, truth)
    monkeypatch.setattr(prefill, "SCRATCH_BYTES", 1)
    prefill.prefill(packed, found, table, HOP, 0, codes, logits)
    assert_same_memory(found, expected)
    assert torch.equal(logits, truth)


@pytest.mark.parametrize("shape", [ODD, WIDE], ids=["odd", "wide"])
def test_prefill_is_its_twin(shape):
    packed = packed_of(shape, "f32")
    codes = torch.from_numpy(random_codes(shape["quantization_channels"], 2, SAMPLES)).int()
    (found, table), (expected, _) = begun(packed, 2), begun(packed, 2)
    logits, truth = torch.full((2, 2, SAMPLES, packed.sizes.codes), torch.nan)
    prefill.prefill(packed, found, table, HOP, 0, codes, logits)
    prefill.prefill_ref(packed, expected, table, HOP, 0, codes, truth)
    assert_same_memory(found, expected, 1e-5)
    assert (logits - truth).abs().max() < 1e-4


def test_rows_that_are_finished_are_left_alone():
    packed = packed_of(ODD, "f16")
    memory_of_rows, table = begun(packed, 18)
    memory_of_rows.active[[1, 16, 17]] = 0  # the second tile has nothing left to do
    rings = memory_of_rows.rings.clone()
    codes = torch.full((18, 5), 77, dtype=torch.int32)
    batch.generate(packed, memory_of_rows, table, HOP, 0, codes)
    assert (codes[[1, 16, 17]] == 77).all()
    assert torch.equal(memory_of_rows.rings[:, 16:], rings[:, 16:])
    alone, _ = begun(packed, 18)
    expected = torch.zeros(18, 5, dtype=torch.int32)
    batch.generate(packed, alone, table, HOP, 0, expected)
    assert torch.equal(codes[[0, 2, 15]], expected[[0, 2, 15]])
