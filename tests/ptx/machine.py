"""Programs of a launch: threads, warps, barriers, asynchronous copies and products."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx import tiles
from ptx.memory import Buffer, Fault, Global, Shared, Who
from ptx.operations import TYPES, bits, operation, raw, to_raw, value
from ptx.parse import Address, Instruction, Kernel, Operand

Array = NDArray[Any]
WARP = 32
INSTRUCTIONS = 200_000_000  # of a program, after which it is taken to hang
Run = Callable[["Program", Any], None]

_IGNORED = ("pragma", "nanosleep", "prefetch", "prefetchu", "griddepcontrol", "membar", "setmaxnreg")
_CONTROL = ("bra", "ret", "exit", "bar", "barrier")


@dataclass
class Step:
    """A translated instruction.

    Attributes:
        kind: "compute", "run" or a control opcode.
        function: of "compute", from values of the sources to that of the target (or a tuple, of the targets).
        fast: the same with all threads active and nothing to watch.
        run: of "run", given the program and the mask of active threads (None: all).
        touch: all registers read or written.
        yields: other programs may go on after it: it looks at what they send.
    """

    instruction: Instruction
    kind: str
    function: Any = None
    sources: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    guard: int = -1
    fast: Any = None
    run: Run | None = None
    target: int = -1
    touch: frozenset[int] = frozenset()
    yields: bool = False


class Code:
    """A kernel translated for programs of any launch.

    Args:
        kernel: parsed.
        shared: bytes of shared memory of a program.
        fences_copies: a proxy fence is due between a cp.async and a wgmma that reads what it copied.
    """

    def __init__(self, kernel: Kernel, shared: int, fences_copies: bool = True) -> None:
        self.kernel, self.shared, self.threads, self.fences_copies = kernel, shared, kernel.threads, fences_copies
        self.kinds: list[Any] = []
        self.index: dict[str, int] = {}
        self.constants: dict[int, Callable[[Program], Array]] = {}
        self._known: dict[Any, int] = {}
        for name, kind in kernel.registers.items():
            self.index[name] = len(self.kinds)
            self.kinds.append(raw(kind))
        self.num_registers = len(self.kinds)
        instructions = kernel.instructions
        self.granule = min(map(_least_access, instructions), default=4)
        self.steps = [_translate(self, instruction) for instruction in instructions]
        self.undefined_at_entry = _live_at_entry(self)

    def constant(self, key: Any, kind: Any, make: Callable[[Program], Any]) -> int:
        """Index of a register that is the same in all programs that `make` makes it alike for."""
        if (key, kind) not in self._known:
            self._known[key, kind] = index = len(self.kinds)
            self.kinds.append(kind)
            self.constants[index] = make
        return self._known[key, kind]

    def source(self, operand: Operand, kind: str) -> int:
        """Index of a register, special register, number or name of a type."""
        assert isinstance(operand, str), operand
        if operand in self.index:
            return self.index[operand]
        if operand.startswith("%"):
            return self.constant(operand, np.uint32, lambda program: program.special(operand))
        if operand in self.kernel.parameters:
            raise NotImplementedError(f"the address of a parameter, {operand}")
        number = literal(operand, kind)
        width = raw(kind)
        return self.constant(number, width, lambda program: np.full(program.threads, number, width))

    def target(self, operand: Operand) -> int:
        """Index of a register that is written; "_" is one nobody reads."""
        assert isinstance(operand, str), operand
        if operand == "_":
            return self.constant("_", np.uint64, lambda program: np.zeros(program.threads, np.uint64))
        return self.index[operand]


def literal(text: str, kind: str) -> int:
    """Raw bits of a number as PTX writes it; a name in shared memory is its address."""
    if kind == "pred":
        return int(text, 0) != 0
    if text[:2] in ("0f", "0F"):
        return int(text[2:], 16)
    if text[:2] in ("0d", "0D"):
        return int(text[2:], 16)
    if text[0].isalpha() or text[0] in "_$":
        return Shared.BASE  # the one array, which begins there
    return int(text.rstrip("U"), 0) & ((1 << bits(kind)) - 1)


def _least_access(instruction: Instruction) -> int:
    """Bytes of the least element a load or store moves, 4 at most."""
    name = instruction.parts[0]
    if name in ("ldmatrix", "stmatrix", "wgmma"):
        return 2
    if name in ("st", "atom", "red") or (name == "ld" and "param" not in instruction.parts):
        return min(4, bits(instruction.parts[-1]) // 8)
    return 4


def _translate(code: Code, instruction: Instruction) -> Step:
    name = instruction.parts[0]
    guard = code.index[instruction.guard] if instruction.guard else -1
    try:
        if name in _CONTROL:
            step = Step(instruction, {"exit": "ret", "barrier": "bar"}.get(name, name))
            if name == "bra":
                step.target = code.kernel.labels[str(instruction.operands[0])]
            elif step.kind == "bar" and instruction.parts[1] == "warp":
                step = Step(instruction, "run", run=lambda program, mask: program.whole_warps(mask))
            elif step.kind == "bar" and "sync" not in instruction.parts:
                raise NotImplementedError("a barrier that is not waited at")
        elif name in _IGNORED:
            step = Step(instruction, "run", run=lambda program, mask: None)
        elif name in _MEMORY:
            step = _MEMORY[name](code, instruction)
        else:
            step = _compute(code, instruction)
    except (KeyError, NotImplementedError, AssertionError) as error:
        raise NotImplementedError(f"{instruction}: {error!r}") from error
    step.guard = guard
    step.touch = frozenset({*step.sources, *step.targets} | ({guard} if guard >= 0 else set()))
    return step


def _compute(code: Code, instruction: Instruction) -> Step:
    parts, operands = instruction.parts, instruction.operands
    name, kind = parts[0], parts[-1]
    if name == "mov" and (isinstance(operands[0], tuple) or isinstance(operands[1], tuple)):
        return _pack(code, instruction)
    function = operation(parts)
    if function is None:
        raise NotImplementedError("unknown opcode")
    destination = operands[0]
    assert isinstance(destination, str)
    first, _, second = destination.partition("|")
    kinds = [kind] * (len(operands) - 1)
    if name in ("shl", "shr"):
        kinds[1] = "u32"
    elif name == "bfe":
        kinds[1:] = ["u32", "u32"]
    elif name == "mad" and "wide" in parts:
        kinds[2] = f"{kind[0]}{2 * bits(kind)}"
    elif name in ("selp", "setp") and len(kinds) > 2:
        kinds[2] = "pred"
    elif name == "cvta":
        kinds = ["u64"]
    elif name == "createpolicy":
        kinds = []
    sources = tuple(code.source(operand, kind) for operand, kind in zip(operands[1:], kinds, strict=True))
    target = code.index[first]
    inner = function
    if name == "cvt" and parts[-2] in TYPES and raw(parts[-2]) != code.kinds[target]:
        width, to = code.kinds[target], parts[-2]
        signed = np.dtype(width).str.replace("u", to[0].replace("s", "i"))
        function = lambda a: value(inner(a), to).astype(signed).view(width)  # noqa: E731
    if second:
        plain = function
        function = lambda *a: (plain(*a), ~plain(*a))  # noqa: E731
        return Step(instruction, "compute", function, sources, (target, code.index[second]))
    step = Step(instruction, "compute", function, sources, (target,))
    step.fast = _fast(function, sources, target)
    return step


def _fast(function: Any, sources: tuple[int, ...], target: int) -> Any:
    """The common case without loops."""
    if len(sources) == 1:
        a, = sources

        def one(registers: list[Any]) -> None:
            registers[target] = function(registers[a])
        return one
    if len(sources) == 2:
        a, b = sources

        def two(registers: list[Any]) -> None:
            registers[target] = function(registers[a], registers[b])
        return two

    def more(registers: list[Any]) -> None:
        registers[target] = function(*[registers[source] for source in sources])
    return more


def _pack(code: Code, instruction: Instruction) -> Step:
    """mov between a register and a vector of narrower ones, the low bits first."""
    to, source = instruction.operands
    width = bits(instruction.parts[-1])
    if isinstance(source, tuple):
        narrow = f"u{width // len(source)}"
        sources = tuple(code.source(part, narrow) for part in source)
        kind = raw(instruction.parts[-1])

        def join(*lows: Array) -> Array:
            return np.ascontiguousarray(np.stack([value(low, narrow) for low in lows], -1)).view(kind)[:, 0]
        return Step(instruction, "compute", join, sources, (code.target(to),))
    assert isinstance(to, tuple)
    part_kind = raw(f"u{width // len(to)}")
    whole = raw(instruction.parts[-1])

    def split(a: Array) -> tuple[Array, ...]:
        halves = np.ascontiguousarray(a.view(whole)).view(part_kind).reshape(len(a), -1)
        return tuple(np.ascontiguousarray(halves[:, i]) for i in range(len(to)))
    return Step(instruction, "compute", split, (code.source(source, instruction.parts[-1]),),
                tuple(code.target(part) for part in to))


def _live_at_entry(code: Code) -> frozenset[int]:
    """Registers that some path reads before writing: undefined until written."""
    steps = code.steps
    before: list[frozenset[int]] = [frozenset()] * (len(steps) + 1)
    changed = True
    while changed:
        changed = False
        for at in range(len(steps) - 1, -1, -1):
            step = steps[at]
            ends = step.kind in ("ret", "bra") and step.guard < 0
            after = frozenset() if ends else before[at + 1]
            if step.kind == "bra":
                after |= before[step.target]
            if step.guard >= 0:
                after |= {step.guard}
            else:
                after -= frozenset(step.targets)
            live = after | frozenset(step.sources)
            if live != before[at]:
                before[at], changed = live, True
    return frozenset(register for register in before[0] if register < code.num_registers)


@dataclass
class Copy:
    """Lanes of a cp.async under way: what is to arrive where, and from where it is being read."""

    warps: Array
    to: Array  # (n, bytes) of shared memory
    data: Array
    places: Array  # granules of shared memory
    source: Array | None  # granules of global memory (n', g) of `readers`
    readers: Array
    group: Array  # of each lane; -1 not committed
    at: int


@dataclass
class Product:
    """A wgmma under way: granules it reads, registers it writes."""

    warps: tuple[int, ...]
    places: Array
    registers: frozenset[int]
    group: int
    at: int


class Program:
    """One program (thread block) of a launch.

    Args:
        index: (x, y, z) in the grid.
        epochs: gives numbers of barrier intervals, each once in a launch.
        random: warps look at other programs' mail at different times, by chance; None: all at once.
    """

    def __init__(self, code: Code, memory: Global, index: tuple[int, int, int], grid: tuple[int, int, int],
                 number: int, arguments: dict[str, int], epochs: Callable[[], int],
                 random: np.random.Generator | None = None) -> None:
        self.code, self.memory, self.index, self.grid, self.number = code, memory, index, grid, number
        self.threads, self.arguments, self.epochs = code.threads, arguments, epochs
        self.num_warps = self.threads // WARP
        self.warp = np.arange(self.threads) // WARP
        self.lanes = np.arange(self.threads)
        self.shared = Shared(code.shared, code.granule, memory.instructions)
        self.epoch = epochs()
        blank = {kind: np.full(self.threads, 0xA5 & np.iinfo(kind).max if kind is not np.bool_ else True, kind)
                 for kind in (np.bool_, np.uint8, np.uint16, np.uint32, np.uint64)}
        self.registers: list[Any] = [blank[kind] for kind in code.kinds]
        for place, make in code.constants.items():
            self.registers[place] = make(self)
        self.random = random
        self.undefined: dict[int, Array] = {i: np.ones(self.threads, np.bool_) for i in code.undefined_at_entry}
        self.in_flight: set[int] = set()
        self.groups: list[tuple[int, Array | None]] = [(0, None)]
        self.waiting: list[tuple[int, Array]] = []  # behind a barrier: where to go on
        self.exited = np.zeros(self.threads, np.bool_)
        self.executed = 0
        self.copies: list[Copy] = []
        self.copy_groups = np.zeros(self.num_warps, np.int64)
        self.products: list[Product] = []
        self.product_group = 0
        # Of each warp: tick and epoch of its latest proxy fence.
        self.fenced = np.zeros(self.num_warps, np.int64)
        self.fenced_epoch = np.zeros(self.num_warps, np.int64)

    def special(self, name: str) -> Array:
        axis = {"x": 0, "y": 1, "z": 2}.get(name[-1], 0)
        base = name.partition(".")[0]
        number: Any
        if base == "%tid":
            number = self.lanes if axis == 0 else 0
        elif base == "%ctaid":
            number = self.index[axis]
        elif base == "%nctaid":
            number = self.grid[axis]
        elif base == "%ntid":
            number = self.threads if axis == 0 else 1
        elif base == "%laneid":
            number = self.lanes % WARP
        else:
            raise NotImplementedError(f"register {name}")
        return np.broadcast_to(np.asarray(number, np.uint32), (self.threads,)).copy()

    @property
    def done(self) -> bool:
        return not self.groups and not self.waiting

    def who(self, at: int | None = None) -> Who:
        return Who(self.number, self.epoch, self.at if at is None else at)

    # --- control ---

    def advance(self, budget: int, stop_at_poll: bool) -> None:
        """Execute up to `budget` instructions; with `stop_at_poll` up to the next look at other programs' mail."""
        while budget > 0 and not self.done:
            if not self.groups:
                self._pass_barrier()
                continue
            # The least place first: where paths meet again, those behind catch up.
            self.groups.sort(key=lambda group: group[0])
            pc, mask = self.groups.pop(0)
            while self.groups and self.groups[0][0] == pc:
                other = self.groups.pop(0)[1]
                mask = _united(mask, other)
            limit = self.groups[0][0] if self.groups else 1 << 60
            start = pc
            while budget > 0 and pc < limit:
                step = self.code.steps[pc]
                budget -= 1
                if step.yields and stop_at_poll and self.random is not None and self.random.random() < 0.5:
                    first = np.repeat(self.random.random(self.num_warps) < 0.5, WARP)
                    now, later = (part if mask is None else part & mask for part in (first, ~first))
                    if now.any() and later.any():
                        # The others come after what other programs do in between.
                        self.groups.append((pc, later))
                        mask, limit, budget = now, pc + 1, 1
                self.executed += 1
                if step.kind == "compute":
                    self._compute(step, mask)
                elif step.kind == "run":
                    self.at = pc
                    active = mask if step.guard < 0 else self._guarded(step, mask)
                    if active is None or active.any():
                        if self.in_flight:
                            self._check_in_flight(step)
                        assert step.run is not None
                        step.run(self, active)
                else:
                    self.at = pc
                    pc = self._control(step, pc, mask)
                    break
                pc += 1
                if step.yields and stop_at_poll:
                    budget = 0
            else:
                self.groups.append((pc, mask))
            if self.executed > INSTRUCTIONS:
                raise Fault(f"program {self.number} does not end; it is at {self.code.steps[start].instruction}")

    def _control(self, step: Step, pc: int, mask: Array | None) -> int:
        everyone = np.ones(self.threads, np.bool_) if mask is None else mask
        taken = everyone
        if step.guard >= 0:
            guarded = self._guarded(step, mask)
            taken = everyone if guarded is None else guarded
        rest = everyone & ~taken
        if step.kind == "bra":
            self._go(step.target, taken)
        elif step.kind == "ret":
            self.exited |= taken
        else:
            self.whole_warps(taken)
            operands = step.instruction.operands
            if len(operands) > 1 and literal(str(operands[1]), "u32") != self.threads:
                raise NotImplementedError(f"a barrier of some warps: {step.instruction}")
            self.waiting.append((pc + 1, taken))
            self._pass_barrier()
        self._go(pc + 1, rest)
        return pc

    def _go(self, pc: int, mask: Array) -> None:
        if mask.any():
            self.groups.append((pc, None if mask.all() else mask))

    def _pass_barrier(self) -> None:
        arrived = self.exited.copy()
        for _, mask in self.waiting:
            arrived |= mask
        if arrived.all():
            self.epoch = self.epochs()
            waiting, self.waiting = self.waiting, []
            for pc, mask in waiting:
                self._go(pc, mask)
            places = {pc for pc, _ in waiting}
            if len(places) > 1:
                raise Fault("warps meet at different barriers: " + ", ".join(
                    str(self.code.steps[pc - 1].instruction) for pc in sorted(places)))
        elif not self.groups:
            raise Fault(f"program {self.number} hangs: not all threads come to {self.code.steps[self.at].instruction}")

    def whole_warps(self, mask: Array | None) -> None:
        """What a warp does as one needs all its threads."""
        if mask is not None:
            count = mask.reshape(self.num_warps, WARP).sum(1)
            if ((count != 0) & (count != WARP)).any():
                raise Fault(f"some threads of a warp are missing at {self.code.steps[self.at].instruction}")

    def _guarded(self, step: Step, mask: Array | None) -> Array | None:
        predicate = self.registers[step.guard]
        if self.undefined and step.guard in self.undefined:
            unknown = self.undefined[step.guard]
            if (unknown if mask is None else unknown & mask).any():
                raise Fault(f"an undefined predicate decides over {step.instruction}")
        if step.instruction.negated:
            predicate = ~predicate
        if mask is None:
            return None if predicate.all() else predicate
        return predicate & mask

    # --- registers ---

    def _compute(self, step: Step, mask: Array | None) -> None:
        if mask is None and step.guard < 0 and step.fast is not None:
            watched = self.undefined
            if (not watched or step.touch.isdisjoint(watched)) and not self.in_flight:
                step.fast(self.registers)
                return
        active = mask
        if step.guard >= 0:
            active = self._guarded(step, mask)
            if active is not None and not active.any():
                return
        if self.in_flight:
            self._check_in_flight(step)
        sources = [self.registers[source] for source in step.sources]
        result = step.function(*sources)
        unknown = self._unknown(step, sources)
        for target, part in zip(step.targets, result if isinstance(result, tuple) else (result,), strict=True):
            self.assign(target, part, active, unknown)

    def _unknown(self, step: Step, sources: list[Array]) -> Array | None:
        """Threads in which the result is undefined."""
        if not self.undefined:
            return None
        unknown = [self.undefined.get(source) for source in step.sources]
        if all(each is None for each in unknown):
            return None
        none = np.zeros(self.threads, np.bool_)
        known = [none if each is None else each for each in unknown]
        parts = step.instruction.parts
        if parts[0] == "selp":
            return known[2] | np.where(sources[2], known[0], known[1])  # type: ignore[no-any-return]
        if parts in (("and", "pred"), ("or", "pred")):
            decides = parts[0] == "or"
            settled = (~known[0] & (sources[0] == decides)) | (~known[1] & (sources[1] == decides))
            return (known[0] | known[1]) & ~settled  # type: ignore[no-any-return]
        union = none
        for each in known:
            union = union | each
        return union

    def assign(self, target: int, array: Array, mask: Array | None, unknown: Array | None = None) -> None:
        """Write a register in the active threads."""
        before = self.undefined.get(target)
        if mask is not None:
            array = np.where(mask, array, self.registers[target])
            if before is not None or unknown is not None:
                none = np.zeros(self.threads, np.bool_)
                unknown = np.where(mask, none if unknown is None else unknown, none if before is None else before)
        self.registers[target] = array
        if unknown is not None and unknown.any():
            self.undefined[target] = unknown
        elif before is not None:
            del self.undefined[target]

    def defined(self, register: int, mask: Array | None, what: str) -> Array:
        """A register that must be defined in the active threads."""
        if self.undefined and register in self.undefined:
            unknown = self.undefined[register]
            if (unknown if mask is None else unknown & mask).any():
                raise Fault(f"{what} is undefined: {self.code.steps[self.at].instruction}")
        return self.registers[register]  # type: ignore[no-any-return]

    def _check_in_flight(self, step: Step) -> None:
        touched = self.in_flight & step.touch
        if touched and step.instruction.parts[0] != "wgmma":
            raise Fault(f"a sum of an asynchronous product is touched before it is waited for: {step.instruction}")

    # --- asynchronous copies ---

    def copy_async(self, to: Array, source: Array, size: int, lanes: Array, reads: Array) -> None:
        """cp.async: lanes copy `size` bytes, zeros where they do not read."""
        instruction = self.code.steps[self.at].instruction
        warps = self.warp[lanes]
        at = self.shared.offsets(to, size, instruction)
        places = self.shared.shadow.granules(at, size)
        data = np.zeros((len(lanes), size), np.uint8)
        readers, origin = warps[reads], None
        if reads.any():
            offsets = self.memory.offsets(source[reads], size, instruction)
            data[reads] = self.memory.load(offsets, size, 1, readers, self.who())
            origin = self.memory.shadow.granules(offsets, size)
        self.shared.note_write(places, warps, self.who())
        self.shared.incoming[places] = True
        self.shared.undefined[places] = True
        self.shared.busy = True
        self.copies.append(Copy(warps, at[:, None] + np.arange(size), data, places, origin, readers,
                                np.full(len(lanes), -1), self.at))

    def commit_copies(self, mask: Array | None) -> None:
        self.whole_warps(mask)
        member = self._warps(mask)
        for copy in self.copies:
            own = (copy.group < 0) & member[copy.warps]
            copy.group[own] = self.copy_groups[copy.warps[own]]
        self.copy_groups[member] += 1

    def wait_copies(self, mask: Array | None, left: int, all_copies: bool = False) -> None:
        """Let arrive all but the `left` latest groups of these warps."""
        self.whole_warps(mask)
        member = self._warps(mask)
        kept = []
        for copy in self.copies:
            finished = member[copy.warps]
            if not all_copies:
                finished = finished & (copy.group >= 0) & (copy.group < self.copy_groups[copy.warps] - left)
            if finished.any():
                self._arrive(copy, finished)
            if not finished.all():
                rest = ~finished
                readers = np.isin(copy.readers, copy.warps[rest])
                kept.append(Copy(copy.warps[rest], copy.to[rest], copy.data[rest], copy.places[rest],
                                 None if copy.source is None else copy.source[readers], copy.readers[readers],
                                 copy.group[rest], copy.at))
        self.copies = kept
        self.shared.busy = bool(kept or self.products)

    def _arrive(self, copy: Copy, finished: Array) -> None:
        places, warps, shared = copy.places[finished], copy.warps[finished], self.shared
        shared.incoming[places] = False
        shared.note_write(places, warps, self.who(copy.at))
        shared.data[copy.to[finished]] = copy.data[finished]
        if copy.source is not None:
            # It may have been read at any time until now.
            own = np.isin(copy.readers, warps)
            if own.any():
                self.memory.shadow.note_read(copy.source[own], copy.readers[own], self.who(copy.at))

    def check_copied(self, places: Array) -> None:
        """No copy under way may read what is stored."""
        low, high = places.min(), places.max()
        for copy in self.copies:
            if copy.source is not None and copy.source.size and copy.source.min() <= high and (
                    copy.source.max() >= low) and np.isin(places, copy.source).any():
                raise Fault(f"race in global memory: {self.code.steps[self.at].instruction} overwrites what an "
                            f"asynchronous copy may still read: {self.code.steps[copy.at].instruction}")

    def _warps(self, mask: Array | None) -> Array:
        if mask is None:
            return np.ones(self.num_warps, np.bool_)
        return mask.reshape(self.num_warps, WARP).any(1)  # type: ignore[no-any-return]

    # --- asynchronous products ---

    def read_by_product(self, addresses: Array, warps: tuple[int, ...]) -> tuple[Array, Array]:
        """16-bit elements at shared addresses, read past generic accesses; and their granules."""
        instruction = self.code.steps[self.at].instruction
        flat = addresses.ravel()
        offsets = self.shared.offsets(flat, 2, instruction)
        places = np.unique(self.shared.shadow.granules(offsets, 2))
        record = self.shared.shadow.written[places]
        for warp in warps:
            self.shared.note_read(places[:, None], np.full(len(places), warp), self.who())
        if self.shared.undefined[places].any():
            raise Fault(f"a product reads undefined shared memory: {instruction}")
        writer = (record >> np.uint64(24) & np.uint64(255)).astype(np.int64)
        epoch = (record >> np.uint64(32)).astype(np.int64)
        by_writer = self.fenced[writer] >= self.shared.generic[places]
        if not self.code.fences_copies:
            copied = np.array([step.instruction.parts[0] == "cp" for step in self.code.steps])
            by_writer |= copied[(record & np.uint64(0xFFFFFF)).astype(np.int64)]
        by_reader = np.ones(len(places), np.bool_)
        for warp in warps:
            by_reader &= self.fenced_epoch[warp] > epoch
        if not (by_writer | by_reader).all():
            at = int(record[~(by_writer | by_reader)][0]) & 0xFFFFFF
            raise Fault(f"a product reads, without a proxy fence, what was stored at "
                        f"{self.code.steps[at].instruction}: {instruction}")
        return self.shared.views[2][offsets // 2].reshape(addresses.shape), places

    def fence_proxy(self, mask: Array | None) -> None:
        member = self._warps(mask)
        self.fenced[member] = self.shared.tick
        self.fenced_epoch[member] = self.epoch

    def start_product(self, warps: tuple[int, ...], places: Array, registers: Iterable[int]) -> None:
        self.shared.lent[places] += 1
        self.shared.busy = True
        self.products.append(Product(warps, places, frozenset(registers), self.product_group, self.at))
        self.in_flight |= set(registers)

    def commit_products(self, mask: Array | None) -> None:
        if mask is not None:
            raise NotImplementedError("warp groups that have parted")
        self.product_group += 1

    def wait_products(self, mask: Array | None, left: int) -> None:
        if mask is not None:
            raise NotImplementedError("warp groups that have parted")
        kept = []
        for product in self.products:
            if product.group < self.product_group - left:
                self.shared.lent[product.places] -= 1
                for warp in product.warps:
                    self.shared.shadow.note_read(product.places[:, None], np.full(len(product.places), warp),
                                                 self.who(product.at))
            else:
                kept.append(product)
        self.products = kept
        self.in_flight = set().union(*(product.registers for product in kept)) if kept else set()
        self.shared.busy = bool(kept or self.copies)


def _united(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return None
    both = a | b
    return None if both.all() else both


# --- instructions that are more than arithmetic, each a function of code and instruction ---


def _lanes(program: Program, mask: Array | None) -> Array:
    return program.lanes if mask is None else np.flatnonzero(mask)


def _addresses(program: Program, register: int, offset: int, lanes: Array, mask: Array | None) -> Array:
    base = program.defined(register, mask, "an address")
    base = base if mask is None else base[lanes]
    return base + base.dtype.type(offset % (1 << 8 * base.dtype.itemsize)) if offset else base


def _space(parts: tuple[str, ...]) -> str:
    names = [part.partition(":")[0] for part in parts]
    found = [name for name in names if name in ("global", "shared", "param", "local")]
    if len(found) != 1:
        raise NotImplementedError(f"one of global, shared and param memory, found {found}")
    return found[0]


def _registers_of(operand: Operand) -> tuple[str, ...]:
    return operand if isinstance(operand, tuple) else (operand,)  # type: ignore[return-value]


def _ld(code: Code, instruction: Instruction) -> Step:
    parts = instruction.parts
    kind, space = parts[-1], _space(parts)
    targets = tuple(code.target(name) for name in _registers_of(instruction.operands[0]))
    address = instruction.operands[1]
    assert isinstance(address, Address)
    if space == "param":
        name, offset = address.base, address.offset
        if offset:
            raise NotImplementedError("an offset into a parameter")

        def load_parameter(program: Program, mask: Array | None) -> None:
            for target in targets:
                program.assign(target, np.full(program.threads, program.arguments[name], code.kinds[target]), mask)
        return Step(instruction, "run", run=load_parameter, targets=targets)
    each = bits(kind) // 8
    size = each * len(targets)
    base = code.source(address.base, "u64" if space == "global" else "u32")
    widths = [code.kinds[target] for target in targets]
    volatile = "volatile" in parts or "relaxed" in parts or "acquire" in parts

    def load(program: Program, mask: Array | None) -> None:
        lanes = _lanes(program, mask)
        addresses = _addresses(program, base, address.offset, lanes, mask)
        warps, unknown = program.warp[lanes], None
        if space == "global":
            offsets = program.memory.offsets(addresses, size, instruction)
            values = program.memory.load(offsets, size, each, warps, program.who(), volatile, "nc" in parts)
        else:
            offsets = program.shared.offsets(addresses, size, instruction)
            values, unknown = program.shared.load(offsets, size, each, warps, program.who())
        for i, target in enumerate(targets):
            column, spread = _extended(values[:, i], kind, widths[i]), None
            if unknown is not None:
                spread = np.zeros(program.threads, np.bool_)
                spread[lanes] = unknown[:, i]
            if mask is not None:
                whole = np.zeros(program.threads, widths[i])
                whole[lanes] = column
                column = whole
            program.assign(target, column, mask, spread)
    return Step(instruction, "run", run=load, sources=(base,), targets=targets, yields=space == "global" and volatile)


def _extended(array: Array, kind: str, width: Any) -> Array:
    if array.dtype == width:
        return np.ascontiguousarray(array)
    if kind[0] == "s":
        return array.view(f"i{array.dtype.itemsize}").astype(f"i{np.dtype(width).itemsize}").view(width)
    return array.astype(width)


def _st(code: Code, instruction: Instruction) -> Step:
    parts = instruction.parts
    kind, space = parts[-1], _space(parts)
    address = instruction.operands[0]
    assert isinstance(address, Address)
    sources = tuple(code.source(name, kind) for name in _registers_of(instruction.operands[1]))
    each = bits(kind) // 8
    base = code.source(address.base, "u64" if space == "global" else "u32")
    strong = "volatile" in parts or "relaxed" in parts or "release" in parts
    narrow = f"u{8 * each}"

    def store(program: Program, mask: Array | None) -> None:
        lanes = _lanes(program, mask)
        addresses = _addresses(program, base, address.offset, lanes, mask)
        warps, size = program.warp[lanes], each * len(sources)
        columns = [program.registers[source] for source in sources]
        values = np.stack([value(column, narrow) for column in columns], 1)[lanes]
        if space == "global":
            for source in sources:
                program.defined(source, mask, "what is stored")
            offsets = program.memory.offsets(addresses, size, instruction)
            if program.copies:
                program.check_copied(program.memory.shadow.granules(offsets, size))
            program.memory.store(offsets, values, each, warps, program.who(), strong)
            return
        unknown = None
        if program.undefined and any(source in program.undefined for source in sources):
            none = np.zeros(program.threads, np.bool_)
            unknown = np.stack([program.undefined.get(source, none) for source in sources], 1)[lanes]
        offsets = program.shared.offsets(addresses, size, instruction)
        program.shared.store(offsets, values, each, warps, program.who(), unknown)
    return Step(instruction, "run", run=store, sources=(*sources, base))


_ATOMIC: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "exch": lambda old, new: new}


def _atom(code: Code, instruction: Instruction) -> Step:
    """Atomic operations on global memory, lane after lane."""
    parts = instruction.parts
    kind = parts[-1]
    if _space(parts) != "global":
        raise NotImplementedError("atomics on shared memory")
    function = next(_ATOMIC[part] for part in parts if part in _ATOMIC)
    returns = parts[0] == "atom"
    operands = instruction.operands[returns:]
    address = operands[0]
    assert isinstance(address, Address)
    base, source = code.source(address.base, "u64"), code.source(operands[1], kind)
    targets = (code.target(instruction.operands[0]),) if returns else ()
    each = bits(kind) // 8

    def update(program: Program, mask: Array | None) -> None:
        lanes = _lanes(program, mask)
        memory = program.memory
        offsets = memory.offsets(_addresses(program, base, address.offset, lanes, mask), each, instruction)
        operand = value(program.defined(source, mask, "what is stored"), kind)
        if not memory.mail[memory.owner[offsets]].all():
            raise NotImplementedError("atomics on memory that is not mail")
        old = np.zeros(program.threads, code.kinds[targets[0]] if targets else raw(kind))
        for lane, offset in zip(lanes, offsets // each, strict=True):
            old[lane] = memory.views[each][offset]
            new = function(value(old[lane:lane + 1], kind), operand[lane:lane + 1])
            memory.views[each][offset] = to_raw(new, kind)[0]
        for target in targets:
            program.assign(target, old, mask)
    return Step(instruction, "run", run=update, sources=(base, source), targets=targets)


def _cp(code: Code, instruction: Instruction) -> Step:
    parts = instruction.parts
    if parts[1] != "async" or "bulk" in parts:
        raise NotImplementedError("unknown copy")
    if "commit_group" in parts:
        return Step(instruction, "run", run=lambda program, mask: program.commit_copies(mask))
    if "wait_group" in parts or "wait_all" in parts:
        left = 0 if "wait_all" in parts else literal(str(instruction.operands[0]), "u32")
        every = "wait_all" in parts
        return Step(instruction, "run", run=lambda program, mask: program.wait_copies(mask, left, every))
    to, source = instruction.operands[:2]
    assert isinstance(to, Address) and isinstance(source, Address)
    size = literal(str(instruction.operands[2]), "u32")
    if "cg" in parts and size != 16:
        raise NotImplementedError("cp.async.cg copies 16 bytes")
    base, origin = code.source(to.base, "u32"), code.source(source.base, "u64")
    sources = [base, origin]
    if len(instruction.operands) > 3:
        sources.append(code.source(instruction.operands[3], "u32"))

    def copy(program: Program, mask: Array | None) -> None:
        lanes = _lanes(program, mask)
        reads = np.ones(len(lanes), np.bool_)
        if len(sources) > 2:
            given = program.defined(sources[2], mask, "a size")[lanes]
            if ((given != 0) & (given != size)).any():
                raise NotImplementedError(f"a copy that fills up with zeros: {instruction}")
            reads = given == size
        addresses = program.registers[origin]
        if origin in program.undefined and (program.undefined[origin][lanes] & reads).any():
            raise Fault(f"an address is undefined: {instruction}")
        program.copy_async(_addresses(program, base, to.offset, lanes, mask),
                           addresses[lanes] + np.uint64(source.offset % 2**64), size, lanes, reads)
    return Step(instruction, "run", run=copy, sources=tuple(sources))


def _shfl(code: Code, instruction: Instruction) -> Step:
    mode = instruction.parts[2]
    first, _, second = str(instruction.operands[0]).partition("|")
    sources = tuple(code.source(operand, "b32") for operand in instruction.operands[1:])
    targets = (code.index[first], *([code.index[second]] if second else []))

    def shuffle(program: Program, mask: Array | None) -> None:
        program.whole_warps(mask)
        source, by, bounds, members = (program.registers[i] for i in sources)
        if (members != 0xFFFFFFFF).any():
            raise NotImplementedError(f"a shuffle among some threads: {instruction}")
        lane, by = program.lanes % WARP, by.astype(np.int64)
        clamp, segment = (bounds & np.uint32(31)).astype(np.int64), (bounds >> np.uint32(8) & np.uint32(31)).astype(
            np.int64)
        least = lane & segment
        most = least | (clamp & ~segment)
        other = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": least | (by & 31 & ~segment)}[mode]
        valid = other >= most if mode == "up" else other <= most
        other = program.lanes - lane + np.where(valid, other, lane)
        unknown = program.undefined.get(sources[0])
        program.assign(targets[0], source[other], mask, None if unknown is None else unknown[other])
        if second:
            program.assign(targets[1], valid, mask)
    return Step(instruction, "run", run=shuffle, sources=sources, targets=targets)


def _redux(code: Code, instruction: Instruction) -> Step:
    function, kind = _ATOMIC[instruction.parts[2]], instruction.parts[-1]
    source, target = code.source(instruction.operands[1], kind), code.target(instruction.operands[0])

    def reduce(program: Program, mask: Array | None) -> None:
        program.whole_warps(mask)
        array = value(program.defined(source, mask, "what is reduced"), kind).reshape(-1, WARP)
        result = function.reduce(array, axis=1)  # type: ignore[attr-defined]
        program.assign(target, to_raw(np.repeat(result.astype(array.dtype), WARP), kind), mask)
    return Step(instruction, "run", run=reduce, sources=(source,), targets=(target,))


def _vote(code: Code, instruction: Instruction) -> Step:
    mode = instruction.parts[2]
    operand = str(instruction.operands[1])
    source, target = code.source(operand.lstrip("!"), "pred"), code.target(instruction.operands[0])

    def vote(program: Program, mask: Array | None) -> None:
        program.whole_warps(mask)
        array = program.defined(source, mask, "a vote").reshape(-1, WARP) ^ operand.startswith("!")
        if mode == "ballot":
            result: Array = (array * (np.uint32(1) << np.arange(WARP, dtype=np.uint32))).sum(1).astype(np.uint32)
        else:
            result = {"all": array.all(1), "any": array.any(1), "uni": array.all(1) | ~array.any(1)}[mode]
        program.assign(target, np.repeat(result, WARP), mask)
    return Step(instruction, "run", run=vote, sources=(source,), targets=(target,))


def _elect(code: Code, instruction: Instruction) -> Step:
    target = code.index[str(instruction.operands[0]).partition("|")[2]]

    def elect(program: Program, mask: Array | None) -> None:
        program.whole_warps(mask)
        program.assign(target, program.lanes % WARP == 0, mask)
    return Step(instruction, "run", run=elect, targets=(target,))


def _matrix_shape(instruction: Instruction) -> tuple[int, bool]:
    parts = instruction.parts
    if "m8n8" not in parts or parts[-1] != "b16":
        raise NotImplementedError("matrices other than of 8 x 8 of 16 bits")
    return int(next(part for part in parts if part in ("x1", "x2", "x4"))[1:]), "trans" in parts


def _row_offsets(program: Program, base: int, offset: int, mask: Array | None, count: int,
                 instruction: Instruction) -> tuple[Array, Array]:
    """Byte offsets (count, active warps, 8) of the rows, and the warps (count, active warps, 8)."""
    program.whole_warps(mask)
    lanes = _lanes(program, mask).reshape(-1, WARP)[:, :8 * count]
    register = program.registers[base]
    if base in program.undefined and program.undefined[base][lanes].any():
        raise Fault(f"an address is undefined: {instruction}")
    addresses = register[lanes] + register.dtype.type(offset % (1 << 8 * register.dtype.itemsize))
    offsets = program.shared.offsets(addresses, 16, instruction)
    by_matrix = (array.reshape(-1, count, 8).transpose(1, 0, 2) for array in (offsets, program.warp[lanes]))
    return next(by_matrix), next(by_matrix)


def _ldmatrix(code: Code, instruction: Instruction) -> Step:
    count, transposed = _matrix_shape(instruction)
    targets = tuple(code.target(name) for name in _registers_of(instruction.operands[0]))
    address = instruction.operands[1]
    assert isinstance(address, Address) and len(targets) == count
    base = code.source(address.base, "u32")

    def load(program: Program, mask: Array | None) -> None:
        offsets, warps = _row_offsets(program, base, address.offset, mask, count, instruction)
        rows, unknown = program.shared.load(offsets.ravel(), 16, 2, warps.ravel(), program.who())
        words = tiles.matrix_words(rows.reshape(*offsets.shape, 8), transposed)
        holes = None
        if unknown is not None:
            marks = tiles.matrix_words(unknown.astype(np.uint16).reshape(*offsets.shape, 8), transposed)
            holes = _spread(program, marks != 0, mask)
        for i, (target, column) in enumerate(zip(targets, _spread(program, words, mask), strict=True)):
            program.assign(target, column, mask, None if holes is None else holes[i])
    return Step(instruction, "run", run=load, sources=(base,), targets=targets)


def _spread(program: Program, words: Array, mask: Array | None) -> Array:
    """(registers, active warps, 32) as (registers, threads)."""
    if mask is None:
        return words.reshape(len(words), -1)
    whole = np.zeros((len(words), program.num_warps, WARP), words.dtype)
    whole[:, program._warps(mask)] = words
    return whole.reshape(len(words), -1)


def _gathered(program: Program, registers: Iterable[int], mask: Array | None, what: str) -> Array:
    """(registers, active warps, 32)."""
    rows = np.stack([program.defined(register, mask, what) for register in registers])
    rows = rows.reshape(len(rows), -1, WARP)
    return rows if mask is None else rows[:, program._warps(mask)]


def _stmatrix(code: Code, instruction: Instruction) -> Step:
    count, transposed = _matrix_shape(instruction)
    address = instruction.operands[0]
    assert isinstance(address, Address)
    sources = tuple(code.source(name, "b32") for name in _registers_of(instruction.operands[1]))
    base = code.source(address.base, "u32")

    def store(program: Program, mask: Array | None) -> None:
        offsets, warps = _row_offsets(program, base, address.offset, mask, count, instruction)
        words = _gathered(program, sources, mask, "what is stored")
        rows = tiles.matrix_rows(words, transposed).reshape(-1, 8)
        program.shared.store(offsets.ravel(), np.ascontiguousarray(rows), 2, warps.ravel(), program.who())
    return Step(instruction, "run", run=store, sources=(*sources, base))


def _mma(code: Code, instruction: Instruction) -> Step:
    parts = instruction.parts
    shape = next(part for part in parts if part.startswith("m16n8k"))
    kind, k = parts[-2], int(shape[6:])
    if parts[-4:] != ("f32", kind, kind, "f32") or kind not in ("f16", "bf16"):
        raise NotImplementedError("a product of other types")
    targets, a, b, c = (tuple(code.source(name, "b32") for name in _registers_of(operand))
                        for operand in instruction.operands)

    def multiply(program: Program, mask: Array | None) -> None:
        program.whole_warps(mask)
        left, right, total = (_gathered(program, registers, mask, "a factor or sum") for registers in (a, b, c))
        sums = tiles.mma(left, right, total.view(np.float32), 8, k, kind)
        for target, column in zip(targets, _spread(program, sums.view(np.uint32), mask), strict=True):
            program.assign(target, column, mask)
    return Step(instruction, "run", run=multiply, sources=(*a, *b, *c), targets=targets)


def _wgmma(code: Code, instruction: Instruction) -> Step:
    parts, operands = instruction.parts, instruction.operands
    if parts[1] == "fence":
        return Step(instruction, "run", run=lambda program, mask: program.whole_warps(mask))
    if parts[1] == "commit_group":
        return Step(instruction, "run", run=lambda program, mask: program.commit_products(mask))
    if parts[1] == "wait_group":
        left = literal(str(operands[0]), "u32")
        return Step(instruction, "run", run=lambda program, mask: program.wait_products(mask, left))
    shape = next(part for part in parts if part.startswith("m64n"))
    n, k = (int(part) for part in shape[4:].split("k"))
    kind = parts[-1]
    if parts[-3] != "f32" or kind not in ("f16", "bf16") or k != 16:
        raise NotImplementedError("a product of other types")
    targets = tuple(code.target(name) for name in _registers_of(operands[0]))
    from_registers = isinstance(operands[1], tuple)
    a = tuple(code.source(name, "b32" if from_registers else "b64") for name in _registers_of(operands[1]))
    b, scale = code.source(operands[2], "b64"), code.source(operands[3], "pred")
    signs = [int(str(operand)) for operand in operands[4:6]]
    majors = [int(str(operand)) for operand in operands[6:]]
    majors = [0, *majors] if from_registers else majors

    def multiply(program: Program, mask: Array | None) -> None:
        if mask is not None:
            raise NotImplementedError("warp groups that have parted")
        total = np.stack([program.registers[target] for target in targets]).view(np.float32)
        keep = program.defined(scale, None, "the scale")
        if keep[0]:
            for target in targets:
                if target not in program.in_flight:
                    program.defined(target, None, "a sum")
        total = np.where(keep, total, np.float32(0)).reshape(len(targets), -1, WARP)
        sums = np.empty_like(total)
        for group in range(0, program.num_warps, 4):
            warps = tuple(range(group, group + 4))
            places = []
            if from_registers:
                left = tiles.tile_of(_gathered(program, a, None, "a factor")[:, group:group + 4], 16, k, kind)
            else:
                halves, some = _operand_tile(program, a[0], warps, 64, k, bool(majors[0]))
                left = value(halves, kind).astype(np.float64).reshape(4, 16, k)
                places.append(some)
            halves, some = _operand_tile(program, b, warps, n, k, bool(majors[1]))
            right = value(halves, kind).astype(np.float64).T
            places.append(some)
            sums[:, group:group + 4] = tiles.multiply(left * signs[0], np.broadcast_to(right * signs[1], (4, k, n)),
                                                      total[:, group:group + 4])
            program.start_product(warps, np.unique(np.concatenate(places)), targets)
        for target, column in zip(targets, sums.view(np.uint32).reshape(len(targets), -1), strict=True):
            program.assign(target, column, None)
    return Step(instruction, "run", run=multiply, sources=(*a, b, scale, *targets), targets=targets)


def _operand_tile(program: Program, register: int, warps: tuple[int, ...], extent: int, depth: int,
                  major: bool) -> tuple[Array, Array]:
    descriptors = program.defined(register, None, "a matrix descriptor")[warps[0] * WARP:(warps[-1] + 1) * WARP]
    if (descriptors != descriptors[0]).any():
        raise Fault(f"the warps of a group disagree about a matrix: {program.code.steps[program.at].instruction}")
    addresses = tiles.descriptor_addresses(int(descriptors[0]), extent, depth, major)
    return program.read_by_product(addresses, warps)


def _fence(code: Code, instruction: Instruction) -> Step:
    if "proxy" in instruction.parts:
        return Step(instruction, "run", run=lambda program, mask: program.fence_proxy(mask))
    return Step(instruction, "run", run=lambda program, mask: None)


_MEMORY: dict[str, Callable[[Code, Instruction], Step]] = {
    "ld": _ld, "st": _st, "atom": _atom, "red": _atom, "cp": _cp, "shfl": _shfl, "redux": _redux, "vote": _vote,
    "elect": _elect, "ldmatrix": _ldmatrix, "stmatrix": _stmatrix, "mma": _mma, "wgmma": _wgmma, "fence": _fence}


# --- launches ---


@dataclass
class Launch:
    """A grid of programs on global memory.

    Args:
        buffers: all arrays it may use; their bytes are written back at the end.
        arguments: raw bits by parameter name, a `Buffer` for a pointer to its start.
        together: programs run at the same time, by turns; else one after the other.
        seed: of a random schedule and of random delays of mail; None goes round.
        missing: programs that never begin.
    """

    code: Code
    grid: tuple[int, int, int]
    buffers: list[Buffer]
    arguments: dict[str, int | Buffer]
    together: bool = False
    seed: int | None = None
    missing: tuple[int, ...] = ()
    programs: list[Program] = field(default_factory=list)

    def run(self) -> int:
        """Run it; the number of instructions executed by all programs.

        Raises:
            Fault: a program did what it must not.
        """
        random = np.random.default_rng(self.seed)
        delay = 0 if self.seed is None or not self.together else 12
        memory = Global(self.buffers, self.code.granule, self.code.kernel.instructions, random, delay)
        epoch = iter(range(1, 1 << 31))
        values = {name: memory.address(given) if isinstance(given, Buffer) else given
                  for name, given in self.arguments.items()}
        x, y, z = self.grid
        indices = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
        executed = 0
        with np.errstate(all="ignore"):
            chance = random if self.together and self.seed is not None else None
            made = (Program(self.code, memory, index, self.grid, number, values, lambda: next(epoch), chance)
                    for number, index in enumerate(indices) if number not in self.missing)
            if not self.together:
                for program in made:
                    program.advance(1 << 60, False)
                    executed += program.executed
            else:
                self.programs = programs = list(made)
                while programs := [program for program in programs if not program.done]:
                    if self.seed is None:
                        for program in programs:
                            program.advance(1 << 60, True)
                    else:
                        # Now to the next look at the mail, now in the middle of anything.
                        program = programs[random.integers(len(programs))]
                        budget = int(random.integers(1, 400)) if random.random() < 0.3 else 1 << 60
                        program.advance(budget, True)
                    memory.deliver()
                executed = sum(program.executed for program in self.programs)
            memory.deliver(everything=True)
        for buffer in self.buffers:
            buffer.data[:] = memory.data[memory.slice(buffer)]
        return executed
