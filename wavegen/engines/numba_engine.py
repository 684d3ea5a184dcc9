"""The fused CPU engine: the whole generation loop inside one call, without the GIL.

`wavegen_kernels/cpu` holds the loop twice: over vector micro-kernels specialised for the shape,
and as plain loops for CPUs without AVX-512, AVX2 or NEON. $WAVEGEN_KERNELS forces one of them.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavegen.audio.mulaw import silence_code
from wavegen.engines.base import (
    AbstractEngine,
    Conditioning,
    Rows,
    State,
    check_codes,
    check_conditioning,
    check_num_samples,
    check_uniforms,
    inverse_temperature,
    make_rows,
    rows_of,
)
from wavegen.engines.conditioning import FrameBlocks, TableConditioning
from wavegen.engines.packing import Network, PackedWaveNet, pack
from wavegen.engines.partner import Link, Partner
from wavegen.engines.ranges import ActivationRanges
from wavegen.engines.threads import Pool, Threads, check_threads, idle_cores
from wavegen.errors import ConfigError, EngineUnavailableError, did_you_mean
from wavegen_kernels.cpu import host, jit
from wavegen_kernels.cpu.layout import Shape

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
KERNELS = ("auto", "vector", "plain")
KERNELS_VARIABLE = "WAVEGEN_KERNELS"
# Rows that advance together, so that a weight is read once for all of them; a loop is compiled for each.
TILES = (1, 2, 4)
USUAL_CACHE = 1 << 20  # bytes of a second-level cache where the system does not tell
PLAIN = host.Target("plain", 8)  # the plain loop has no registers to fit, it only shares the layout


class Scratch:
    """What a thread writes to while it advances a few rows."""

    def __init__(self, shape: Shape) -> None:
        self.rows = host.buffer(max(TILES), shape.scratch["total"])
        self.cursors = np.zeros(shape.num_layers, np.int64)


class NumbaState(State):
    """Rings of past layer inputs and what else a row carries from sample to sample.

    `shares` are the rows each thread advances; with a `link` two threads share the one row.
    """

    def __init__(self, packed: PackedWaveNet, rows: Rows, blocks: FrameBlocks, silence: int,
                 shares: Sequence[slice], paired: bool = False) -> None:
        shape, self.batch_size = packed.shape, len(rows.seeds)
        self.packed = packed  # whose state this is: sizes of another network would overrun its arrays
        self.position, self.rows, self.blocks = 0, rows, blocks
        self.rings = packed.make_rings(self.batch_size)
        before = 0.0 if shape.order else packed.decode[silence]
        self.history = np.full((self.batch_size, 2 * shape.history), before, np.float32)
        self.previous = np.full((self.batch_size, 2), silence, np.int64)
        self.shares = shares
        self.ended = np.zeros(self.batch_size, bool)  # rows no one listens to; is replaced, never written
        self.scratch = [Scratch(shape) for _ in shares]  # no part of the value
        self.link = Link(shape) if paired else None
        self.inverse_temperature = inverse_temperature(rows)
        self.min_p = rows.min_p.astype(np.float32)

    def redraw(self, streams: Sequence[int] | None = None, temperature: float | Sequence[float] | None = None) -> None:
        super().redraw(streams, temperature)
        self.inverse_temperature = inverse_temperature(self.rows)

    def copy(self, conditioning: Conditioning | None = None) -> NumbaState:
        other = object.__new__(NumbaState)
        other.__dict__.update(self.__dict__)
        other.rings = host.buffer(*self.rings.shape)
        other.rings[:] = self.rings
        other.scratch = [Scratch(self.packed.shape) for _ in self.scratch]
        other.link = Link(self.packed.shape) if self.link else None
        for name in ("history", "previous"):
            setattr(other, name, getattr(self, name).copy())
        other.blocks = self.blocks.copy(conditioning)
        return other

    def save(self, place: State | None = None) -> NumbaState:
        if not isinstance(place, NumbaState) or place.packed is not self.packed:
            return self.copy()
        own = {name: getattr(place, name) for name in ("rings", "history", "previous", "scratch", "link")}
        place.__dict__.update(self.__dict__)
        place.__dict__.update(own)
        for name in ("rings", "history", "previous"):
            own[name][:] = getattr(self, name)
        place.blocks = self.blocks.copy()
        return place


class NumbaEngine(AbstractEngine):
    """WaveNet of any shape.

    Args:
        network: the weights.
        conditioning: used where `start` is given none; None holds the bias.
        kernels: "vector", "plain", or "auto": vector where the host has a vector target, unless
            $WAVEGEN_KERNELS says otherwise.
        precision: "f32", "i16", "i8x15" or "i8".
        ranges: of the activations; the integer precisions need them.
        threads: over which the rows of a batch are spread; one row is shared by two, if there are
            vector kernels. "auto" takes as many as there are idle cores, and two for one row only
            where the weights fill more than half of the second-level cache.

    Raises:
        EngineUnavailableError: vector kernels asked for on a host that cannot run them.
    """

    name = "numba"

    def __init__(self, network: Network, conditioning: Conditioning | None = None,
                 kernels: str = "auto", precision: str = "f32", ranges: ActivationRanges | None = None,
                 threads: Threads = 1) -> None:
        self.network, self.precision = network, precision
        self.kernels, target = _choose(kernels)
        self.default_conditioning = conditioning or TableConditioning(
            network.parameters["dilated_bias"][None, None], hop_length=80)
        self.packed = pack(network, target.registers, target.prefetch, precision, ranges)
        self.silence = silence_code(network.quantization_channels)
        self.threads = check_threads(threads)
        self._pools: dict[int, Pool] = {}
        self._partner: Partner | None = None
        self._logged = ""
        self._loops: dict[int, Any] = {}
        if self.threads == 1:
            self._loop(1)

    @property
    def shape(self) -> Shape:
        """Padded sizes the kernels work on."""
        return self.packed.shape

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights read for every sample."""
        return int(self.packed.weights.nbytes)

    def start(self, batch_size: int = 1, conditioning: Conditioning | None = None,
              seeds: int | Sequence[int] = 0, streams: Sequence[int] | None = None,
              temperature: float | Sequence[float] = 1.0, min_p: float | Sequence[float] = 0.0) -> NumbaState:
        rows = make_rows(batch_size, seeds, streams, temperature, min_p)
        conditioning = conditioning or self.default_conditioning
        check_conditioning(conditioning, batch_size)
        network = self.network
        blocks = FrameBlocks(conditioning, (network.num_layers, 2 * network.residual_channels),
                             self.packed.pack_frames, network.lpc_order)
        blocks.at(0)  # a condition that is missing or not finite is refused here, not after the first samples
        shares, paired = self._prepare(batch_size)
        return NumbaState(self.packed, rows, blocks, self.silence, shares, paired)

    def retire(self, state: State, rows: Sequence[int]) -> None:
        """See `AbstractEngine.retire`: rows are left out once all of their tile are retired."""
        state = self._own(state)
        state.ended = state.ended | np.isin(np.arange(state.batch_size), rows_of(state, rows))

    def prepare(self, batch_size: int) -> None:
        self._prepare(batch_size)

    def _prepare(self, batch_size: int) -> tuple[list[slice], bool]:
        """How a batch is dealt out over threads, and whether two share its one row; compiles what that needs."""
        threads = self.threads_for(batch_size)
        shares, paired = split_rows(batch_size, threads), batch_size == 1 and threads == 2
        if not paired:
            for tile in {tile.stop - tile.start for share in shares for tile in self._tiles(share)}:
                self._loop(tile)
        elif self._partner is None:
            self._partner = Partner(self.packed.shape)
        return shares, paired

    def step(self, state: State, num_samples: int, uniforms: ArrayLike | None = None) -> NDArray[np.int64]:
        num_samples = check_num_samples(num_samples)
        given = np.zeros((state.batch_size, 0), np.float32)
        if uniforms is not None:
            given = check_uniforms(uniforms, state.batch_size, num_samples)
        codes, _ = self._run(state, num_samples, given, np.zeros((state.batch_size, 0), np.int64), False)
        return codes

    def logits(self, codes: ArrayLike, conditioning: Conditioning | None = None) -> NDArray[np.float32]:
        forced = check_codes(codes, self.network.quantization_channels)
        return self.force(self.start(len(forced), conditioning), forced)

    def force(self, state: State, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed codes int64 (B, n) in place of drawn ones; logits float32 (B, n, Q) that predict them."""
        _, logits = self._run(state, codes.shape[1], np.zeros((len(codes), 0), np.float32), codes, True)
        return logits

    def layer_inputs(self, state: NumbaState) -> NDArray[np.float32]:
        """What entered each layer at the latest sample, (B, L, R): to compare engines layer by layer."""
        packed = self.packed
        layers = [packed.stored_inputs(state.rings, layer, (state.position - 1) % packed.slots(layer))
                  for layer in range(self.network.num_layers)]
        return np.stack(layers, axis=1)[:, :, :self.network.residual_channels]

    def _run(self, state: State, num_samples: int, uniforms: NDArray[np.float32], forced: NDArray[np.int64],
             want_logits: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        state = self._own(state)
        batch = state.batch_size
        codes = np.zeros((batch, num_samples), np.int64)
        width = self.network.quantization_channels
        logits = np.zeros((batch, num_samples if want_logits else 0, width), np.float32)
        done = 0
        while done < num_samples:
            table, first_frame, end = state.blocks.at(state.position)
            stop = min(num_samples, done + end - state.position)
            part = np.full((batch, stop - done), self.silence, np.int64)
            some_logits = np.zeros((batch, stop - done if want_logits else 0, width), np.float32)
            given, fed = np.ascontiguousarray(uniforms[:, done:stop]), np.ascontiguousarray(forced[:, done:stop])
            calls = [[self._arguments(state, tile, scratch, table, first_frame, given, fed, part, some_logits)
                      for tile in self._tiles(share) if not state.ended[tile].all()]
                     for share, scratch in zip(state.shares, state.scratch, strict=True)]
            if state.link is not None and self._partner is not None and calls[0]:
                self._partner.advance(state.link, calls[0][0])
            else:
                self._advance(calls)
            codes[:, done:stop] = part
            if want_logits:
                logits[:, done:stop] = some_logits
            state.position += stop - done
            done = stop
        return codes, logits

    def _own(self, state: State) -> NumbaState:
        if not isinstance(state, NumbaState) or state.packed is not self.packed:
            raise ConfigError(f"this {type(state).__name__} is of another engine; take one of this engine's start()")
        return state

    def _arguments(self, state: NumbaState, rows: slice, scratch: Scratch, table: Floats, first_frame: int,
                   uniforms: Floats, forced: NDArray[np.int64], codes: NDArray[np.int64], logits: Floats) -> list[Any]:
        """What a generation loop is called with to advance some of the rows, in the order of its signature."""
        packed, prediction = self.packed, state.blocks.prediction
        return [packed.sizes, packed.weights, packed.embedding, packed.decode, packed.thresholds, packed.dilations,
                packed.scale, state.rings[rows], scratch.cursors, state.history[rows], state.previous[rows],
                table[rows] if len(table) > 1 else table, prediction[rows] if len(prediction) > 1 else prediction,
                state.blocks.conditioning.hop_length, first_frame, state.position, state.rows.seeds[rows],
                state.rows.streams[rows], state.inverse_temperature[rows], state.min_p[rows], uniforms[rows],
                forced[rows], codes[rows], logits[rows], scratch.rows[:rows.stop - rows.start]]

    def _advance(self, calls: list[list[list[Any]]]) -> None:
        """Run the first list of calls of the loop here and the others beside it."""
        beside = [self._pool(len(calls) - 1).submit(self._generate, some) for some in calls[1:]]
        try:
            self._generate(calls[0])
        finally:
            # Whatever happens here, the others write into this call's arrays until they are done.
            concurrent.futures.wait(beside)
        for job in beside:
            job.result()

    def _generate(self, calls: list[list[Any]]) -> None:
        """One call of the loop after another."""
        for call in calls:
            self._loop(len(call[-1]))(*call)

    def _loop(self, rows: int) -> Any:
        """The loop for so many rows, compiled when it is first needed."""
        if rows not in self._loops:
            self._loops[rows] = (jit.load_vector(self.packed.shape, rows) if self.kernels == "vector"
                                 else jit.load_plain(self.precision))
        return self._loops[rows]

    def _tiles(self, share: slice) -> list[slice]:
        """The rows of a share in tiles that read each weight once."""
        if self.kernels == "plain":
            return [slice(row, row + 1) for row in range(share.start, share.stop)]
        tiles, row = [], share.start
        while row < share.stop:
            size = max(size for size in TILES if size <= share.stop - row)
            tiles.append(slice(row, row + size))
            row += size
        return tiles

    def _pool(self, count: int) -> Pool:
        if count not in self._pools:
            self._pools[count] = Pool(count)
        return self._pools[count]

    def threads_for(self, batch_size: int) -> int:
        """Threads a batch of this size is spoken with; 2 of one row share it."""
        if batch_size > 1:
            return min(batch_size, idle_cores() if self.threads == "auto" else int(self.threads))
        if self.kernels == "plain" or self.threads == 1:
            return 1
        return 2 if self.threads != "auto" or self._pair_pays() else 1

    def _pair_pays(self) -> bool:
        """Whether two threads of one stream are likely to be faster than one; logs why."""
        size, cache = f"{self.weight_bytes / 1e6:.2f} MB of weights", host.cache_bytes(2) or USUAL_CACHE
        pays = False
        if self.weight_bytes <= cache // 2:
            choice = f"one thread: {size} leave room in its cache of {cache / 1e6:.2f} MB"
        elif idle_cores() < 2:
            choice = "one thread: no other core is idle"
        else:
            pays, choice = True, f"two threads: {size} fill one core's cache of {cache / 1e6:.2f} MB"
        if choice != self._logged:
            logger.info("a stream of the numba engine takes %s", choice)
            self._logged = choice
        return pays

    def memory_bytes(self, batch_size: int = 1) -> int:
        """Bytes of weights, tables and the state of a batch."""
        packed = self.packed
        fixed = packed.weights.nbytes + packed.embedding.nbytes
        rows = batch_size * (sum(packed.slots(layer) for layer in range(self.network.num_layers))
                             * packed.shape.row_bytes)
        threads = self.threads_for(batch_size)
        return int(fixed + rows + threads * max(TILES) * packed.shape.scratch["total"])


def split_rows(batch_size: int, threads: int) -> list[slice]:
    """Consecutive rows for each thread, as even as they can be; no thread without rows."""
    count = min(threads, batch_size)
    borders = [batch_size * thread // count for thread in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(borders)]


def _choose(kernels: str) -> tuple[str, host.Target]:
    """The kernels to use and the target their layout is made for."""
    wanted = kernels if kernels != "auto" else os.environ.get(KERNELS_VARIABLE, "auto")
    if wanted not in KERNELS:
        raise ConfigError(f'no kernels "{wanted}" (argument kernels or ${KERNELS_VARIABLE}); '
                          f"{did_you_mean(wanted, KERNELS)}")
    target = None if numba.config.DISABLE_JIT else host.vector_target()
    if wanted == "vector" and target is None:
        raise EngineUnavailableError("the vector kernels need AVX-512, AVX2 with FMA, or NEON, and Numba 0.62 "
                                     'or newer with its compiler on; use kernels="plain"')
    if wanted == "plain" or target is None:
        logger.info("numba engine: plain loops, slower than the vector kernels (%s)",
                    "asked for" if wanted == "plain" else "no vector kernels for this CPU and llvmlite")
        return "plain", PLAIN
    logger.info("numba engine: vector kernels for %s", target.name)
    return "vector", target


def speed_order() -> tuple[str, ...]:
    """Precisions that pay on this machine, fastest first; f32 is among them.

    A step reads every weight once, so fewer bytes are faster as long as the instructions for them
    exist: with VNNI bytes are multiplied as they are, without it they are first widened to what
    i16 stores, and where integers are multiplied one lane at a time f32 is the fastest.
    """
    products = host.integer_products() if _choose("auto")[0] == "vector" else "generic"
    if products == "vnni":
        return ("i8", "i8x15", "i16", "f32")
    return ("f32",) if products == "generic" else ("i16", "f32")
