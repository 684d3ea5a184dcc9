"""Which thread of a warp holds which element of a tensor-core tile (PTX ISA, "matrix fragments").

A warp's registers are an array (registers, warps, 32) of 32 bits, each two 16-bit elements, the lower
one first. In a tile of 8 x 8 lane l holds row l // 4, columns 2 (l % 4) and the next.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.operations import value

Array = NDArray[Any]
LANE = np.arange(32)


@cache
def _fragment(rows: int, columns: int) -> Array:
    """Of each element of a (rows, columns) tile in 16-bit pairs, its place in (registers, 32, 2) flattened.

    8 x 8 tiles lie below each other first, as those of the A operand do.
    """
    row, column = np.mgrid[:rows, :columns]
    register = column // 8 * (rows // 8) + row // 8
    return (register * 32 + row % 8 * 4 + column % 8 // 2) * 2 + column % 2


def tile_of(registers: Array, rows: int, columns: int, kind: str) -> Array:
    """float64 (warps, rows, columns) of 16-bit fragments (registers, warps, 32)."""
    halves = np.ascontiguousarray(registers.transpose(1, 0, 2)).view(np.uint16)  # (warps, registers, 64)
    flat = halves.reshape(len(halves), -1)[:, _fragment(rows, columns)]
    return value(np.ascontiguousarray(flat), kind).astype(np.float64)


@cache
def sums_at(columns: int) -> tuple[Array, Array]:
    """Row and column of each 32-bit sum (registers, 32) of a (16, columns) tile: registers 4 j .. 4 j + 3
    hold columns 8 j .. 8 j + 7, the first two row l // 4, the others row l // 4 + 8."""
    register = np.arange(columns // 2)[:, None]
    row = LANE // 4 + register % 4 // 2 * 8
    return row, register // 4 * 8 + LANE % 4 * 2 + register % 2


def multiply(a: Array, b: Array, total: Array) -> Array:
    """total + A B in the registers of the sums: float32 (registers, warps, 32).

    Args:
        a: (warps, 16, k); b: (warps, k, n); total: float32 (registers, warps, 32).
    """
    row, column = sums_at(b.shape[-1])
    product = np.matmul(a, b)[:, row, column]  # (warps, registers, 32)
    return (total + product.transpose(1, 0, 2)).astype(np.float32)


def mma(a: Array, b: Array, total: Array, n: int, k: int, kind: str) -> Array:
    """mma.sync m16, n, k of 16-bit operands (registers, warps, 32) and float32 sums."""
    return multiply(tile_of(a, 16, k, kind), tile_of(b, n, k, kind).transpose(0, 2, 1), total)


def matrix_words(rows: Array, transposed: bool) -> Array:
    """ldmatrix: what each lane receives of 8 x 8 matrices.

    Args:
        rows: uint16 (matrices, warps, 8, 8).

    Returns:
        uint32 (matrices, warps, 32).
    """
    if transposed:
        rows = rows.swapaxes(2, 3)
    return np.ascontiguousarray(rows).view(np.uint32).reshape(*rows.shape[:2], 32)


def matrix_rows(words: Array, transposed: bool) -> Array:
    """stmatrix, the other way: uint16 (matrices, warps, 8, 8) of uint32 (matrices, warps, 32)."""
    rows = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape[:2], 8, 8)
    return rows.swapaxes(2, 3) if transposed else rows


@cache
def _offsets(extent: int, depth: int, major: bool, swizzle: int, leading: int, stride: int) -> Array:
    """Bytes from the start address to each 16-bit element (extent, depth) of a wgmma operand, before swizzling.

    Args:
        extent: of M or N; depth: of K. `major`: contiguous along M or N instead of K.
        swizzle: bytes of a row, 16 (none), 32, 64 or 128.
        leading, stride: byte offsets of the descriptor.
    """
    m, k = np.mgrid[:extent, :depth]
    across = swizzle // 2  # elements of a row
    if not major:
        if swizzle == 16:
            return m // 8 * stride + m % 8 * 16 + k // 8 * leading + k % 8 * 2
        return m // 8 * stride + m % 8 * swizzle + k * 2
    if swizzle == 16:
        leading, stride = stride, leading
    return m // across * leading + k // 8 * stride + k % 8 * swizzle + m % across * 2


def descriptor_addresses(descriptor: int, extent: int, depth: int, major: bool) -> Array:
    """Shared addresses of a wgmma operand's 16-bit elements (extent, depth), from its matrix descriptor."""
    start, leading, stride = ((descriptor >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    swizzle = {0: 16, 1: 128, 2: 64, 3: 32}[descriptor >> 62]
    if swizzle > 16 and descriptor >> 49 & 7:
        raise NotImplementedError(f"a base offset in the matrix descriptor {descriptor:#x}")
    addresses = start + _offsets(extent, depth, major, swizzle, leading, stride)
    mask = swizzle // 16 - 1  # bits from 4 on are turned by those from 7 on
    return addresses ^ ((addresses >> 7 & mask) << 4)
