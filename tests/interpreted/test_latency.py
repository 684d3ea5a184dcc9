"""The latency kernel: its numbers with one program after the other, its protocol with one process for each."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from triton.runtime import interpreter
from triton.runtime.errors import OutOfResources

from networks import make_coefficients, make_uniforms, make_wavenet, random_codes
from wavegen.engines import TableConditioning, build_engine
from wavegen.engines.packing import network_of
from wavegen.engines.sampling import margin
from wavegen.engines.triton_engine import TritonEngine, pack_network
from wavegen.errors import ConfigError, WavegenError
from wavegen_kernels.gpu import batch, latency
from wavegen_kernels.gpu.memory import make_memory
from wavegen_kernels.gpu.pack import make_sizes, pack_frames
from wavegen_kernels.gpu.plan import Limits, Plan

H200 = {"shared_limit": 232_448, "multiprocessors": 132}
HOP = 4
# Products of numbers rounded to 16 bits; logits spread over units.
TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}


class Case:
    """A network, its packed weights and a conditioning table that changes every HOP samples."""

    def __init__(self, batch_size, dtype=torch.float16, group=2, shared=True, fused=False, **options):
        sizes = {"residual": 16, "skip": 32, "output": 32, "dilations": (1, 2, 4, 1, 2)} | options
        self.model = make_wavenet(**sizes)
        network = self.network = network_of(self.model)
        self.packed = pack_network(network, dtype, "cpu", fused)
        noise = np.random.default_rng(5).normal(0, 0.3, (1 if shared else batch_size, 3, 1, 1))
        self.frames = (network.parameters["dilated_bias"][None, None] + noise).astype(np.float32)
        self.table = torch.from_numpy(pack_frames(self.frames, self.packed.sizes.residual))
        spread = latency.make_spread(self.packed.sizes, dtype, batch_size, **H200, fused=fused)
        assert isinstance(spread, latency.Spread)
        groups = -(-self.packed.sizes.layers // group)
        self.spread = replace(spread, group=group, groups=groups, at_once=2,
                              programs=spread.programs + groups - spread.groups)
        self.batch_size = batch_size

    def begin(self):
        memory, ones = make_memory(self.packed, self.batch_size), np.ones(self.batch_size)
        memory.begin(self.packed, list(range(self.batch_size)), 0, self.network.quantization_channels // 2,
                     np.full(self.batch_size, 7, np.uint64), np.arange(self.batch_size, dtype=np.uint64), ones,
                     0 * ones)
        memory.table_row[:] = torch.arange(self.batch_size) % len(self.table)
        return memory

    def reference(self):
        return build_engine(self.model, "reference"), TableConditioning(self.frames, HOP)

    def assert_codes(self, found, uniforms):
        """Codes of the float64 reference, or a uniform number too near a border for 16-bit weights."""
        engine, conditioning = self.reference()
        expected = engine.step(engine.start(self.batch_size, conditioning), found.shape[1], uniforms)
        for row in np.flatnonzero((found != expected).any(1)):
            first = int(np.argmax(found[row] != expected[row]))
            logits = engine.logits(expected[:, :first + 1], conditioning)[row:row + 1, -1]
            assert margin(logits, uniforms[row:row + 1, first])[0] < 1e-3, f"row {row} is off at sample {first}"


@pytest.mark.parametrize(
    ("batch_size", "options"),
    [
        (2, {"shared": False}),
        (3, {"kernel_size": 3, "input_taps": 5, "input_tanh": True, "residual_scale": 0.8, "skip_scale": 0.7}),
        (1, {"group": 5, "input_kernel_size": 1, "dtype": torch.bfloat16, "dilations": (1, 2, 4, 8, 1)}),
        (2, {"fused": True, "shared": False}),
        (3, {"fused": True, "kernel_size": 3, "input_taps": 5, "input_tanh": True, "residual_scale": 0.8,
             "skip_scale": 0.7}),
        (1, {"fused": True, "group": 1, "dilations": (1, 2, 4)}),
    ],
)
def test_logits_and_codes_are_those_of_the_reference(batch_size, options):
    case, dtype = Case(batch_size, **options), options.get("dtype", torch.float16)
    uniforms = make_uniforms(1, batch_size, 8)
    codes = torch.zeros(batch_size, 8, dtype=torch.int32)
    logits = torch.zeros(batch_size, 8, case.packed.sizes.codes)
    memory = case.begin()
    for start, stop in ((0, 3), (3, 8)):  # the state is carried from launch to launch
        part, some = codes[:, start:stop].contiguous(), logits[:, start:stop].contiguous()
        latency.generate(case.packed, memory, case.table, HOP, start, part, some,
                         torch.from_numpy(uniforms[:, start:stop].copy()), spread=case.spread)
        codes[:, start:stop], logits[:, start:stop] = part, some
    engine, conditioning = case.reference()
    truth = engine.logits(codes.numpy(), conditioning)
    found = logits[:, :, :case.network.quantization_channels].numpy()
    assert np.abs(found - truth).max() < TOLERANCE[dtype]
    if dtype == torch.float16:
        case.assert_codes(codes.numpy(), uniforms)


@pytest.mark.parametrize("options", [{"kernel_size": 3, "input_taps": 3}, {"signal_path": "lpc", "input_taps": 3},
                                     {"signal_path": "lpc", "input_taps": 3, "fused": True}])
def test_a_state_may_pass_from_one_kernel_to_the_other(options):
    case = Case(2, **options)
    more = {}
    if order := case.packed.sizes.order:
        more["prediction"] = torch.from_numpy(make_coefficients(0, 1, 3, order))
    whole, parts = torch.zeros(2, 8, dtype=torch.int32), []
    alone, shared = case.begin(), case.begin()
    batch.generate(case.packed, alone, case.table, HOP, 0, whole, **more)
    for start in range(0, 8, 2):
        parts.append(torch.zeros(2, 2, dtype=torch.int32))
        if start % 4:
            latency.generate(case.packed, shared, case.table, HOP, start, parts[-1], **more, spread=case.spread)
        else:
            batch.generate(case.packed, shared, case.table, HOP, start, parts[-1], **more)
    assert torch.equal(torch.cat(parts, 1), whole)
    for field in fields(alone):
        theirs, ours = getattr(alone, field.name), getattr(shared, field.name)
        exact = field.name != "rings"
        assert torch.allclose(theirs.double(), ours.double(), rtol=0, atol=0 if exact else 2e-3), field.name


def test_forced_codes_are_fed_and_rows_at_rest_keep_theirs():
    case = Case(2)
    forced = torch.randint(0, case.network.quantization_channels, (2, 6), dtype=torch.int32,
                           generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(2, 6, case.packed.sizes.codes)
    latency.generate(case.packed, case.begin(), case.table, HOP, 0, forced.clone(), logits, forced=True,
                     spread=case.spread)
    engine, conditioning = case.reference()
    truth = engine.logits(forced.numpy(), conditioning)
    assert np.abs(logits[:, :, :truth.shape[2]].numpy() - truth).max() < TOLERANCE[torch.float16]
    memory, codes = case.begin(), torch.full((2, 2), -1, dtype=torch.int32)
    memory.active[1] = 0
    latency.generate(case.packed, memory, case.table, HOP, 0, codes, spread=case.spread)
    assert (codes[0] >= 0).all() and (codes[1] == -1).all()


def _run_program(role, case, memory, codes, uniforms, mail, abort, patience):
    """One program of a grid, in a process of its own."""
    torch.set_num_threads(1)
    builder = interpreter.interpreter_builder
    load = builder.create_masked_load

    def polite_load(*arguments):
        if arguments[-1]:  # volatile: let the program that is waited for have the processor
            os.sched_yield()
        return load(*arguments)

    builder.create_masked_load = polite_load
    builder.set_grid_dim = lambda *_: type(builder).set_grid_dim(builder, case.spread.programs, 1, 1)
    builder.set_grid_idx = lambda *_: type(builder).set_grid_idx(builder, role, 0, 0)
    # The interpreter copies every tensor back onto itself at the end: over packets still being sent.
    interpreter.GridExecutor._restore_args_dev = lambda *_: None
    latency.launch(case.packed, memory, case.table, HOP, 0, codes, None, uniforms, False, None, case.spread, False, 8,
                   patience, mail, abort, (1,))


def run_programs(case, num_samples, patience, missing=None):
    """Codes, abort word and exit codes, with each program but `missing` in a process of its own."""
    memory = case.begin()
    uniforms = torch.from_numpy(make_uniforms(2, case.batch_size, num_samples))
    codes = torch.zeros(case.batch_size, num_samples, dtype=torch.int32)
    mail = latency.make_mail(case.packed.sizes, case.spread, case.batch_size, codes.device)
    abort = torch.zeros(1, dtype=torch.int32)
    for tensor in (codes, mail, abort, *(getattr(memory, field.name) for field in fields(memory))):
        tensor.share_memory_()
    fork = multiprocessing.get_context("fork")
    arguments = (case, memory, codes, uniforms, mail, abort, patience)
    processes = [fork.Process(target=_run_program, args=(role, *arguments))
                 for role in range(case.spread.programs) if role != missing]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    exits = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes.numpy(), uniforms.numpy(), int(abort), exits


@pytest.mark.parametrize("fused", [False, True])
def test_programs_that_run_at_once_speak_the_reference_samples(fused):
    case = Case(3, group=2, dilations=(1, 2, 4, 1), shared=False, fused=fused)
    codes, uniforms, abort, exits = run_programs(case, 12, patience=10**6)
    assert abort == 0 and exits == [0] * case.spread.programs
    case.assert_codes(codes, uniforms)


@pytest.mark.parametrize(("missing", "fused"), [(1, False), (3, False), (0, True)])
def test_when_a_program_is_missing_all_others_leave(missing, fused):
    case = Case(1, group=2, dilations=(1, 2, 4, 1), fused=fused)
    *_, abort, exits = run_programs(case, 3, patience=200, missing=missing)
    assert abort == 1 and exits == [0] * (case.spread.programs - 1)


def make_engine(precision="f16", **options):
    return TritonEngine(network_of(make_wavenet(16, 16, 16, (1, 2, 1))), None, precision, **options)


@pytest.fixture
def spread_engine():
    engine = make_engine()
    spread = latency.make_spread(engine.packed.sizes, torch.float16, 2, **H200)
    engine.plan = Plan(spread=spread)
    return engine


def test_the_engine_speaks_through_it(spread_engine):
    codes, uniforms = random_codes(64, 2, 4), make_uniforms(4, 2, 4)
    expected = make_engine()
    assert np.abs(spread_engine.logits(codes) - expected.logits(codes)).max() < 2e-3
    whole = expected.step(expected.start(2), 4, uniforms)
    state = spread_engine.start(2)
    parts = [spread_engine.step(state, 1, uniforms[:, :1]), spread_engine.step(state, 3, uniforms[:, 1:])]
    assert np.array_equal(np.concatenate(parts, 1), whole)


def test_the_batch_kernel_takes_over_where_it_does_not_fit(spread_engine, monkeypatch, caplog):
    def too_large(*_, **__):
        raise OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(latency, "generate", too_large)
    state = spread_engine.start(1)
    assert spread_engine.step(state, 1).shape == (1, 1)
    assert "the batch kernel takes over" in caplog.text and state.plan.spread is None


def test_a_state_is_lost_when_a_program_is(spread_engine, monkeypatch):
    def give_up(*_, **__):
        raise latency.LostProgramError("a program waited in vain")

    monkeypatch.setattr(latency, "generate", give_up)
    state = spread_engine.start(1)
    with pytest.raises(WavegenError, match="waited in vain; this state is lost, start a new one"):
        spread_engine.step(state, 1)
    with pytest.raises(ConfigError, match="this state was lost"):
        spread_engine.step(state, 1)


def test_the_plan_takes_it_for_few_rows_and_says_why_not(caplog):
    def plan_of(engine, rows, programs=132):
        engine.__dict__ |= {"device": torch.device("cuda"), "_limits": Limits(programs, 232_448, 128)}
        caplog.clear()
        with caplog.at_level("INFO"):
            return engine.plan_for(rows)

    assert plan_of(make_engine(), 8).spread.groups == 1 and "the latency kernel for 8 rows" in caplog.text
    assert plan_of(make_engine(), 9).spread is None
    assert plan_of(make_engine("f32"), 1).spread is None and "does not take torch.float32 weights" in caplog.text
    assert plan_of(make_engine(), 1, 3).spread is None and "a device of 3" in caplog.text
    assert plan_of(make_engine(plan=Plan(rows=32)), 1) == Plan(rows=32)


@pytest.mark.parametrize(
    ("sizes", "shared", "expected"),
    [
        (make_sizes(20, 2, 64, 256, 256, 256), 232_448, (3, 7)),
        (make_sizes(30, 2, 32, 128, 256, 256), 232_448, (3, 10)),
        (make_sizes(30, 2, 128, 256, 256, 256), 232_448, (15, 2)),
        (make_sizes(24, 3, 128, 128, 128, 256), 232_448, (12, 2)),
        (make_sizes(20, 2, 64, 256, 256, 256), 166_912, (4, 5)),
        (make_sizes(30, 2, 256, 256, 256, 256), 232_448, "layers of 256 channels"),
        (make_sizes(3, 2, 16, 16, 16, 4096), 232_448, "4096 codes"),
        (make_sizes(3, 2, 16, 4096, 16, 256), 232_448, "4096 skip and 16 output channels"),
    ],
)
def test_a_network_is_spread_as_it_fits(sizes, shared, expected):
    spread = latency.make_spread(sizes, torch.float16, 1, shared, 132)
    if isinstance(expected, str):
        assert expected in spread
    else:
        assert (spread.groups, spread.group) == expected and spread.shared <= shared
