"""Lane operations: the small vocabulary every CPU micro-kernel is written in.

A lane vector is `<16 x float>` LLVM IR: one 512-bit register on AVX-512, two on AVX2, four on NEON.
Only IEEE operations in a fixed order are used (fma, add, mul, div, round to nearest) and no fast-math,
so a kernel's result depends on its shape and inputs only. Offsets are bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 16  # lanes
VECTOR = 4 * WIDTH  # bytes of one lane vector of float32

INT8, INT32, INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, POINTER = ir.FloatType(), ir.PointerType()
FLOATS, INTS = ir.VectorType(FLOAT, WIDTH), ir.VectorType(INT32, WIDTH)

# 2^r on [-1/2, 1/2]: minimax of degree 5 in the relative error (9e-8), constant term 1.
EXP2 = (1.3264725e-3, 9.6715128e-3, 5.5507337e-2, 2.4022242e-1, 6.9314698e-1, 1.0)
LOG2_E = 1.4426950408889634

Value = Any  # an llvmlite value; llvmlite carries no types


def constant(x: float) -> Value:
    """A vector of one float32 constant."""
    return ir.Constant(FLOATS, [ir.Constant(FLOAT, float(np.float32(x)))] * WIDTH)


def integers(x: int) -> Value:
    """A vector of one int32 constant."""
    return ir.Constant(INTS, [ir.Constant(INT32, x)] * WIDTH)


class Lanes:
    """Emits lane operations into the function under construction."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    # -- memory

    def at(self, address: Value, offset: int | Value) -> Value:
        """address + offset bytes."""
        if isinstance(offset, int):
            if offset == 0:
                return address
            offset = ir.Constant(INT64, offset)
        return self.builder.gep(address, [offset], source_etype=INT8)

    def pointer(self, address: Value) -> Value:
        return self.builder.inttoptr(address, POINTER)

    def load(self, address: Value, offset: int | Value = 0) -> Value:
        """Sixteen floats."""
        return self.builder.load(self.at(address, offset), typ=FLOATS, align=4)

    def load_weights(self, address: Value, offset: int | Value = 0) -> Value:
        """Sixteen floats whose address is a multiple of 64, as packing guarantees."""
        return self.builder.load(self.at(address, offset), typ=FLOATS, align=VECTOR)

    def store(self, value: Value, address: Value, offset: int | Value = 0) -> None:
        self.builder.store(value, self.at(address, offset), align=4)

    def broadcast(self, address: Value, offset: int | Value = 0) -> Value:
        """One float from memory on all lanes."""
        return self.splat(self.builder.load(self.at(address, offset), typ=FLOAT, align=4))

    def splat(self, scalar: Value) -> Value:
        """One scalar on all lanes."""
        undefined = ir.Constant(FLOATS, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * WIDTH))

    def prefetch(self, address: Value, offset: int | Value = 0) -> None:
        """Ask for the line at address + offset; an address outside the buffer is harmless."""
        name, numbers = "llvm.prefetch.p0", [ir.Constant(INT32, x) for x in (0, 3, 1)]  # read, keep, data
        known = self.builder.module.globals.get(name)
        if known is None:
            kind = ir.FunctionType(ir.VoidType(), [POINTER, INT32, INT32, INT32])
            known = ir.Function(self.builder.module, kind, name)
        self.builder.call(known, [self.at(address, offset), *numbers])

    # -- arithmetic

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self._call("llvm.fma.v16f32", a, b, c)

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.builder.fmul(a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self.builder.fdiv(a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def zero_below(self, x: Value, limit: Value, guard: Value) -> Value:
        """x where guard >= limit, else 0."""
        return self.builder.select(self.builder.fcmp_ordered(">=", guard, limit), x, constant(0.0))

    def largest(self, x: Value) -> Value:
        """The largest of the sixteen lanes, on all lanes."""
        for distance in (8, 4, 2, 1):
            swapped = ir.Constant(INTS, [lane ^ distance for lane in range(WIDTH)])
            x = self.maximum(x, self.builder.shuffle_vector(x, ir.Constant(FLOATS, ir.Undefined), swapped))
        return x

    # -- functions

    def exp2(self, x: Value) -> Value:
        """2^x for |x| < 126: 2^round(x) by its exponent bits, the rest by a polynomial."""
        whole = self._call("llvm.rint.v16f32", x)
        rest = self.sub(x, whole)
        power = constant(EXP2[0])
        for coefficient in EXP2[1:]:
            power = self.fma(power, rest, constant(coefficient))
        exponent = self.builder.add(self.builder.fptosi(whole, INTS), integers(127))
        return self.mul(power, self.builder.bitcast(self.builder.shl(exponent, integers(23)), FLOATS))

    def exp2_clamped(self, x: Value, scale: float, limit: float) -> Value:
        """2^(scale * x), the exponent held within +-limit."""
        x = self.mul(x, constant(scale))
        return self.exp2(self.minimum(self.maximum(x, constant(-limit)), constant(limit)))

    def tanh(self, x: Value) -> Value:
        """(1 - p) / (1 + p), p = exp(-2 x)."""
        p = self.exp2_clamped(x, -2 * LOG2_E, 60.0)
        return self.div(self.sub(constant(1.0), p), self.add(constant(1.0), p))

    def gate(self, u: Value, v: Value) -> Value:
        """tanh(u) * sigmoid(v) = (1 - p) / ((1 + p) (1 + q)), p = exp(-2 u), q = exp(-v): one division."""
        p, q = self.exp2_clamped(u, -2 * LOG2_E, 60.0), self.exp2_clamped(v, -LOG2_E, 60.0)
        one = constant(1.0)
        return self.div(self.sub(one, p), self.mul(self.add(one, p), self.add(one, q)))

    # -- control

    def loop(self, count: int, body: Callable[[Value, list[Value]], Sequence[Value]],
             carried: Sequence[Value] = ()) -> list[Value]:
        """for i in range(count): carried = body(i, carried). `count` is at least 1."""
        builder = self.builder
        before, head, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(INT64)
        index.add_incoming(ir.Constant(INT64, 0), before)
        held = [builder.phi(value.type) for value in carried]
        for phi, value in zip(held, carried, strict=True):
            phi.add_incoming(value, before)
        result = list(body(index, list(held)))
        following, end = builder.add(index, ir.Constant(INT64, 1)), builder.block
        index.add_incoming(following, end)
        for phi, value in zip(held, result, strict=True):
            phi.add_incoming(value, end)
        builder.cbranch(builder.icmp_signed("<", following, ir.Constant(INT64, count)), head, after)
        builder.position_at_end(after)
        return result

    def scaled(self, index: Value, factor: int) -> Value:
        """index * factor, as a byte offset."""
        return self.builder.mul(index, ir.Constant(INT64, factor))

    def _call(self, name: str, *arguments: Value) -> Value:
        known = self.builder.module.globals.get(name)
        if known is None:
            kind = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
            known = ir.Function(self.builder.module, kind, name)
        return self.builder.call(known, arguments)


def address_kernel(arity: int, emit: Callable[..., None]) -> Any:
    """A Numba intrinsic of `arity` addresses that returns nothing of use.

    Args:
        arity: number of integer addresses the kernel takes.
        emit: writes the body; gets a `Lanes` and one pointer per address.
    """

    def lower(_context: Any, builder: Any, _signature: Any, addresses: Sequence[Value]) -> Value:
        lanes = Lanes(builder)
        emit(lanes, *(lanes.pointer(address) for address in addresses))
        return ir.Constant(INT64, 0)

    def typer(typingctx: Any, *addresses: Any) -> Any:
        return types.intp(*[types.intp] * arity), lower

    # Numba reads the arity from the signature; a starred one would arrive as one tuple.
    names = ["typingctx", *(f"address_{i}" for i in range(arity))]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typer.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return intrinsic(typer)
