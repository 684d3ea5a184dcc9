"""How the GPU engine plans its launches; what it computes is tested in tests/interpreted."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")

from wavegen_kernels.gpu.pack import make_sizes
from wavegen_kernels.gpu.plan import Limits, Plan, choose_plan

A = make_sizes(20, 2, 64, 256, 256, 256)
C = make_sizes(30, 2, 128, 256, 256, 256)
D = make_sizes(24, 3, 128, 128, 128, 256)
H200, A100 = Limits(132, 232_448, 128), Limits(108, 166_912, 32)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "limits", "plan"),
    [
        (A, 1, H200, Plan(16)),
        (A, 132 * 16, H200, Plan(16)),
        (A, 132 * 16 + 1, H200, Plan(32)),
        (A, 132 * 128, H200, Plan(128, parts=2)),
        (A, 10**6, A100, Plan(32)),
        (C, 1, H200, Plan(16, parts=2)),
        (C, 10**6, H200, Plan(64, parts=4)),  # 128 rows of as many sums do not fit the registers
        (D, 1, A100, Plan(16, parts=2)),
    ],
)
def test_tiles_grow_with_the_batch_and_layers_are_cut_to_fit(sizes, batch_size, limits, plan):
    assert choose_plan(sizes, batch_size, 2, limits) == plan


def test_wide_weights_are_cut_finer_and_then_not_copied_ahead():
    assert choose_plan(A, 1, 4, H200).parts == 1
    assert choose_plan(C, 1, 4, H200).parts == 4
    assert choose_plan(make_sizes(30, 3, 256, 512, 256, 256), 1, 4, A100) == Plan(16, parts=8, stages=1)
