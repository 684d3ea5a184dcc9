"""Writes a small ONNX model as protocol-buffer bytes, so that a benchmark needs no `onnx` package.

Field numbers are those of onnx.proto (IR version 10, opset 18).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TYPES = {"float32": 1, "int64": 7}
FLOAT, INT = 1, 2  # kinds of attribute


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


class GraphWriter:
    """Collects nodes in order; names of results are made up."""

    def __init__(self) -> None:
        self._nodes, self._constants, self._inputs, self._outputs = b"", b"", b"", b""
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def input(self, name: str, kind: str, shape: Sequence[int]) -> None:
        self._inputs += _bytes(11, _value(name, kind, shape))

    def output(self, name: str, kind: str, shape: Sequence[int]) -> None:
        self._outputs += _bytes(12, _value(name, kind, shape))

    def constant(self, array: NDArray[np.generic]) -> str:
        """Name of a stored array, float32 or int64."""
        name, array = self._name(), np.ascontiguousarray(array)
        self._constants += _bytes(5, b"".join(_number(1, size) for size in array.shape)
                                  + _number(2, TYPES[str(array.dtype)]) + _bytes(8, name) + _bytes(9, array.tobytes()))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: int | float) -> str:
        """Name of a node's one result."""
        return self._add(kind, inputs, 1, attributes)[0]

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        return self._add("Split", [value, self.constant(np.array(sizes, np.int64))], len(sizes), {"axis": axis})

    def _add(self, kind: str, inputs: Sequence[str], results: int, attributes: dict[str, int | float]) -> list[str]:
        names = [self._name() for _ in range(results)]
        content = b"".join(_bytes(1, name) for name in inputs) + b"".join(_bytes(2, name) for name in names)
        content += _bytes(4, kind)
        for name, value in attributes.items():
            stored = (_number(3, value) + _number(20, INT) if isinstance(value, int)
                      else _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, FLOAT))
            content += _bytes(5, _bytes(1, name) + stored)
        self._nodes += _bytes(1, content)
        return names

    def model(self) -> bytes:
        graph = self._nodes + _bytes(2, "step") + self._constants + self._inputs + self._outputs
        return _number(1, 10) + _bytes(8, _bytes(1, "") + _number(2, 18)) + _bytes(7, graph)


def _value(name: str, kind: str, shape: Sequence[int]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    tensor = _number(1, TYPES[kind]) + _bytes(2, sizes)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))
