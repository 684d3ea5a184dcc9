"""How the GPU engine plans its launches and chooses its device; what it computes is tested in tests/interpreted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import wavegen

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")

from wavegen.engines import ModelConditioning, triton_engine
from wavegen.engines.triton_engine import find_device
from wavegen.errors import ConfigError, EngineUnavailableError
from wavegen.models import ConditioningInputs
from wavegen_kernels.gpu import prefill
from wavegen_kernels.gpu.memory import make_memory
from wavegen_kernels.gpu.pack import make_sizes, pack_frames
from wavegen_kernels.gpu.plan import Limits, Plan, choose_plan

A = make_sizes(20, 2, 64, 256, 256, 256)
C = make_sizes(30, 2, 128, 256, 256, 256)
D = make_sizes(24, 3, 128, 128, 128, 256)
H200, A100 = Limits(132, 232_448, 128), Limits(108, 166_912, 32)


class Driver:
    """Of Triton, which calls the GPU through it."""

    def __init__(self, error=None):
        self.error = error

    @property
    def active(self):
        if self.error is not None:
            raise self.error
        return SimpleNamespace(get_current_target=lambda: "cuda:90:32")


@pytest.fixture
def machine(monkeypatch):
    """Two GPUs, of which the second is the current one."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for name, value in (("is_available", True), ("device_count", 2), ("current_device", 1),
                        ("get_device_capability", (9, 0)), ("get_device_name", "X1")):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(triton_engine, "driver", Driver())
    return monkeypatch


def test_the_device_is_the_one_that_is_named_or_the_current_one(machine):
    assert find_device("cuda:0") == torch.device("cuda:0") and find_device("cuda") == torch.device("cuda:1")
    assert find_device(None) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match='no device "cuda:2": there are 2'):
        find_device("cuda:2")
    with pytest.raises(ConfigError, match='no device "gpu"; give "cuda"'):
        find_device("gpu")
    with pytest.raises(EngineUnavailableError, match='on NVIDIA GPUs only, not on device "cpu"; use engine="numba"'):
        find_device("cpu")


@pytest.mark.parametrize(("name", "value", "message"), [
    ("is_available", False, "torch finds none here"),
    ("get_device_capability", (7, 5), r"8.0 \(A100\) or newer, X1 is not")])
def test_a_machine_that_cannot_run_the_kernels_is_one_clear_error(machine, name, value, message):
    machine.setattr(torch.cuda, name, lambda *_: value)
    with pytest.raises(EngineUnavailableError, match=message):
        find_device(None)


def test_an_amd_gpu_and_a_machine_without_a_compiler_are_clear_errors(machine):
    machine.setattr(torch.version, "hip", "6.0")
    with pytest.raises(EngineUnavailableError, match="needs an NVIDIA GPU"):
        find_device(None)
    machine.setattr(torch.version, "hip", None)
    for error, message in ((RuntimeError("Failed to find C compiler. Please"), r"C compiler.*install one .*gcc"),
                           (AssertionError("libcuda.so cannot found!"), 'libcuda.so.*use engine="reference"')):
        machine.setattr(triton_engine, "driver", Driver(error))
        with pytest.raises(EngineUnavailableError, match=message):
            find_device("cuda")


@pytest.mark.parametrize(
    ("sizes", "batch_size", "limits", "plan"),
    [
        (A, 1, H200, Plan(16)),
        (A, 132 * 16, H200, Plan(16)),
        (A, 132 * 16 + 1, H200, Plan(32)),
        (A, 132 * 64, H200, Plan(64)),
        (A, 132 * 128, H200, Plan(128, by_memory=True)),
        (A, 10**6, A100, Plan(32)),
        (C, 1, H200, Plan(16, parts=2)),
        (C, 10**6, H200, Plan(64, parts=4)),  # 128 rows of as many sums do not fit the registers
        (D, 1, A100, Plan(16, parts=2)),
        (D, 10**6, H200, Plan(64, parts=4)),  # 128 rows leave no room to copy weights ahead
    ],
)
def test_tiles_grow_with_the_batch_and_layers_are_cut_to_fit(sizes, batch_size, limits, plan):
    assert choose_plan(sizes, batch_size, 2, limits) == plan


def test_wide_weights_are_cut_finer_and_then_not_copied_ahead():
    assert choose_plan(A, 1, 4, H200).parts == 1
    assert choose_plan(C, 1, 4, H200).parts == 4
    assert choose_plan(make_sizes(30, 3, 256, 512, 256, 256), 1, 4, A100) == Plan(16, parts=8, stages=1)


def test_the_hardwares_tanh_costs_the_bundled_voice_next_to_nothing(monkeypatch):
    """Every gate off by all that tanh.approx may be off, and always to the same side, which is the worst."""
    voice, rows, count = wavegen.load("digits"), 3, 400
    network = voice.engine.network
    inputs = ConditioningInputs(label=torch.tensor([0, 3, 7]), speaker=torch.tensor([0, 1, 2]),
                                num_samples=torch.full((rows,), 2000))
    conditioning = ModelConditioning(voice.model, inputs)
    codes = torch.from_numpy(voice.engine.step(voice.engine.start(rows, conditioning, seeds=1), count)).int()
    frames, _, _ = triton_engine.FrameBlocks(conditioning, (network.num_layers, 2 * network.residual_channels)).at(0)
    table = torch.from_numpy(pack_frames(np.asarray(frames, np.float32), network.residual_channels))
    packed = triton_engine.pack_network(network, torch.float16, "cpu")

    def log_probabilities():
        memory, zeros = make_memory(packed, rows), np.zeros(rows, np.uint64)
        memory.begin(packed, list(range(rows)), 0, voice.engine.silence, zeros, zeros, np.ones(rows), np.zeros(rows))
        memory.table_row[:] = torch.arange(rows)
        logits = torch.zeros(rows, count, packed.sizes.codes)
        prefill.prefill_ref(packed, memory, table, conditioning.hop_length, 0, codes, logits)
        return torch.log_softmax(logits.double(), 2)

    exact, tanh = log_probabilities(), torch.tanh
    for sign in (1, -1):
        def off(x, sign=sign):
            return tanh(x) * (1 + sign * 2**-11)

        monkeypatch.setattr(torch, "tanh", off)
        monkeypatch.setattr(torch, "sigmoid", lambda x, off=off: 0.5 * off(0.5 * x) + 0.5)
        divergence = (exact.exp() * (exact - log_probabilities())).sum(2).mean()
        assert 1e-8 < divergence < 1e-4  # `--precision auto` of the CPU engine puts up with 1e-3


@pytest.mark.parametrize("plan", [None, Plan(rows=32)])
def test_a_precision_that_is_fast_plans_the_hardwares_tanh(monkeypatch, plan):
    monkeypatch.setattr(triton_engine, "find_device", lambda _: torch.device("cpu"))
    network = wavegen.load("digits").engine.network
    for precision, fast in (("f16", False), ("f16-fast", True), ("bf16-fast", True)):
        engine = triton_engine.TritonEngine(network, None, precision, plan=plan)
        assert engine.plan_for(20).fast == fast and engine.packed.dtype == triton_engine.DTYPES[precision]
