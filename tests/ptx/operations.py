"""Opcodes that compute: functions of arrays of raw bits, an element per thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WIDTHS = {"b1": np.bool_, "pred": np.bool_, "b8": np.uint8, "b16": np.uint16, "b32": np.uint32, "b64": np.uint64}
TYPES = WIDTHS | {f"{kind}{8 * size}": np.dtype(f"{kind.replace('s', 'i')}{size}").type
                  for kind in "us" for size in (1, 2, 4, 8)}
TYPES |= {"f16": np.float16, "f32": np.float32, "f64": np.float64, "f16x2": np.uint32, "bf16x2": np.uint32}


def bits(kind: str) -> int:
    """Width of a type."""
    return 16 if kind == "bf16" else 8 * np.dtype(TYPES[kind]).itemsize


def raw(kind: str) -> Any:
    """The type a register of this type is kept as."""
    return np.bool_ if kind == "pred" else WIDTHS[f"b{bits(kind)}"]


def value(array: Array, kind: str) -> Array:
    """Raw bits as numbers of a type; a wider register gives its low bits."""
    if kind == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    wanted = np.dtype(TYPES[kind])
    if array.dtype.itemsize > wanted.itemsize:
        array = array.astype(WIDTHS[f"b{8 * wanted.itemsize}"])
    return array.view(wanted) if array.dtype != wanted else array


def to_raw(array: Array, kind: str) -> Array:
    """Numbers of a type as raw bits."""
    if kind == "bf16":
        return round_bf16(array)
    return array.astype(TYPES[kind], copy=False).view(raw(kind))


def round_bf16(x: Array) -> Array:
    """float32 to the bits of bfloat16, to nearest even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def flushed(x: Array) -> Array:
    """Without subnormal numbers."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.float32(0), x)


def _fma(a: Array, b: Array, c: Array) -> Array:
    if a.dtype == np.float64:
        return a * b + c
    return (a.astype(np.float64) * b + c).astype(a.dtype)  # the product is exact


def _shift(x: Array, count: Array, left: bool) -> Array:
    """Counts beyond the width give zeros, or signs."""
    width = 8 * x.dtype.itemsize
    count = value(count, "u32")
    inside = np.minimum(count, width - 1).astype(x.dtype)
    if left:
        return np.where(count < width, x << inside, x.dtype.type(0))
    beyond = x >> x.dtype.type(width - 1) if x.dtype.kind == "i" else x.dtype.type(0)
    return np.where(count < width, x >> inside, beyond)


def _divide(a: Array, b: Array) -> tuple[Array, Array]:
    """Quotient rounded to zero and remainder."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    quotient, rest = a // divisor, a % divisor
    if a.dtype.kind == "i":
        up = (rest != 0) & ((a < 0) != (divisor < 0))
        quotient = quotient + up
        rest = a - quotient * divisor
    return quotient.astype(a.dtype), rest.astype(a.dtype)


def _high(a: Array, b: Array) -> Array:
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    assert a.dtype.itemsize == 4, "mul.hi of 64 bits"
    return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)


def _wide(a: Array, b: Array) -> Array:
    double = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    return a.astype(double) * b.astype(double)


def _field(signed: bool) -> Callable[..., Array]:
    def bfe(x: Array, start: Array, length: Array) -> Array:
        width = 8 * x.dtype.itemsize
        start, length = (value(part, "u32") & np.uint32(255) for part in (start, length))
        length = np.minimum(length, width)
        last = np.minimum(start.astype(np.int64) + length - 1, width - 1)
        shifted = _shift(x, start, False)
        drop = (width - np.minimum(length, width)).astype(np.uint32)
        if not signed:
            return _shift(_shift(shifted, drop, True), drop, False)
        sign = (_shift(x.view(f"u{x.dtype.itemsize}"), last.astype(np.uint32), False) & np.uint8(1)).astype(np.bool_)
        mask = _shift(_shift(np.full_like(x, -1), drop, True).view(f"u{x.dtype.itemsize}"), drop, False).view(x.dtype)
        return np.where(length == 0, x.dtype.type(0), np.where(sign, shifted | ~mask, shifted & mask))
    return bfe


def _prmt(a: Array, b: Array, selector: Array) -> Array:
    source = np.stack([a, b], 1).view(np.uint8)
    picks = (selector[:, None] >> np.array([0, 4, 8, 12], np.uint32)) & np.uint32(15)
    chosen = np.take_along_axis(source, (picks & np.uint32(7)).astype(np.int64), 1)
    chosen = np.where(picks & np.uint32(8), np.where(chosen & 0x80, np.uint8(255), np.uint8(0)), chosen)
    return np.ascontiguousarray(chosen.astype(np.uint8)).view(np.uint32)[:, 0]


def _lop3(a: Array, b: Array, c: Array, table: Array) -> Array:
    out = np.zeros_like(a)
    for i in range(8):
        term = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
        out |= np.where((table >> np.uint32(i)) & np.uint32(1), term, np.uint32(0))
    return out


def _funnel(left: bool, clamp: bool) -> Callable[..., Array]:
    def shf(low: Array, high: Array, count: Array) -> Array:
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        count = (np.minimum(count, 32) if clamp else count & np.uint32(31)).astype(np.uint64)
        return ((both << count) >> np.uint64(32) if left else both >> count).astype(np.uint32)
    return shf


_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
_COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _setp(parts: tuple[str, ...]) -> Callable[..., Array]:
    kind, name = parts[-1], parts[1]
    unordered = name.endswith("u") and name[:-1] in _COMPARE and kind.startswith(("f", "bf"))
    compare = _COMPARE.get(name[:-1] if unordered else name)
    combine = next((_COMBINE[part] for part in parts[2:] if part in _COMBINE), None)

    def setp(a: Array, b: Array, *other: Array) -> Array:
        a, b = value(a, kind), value(b, kind)
        nan = (np.isnan(a) | np.isnan(b)) if a.dtype.kind == "f" else None
        if name in ("num", "nan"):
            out = nan if name == "nan" else ~nan  # type: ignore[operator]
        else:
            assert compare is not None, name
            out = compare(a, b)
            if nan is not None:
                out = (out | nan) if unordered else (out & ~nan)
        return combine(out, other[0]) if combine else out  # type: ignore[return-value]
    return setp


def _convert(parts: tuple[str, ...]) -> Callable[..., Array]:
    to, source = parts[-2], parts[-1]
    if to in ("f16x2", "bf16x2"):
        half = to[:-2]

        def pack(high: Array, low: Array) -> Array:
            a, b = (to_raw(value(part, source), half).astype(np.uint32) for part in (high, low))
            return (a << np.uint32(16)) | b
        return pack
    rounding = next((part for part in parts if part in ("rni", "rzi", "rmi", "rpi")), None)
    saturate = "sat" in parts
    round_to = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}

    def convert(x: Array) -> Array:
        number = value(x, source)
        if rounding:
            number = round_to[rounding](number)
        if saturate:
            number = np.clip(number, 0, 1)
        if number.dtype.kind == "f" and to[0] in "us":
            limits = np.iinfo(TYPES[to])
            number = np.clip(np.nan_to_num(number.astype(np.float64), nan=0), float(limits.min), float(limits.max))
        return to_raw(number, to)
    return convert


_UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative, "abs": np.abs, "not": np.invert, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
    "ex2": lambda x: np.exp2(x.astype(np.float64)),
    "lg2": lambda x: np.log2(x.astype(np.float64)), "rcp": lambda x: 1 / x.astype(np.float64),
    "rsqrt": lambda x: 1 / np.sqrt(x.astype(np.float64)), "tanh": lambda x: np.tanh(x.astype(np.float64))}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def operation(parts: tuple[str, ...]) -> Callable[..., Array] | None:
    """The function of an opcode from raw bits of its sources to those of its destination, None if unknown."""
    name, kind = parts[0], parts[-1]
    if name == "setp":
        return _setp(parts)
    if name == "cvt":
        return _convert(parts)
    if name == "selp":
        return lambda a, b, p: np.where(p, a, b)
    if name in ("cvta", "mov"):
        return lambda a: a
    if name == "prmt":
        return _prmt
    if name == "lop3":
        return _lop3
    if name == "shf":
        return _funnel(parts[1] == "l", parts[2] == "clamp")
    if kind not in TYPES and kind != "bf16":
        return None
    found: Any = None
    if name in _UNARY:
        found = np.logical_not if kind == "pred" else _UNARY[name]
    elif name in _BINARY:
        found = _BINARY[name]
    elif name in ("min", "max"):
        floats = {"min": (np.fmin, np.minimum), "max": (np.fmax, np.maximum)}[name]
        found = floats["NaN" in parts] if kind[0] in "fb" else {"min": np.minimum, "max": np.maximum}[name]
    elif name in ("shl", "shr"):
        return lambda a, n: _shift(value(a, kind), n, name == "shl").view(raw(kind))
    elif name == "bfe":
        inner = _field(kind[0] == "s")
        return lambda a, start, length: inner(value(a, kind), start, length).view(raw(kind))
    elif name == "div":
        found = np.divide if kind[0] == "f" else lambda a, b: _divide(a, b)[0]
    elif name == "rem":
        found = lambda a, b: _divide(a, b)[1]  # noqa: E731
    elif name in ("mul", "mad", "fma"):
        plain = np.multiply
        if "hi" in parts:
            plain = _high  # type: ignore[assignment]
        elif "wide" in parts:
            wide = f"{kind[0]}{2 * bits(kind)}"
            if name == "mul":
                return lambda a, b: _wide(value(a, kind), value(b, kind)).view(raw(wide))
            return lambda a, b, c: (_wide(value(a, kind), value(b, kind)) + value(c, wide)).view(raw(wide))
        if name == "mul":
            found = plain
        elif kind[0] in "fb":
            found = _fma
        else:
            found = lambda a, b, c: plain(a, b) + c  # noqa: E731
    if found is None:
        return None
    ftz = "ftz" in parts
    if kind in ("pred", "b16", "b32", "b64"):
        return found  # type: ignore[no-any-return]

    def compute(*sources: Array) -> Array:
        numbers = [value(source, kind) for source in sources]
        if ftz:
            return to_raw(flushed(found(*map(flushed, numbers)).astype(np.float32)), kind)
        return to_raw(found(*numbers), kind)
    return compute
