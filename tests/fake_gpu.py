"""A GPU that is not there: tensors that say they are elsewhere, on "meta", and compute on the CPU.

What would fail on a GPU fails here: an operation on tensors of two devices, `.numpy()` of a tensor on the device. What
costs time there is counted: launches, copies, and the places where the host waits for the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("meta")  # of "cuda" torch itself would ask the driver, at the first index
aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
           aten._unsafe_index.Tensor}
QUIET = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default,
         aten.new_empty_strided.default, aten.lift_fresh.default, aten.detach.default, aten._unsafe_view.default,
         aten.view.default, aten._reshape_alias.default}


class OnGpu(torch.Tensor):
    """A tensor on the fake device; `inner` is the one that computes."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU)
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the fake GPU, outside of `fake_gpu`")


def to_cpu(value: Any) -> Any:
    """What computes behind tensors of the fake GPU, in any nest of containers."""
    return tree_map_only(OnGpu, lambda tensor: tensor.inner, value)


class FakeGpu(TorchDispatchMode):
    """Runs what is said to be on the device, and counts.

    Attributes:
        counts: "launches" of operations, "kernels" of ours, "to_device", "to_host", "waits" of the host for the device.
        log: of them, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self.pinned: set[int] = set()

    def count(self, kind: str, name: Any) -> None:
        self.counts[kind] += 1
        self.log.append(f"{kind} {name}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func._can_decompose():  # in inference mode nothing has taken it apart before
            with self:
                return func.decompose(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inside = any(isinstance(leaf, OnGpu) for leaf in leaves)
        target = inside
        if isinstance(kwargs.get("device"), torch.device):
            target = kwargs["device"].type == GPU.type
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if not inside and not target:
            return func(*args, **kwargs)
        self._judge(func, args, leaves, inside, target)
        found = func(*to_cpu(args), **to_cpu(kwargs))
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():
                func(*args, **kwargs)  # the shape of the tensor outside
        if func._schema.name.endswith("_") and isinstance(args[0], OnGpu):
            return args[0]
        if "out" in kwargs:
            return kwargs["out"]
        if func in (aten._local_scalar_dense.default, aten.equal.default):
            return found
        if func is aten.copy_.default:
            return args[0]
        if not target:
            return found
        if func.is_view and not leaves[0].is_inference():  # in inference mode too a view is what its base is
            with torch.inference_mode(False):
                return tree_map_only(Tensor, OnGpu, found)
        return tree_map_only(Tensor, OnGpu, found)

    def _judge(self, func: Any, args: Any, leaves: list[Tensor], inside: bool, target: bool) -> None:
        if func is aten._to_copy.default:
            if not inside:
                self.count("to_device", func)
            elif not target:
                self.count("to_host", func)
                self.count("waits", func)
            else:
                self.count("launches", func)
            return
        if func is aten.copy_.default:
            there, here = (isinstance(arg, OnGpu) for arg in args[:2])
            if there and here:
                self.count("launches", func)
            else:
                self.count("to_device" if there else "to_host", func)
                if here:
                    self.count("waits", func)
            return
        mixed = [leaf for leaf in leaves if not isinstance(leaf, OnGpu) and leaf.ndim]
        if func in INDEXED:
            indices = [index for index in args[1] if index is not None]
            mixed = [leaf for leaf in mixed if not any(leaf is index for index in indices)]
            for index in indices:
                if not isinstance(index, OnGpu):
                    self.count("to_device", f"{func}: an index")
                    self.count("waits", f"{func}: an index")
                elif index.dtype == torch.bool:
                    self.count("waits", f"{func}: a mask")
        if inside and mixed:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found cpu and {GPU}")
        if func in WAITS:
            self.count("waits", func)
        elif func not in QUIET and not func.is_view:
            self.count("launches", func)


class _Made(TorchFunctionMode):
    """`torch.tensor(numbers, device=..)` makes its tensor where the other mode does not see it: a copy, and a wait."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == GPU:
            return args[0] if isinstance(args[0], OnGpu) else func(*args, **{**kwargs, "device": "cpu"}).to(GPU)
        return func(*args, **kwargs)


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Inside, `GPU` is a device."""
    with FakeGpu() as mode, _Made():
        yield mode


@contextmanager
def engine_on_fake_gpu() -> Iterator[FakeGpu]:
    """Inside, the triton engine runs on `GPU`, with the twins of its kernels in place of them."""
    from wavegen.engines import triton_engine
    from wavegen_kernels.gpu import batch, latency, prefill
    from wavegen_kernels.gpu.plan import Limits

    generate = row_by_row(batch.generate_ref)
    with pytest.MonkeyPatch.context() as patch, fake_gpu() as mode:
        patch.setattr(triton_engine, "find_device", lambda name: GPU)
        patch.setattr(triton_engine, "find_limits", lambda device: Limits(132, 232_448, 128))
        patch.setattr(batch, "generate", generate)
        patch.setattr(latency, "generate", generate)
        patch.setattr(prefill, "prefill", row_by_row(prefill.prefill_ref))
        yield mode


def row_by_row(twin: Callable[..., None]) -> Callable[..., None]:
    """A launcher's twin in plain torch, on any device, with the bits of each row alone, as the kernel has them.

    Options of the launch (tile, warps) change nothing; rows that are finished cost nothing.
    """
    def run(packed: Any, memory: Any, table: Tensor, hop: int, position: int, codes: Tensor,
            logits: Tensor | None = None, uniforms: Tensor | None = None, forced: bool = False,
            prediction: Tensor | None = None, **_: Any) -> None:
        with _outside() as mode:
            if mode is not None:
                mode.count("kernels", twin.__name__)
                for tensor in tensors_of(packed, memory, table, codes, logits, uniforms, prediction):
                    assert isinstance(tensor, OnGpu), "a tensor of the host in a launch"
            packed, memory = _inner(packed), _inner(memory)
            table, codes, logits, uniforms, prediction = to_cpu((table, codes, logits, uniforms, prediction))
            for row in range(memory.batch_size):
                if not memory.active[row]:
                    continue
                one = slice(row, row + 1)
                alone = replace(memory, rings=memory.rings[:, one], flat=None, **{
                    field.name: getattr(memory, field.name)[one] for field in fields(memory) if field.name != "rings"})
                given = {} if twin.__name__.startswith("prefill") else {
                    "uniforms": None if uniforms is None else uniforms[one], "forced": forced}
                twin(packed, alone, table, hop, position, codes[one], None if logits is None else logits[one],
                     prediction=prediction, **given)

    return run


@contextmanager
def _outside() -> Iterator[FakeGpu | None]:
    """Out of the modes for a while."""
    modes = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    found = next((mode for mode in modes if isinstance(mode, FakeGpu)), None)
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        yield found


def tensors_of(*values: Any) -> list[Tensor]:
    """All tensors in some dataclasses and tensors."""
    return [leaf for value in values for leaf in tree_leaves(vars(value) if hasattr(value, "__dataclass_fields__") else
                                                             value) if isinstance(leaf, Tensor)]


def _inner(made: Any) -> Any:
    inner = {field.name: to_cpu(getattr(made, field.name)) for field in fields(made)}
    return replace(made, **({"flat": None} if hasattr(made, "told") else {}), **inner)
