"""What the two threads of `loop_pair.py` share: words of control, and memory for results under way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wavegen_kernels.cpu import host
from wavegen_kernels.cpu.layout import Shape
from wavegen_kernels.cpu.sync import WORD

# Bytes from the start of `control`; what each word means is said in `loop_pair.py`.
EPOCH, READY, GO, FIRST, LAST, SHARE, CHAIN, SUMMED, BACKOFF = (WORD * place for place in range(9))
DONE = WORD * 9

CALL_BITS = 20  # an epoch is the call's number above these bits, and counts partnerships below
PATIENCE = 30_000  # looks at a word before the partner rests for a while
QUIET = 6  # samples in which the partner was in time, after which it gets another layer
RETRY, RETRY_MOST = 8, 4096  # samples the chain goes on alone after a failure, fourfold after each
TRUSTED = 256  # samples together after which a failure is taken for a chance


def patience_of_chain(shape: Shape) -> int:
    """Looks at a word, 20 to 60 ns each, before the chain goes on alone: a few times what a sample takes.

    50 microseconds for a small network, half a millisecond for 14 MB of weights.
    """
    return 2000 + shape.total_bytes // 1000


def make_control(shape: Shape) -> NDArray[np.int64]:
    """Words of control at rest.

    The share begins where the multiply-adds of both sides are as even as whole layers allow.
    """
    words = WORD // 8
    control = host.aligned(DONE + shape.num_layers * WORD).view(np.int64)
    control[DONE // 8:] = -1
    tap = 2 * shape.residual**2
    past = (shape.kernel_size - 1) * tap
    chain = shape.num_layers * (tap + shape.residual**2) + shape.output * (shape.skip + shape.codes)
    beside = shape.num_layers * (shape.residual * shape.skip + past)
    control[SHARE // 8] = min(max((beside - chain) // (2 * past), 0), shape.num_layers)
    control[BACKOFF // 8] = RETRY
    assert control.size % words == 0
    return control


def pair_places(shape: Shape) -> dict[str, int]:
    """Bytes from the start of the shared memory: of each result under way, and "total".

    z      every layer's gated outputs; written by the chain
    ahead  sums of past taps the chain made while it waited, by layer
    sums   skip sums of even and of odd samples; written by the partner, the last layer's added by the chain
    beside sums of past taps, by layer; written by the partner
    """
    parts = {"z": shape.num_layers * row_distance(shape), "ahead": shape.num_layers * 8 * shape.residual,
             "sums": 2 * sums_distance(shape), "beside": shape.num_layers * 8 * shape.residual}
    places, at = {}, 0
    for name, size in parts.items():
        places[name] = at
        at += -(-size // WORD) * WORD
    return places | {"total": at}


def row_distance(shape: Shape) -> int:
    """Bytes from one layer's z to the next: whole words, as z is read while the next is written."""
    return -(-shape.row_bytes // WORD) * WORD


def sums_distance(shape: Shape) -> int:
    """Bytes from the skip sums of even samples to those of odd ones."""
    return -(-4 * shape.skip // WORD) * WORD
