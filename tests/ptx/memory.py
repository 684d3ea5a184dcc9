"""Global and shared memory of a launch, with what a debugger of races needs to know about every byte.

Two accesses of a byte by different warps of a program, one of them a write, need a barrier between
them; within a warp the order of the program holds. Of different programs, only those words may be
exchanged that are declared `mail`: stored and loaded whole, loaded past the caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
POISON = 0xA5
GUARD = 4096  # bytes between two buffers


class Fault(Exception):
    """The kernel did what it must not do."""


@dataclass(frozen=True)
class Who:
    """The warps of an access, for the record.

    Attributes:
        program: its number in the launch.
        epoch: number of the barrier interval, different for every program.
        at: index of the instruction.
    """

    program: int
    epoch: int
    at: int


class Shadow:
    """Who last read and wrote each granule; a granule is the least access of the kernel, in bytes.

    A record is epoch << 32 | warp << 24 | instruction.
    """

    def __init__(self, size: int, granule: int, name: str, instructions: list[Any]) -> None:
        self.granule, self.name, self.instructions = granule, name, instructions
        count = -(-size // granule)
        self.written, self.read, self.many = (np.zeros(count, np.uint64) for _ in range(3))

    def granules(self, offsets: Array, size: int) -> Array:
        """Granules (.., n) of accesses of `size` bytes at byte offsets."""
        count = max(1, size // self.granule)
        return (offsets // self.granule)[..., None] + np.arange(count)

    def note_read(self, places: Array, warps: Array, who: Who) -> None:
        record = self._record(places, warps, who)
        self._check(self.written[places], record, places, "reads what {} wrote", who)
        clash = _clashes(self.read[places], record)
        self.read[places] = record
        clash |= _clashes(self.read[places], record)  # of the warps of this very instruction
        if clash.any():
            self.many[places[clash]] = who.epoch

    def note_write(self, places: Array, warps: Array, who: Who, changed: Array | None = None) -> None:
        """Note a write; those writes that changed nothing may repeat what another warp wrote."""
        record = self._record(places, warps, who)
        self._check(self.read[places], record, places, "overwrites what {} read", who)
        crowded = self.many[places] == np.uint64(who.epoch)
        if crowded.any():
            at = places[crowded][0]
            self._report(at, int(self.read[at]), "overwrites what several warps read, the last being {}", who)
        before = self.written[places]
        if changed is not None:
            before = np.where(changed, before, np.uint64(0))
        self._check(before, record, places, "overwrites what {} wrote", who)
        self.written[places] = record

    def _record(self, places: Array, warps: Array, who: Who) -> Array:
        record = (warps.astype(np.uint64) << np.uint64(24)) | np.uint64(who.epoch << 32 | who.at)
        return np.broadcast_to(record[..., None], places.shape)

    def _check(self, before: Array, record: Array, places: Array, what: str, who: Who) -> None:
        clash = _clashes(before, record)
        if clash.any():
            self._report(places[clash][0], int(before[clash][0]), what, who)

    def _report(self, place: int, before: int, what: str, who: Who) -> None:
        other = f"warp {before >> 24 & 255} at {self.instructions[before & 0xFFFFFF]}"
        raise Fault(f"race in {self.name} memory, byte {place * self.granule}, no barrier between: program "
                    f"{who.program} at {self.instructions[who.at]} {what.format(other)}")


def _clashes(before: Array, record: Array) -> Array:
    """Where two records are of one epoch and different warps."""
    between = (before ^ record) >> np.uint64(24)
    return (between - np.uint64(1)) < np.uint64(255)


@dataclass
class Buffer:
    """An array a kernel may use: `data` is its bytes."""

    name: str
    data: Array
    mail: bool
    start: int = 0


class Global:
    """Global memory: the buffers of a launch, between guards.

    Args:
        buffers: each at a distance from the others.
        granule: see `Shadow`.
        delay: how late a packet of mail may be seen by others, in turns of the schedule; 0 at once.
    """

    BASE = 0x7F00_0000_0000

    def __init__(self, buffers: list[Buffer], granule: int, instructions: list[Any], random: np.random.Generator,
                 delay: int = 0) -> None:
        self.buffers, self.instructions = buffers, instructions
        end = GUARD
        for buffer in buffers:
            buffer.start = end
            end += -(-buffer.data.size // 512) * 512 + GUARD
        self.data = np.full(end, POISON, np.uint8)
        self.owner = np.full(end, -1, np.int16)  # of each byte, its buffer
        for number, buffer in enumerate(buffers):
            self.data[self.slice(buffer)] = buffer.data
            self.owner[self.slice(buffer)] = number
        self.mail = np.array([buffer.mail for buffer in buffers] + [False])
        self.views = {size: self.data.view(f"u{size}") for size in (1, 2, 4, 8)}
        self.shadow = Shadow(end, granule, "global", instructions)
        count = len(self.shadow.written)
        # Programs that read and wrote a granule: -1 none, -2 several; and whether it was read past coherence.
        self.reader, self.writer = np.full(count, -1, np.int16), np.full(count, -1, np.int16)
        self.stale = np.zeros(count, np.bool_)
        self.random, self.delay = random, delay
        self.turn = 0
        self.under_way: list[tuple[Array, Array, Array, int]] = []  # due turn, offset, value, size

    @staticmethod
    def slice(buffer: Buffer) -> slice:
        return slice(buffer.start, buffer.start + buffer.data.size)

    def address(self, buffer: Buffer) -> int:
        return self.BASE + buffer.start

    def offsets(self, addresses: Array, size: int, instruction: Any) -> Array:
        """Offsets of accesses of `size` bytes, all inside one buffer and aligned."""
        offsets = (addresses - np.uint64(self.BASE)).view(np.int64)
        wild = (offsets < 0) | (offsets >= self.data.size - 16)
        inside = np.where(wild, 0, offsets)
        owner = self.owner[inside]
        wild |= (owner < 0) | (owner != self.owner[inside + size - 1])
        if wild.any():
            lane = int(np.argmax(wild))
            raise Fault(f"out of bounds: {size} bytes at {self._describe(int(offsets[lane]))}: {instruction}")
        if (offsets % size).any():
            raise Fault(f"misaligned: {size} bytes at {self._describe(int(offsets[offsets % size != 0][0]))}: "
                        f"{instruction}")
        return offsets

    def _describe(self, offset: int) -> str:
        near = min(self.buffers, key=lambda b: max(b.start - offset, offset - b.start - b.data.size, 0))
        return f"byte {offset - near.start} of {near.name} ({near.data.size} bytes)"

    def load(self, offsets: Array, size: int, each: int, warps: Array, who: Who, volatile: bool = False,
             past_coherence: bool = False) -> Array:
        """Elements (n, size / each) at offsets, after all checks."""
        places = self.shadow.granules(offsets, size)
        mail = self.mail[self.owner[offsets]]
        if mail.any():
            if not mail.all() or not volatile:
                raise Fault(f"mail is read by an ordinary load: {self.instructions[who.at]}")
            first = np.unique(offsets, return_index=True, return_inverse=True)
            if each == 8 and (warps != warps[first[1]][first[2]]).any():
                raise Fault(f"two warps look for the same mail, and one may find it sooner: "
                            f"{self.instructions[who.at]}")
        else:
            self.shadow.note_read(places, warps, who)
            writer = self.writer[places]
            if ((writer != -1) & (writer != who.program)).any():
                self._foreign(places, writer, who, "reads")
            reader = self.reader[places]
            self.reader[places] = np.where((reader == -1) | (reader == who.program), who.program, -2)
            if past_coherence:
                if (writer != -1).any():
                    raise Fault(f"a load past coherence (.nc) of what this launch has written: "
                                f"{self.instructions[who.at]}")
                self.stale[places] = True
        words = self.views[each]
        return words[(offsets // each)[:, None] + np.arange(size // each)]

    def store(self, offsets: Array, values: Array, each: int, warps: Array, who: Who, strong: bool = False) -> None:
        """Store elements (n, k) of `each` bytes."""
        size = each * values.shape[1]
        mail = self.mail[self.owner[offsets]]
        where = (offsets // each)[:, None] + np.arange(values.shape[1])
        words = self.views[each]
        if mail.any():
            if not mail.all() or (each != 8 and not strong):
                raise Fault(f"mail is stored in other words than of 8 bytes: {self.instructions[who.at]}")
            self._post(where, values, each)
            return
        places = self.shadow.granules(offsets, size)
        changed = np.repeat(words[where] != values, max(1, each // self.shadow.granule), axis=1)
        self.shadow.note_write(places, warps, who, changed[:, :places.shape[1]])
        writer, reader = self.writer[places], self.reader[places]
        if ((writer != -1) & (writer != who.program)).any():
            self._foreign(places, writer, who, "overwrites")
        if ((reader != -1) & (reader != who.program)).any():
            self._foreign(places, reader, who, "overwrites what is read by", says=True)
        if self.stale[places].any():
            raise Fault(f"what was loaded past coherence (.nc) is stored in the same launch: "
                        f"{self.instructions[who.at]}")
        self.writer[places] = who.program
        words[where] = values
        if (words[where] != values).any():
            raise Fault(f"race in global memory: several threads store different values at one place: "
                        f"{self.instructions[who.at]}")

    def _foreign(self, places: Array, programs: Array, who: Who, what: str, says: bool = False) -> None:
        bad = (programs != -1) & (programs != who.program)
        place, program = int(places[bad][0]), int(programs[bad][0])
        other = f"program {program}" if program >= 0 else "several programs"
        raise Fault(f"program {who.program} {what} {'' if says else 'a byte written by '}{other}: "
                    f"{self._describe(place * self.shadow.granule)}: {self.instructions[who.at]}")

    def _post(self, where: Array, values: Array, each: int) -> None:
        """Let a packet arrive after a time of its own; those to one word stay in order."""
        words = self.views[each]
        if not self.delay:
            words[where] = values
            return
        flat, numbers = where.ravel(), values.ravel()
        due = self.turn + self.random.integers(0, self.delay + 1, len(flat))
        for earlier, places, _, _ in self.under_way:
            same = np.isin(flat, places)
            if same.any():
                due[same] = np.maximum(due[same], earlier.max())
        self.under_way.append((due, flat, numbers, each))

    def deliver(self, everything: bool = False) -> None:
        """Let arrive what is due."""
        self.turn += 1
        kept = []
        for due, places, values, each in self.under_way:
            now = due <= self.turn if not everything else np.ones(len(due), np.bool_)
            self.views[each][places[now]] = values[now]
            if not now.all():
                kept.append((due[~now], places[~now], values[~now], each))
        self.under_way = kept


class Shared:
    """Shared memory of one program: undefined until written.

    Attributes:
        incoming: granules an asynchronous copy is writing.
        lent: granules an asynchronous product is reading.
        generic: tick of the latest write a tensor-core product from shared memory cannot see without a proxy fence.
    """

    BASE = 1024  # of a program's own; the hardware keeps what is below

    def __init__(self, size: int, granule: int, instructions: list[Any]) -> None:
        self.size, self.instructions = size, instructions
        self.data = np.full(-(-size // 16) * 16 + 16, POISON, np.uint8)
        self.views = {width: self.data.view(f"u{width}") for width in (1, 2, 4, 8)}
        self.shadow = Shadow(self.data.size, granule, "shared", instructions)
        count = len(self.shadow.written)
        self.undefined, self.incoming = np.ones(count, np.bool_), np.zeros(count, np.bool_)
        self.lent = np.zeros(count, np.int16)
        self.generic = np.zeros(count, np.int64)
        self.tick = 1
        self.busy = False  # whether `incoming` or `lent` may hold anything

    def offsets(self, addresses: Array, size: int, instruction: Any, align: int | None = None) -> Array:
        offsets = addresses.astype(np.int64) - self.BASE
        if (offsets < 0).any() or (offsets + size > self.size).any():
            raise Fault(f"out of bounds of {self.size} bytes of shared memory: {instruction}")
        if (offsets % (align or size)).any():
            raise Fault(f"misaligned access of {size} bytes of shared memory: {instruction}")
        return offsets

    def load(self, offsets: Array, size: int, each: int, warps: Array, who: Who) -> tuple[Array, Array | None]:
        """Elements (n, k) and which of them are undefined, None if all are defined."""
        places = self.shadow.granules(offsets, size)
        self.note_read(places, warps, who)
        undefined = self.undefined[places]
        values = self.views[each][(offsets // each)[:, None] + np.arange(size // each)]
        if not undefined.any():
            return values, None
        return values, undefined.reshape(len(offsets), size // each, -1).any(2)

    def note_read(self, places: Array, warps: Array, who: Who) -> None:
        if self.busy and self.incoming[places].any():
            raise Fault(f"shared memory is read before the asynchronous copy into it is waited for: "
                        f"{self.instructions[who.at]}")
        self.shadow.note_read(places, warps, who)

    def store(self, offsets: Array, values: Array, each: int, warps: Array, who: Who,
              undefined: Array | None = None) -> None:
        """Store elements (n, k) of `each` bytes."""
        size = each * values.shape[1]
        places = self.shadow.granules(offsets, size)
        where = (offsets // each)[:, None] + np.arange(values.shape[1])
        words = self.views[each]
        repeat = max(1, each // self.shadow.granule)
        spread = None if undefined is None else np.repeat(undefined, repeat, axis=1)[:, :places.shape[1]]
        changed = np.repeat(words[where] != values, repeat, axis=1)[:, :places.shape[1]]
        self.note_write(places, warps, who, changed, spread)
        words[where] = values
        clash = words[where] != values
        if undefined is not None:
            clash &= ~undefined
        if clash.any():
            raise Fault(f"race in shared memory: several threads store different values at one place: "
                        f"{self.instructions[who.at]}")

    def note_write(self, places: Array, warps: Array, who: Who, changed: Array | None = None,
                   undefined: Array | None = None) -> None:
        if self.busy:
            if self.incoming[places].any():
                raise Fault(f"shared memory is overwritten while an asynchronous copy writes it: "
                            f"{self.instructions[who.at]}")
            if self.lent[places].any():
                raise Fault(f"shared memory is overwritten while an asynchronous product reads it: "
                            f"{self.instructions[who.at]}")
        self.shadow.note_write(places, warps, who, changed)
        self.undefined[places] = False if undefined is None else undefined
        self.tick += 1
        self.generic[places] = self.tick
