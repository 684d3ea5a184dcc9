"""Words of memory two threads hand work over by: atomic read and write, and a wait that ends.

    write(address, value)    everything written before is seen by who reads the value
    read(address)            int64
    pause()                  a hint that this core waits
    wait(address, value, turns) -> whether the word reached the value within that many reads

A word lies alone on its pair of cache lines (`WORD` bytes apart), or the threads would wait for
each other's unrelated words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from wavegen_kernels.cpu.lanes import INT64, Value

WORD = 128  # bytes between two words: neighbouring lines are fetched in pairs
_PAUSE = {"x86_64": "llvm.x86.sse2.pause", "aarch64": "llvm.aarch64.hint", "arm64": "llvm.aarch64.hint"}
_YIELD = 1  # the number of ARM's hint


def _word(builder: Any, address: Value) -> Value:
    # llvmlite checks an atomic store against the type a pointer points to, so this one has a type.
    return builder.inttoptr(address, ir.PointerType(INT64))


@intrinsic
def read(typingctx: Any, address: Any) -> Any:
    """int64 at an address, and all that was written before it."""

    def lower(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Value]) -> Value:
        return builder.load_atomic(_word(builder, arguments[0]), "acquire", 8)

    return types.int64(types.intp), lower


@intrinsic
def write(typingctx: Any, address: Any, value: Any) -> Any:
    """An int64 to an address, after all that was written before."""

    def lower(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Value]) -> Value:
        builder.store_atomic(arguments[1], _word(builder, arguments[0]), "release", 8)
        return ir.Constant(INT64, 0)

    return types.int64(types.intp, types.int64), lower


@intrinsic
def pause(typingctx: Any) -> Any:
    """Let the core rest between two looks at a word; nothing on a CPU without such a hint."""

    def lower(_context: Any, builder: Any, _signature: Any, _arguments: Sequence[Value]) -> Value:
        name = _PAUSE.get(str(builder.module.triple).split("-", 1)[0])
        if name is not None:
            kinds = [ir.IntType(32)] if name.endswith("hint") else []
            known = builder.module.globals.get(name)
            if known is None:
                known = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
            builder.call(known, [ir.Constant(kind, _YIELD) for kind in kinds])
        return ir.Constant(INT64, 0)

    return types.int64(), lower


@njit(nogil=True)
def wait(address: Any, value: Any, turns: Any) -> Any:
    """Whether the word at `address` reached `value` within `turns` looks."""
    for _ in range(turns):
        if read(address) >= value:
            return True
        pause()
    return False
