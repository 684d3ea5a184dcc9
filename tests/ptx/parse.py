"""PTX text as a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """[base + offset]: a register, a parameter or the name of a shared array."""

    base: str
    offset: int


Operand = str | Address | tuple[str, ...]


@dataclass
class Instruction:
    """One instruction.

    Attributes:
        guard: the predicate register it is executed under, empty if always; `negated` turns it round.
        parts: the opcode between its dots.
        operands: registers, numbers and labels as text, addresses, vectors as tuples.
        line: of the PTX; source: "file.py:line" of the kernel.
    """

    guard: str
    negated: bool
    parts: tuple[str, ...]
    operands: list[Operand]
    line: int
    source: str
    text: str

    def __str__(self) -> str:
        return f"PTX line {self.line} ({self.source}): {self.text}"


@dataclass
class Kernel:
    """A parsed entry point.

    Attributes:
        parameters: name and type ("u64") of each.
        registers: type of each by name.
        labels: index of the instruction a label stands before.
        threads: of a program.
    """

    parameters: dict[str, str] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    threads: int = 0


_BANK = re.compile(r"\.(\w+)\s+(%\w+)<(\d+)>")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")


def parse(text: str) -> Kernel:
    """The one entry point of a PTX module."""
    kernel = Kernel()
    files = {number: Path(name).name for number, name in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', text)}
    head, _, rest = text.partition("\n{")
    for kind, name in re.findall(r"\.param\s+\.(\w+)\s+(?:\.ptr\s+[.\w\s]*?)?(\w+)(?=\s*[,\n])", head):
        kernel.parameters[name] = kind
    body = rest.partition("\n}")[0]
    source, first = "?", head.count("\n") + 2
    for number, line in enumerate(body.split("\n"), first):
        line = line.partition("//")[0].strip()
        if match := re.match(r"\.loc\s+(\d+)\s+(\d+)", line):
            source = f"{files.get(match[1], '?')}:{match[2]}"
            continue
        for declaration in re.findall(r"\.reg\s+(.*?);", line):
            _declare(kernel, declaration)
        line = re.sub(r"\.reg\s+.*?;", "", line)
        while match := re.match(r"([\w$]+):\s*", line):
            kernel.labels[match[1]] = len(kernel.instructions)
            line = line[match.end():]
        for statement in line.split(";"):
            # Braces around inline assembly open a scope; those of vectors follow an opcode.
            statement = re.sub(r"^[\s{}]+", "", statement).strip()
            if statement and not statement.startswith("."):
                kernel.instructions.append(_instruction(statement, number, source))
    if match := re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", head):
        kernel.threads = int(match[1])
    return kernel


def _declare(kernel: Kernel, declaration: str) -> None:
    """".b32 %r<7>" or ".pred p, q"."""
    if match := _BANK.match(declaration):
        kernel.registers |= {f"{match[2]}{i}": match[1] for i in range(int(match[3]))}
    else:
        kind, names = declaration.split(None, 1)
        kernel.registers |= {name.strip(): kind[1:] for name in names.split(",")}


def _instruction(statement: str, line: int, source: str) -> Instruction:
    text, guard, negated = statement, "", False
    if match := re.match(r"@(!?)(%?\w+)\s+", statement):
        guard, negated = match[2], bool(match[1])
        statement = statement[match.end():]
    opcode, _, rest = re.sub(r"\s+", " ", statement).partition(" ")
    return Instruction(guard, negated, tuple(opcode.replace("::", ":").split(".")),
                       [_operand(word) for word in _OPERAND.findall(rest)], line, source, re.sub(r"\s+", " ", text))


def _operand(word: str) -> Operand:
    if word.startswith("{"):
        return tuple(part.strip() for part in word[1:-1].split(","))
    if word.startswith("["):
        base, _, offset = word[1:-1].partition("+")
        return Address(base.strip(), int(offset or "0", 0))
    return word
