"""The Triton kernels as they are compiled for GPUs, run by the PTX machine: numbers, races, protocol."""

from __future__ import annotations

import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from networks import make_coefficients, make_uniforms, make_wavenet, random_codes
from wavegen.engines.packing import network_of

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets its kernels, so nothing is compiled", allow_module_level=True)

from ptx.launch import Device
from wavegen.engines.triton_engine import pack_network
from wavegen_kernels.gpu import batch, latency, memory, prefill

ODD = {"residual": 12, "skip": 37, "output": 19, "dilations": (1, 4, 2), "kernel_size": 3, "input_taps": 5,
       "quantization_channels": 50, "input_tanh": True, "residual_scale": 0.8, "skip_scale": 0.4}
LPC = {"residual": 16, "skip": 32, "output": 16, "dilations": (1, 2, 4, 1), "quantization_channels": 32,
       "signal_path": "lpc", "input_taps": 3, "lpc_order": 6}
WIDE = {"residual": 32, "skip": 64, "output": 64, "dilations": (1, 2, 4), "quantization_channels": 64,
        "input_kernel_size": 1}
HOP, FRAMES = 5, 5
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2, "f32": 1e-5}


class Case:
    """A network, rows that draw differently, and what generates them on a device."""

    def __init__(self, shape, rows, precision="f16", shared=False, given=False, fused=False):
        self.model = make_wavenet(**shape)
        self.packed = pack_network(network_of(self.model), DTYPES[precision], "cpu", fused)
        self.rows, self.dtype, self.tolerance = rows, DTYPES[precision], TOLERANCE[precision]
        self.shared, self.codes = shared, shape["quantization_channels"]
        sizes, tables = self.packed.sizes, 1 if shared else rows
        noise = np.random.default_rng(3).normal(0, 0.3, (tables, FRAMES, sizes.layers, 2 * sizes.residual))
        self.table = torch.from_numpy(noise.astype(np.float32))
        self.prediction = None
        if sizes.order:
            self.prediction = torch.from_numpy(make_coefficients(0, tables, FRAMES, sizes.order))
        self.uniforms = torch.from_numpy(make_uniforms(1, rows, 20)) if given else None

    def begin(self, tick=0):
        made, numbers = memory.make_memory(self.packed, self.rows), np.arange(self.rows, dtype=np.uint64)
        made.begin(self.packed, list(range(self.rows)), tick, 5, numbers + 2**40, numbers,
                   np.linspace(0.7, 1.4, self.rows), np.linspace(0, 0.2, self.rows))
        if not self.shared:
            made.table_row[:] = torch.arange(self.rows)
            made.table_origin[:] = tick - torch.arange(self.rows) % HOP
        return made

    def spread(self, group=2):
        made = latency.make_spread(self.packed.sizes, self.dtype, self.rows, 232_448, 132, len(self.packed.fused) > 0)
        groups = -(-self.packed.sizes.layers // group)
        return replace(made, group=group, groups=groups, at_once=2, programs=made.programs + groups - made.groups)

    def generate(self, state, kernel, launches, tick=0, forced=None, **options):
        """Codes and logits of launches of so many samples each."""
        codes, logits = [], []
        for count in launches:
            start = sum(part.shape[1] for part in codes)
            here = slice(start, start + count)
            some = torch.full((self.rows, count), -9, dtype=torch.int32)
            if forced is not None:
                some = forced[:, here].clone()
            part = torch.full((self.rows, count, self.packed.sizes.codes), torch.nan)
            given = {} if kernel is prefill.prefill else {
                "uniforms": None if self.uniforms is None else self.uniforms[:, here].clone(),
                "forced": forced is not None}
            kernel(self.packed, state, self.table, HOP, tick + start, some, part, prediction=self.prediction, **given,
                   **options)
            codes.append(some)
            logits.append(part)
        return torch.cat(codes, 1), torch.cat(logits, 1)

    def assert_reference(self, state, codes, logits, tick=0):
        """Codes of `batch.generate_ref`; logits and what is left in memory near it."""
        expected = self.begin(tick)
        wanted, truth = self.generate(expected, batch.generate_ref, [codes.shape[1]], tick)
        assert truth[..., :self.codes].std() > 0.3
        assert torch.equal(codes, wanted)
        assert (logits - truth)[..., :self.codes].abs().max() < self.tolerance
        self.assert_memory(state, expected, self.tolerance)

    def assert_memory(self, found, expected, tolerance=0.0):
        for field in fields(found):
            a, b = getattr(found, field.name).double(), getattr(expected, field.name).double()
            exact = field.name not in ("rings", "history")
            assert a.numel() == 0 or (a - b).abs().max() <= (0 if exact else tolerance), field.name


@pytest.mark.parametrize(
    ("capability", "shape", "precision", "rows", "launches", "options"),
    [
        (80, ODD, "f16", 19, (4, 9), {}),  # a second tile of 3 rows; rings of 8 slots wrap
        (80, LPC, "f32", 3, (4, 3), {"stages": 1}),
        (90, ODD, "bf16", 3, (2, 3), {"fast": True, "stages": 3}),
        (90, LPC, "f16", 3, (5, 4), {}),
        (90, WIDE, "f16", 70, (2, 3), {"rows": 64, "by_memory": True}),  # warp-group products
        (90, WIDE, "f16", 70, (2,), {"rows": 128, "parts": 2, "stages": 1, "warps": 8}),
    ],
    ids=["80", "80 lpc f32", "90 fast bf16", "90 lpc", "90 tile of 64", "90 tile of 128"],
)
def test_the_batch_kernel_speaks_the_reference_samples(capability, shape, precision, rows, launches, options):
    shared = shape is WIDE
    case = Case(shape, rows, precision, shared, given=shape is LPC)
    state = case.begin()
    with Device(capability).holds(batch):
        codes, logits = case.generate(state, batch.generate, launches, **({"warps": 4} | options))
    case.assert_reference(state, codes, logits)


def test_rows_at_rest_are_left_alone():
    case = Case(ODD, 19)
    state = case.begin()
    state.active[[1, 16, 17, 18]] = 0  # the second tile has nothing left to do
    rings = state.rings.clone()
    with Device(80).holds(batch):
        codes, _ = case.generate(state, batch.generate, [4], warps=4)
    expected, _ = case.generate(case.begin(), batch.generate_ref, [4])
    assert (codes[[1, 16, 17, 18]] == -9).all() and torch.equal(codes[[0, 2, 15]], expected[[0, 2, 15]])
    assert torch.equal(state.rings[:, 16:], rings[:, 16:])


@pytest.mark.parametrize(("capability", "shape"), [(80, ODD), (90, LPC)])
def test_a_prompt_leaves_what_generating_it_leaves(capability, shape):
    """To the last bit, and generation goes on from there."""
    case, tick = Case(shape, 2), 2**31 - 3  # ticks pass the range of 32 bits
    known = torch.from_numpy(random_codes(case.codes, 2, 16)).int()
    found, expected = case.begin(tick), case.begin(tick)
    with Device(capability).holds(batch, prefill):
        _, truth = case.generate(expected, batch.generate, [16], tick, known, warps=4)
        _, logits = case.generate(found, prefill.prefill, [3, 13], tick, known, warps=4)
        case.assert_memory(found, expected)
        assert torch.equal(logits, truth)
        spoken = [torch.full((2, 2), -9, dtype=torch.int32) for _ in range(2)]
        for state, codes in zip((found, expected), spoken, strict=True):
            batch.generate(case.packed, state, case.table, HOP, tick + 16, codes, prediction=case.prediction, warps=4)
    assert torch.equal(*spoken) and (spoken[0] >= 0).all()


@pytest.mark.parametrize(("capability", "shape", "rows", "shared", "fused"), [
    (80, LPC, 3, False, False), (90, ODD, 2, True, False), (90, LPC, 2, False, True)])
def test_the_latency_kernel_speaks_the_reference_samples(capability, shape, rows, shared, fused):
    """Programs by turns, and by chance: packets are late in any order, warps find them at different times."""
    case = Case(shape, rows, shared=shared, fused=fused)
    for seed in (0,) if fused else (None, 0, 1):
        state = case.begin()
        with Device(capability, seed).holds(latency):
            codes, logits = case.generate(state, latency.generate, (3, 4), spread=case.spread(), warps=8)
        case.assert_reference(state, codes, logits)


@pytest.mark.parametrize("missing", [0, 1, 4])
def test_when_a_program_is_missing_all_others_leave(missing):
    """All warps of a program at once, whenever each of them finds the abort word set."""
    case = Case(ODD, 2)
    for seed, patience in ((None, 20), *((seed, seed % 3) for seed in range(9))):
        with Device(90, seed, missing=(missing,)).holds(latency), pytest.raises(latency.LostProgramError):
            case.generate(case.begin(), latency.generate, (3,), spread=case.spread(), warps=8, patience=patience)


