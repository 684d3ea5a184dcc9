"""That the Triton kernels compile for GPUs that are not here, and fit them: some cases of the whole budget."""

from __future__ import annotations

from collections import Counter

import pytest

from helpers import load_script

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")

import triton
import triton.language as tl

from wavegen_kernels.gpu.blocks import gate
from wavegen_kernels.gpu.compile_only import compile_only

script = load_script("kernels/benchmarks/compile_budget.py")
CASES = script.make_cases()
# What a change is most likely to break, in the time there is; the script compiles all.
SOME = ("sm_90 A latency", "sm_90 A batch 16896", "sm_80 D batch 1", "sm_90 D prefill layer_kernel")


@pytest.fixture(scope="module")
def compiled():
    return {}


@pytest.mark.parametrize("name", SOME)
def test_a_kernel_fits_its_device_and_its_budget(compiled, name):
    found = compiled[name] = CASES[name].compile()
    assert script.complaints(name, found, script.read_budget().get(script.VERSION), CASES[name].capability) == []


def test_what_the_designs_rest_on_is_in_the_machine_code(compiled):
    missing = [name for name in SOME if name not in compiled]
    if missing:
        pytest.skip("not all cases were compiled")
    assert compiled["sm_90 A latency"].stack <= 64
    assert "ld.volatile.global" in compiled["sm_90 A latency"].ptx
    assert compiled["sm_80 D batch 1"].async_copies > 0, "the weights are not copied ahead"
    loop = compiled["sm_90 A batch 16896"].layer_loop()
    assert 2 * loop["waits"] < loop["products"], "each product waits for the one before it: too few registers"
    all_of_it = compiled["sm_90 A latency"].instructions
    # Triton 3.6 takes products of single warps here, which wait for nobody.
    if all_of_it["HGMMA"]:
        assert all_of_it["WARPGROUP"] < all_of_it["HGMMA"], "each product waits for the one before it: see `agreed`"


@triton.jit
def gate_kernel(u, v, out, COUNT: tl.constexpr, FAST: tl.constexpr):
    i = tl.arange(0, COUNT)
    tl.store(out + i, gate(tl.load(u + i), tl.load(v + i), FAST))


@pytest.mark.parametrize("fast", [False, True])
def test_a_fast_gate_is_the_tanh_of_the_hardware(fast):
    types = dict.fromkeys(("u", "v", "out"), "*fp32")
    found = compile_only(gate_kernel, types, {"COUNT": 128, "FAST": fast}, 90, num_warps=4)
    assert found.ptx.count("tanh.approx.f32") == (2 if fast else 0)
    assert found.instructions["MUFU"] == (2 if fast else 3)


def test_this_triton_has_a_budget():
    if script.VERSION not in script.read_budget():
        pytest.skip(f"Triton {script.VERSION} has no budget, so the cases were held to the limits of the device only; "
                    f"kernels/benchmarks/compile_budget.py --write makes one")
    assert set(script.read_budget()[script.VERSION]) == set(CASES)


def test_what_is_worse_than_the_budget_is_named():
    found = script.Compiled(255, 8, 200_000, Counter({"HMMA": 3}), "", "", 0.0)
    budget = {"x": {"registers": 255, "stack": 0, "shared": 200_000, "tensor_core": 3, "async_copies": 2}}
    assert script.complaints("x", found, budget, 90) == ["x: stack 8, budget 0", "x: async_copies 0, budget 2"]
    assert script.complaints("y", found, budget, 90) == [
        "y: no budget; run kernels/benchmarks/compile_budget.py --write"]
    assert script.complaints("y", found, None, 90) == []
    assert "200000 bytes of shared memory" in script.complaints("y", found, None, 80)[0]
