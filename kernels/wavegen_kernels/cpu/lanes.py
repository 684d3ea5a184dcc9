"""Lane operations: the small vocabulary every CPU micro-kernel is written in.

A lane vector is `<16 x float>` or `<16 x i32>` LLVM IR: one 512-bit register on AVX-512, two on AVX2,
four on NEON.
Only IEEE operations in a fixed order are used (fma, add, mul, div, round to nearest) and no fast-math,
so a kernel's result depends on its shape and inputs only. Offsets are bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from wavegen_kernels.cpu import host

WIDTH = 16  # lanes
VECTOR = 4 * WIDTH  # bytes of one lane vector of float32

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, POINTER = ir.FloatType(), ir.PointerType()
FLOATS, INTS = ir.VectorType(FLOAT, WIDTH), ir.VectorType(INT32, WIDTH)
BYTES, PAIRS = ir.VectorType(INT8, VECTOR), ir.VectorType(INT16, 2 * WIDTH)

# 2^r on [-1/2, 1/2]: minimax of degree 5 in the relative error (9e-8), constant term 1.
EXP2 = (1.3264725e-3, 9.6715128e-3, 5.5507337e-2, 2.4022242e-1, 6.9314698e-1, 1.0)
LOG2_E = 1.4426950408889634
# x + ROUND is x rounded to an integer, ties to even, in its low bits, for |x| < 2^22.
ROUND = 1.5 * 2**23

Value = Any  # an llvmlite value; llvmlite carries no types


def constant(x: float) -> Value:
    """A vector of one float32 constant."""
    return ir.Constant(FLOATS, [ir.Constant(FLOAT, float(np.float32(x)))] * WIDTH)


def integers(x: int) -> Value:
    """A vector of one int32 constant."""
    return ir.Constant(INTS, [ir.Constant(INT32, x)] * WIDTH)


class Lanes:
    """Emits lane operations into the function under construction.

    Args:
        builder: of llvmlite.
        products: instructions for integer products, see `host.integer_products`.
    """

    def __init__(self, builder: Any, products: str = "generic") -> None:
        self.builder, self.products = builder, products

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

    def load_weights(self, address: Value, offset: int | Value = 0, kind: Any = FLOATS) -> Value:
        """A vector whose address is a multiple of 64, as packing guarantees."""
        return self.builder.load(self.at(address, offset), typ=kind, align=VECTOR)

    def load_ints(self, address: Value, offset: int | Value = 0) -> Value:
        """Sixteen int32."""
        return self.builder.load(self.at(address, offset), typ=INTS, align=4)

    def store_low(self, value: Value, bits: int, address: Value, offset: int | Value = 0) -> None:
        """The low 8 or 16 bits of sixteen int32, side by side."""
        narrow = self.builder.trunc(value, ir.VectorType(ir.IntType(bits), WIDTH))
        self.builder.store(narrow, self.at(address, offset), align=1)

    def store(self, value: Value, address: Value, offset: int | Value = 0) -> None:
        self.builder.store(value, self.at(address, offset), align=4)

    def broadcast(self, address: Value, offset: int | Value = 0) -> Value:
        """One float from memory on all lanes."""
        return self.splat(self.builder.load(self.at(address, offset), typ=FLOAT, align=4))

    def broadcast_word(self, address: Value, offset: int | Value = 0) -> Value:
        """Four bytes from memory on all lanes."""
        return self.splat(self.builder.load(self.at(address, offset), typ=INT32, align=1))

    def splat(self, scalar: Value) -> Value:
        """One scalar on all lanes."""
        undefined = ir.Constant(ir.VectorType(scalar.type, WIDTH), ir.Undefined)
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

    # -- integers

    def to_float(self, x: Value) -> Value:
        """int32 to float32, to nearest."""
        return self.builder.sitofp(x, FLOATS)

    def add_ints(self, a: Value, b: Value) -> Value:
        return self.builder.add(a, b)

    def shift_left(self, x: Value, bits: int) -> Value:
        return self.builder.shl(x, integers(bits))

    def shift_right(self, x: Value, bits: int) -> Value:
        """Zeros move in from above."""
        return self.builder.lshr(x, integers(bits))

    def quantize(self, x: Value, lowest: int, highest: int) -> Value:
        """x, to which ROUND has been added, as integers clipped to [lowest, highest], in the low 16 bits."""
        x = self.minimum(self.maximum(x, constant(ROUND + lowest)), constant(ROUND + highest))
        return self.builder.bitcast(x, INTS)

    def dot2(self, total: Value, x: Value, w: Value) -> Value:
        """total + x_0 w_0 + x_1 w_1 for the two int16 of each lane; |x| is below 2^15."""
        if self.products == "vnni":
            return self._dot("llvm.x86.avx512.vpdpwssd.512", total, x, w, PAIRS)
        if self.products == "generic":
            halves = [(self._part(x, 16, i), self._part(w, 16, i)) for i in (0, 1)]
            return self._sum_of_products(total, halves)
        return self.builder.add(total, self._pairs_product(self.builder.bitcast(x, PAIRS),
                                                           self.builder.bitcast(w, PAIRS)))

    def dot4(self, total: Value, x: Value, w: Value) -> Value:
        """total + sum of x_i w_i for the four bytes of each lane: x unsigned, w signed."""
        if self.products == "vnni":
            return self._dot("llvm.x86.avx512.vpdpbusd.512", total, x, w, BYTES)
        if self.products == "generic":
            low = integers(255)
            quarters = [(self.builder.and_(self.builder.lshr(x, integers(8 * i)), low), self._part(w, 8, i))
                        for i in range(4)]
            return self._sum_of_products(total, quarters)
        # Bytes 0 and 2, then 1 and 3, as pairs of int16.
        eight, low = ir.Constant(PAIRS, [ir.Constant(INT16, 8)] * 2 * WIDTH), integers(0x00FF00FF)
        pairs = self.builder.bitcast(w, PAIRS)
        even = self.builder.ashr(self.builder.shl(pairs, eight), eight)
        odd = self.builder.ashr(pairs, eight)
        x_even = self.builder.bitcast(self.builder.and_(x, low), PAIRS)
        x_odd = self.builder.bitcast(self.builder.and_(self.builder.lshr(x, integers(8)), low), PAIRS)
        total = self.builder.add(total, self._pairs_product(x_even, even))
        return self.builder.add(total, self._pairs_product(x_odd, odd))

    def _dot(self, name: str, total: Value, x: Value, w: Value, kind: Any) -> Value:
        if llvm.llvm_version_info[0] >= 22:  # the operands were <16 x i32> before
            x, w = self.builder.bitcast(x, kind), self.builder.bitcast(w, kind)
        return self._call(name, total, x, w)

    def _pairs_product(self, x: Value, w: Value) -> Value:
        """x_0 w_0 + x_1 w_1 of int16 pairs by pmaddwd, 512 or 2 x 256 bits wide."""
        if self.products == "avx512bw":
            return self._call("llvm.x86.avx512.pmaddw.d.512", x, w, result=INTS)
        half = ir.VectorType(INT32, WIDTH // 2)
        parts = [self._call("llvm.x86.avx2.pmadd.wd", self._slice(x, start, WIDTH), self._slice(w, start, WIDTH),
                            result=half) for start in (0, WIDTH)]
        return self.builder.shuffle_vector(*parts, ir.Constant(INTS, list(range(WIDTH))))

    def _slice(self, x: Value, start: int, count: int) -> Value:
        places = ir.Constant(ir.VectorType(INT32, count), list(range(start, start + count)))
        return self.builder.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), places)

    def _part(self, x: Value, bits: int, index: int) -> Value:
        """Signed part `index` of each lane, `bits` wide, as int32."""
        up = self.builder.shl(x, integers(32 - bits * (index + 1)))
        return self.builder.ashr(up, integers(32 - bits))

    def _sum_of_products(self, total: Value, factors: Sequence[tuple[Value, Value]]) -> Value:
        for a, b in factors:
            total = self.builder.add(total, self.builder.mul(a, b))
        return total

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

    def divide(self, index: Value, count: int) -> tuple[Value, Value]:
        """Quotient and remainder of an index of at least 0."""
        quotient = self.builder.udiv(index, ir.Constant(INT64, count))
        return quotient, self.builder.sub(index, self.scaled(quotient, count))

    def choose(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition holds, else b."""
        return self.builder.select(condition, a, b)

    def below(self, a: Value, limit: int) -> Value:
        """Whether the offset a is below `limit`."""
        return self.builder.icmp_signed("<", a, ir.Constant(INT64, limit))

    def offset(self, a: Value, b: int | Value) -> Value:
        """Sum of two byte offsets."""
        return self.builder.add(a, ir.Constant(INT64, b) if isinstance(b, int) else b)

    def _call(self, name: str, *arguments: Value, result: Any = None) -> Value:
        known = self.builder.module.globals.get(name)
        if known is None:
            kind = ir.FunctionType(result or arguments[0].type, [argument.type for argument in arguments])
            known = ir.Function(self.builder.module, kind, name)
        return self.builder.call(known, arguments)


def address_kernel(arity: int, emit: Callable[..., None], distances: int = 0) -> Any:
    """A Numba intrinsic of `arity` integers that returns nothing of use.

    Args:
        arity: number of addresses, and of distances in bytes behind them, the kernel takes.
        emit: writes the body; gets a `Lanes`, one pointer per address and one integer per distance.
        distances: how many of the integers, the last ones, are distances.
    """

    def lower(_context: Any, builder: Any, _signature: Any, addresses: Sequence[Value]) -> Value:
        lanes = Lanes(builder, host.integer_products())
        first = arity - distances
        emit(lanes, *(lanes.pointer(address) for address in addresses[:first]), *addresses[first:])
        return ir.Constant(INT64, 0)

    def typer(typingctx: Any, *addresses: Any) -> Any:
        return types.intp(*[types.intp] * arity), lower

    # Numba reads the arity from the signature; a starred one would arrive as one tuple.
    names = ["typingctx", *(f"address_{i}" for i in range(arity))]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typer.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return intrinsic(typer)
