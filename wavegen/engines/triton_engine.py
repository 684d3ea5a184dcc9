"""The GPU engine: the whole generation loop of many utterances inside one launch of a Triton kernel.

`wavegen_kernels/gpu` holds the kernels: `batch` generates, a tile of rows to a program; `latency`
generates few rows on many multiprocessors; `prefill` takes known codes, all time steps at once. Rows
may finish and others begin in their place while the rest goes on: see `retire` and `admit`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from triton.errors import TritonError
from triton.runtime import driver
from triton.runtime.errors import OutOfResources

from wavegen.audio.mulaw import silence_code, thresholds
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
from wavegen.engines.packing import Network
from wavegen.errors import ConfigError, EngineUnavailableError, WavegenError
from wavegen_kernels.gpu import batch, latency, prefill
from wavegen_kernels.gpu.memory import make_memory
from wavegen_kernels.gpu.pack import Packed, pack, pack_frames
from wavegen_kernels.gpu.plan import Limits, Plan, choose_plan, find_limits, more_modest

logger = logging.getLogger(__name__)

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32,
          "f16-fast": torch.float16, "bf16-fast": torch.bfloat16}
FAST = "-fast"  # ending of precisions whose gates take the approximate tanh of the hardware
LEAST_CAPABILITY = (8, 0)
LAUNCH_SAMPLES = 4096  # of one launch: long enough to cost nothing, short enough to interrupt
TABLE_BYTES = 1 << 28  # of conditioning frames on the device at a time
MAX_CODES, MAX_RESIDUAL = 1024, 256  # a tile must hold all of them
FRONT = 32  # numbers before the codes, 128 bytes
PATIENCE = 2.0  # seconds of a first launch, after which it is told what is going on
# Triton compiles, and writes its cache, in state of the process: one thread at a time. A launch itself takes
# microseconds; the kernels of several threads run on the device in turn.
_LAUNCHING = threading.Lock()


def pack_network(network: Network, dtype: torch.dtype, device: torch.device | str, fused: bool = False) -> Packed:
    """The arrays the kernels read, from those of a model; `fused` as in `pack`."""
    return pack(network.parameters, network.dilations, network.decoded, thresholds(network.quantization_channels),
                network.residual_scale, network.skip_scale, network.input_tanh, network.lpc_order, dtype, device, fused)


@dataclass(frozen=True, eq=False)
class Source:
    """Where some rows of a batch have their conditioning from.

    Attributes:
        rows: of the batch.
        picks: rows of the conditioning, one for each.
        origin: the tick at which the rows began.
    """

    rows: NDArray[np.int64]
    picks: NDArray[np.int64]
    blocks: FrameBlocks
    origin: int

    def without(self, rows: Sequence[int]) -> Source:
        kept = ~np.isin(self.rows, rows)
        return replace(self, rows=self.rows[kept], picks=self.picks[kept])

    def copy(self, conditioning: Conditioning | None) -> Source:
        return replace(self, blocks=self.blocks.copy(conditioning))


class TritonState(State):
    """Tensors of the rows on the device, and where their conditioning comes from.

    `position` counts the samples since `start`; a row that was admitted later has made fewer.
    """

    def __init__(self, packed: Packed, rows: Rows, plan: Plan, silence: int) -> None:
        self.packed, self.plan = packed, plan
        self.position, self.batch_size, self.rows = 0, len(rows.seeds), rows
        self.memory = make_memory(packed, self.batch_size)
        self.silence = silence
        self.sources: list[Source] = []
        self.table: Tensor | None = None
        self.prediction: Tensor | None = None
        self.table_end = 0  # the tick up to which the table holds
        self.lost = False  # after a generation that was broken off

    def copy(self, conditioning: Conditioning | None = None) -> TritonState:
        other = object.__new__(TritonState)
        other.__dict__.update(self.__dict__)
        with on_device(self.packed.device):
            other.memory = self.memory.copy()
        other.sources = [source.copy(conditioning) for source in self.sources]
        return other  # a table is never written, so both may read it

    def redraw(self, streams: Sequence[int] | None = None, temperature: float | Sequence[float] | None = None) -> None:
        super().redraw(streams, temperature)
        self.memory.draw(self.rows.streams, inverse_temperature(self.rows))

    def begin(self, source: Source, rows: Rows) -> None:
        """Let the rows of a source begin at this position, drawing as `rows` says."""
        index = source.rows
        self.sources = [*self.emptied(index), source]
        self.rows = Rows(*(_put(getattr(self.rows, name), index, getattr(rows, name))
                           for name in ("seeds", "streams", "temperature", "min_p")))
        self.memory.begin(self.packed, index.tolist(), self.position, self.silence, rows.seeds, rows.streams,
                          rows.temperature, rows.min_p, fresh=len(index) == self.batch_size and not self.position)
        self.table_end = 0

    def emptied(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Source]:
        """The sources of the other rows."""
        return [source for source in (source.without(list(rows)) for source in self.sources) if len(source.rows)]


class TritonEngine(AbstractEngine):
    """WaveNet of any depth on an NVIDIA GPU, batches of any size.

    Args:
        network: the weights.
        conditioning: used where `start` is given none; None holds the bias.
        precision: "f16", "bf16" or "f32", of weights and of what enters a product; sums are float32.
            "f16-fast" and "bf16-fast" take the hardware's tanh for the gates, off by up to 2^-11 of its value.
        device: a CUDA device, None the current one. "cpu" only where Triton interprets its kernels
            ($TRITON_INTERPRET=1), for tests.
        plan: how kernels are launched; None lets `plan_for` decide for each batch. Batches that must
            agree to the last bit whatever their size need a fixed one.

    Raises:
        EngineUnavailableError: no GPU that can run it, or a model too wide for a tile.
    """

    name = "triton"
    batch_rows = 1024  # 64 tiles of 16 rows, each for a multiprocessor of its own
    company = 0.0  # a launch lasts as long for one row as for all of them

    def __init__(self, network: Network, conditioning: Conditioning | None = None, precision: str = "f16",
                 device: str | None = None, plan: Plan | None = None) -> None:
        self.network, self.precision, self.plan = network, precision, plan
        if plan is not None and precision.endswith(FAST):
            self.plan = replace(plan, fast=True)
        self.device = find_device(device)
        self._modest: dict[Plan, Plan] = {}  # what took the place of plans the device has no room for
        self._launched: set[Any] = set()
        with on_device(self.device):
            fused = plan is not None and plan.spread is not None and plan.spread.fused
            self.packed = pack_network(network, DTYPES[precision], self.device, fused)
        sizes = self.packed.sizes
        for name in ("taps", "gate", "fused", "residual", "skip", "output", "end"):
            if not bool(torch.isfinite(getattr(self.packed, name)).all()):
                raise EngineUnavailableError(f'{name} weights of this model leave the range of {precision}; '
                                             f'use precision="bf16" or "f32"')
        if sizes.codes > MAX_CODES or sizes.residual > MAX_RESIDUAL:
            raise EngineUnavailableError(
                f"the triton engine runs models of at most {MAX_RESIDUAL} residual channels and {MAX_CODES} codes, "
                f"this one has {network.residual_channels} and {network.quantization_channels}; "
                f'use engine="reference" with device="cuda"')
        self.default_conditioning = conditioning or TableConditioning(
            network.parameters["dilated_bias"][None, None], hop_length=80)
        self.silence = silence_code(network.quantization_channels)

    @cached_property
    def _limits(self) -> Limits:
        return find_limits(self.device)

    def plan_for(self, batch_size: int) -> Plan:
        """How a batch of this size is launched."""
        plan = self.plan or self._plan_for(batch_size)
        while plan in self._modest:
            plan = self._modest[plan]
        return plan

    def _plan_for(self, batch_size: int) -> Plan:
        sizes, limits = self.packed.sizes, self._limits
        plan = choose_plan(sizes, batch_size, self.packed.gate.element_size(), limits)
        plan = replace(plan, fast=self.precision.endswith(FAST))
        if self.device.type == "cpu" or batch_size > latency.ROWS.value:
            return plan
        spread = latency.make_spread(sizes, self.packed.dtype, batch_size, limits.shared_bytes, limits.programs)
        if isinstance(spread, str):
            logger.info("triton engine: the batch kernel for %d rows; the latency kernel does not take %s",
                        batch_size, spread)
            return plan
        logger.info("triton engine: the latency kernel for %d rows, on %d multiprocessors", batch_size,
                    spread.programs)
        return replace(plan, spread=spread)

    def start(self, batch_size: int = 1, conditioning: Conditioning | None = None,
              seeds: int | Sequence[int] = 0, streams: Sequence[int] | None = None,
              temperature: float | Sequence[float] = 1.0, min_p: float | Sequence[float] = 0.0) -> TritonState:
        rows = make_rows(batch_size, seeds, streams, temperature, min_p)
        source = self._source(np.arange(batch_size), 0, conditioning)
        with on_device(self.device):
            try:
                state = TritonState(self.packed, rows, self.plan_for(batch_size), self.silence)
            except torch.OutOfMemoryError as error:
                each = sum(self.packed.ring_lengths) * self.packed.sizes.residual * self.packed.gate.element_size()
                raise WavegenError(f"a batch of {batch_size} rows needs {batch_size * each / 1e9:.1f} GB on the GPU, "
                                   f"which has no room for it; speak fewer rows together") from error
            state.begin(source, rows)
        return state

    def retire(self, state: State, rows: Sequence[int]) -> None:
        """End these rows: from now on they give silence, and cost nothing once their whole tile is retired.

        Raises:
            ConfigError: a row that is not in the batch.
        """
        state = self._own(state)
        index = rows_of(state, rows)
        state.memory.finish(index.tolist())
        state.sources = state.emptied(index)
        state.table_end = 0

    def admit(self, state: TritonState, rows: Sequence[int], conditioning: Conditioning | None = None,
              seeds: int | Sequence[int] = 0, streams: Sequence[int] | None = None,
              temperature: float | Sequence[float] = 1.0, min_p: float | Sequence[float] = 0.0) -> None:
        """Begin new utterances in these rows, which end there if they have not yet; the others go on.

        A new row's samples are those of a batch of its own, from its sample 0 on.

        Args:
            rows: of the batch.
            conditioning, seeds, streams, temperature, min_p: of the new rows, as in `start`.

        Raises:
            ConfigError: a row that is not in the batch, or what `start` would refuse.
        """
        index = rows_of(self._own(state), rows)
        drawn = make_rows(len(index), seeds, streams, temperature, min_p)
        source = self._source(index, state.position, conditioning)
        hops = {other.blocks.conditioning.hop_length for other in state.emptied(index)}
        if hops - {source.blocks.conditioning.hop_length}:
            raise ConfigError(f"all rows of a batch share one hop_length, {hops.pop()}; "
                              f"found {source.blocks.conditioning.hop_length}")
        with on_device(self.device):
            state.begin(source, drawn)

    def step(self, state: State, num_samples: int, uniforms: ArrayLike | None = None) -> NDArray[np.int64]:
        state, num_samples = self._own(state), check_num_samples(num_samples)
        with on_device(self.device):
            given = None
            if uniforms is not None:
                given = torch.from_numpy(check_uniforms(uniforms, state.batch_size, num_samples)).to(self.device)
            # The first number is the abort word of the latency kernel, so that one copy fetches all there is to know;
            # codes begin where all addresses look alike to Triton. Rows that are finished are not written.
            count, every = FRONT + state.batch_size * num_samples, state.memory.told["active"].all()
            flat = torch.empty(count, dtype=torch.int32, device=self.device) if every else torch.full(
                (count,), self.silence, dtype=torch.int32, device=self.device)
            codes, abort = flat[FRONT:].view(state.batch_size, num_samples), flat[:1]
            many = state.plan.spread is not None
            if many:
                abort.zero_()
            for part in self._launches(state, num_samples):
                whole = part == slice(0, num_samples)
                drawn = codes if whole else codes[:, part].contiguous()
                self._launch(batch.generate, state, drawn, abort=abort,
                             uniforms=None if given is None else given[:, part].contiguous())
                if not whole:
                    codes[:, part] = drawn
            found = self._fetch(flat)
        if many and found[0]:
            state.lost = True
            raise WavegenError(f"{latency.lost_program(state.plan.spread)}; this state is lost, start a new one")
        found = found[FRONT:].reshape(state.batch_size, num_samples).astype(np.int64)
        if (found < 0).any():
            state.lost = True
            row, sample = np.argwhere(found < 0)[0]
            raise WavegenError(f"the numbers of this model leave the range of {self.precision} in row {row}, sample "
                               f'{state.position - num_samples + sample}; use precision="bf16" or "f32"')
        return found

    def logits(self, codes: ArrayLike, conditioning: Conditioning | None = None) -> NDArray[np.float32]:
        forced = check_codes(codes, self.network.quantization_channels)
        return self.force(self.start(len(forced), conditioning), forced)

    def force(self, state: State, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed codes int64 (B, n) in place of drawn ones; logits float32 (B, n, Q) that predict them."""
        return self._forced(state, codes, batch.generate, True, forced=True)

    def prefill(self, state: State, codes: ArrayLike, want_logits: bool = False) -> NDArray[np.float32] | None:
        """Feed codes integers (B, n) as `force` does, all time steps at once: much faster, the same state.

        Returns:
            float32 (B, n, Q) logits that predict the codes if wanted, else None.

        Raises:
            ConfigError: codes of another batch size or out of range.
        """
        known = check_codes(codes, self.network.quantization_channels)
        if len(known) != state.batch_size:
            raise ConfigError(f"codes must have shape ({state.batch_size}, T) for this state, found {known.shape}")
        logits = self._forced(state, known, prefill.prefill, want_logits)
        return logits if want_logits else None

    def layer_inputs(self, state: TritonState) -> NDArray[np.float32]:
        """What entered each layer at the latest sample, (B, L, R): to compare engines layer by layer."""
        latest = [ring[(state.position - 1) % len(ring)] for ring in
                  (self.packed.ring(state.memory.rings, layer) for layer in range(self.network.num_layers))]
        return torch.stack(latest, 1)[..., :self.network.residual_channels].float().cpu().numpy()

    def _own(self, state: State) -> TritonState:
        if not isinstance(state, TritonState) or state.packed is not self.packed:
            raise ConfigError(f"this {type(state).__name__} is of another engine; take one of this engine's start()")
        if state.lost:
            raise ConfigError("this state was lost when a generation was broken off; start a new one")
        return state

    def _source(self, rows: NDArray[np.int64], origin: int, conditioning: Conditioning | None) -> Source:
        conditioning = conditioning or self.default_conditioning
        check_conditioning(conditioning, len(rows))
        network = self.network
        blocks = FrameBlocks(conditioning, (network.num_layers, 2 * network.residual_channels),
                             order=network.lpc_order)
        blocks.at(0)  # a condition that is missing or not finite is refused here, not after the first samples
        picks = np.arange(len(rows)) % conditioning.batch_size
        return Source(rows, picks, blocks, origin)

    def _forced(self, state: State, codes: NDArray[np.int64], kernel: Any, want_logits: bool,
                **options: Any) -> NDArray[np.float32]:
        state, width = self._own(state), self.network.quantization_channels
        found = np.zeros((*codes.shape, width), np.float32) if want_logits else np.zeros(0, np.float32)
        with on_device(self.device):
            known = torch.from_numpy(np.ascontiguousarray(codes, np.int32)).to(self.device)
            for part in self._launches(state, codes.shape[1]):
                some = known[:, part].contiguous()
                logits = None
                if want_logits:
                    logits = torch.empty(*some.shape, self.packed.sizes.codes, device=self.device)
                self._launch(kernel, state, some, logits=logits, **options)
                if logits is not None:
                    found[:, part] = self._fetch(logits)[..., :width]
        return found

    def _fetch(self, tensor: Tensor) -> NDArray[Any]:
        """What the device has computed; the only place where a generation waits for it."""
        if self.device.type != "cuda":
            return tensor.to("cpu").numpy()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return host.numpy()

    def _send(self, arrays: list[NDArray[np.float32]]) -> list[Tensor]:
        """float32 arrays on the device, by one copy that nobody waits for."""
        counts = [-(-array.size // 32) * 32 for array in arrays]  # so that each begins where a kernel likes it
        host = torch.empty(sum(counts), dtype=torch.float32, pin_memory=self.device.type == "cuda")
        flat, place, places = host.numpy(), 0, []
        for array, count in zip(arrays, counts, strict=True):
            flat[place:place + array.size].reshape(array.shape)[:] = array
            places.append((place, array))
            place += count
        there = host.to(self.device, non_blocking=True)
        return [there[place:place + array.size].view(array.shape) for place, array in places]

    def _launches(self, state: TritonState, num_samples: int) -> Any:
        """Slices of the samples, each with conditioning on the device; the state moves on after each."""
        done = 0
        while done < num_samples:
            if state.position >= state.table_end:
                self._fill_table(state)
            stop = min(num_samples, done + LAUNCH_SAMPLES, done + state.table_end - state.position)
            yield slice(done, stop)
            state.position += stop - done
            done = stop

    def _launch(self, kernel: Any, state: TritonState, codes: Tensor, **arguments: Any) -> None:
        """Run a kernel by the state's plan, or by the next more modest one if the device lacks room for it."""
        state.memory.send()
        while state.sources:
            plan = state.plan
            assert state.table is not None
            given = (self.packed, state.memory, state.table, state.sources[0].blocks.conditioning.hop_length,
                     state.position, codes)
            spread = plan.spread if kernel is batch.generate else None
            abort = arguments.pop("abort", None)
            try:
                with self._patiently((kernel, plan, state.batch_size, *arguments)):
                    if spread is not None:
                        latency.generate(*given, **arguments, prediction=state.prediction, spread=spread,
                                         fast=plan.fast, warps=plan.warps, abort=abort)
                    else:
                        options = plan.batch_options if kernel is batch.generate else plan.prefill_options
                        kernel(*given, **arguments, prediction=state.prediction, **options)
                return
            except OutOfResources as error:  # is raised before anything runs
                state.plan = self._modest[plan] = self._more_modest(plan, error)
                if abort is not None:
                    arguments["abort"] = abort
            except latency.LostProgramError as error:
                state.lost = True
                raise WavegenError(f"{error}; this state is lost, start a new one") from error

    @contextmanager
    def _patiently(self, key: Any) -> Iterator[None]:
        """Around a launch: one at a time; the first of a kind compiles, and says so if that takes long.

        Raises:
            EngineUnavailableError: Triton cannot compile for this machine.
        """
        first = self.device.type == "cuda" and key not in self._launched
        timer = threading.Timer(PATIENCE, logger.warning, (
            "triton engine: compiling kernels for this model, up to a minute; later starts take them from Triton's "
            "cache",))
        with _LAUNCHING:
            if first:
                timer.daemon = True
                timer.start()
            try:
                yield
            except OutOfResources:
                raise
            except (TritonError, subprocess.CalledProcessError, OSError) as error:
                raise _cannot_compile(error) from error
            except RuntimeError as error:
                if not any(sign in str(error) for sign in ("C compiler", "PassManager", "libcuda")):
                    raise
                raise _cannot_compile(error) from error
            finally:
                timer.cancel()
        self._launched.add(key)

    def _more_modest(self, plan: Plan, error: OutOfResources) -> Plan:
        if plan.spread is not None:
            logger.warning("triton engine: the batch kernel takes over from the latency kernel (%s)", error)
        modest = more_modest(self.packed.sizes, plan)
        if modest is not None:
            return modest
        raise EngineUnavailableError(f'the model does not fit this GPU ({error}); use engine="reference" with '
                                     f'device="cuda"') from error

    def _fill_table(self, state: TritonState) -> None:
        """Put the conditioning frames from the state's position on onto the device, as many as TABLE_BYTES hold."""
        if not state.sources:
            state.table_end = state.position + LAUNCH_SAMPLES
            return
        sizes, frames, predictions, first = self.packed.sizes, [], [], 0
        shared = len(state.sources) == 1 and state.sources[0].blocks.conditioning.batch_size == 1
        rows = 1 if shared else sum(len(source.rows) for source in state.sources)
        limit = max(1, TABLE_BYTES // (rows * sizes.layers * 2 * sizes.residual * 4))
        end = state.position + LAUNCH_SAMPLES * 1024
        for source in state.sources:
            hop = source.blocks.conditioning.hop_length
            block, first_frame, _ = source.blocks.at(state.position - source.origin)
            begin = (state.position - source.origin) // hop
            some = slice(begin - first_frame, min(block.shape[1], begin - first_frame + limit))
            picks = source.picks[:1] if shared else source.picks
            frames.append(pack_frames(_picked(block, picks)[:, some], sizes.residual))
            if self.network.lpc_order:
                coefficients = source.blocks.prediction
                predictions.append(_picked(coefficients, picks % len(coefficients))[:, some])
            if not first:
                # What no source has, the first one lends to rows that are retired: they read it and no one listens.
                state.memory.place(slice(None), 0, source.origin + begin * hop)
            places = 0 if shared else np.arange(first, first + len(picks))
            state.memory.place(source.rows, places, source.origin + begin * hop)
            first += len(picks)
            end = min(end, source.origin + (begin + some.stop - some.start) * hop)
        if first == 1 and state.batch_size > 1 and not shared:
            # A table of one row is another kernel to Triton, and the last row of a batch must not wait for it.
            frames, predictions = frames * 2, predictions * 2
        sent = self._send([_stacked(frames), *([_stacked(predictions)] if predictions else [])])
        state.table, state.prediction = sent[0], sent[1] if predictions else None
        state.table_end = end


def _picked(array: NDArray[np.float32], picks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of an array, without a copy where they are all of them in order."""
    return array if np.array_equal(picks, np.arange(len(array))) else array[picks]


def _cannot_compile(error: Exception) -> EngineUnavailableError:
    text = str(error).strip().split("\n")[0][:200]
    hint = "install one (Debian, Ubuntu: apt install gcc python3-dev), or " if (
        "C compiler" in text or isinstance(error, (subprocess.CalledProcessError, OSError))) else ""
    return EngineUnavailableError(f"Triton cannot build its kernels here ({type(error).__name__}: {text}); {hint}"
                                  f'use engine="reference" with device="cuda", or engine="numba"')


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """What the engine does, it does on its device and there always in the same order.

    Triton launches on torch's current device and stream. The stream here is the default one, whatever the caller's: a
    state may be made under one and go on under another. Nothing that is on the device comes from the caller or goes
    to him. Tensors made here are of inference mode, wherever they are used.
    """
    with torch.inference_mode():
        if device.type == "cuda":
            with torch.cuda.stream(torch.cuda.default_stream(device)):
                yield
        else:
            yield


def find_device(name: str | None) -> torch.device:
    """The device the engine runs on.

    Raises:
        EngineUnavailableError: it is not an NVIDIA GPU the kernels run on.
        ConfigError: no such device.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    try:
        device = torch.device(name or ("cpu" if interpreted else "cuda"))
    except RuntimeError:
        raise ConfigError(f'no device "{name}"; give "cuda" or "cuda:1"') from None
    if interpreted:
        return torch.device("cpu")
    if device.type != "cuda":
        raise EngineUnavailableError(f'the triton engine runs on NVIDIA GPUs only, not on device "{name}"; '
                                     f'use engine="numba" or "reference"')
    if not torch.cuda.is_available():
        raise EngineUnavailableError('the triton engine needs an NVIDIA GPU, and torch finds none here; '
                                     'use engine="numba" or "reference"')
    if device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())  # later on another may be current
    if device.index >= torch.cuda.device_count():
        raise ConfigError(f'no device "{name}": there are {torch.cuda.device_count()}')
    if torch.version.hip or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        raise EngineUnavailableError(f"the triton engine needs an NVIDIA GPU of compute capability 8.0 (A100) or "
                                     f'newer, {torch.cuda.get_device_name(device)} is not; use engine="reference"')
    with _LAUNCHING:
        try:
            driver.active.get_current_target()  # Triton builds what it calls the driver with, by a C compiler
        except Exception as error:  # of many kinds
            raise _cannot_compile(error) from error
    return device


def _put(array: NDArray[Any], index: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    out = array.copy()
    out[index] = values
    return out


def _stacked(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of all arrays (P, frames, ..) one below the other, with zeros behind the shorter ones' frames."""
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0])
    out = np.zeros((sum(map(len, arrays)), max(array.shape[1] for array in arrays), *arrays[0].shape[2:]), np.float32)
    start = 0
    for array in arrays:
        out[start:start + len(array), :array.shape[1]] = array
        start += len(array)
    return out
