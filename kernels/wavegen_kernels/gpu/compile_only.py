"""Compile a Triton kernel for a GPU that is not there, and read what became of it.

The assembler and disassemblers are those inside the triton package.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
# Bytes of shared memory one program may have.
SHARED_LIMITS = {80: 166_912, 90: 232_448}
TENSOR_CORE = ("HMMA", "HGMMA")
ASYNC_COPY = ("LDGSTS", "UTMALDG", "UBLKCP")


@dataclass(frozen=True)
class Compiled:
    """Resources of a compiled kernel.

    Attributes:
        registers: of a thread; 255 is the most there is.
        stack: bytes of a thread that did not fit registers.
        shared: bytes of shared memory of a program.
        instructions: how often each opcode stands in the machine code, without suffixes.
        seconds: the compilation took.
    """

    registers: int
    stack: int
    shared: int
    instructions: Counter[str]
    ptx: str
    sass: str
    seconds: float

    @property
    def tensor_core(self) -> int:
        """Tensor-core instructions."""
        return sum(self.instructions[name] for name in TENSOR_CORE)

    @property
    def async_copies(self) -> int:
        """Copies from global to shared memory that pass no register."""
        return sum(self.instructions[name] for name in ASYNC_COPY)

    def layer_loop(self) -> dict[str, int]:
        """The first loop with tensor-core instructions: how many of all instructions, how many of what costs most.

        Keys: instructions; spills, to and from memory of registers that ran out; products, of warp groups, and
        waits for them: as many as products where the compiler has lined them up one behind the other.
        """
        loop = next(loop for loop in self.loops() if any(loop[name] for name in TENSOR_CORE))
        return {"instructions": loop.total(), "spills": loop["LDL"] + loop["STL"], "products": loop["HGMMA"],
                "waits": loop["WARPGROUP"] // 2}

    def loops(self) -> list[Counter[str]]:
        """Opcodes of each loop, outer loops holding those of the loops inside."""
        labels: dict[str, int] = {}
        lines: list[str] = []
        for line in self.sass.splitlines():
            if label := re.match(r"\s*(\.L_x_\d+):", line):
                labels[label[1]] = len(lines)
            elif instruction := _INSTRUCTION.match(line):
                lines.append(instruction[1])
        found = []
        for end, text in enumerate(lines):
            jump = re.search(r"BRA.*`\((\.L_x_\d+)\)", text)
            if jump and labels.get(jump[1], end + 1) <= end:
                found.append(_opcodes(lines[labels[jump[1]]:end + 1]))
        return found


_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*)$")


def compile_only(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], capability: int,
                 **options: Any) -> Compiled:
    """Compile a kernel for compute capability 80 (A100), 90 (H100, H200) and so on.

    Args:
        kernel: a `triton.jit` function, not interpreted.
        types: of the arguments that are not constants, such as "*fp16" or "i32"; pointers are
            taken to be aligned to 16 bytes, as torch allocates them.
        constants: the constexpr arguments.
        options: num_warps, num_stages and the like.

    Raises:
        ValueError: an argument is in neither of `types` and `constants`.
    """
    names = list(kernel.arg_names)
    if missing := [name for name in names if name not in types and name not in constants]:
        raise ValueError(f"no type and no constant for {', '.join(missing)} of {kernel.__name__}")
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names)
               if signature[name].startswith("*")}
    values = {(names.index(name),): value for name, value in constants.items() if name in names}
    start = time.perf_counter()
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        sass = _tool("nvdisasm", "-c", file.name)
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    lines = [match[1] for line in sass.splitlines() if (match := _INSTRUCTION.match(line))]
    return Compiled(numbers["REG"], numbers["STACK"], int(compiled.metadata.shared), _opcodes(lines),
                    compiled.asm["ptx"], sass, seconds)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def _opcodes(lines: list[str]) -> Counter[str]:
    """Count "@!P0 HMMA.16816.F32 R4, ..." as HMMA."""
    found: Counter[str] = Counter()
    for line in lines:
        if match := re.match(r"(?:@!?U?P\w+\s+)?([A-Z0-9_]+)", line.strip("{} ")):
            found[match[1]] += 1
    return found
