"""A stand-in for Triton's launcher: kernels are compiled for a GPU that is not there, and run by `machine.py`."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ptx.machine import Code, Launch
from ptx.memory import Buffer
from ptx.operations import bits
from ptx.parse import parse

TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32",
         torch.int64: "i64", torch.uint8: "u8"}
# PTX wants this fence. Triton leaves it out up to 3.6, in every pipelined product on Hopper.
FENCES_COPIES = tuple(int(part) for part in triton.__version__.split(".")[:2]) > (3, 6)


class Device:
    """A GPU of some compute capability that is not there.

    Args:
        capability: 80 (A100), 90 (H100, H200).
        seed: of the schedule of programs that run at the same time; None lets them take turns.
        missing: programs that never begin.
        mail: parameters whose arrays programs talk through.
    """

    compiled: ClassVar[dict[Any, Code]] = {}  # of all devices: compiling takes longest

    def __init__(self, capability: int, seed: int | None = None, missing: tuple[int, ...] = (),
                 mail: tuple[str, ...] = ("mail", "abort")) -> None:
        self.capability, self.seed, self.missing, self.mail = capability, seed, missing, mail
        self.instructions = 0
        self.latest: Code

    def source(self, ptx: str) -> str:
        """The PTX to run in place of what was compiled."""
        return ptx

    def compile(self, kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, Any]) -> Code:
        """PTX of a kernel, translated."""
        key = (type(self), kernel.__name__, kernel.__module__, self.capability, *sorted(types.items()),
               *sorted((name, str(value)) for name, value in (constants | options).items()))
        if key not in self.compiled:
            names = list(kernel.arg_names)
            signature = {name: "constexpr" if name in constants else types[name] for name in names}
            aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names)
                       if signature[name].startswith("*")}
            values = {(names.index(name),): value for name, value in constants.items()}
            source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
            with _no_assembler():
                made = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)
            self.compiled[key] = Code(parse(self.source(made.asm["ptx"])), int(made.metadata.shared), FENCES_COPIES)
        self.latest = self.compiled[key]
        return self.latest

    def launch(self, kernel: Any, grid: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """As `kernel[grid](*arguments, **named)`."""
        given = dict(zip(kernel.arg_names, arguments, strict=False)) | named
        constants, types, values = {}, {}, {}
        for parameter in kernel.params:
            value = given.pop(parameter.name)
            if parameter.is_constexpr:
                constants[parameter.name] = value
            elif isinstance(value, torch.Tensor):
                types[parameter.name], values[parameter.name] = "*" + TYPES[value.dtype], value
            else:
                kind = parameter.annotation_type or ("fp32" if isinstance(value, float) else "i32")
                types[parameter.name], values[parameter.name] = kind, value
        together = given.pop("launch_cooperative_grid", False)
        code = self.compile(kernel, types, constants, given)
        assert code.threads == 32 * given.get("num_warps", 4)
        buffers: dict[tuple[int, int], Buffer] = {}
        raw: list[int | Buffer] = []
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                raw.append(_bits(value, types[name]))
                continue
            assert value.is_contiguous() and value.data_ptr() % 16 == 0, name
            place = (value.data_ptr(), value.nbytes)
            if place not in buffers:
                data = value.reshape(-1).view(torch.uint8).numpy() if value.nbytes else np.zeros(0, np.uint8)
                buffers[place] = Buffer(name, data, name in self.mail)
            raw.append(buffers[place])
        parameters = list(code.kernel.parameters)
        # Triton adds pointers to scratch memory at the end.
        raw += [0] * (len(parameters) - len(raw))
        size = (*grid, 1, 1)[:3]
        launch = Launch(code, size, list(buffers.values()), dict(zip(parameters, raw, strict=True)), together,
                        self.seed, self.missing)
        self.instructions += launch.run()

    @contextmanager
    def holds(self, *modules: Any) -> Iterator[Device]:
        """Within, what these modules launch runs on this device; kernels are the functions called so."""
        kernels = [(module, name, value) for module in modules for name, value in vars(module).items()
                   if isinstance(value, triton.JITFunction) and name.endswith("_kernel")]
        try:
            for module, name, kernel in kernels:
                setattr(module, name, _Stub(self, kernel))
            yield self
        finally:
            for module, name, kernel in kernels:
                setattr(module, name, kernel)


@contextmanager
def _no_assembler() -> Iterator[None]:
    """Within, compilation ends at PTX: nobody needs the machine code, which takes as long again."""
    def hook(*arguments: Any) -> Any:
        if not arguments:  # asked what the result depends on
            return "ptx only", "ptx only"
        arguments[1]["cubin"] = lambda ptx, metadata: b""

    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.runtime.scope():
        knobs.cache.dir, knobs.runtime.add_stages_inspection_hook = folder, hook
        yield


class _Stub:
    def __init__(self, device: Device, kernel: Any) -> None:
        self.device, self.kernel = device, kernel

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **named: self.device.launch(self.kernel, grid, arguments, named)


def _bits(value: float, kind: str) -> int:
    if kind == "fp32":
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    return int(value) & ((1 << bits(kind.replace("i", "s"))) - 1)
