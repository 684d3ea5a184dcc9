"""Registers, stack and shared memory of every Triton kernel, for GPUs that need not be there.

    python kernels/benchmarks/compile_budget.py                    compile all cases, compare with the budget
    python kernels/benchmarks/compile_budget.py --write            make what was found the budget of this Triton
    python kernels/benchmarks/compile_budget.py --only sm_90,A     cases whose name holds these words

A case is compiled for exactly the arguments its launcher would launch it with. The budget is
`compile_budget.json`: Triton version, case, numbers; the same Triton gives the same machine code, so
a case may be better than its budget and never worse.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import torch  # noqa: E402
import triton  # noqa: E402
from gpu_check import BATCHES, CONFIGURATIONS, Problem, prefill_some  # noqa: E402

from wavegen_kernels.gpu import batch, latency, prefill  # noqa: E402
from wavegen_kernels.gpu.compile_only import SHARED_LIMITS, Compiled, compile_only  # noqa: E402
from wavegen_kernels.gpu.plan import Limits  # noqa: E402

BUDGET = HERE / "compile_budget.json"
LIMITS = {80: Limits(108, SHARED_LIMITS[80], 32), 90: Limits(132, SHARED_LIMITS[90], 128)}  # A100, H100
NUMBERS = ("registers", "stack", "shared", "tensor_core", "async_copies")
NO_MORE = ("registers", "stack", "shared")  # may not grow; the other two may not vanish
VERSION = ".".join(triton.__version__.split(".")[:2])
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32",
         torch.int64: "i64", torch.uint8: "u8"}


@dataclass(frozen=True)
class Case:
    """One kernel for one device: `launch` calls its launcher with arrays on the CPU."""

    module: Any
    kernel: str
    launch: Callable[[], Any]
    capability: int

    def compile(self) -> Compiled:
        arguments, options = self._arguments()
        kernel = getattr(self.module, self.kernel)
        types, constants = {}, {}
        for parameter in kernel.params:
            value = arguments[parameter.name]
            if parameter.is_constexpr:
                constants[parameter.name] = value
            elif isinstance(value, torch.Tensor):
                types[parameter.name] = "*" + TYPES[value.dtype]
            else:
                types[parameter.name] = parameter.annotation_type or ("fp32" if isinstance(value, float) else "i32")
        return compile_only(kernel, types, constants, self.capability, **options)

    def _arguments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """By name, and options such as num_warps: what the first launch of the kernel is given."""
        with recorded(self.module) as calls:
            self.launch()
        arguments, named = calls[self.kernel][0]
        names = getattr(self.module, self.kernel).arg_names
        named = dict(zip(names, arguments, strict=False)) | named
        return {name: named.pop(name) for name in names}, named


@contextmanager
def recorded(module: Any) -> Iterator[dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]]:
    """Launches of a module's kernels by name, noted instead of done."""
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments, **named: calls.setdefault(self.name, []).append((arguments, named))

    kernels = {name: value for name, value in vars(module).items() if isinstance(value, triton.JITFunction)}
    try:
        for name in kernels:
            setattr(module, name, Recorder(name))
        yield calls
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)


def make_cases() -> dict[str, Case]:
    """Every kernel, configuration and device, by name."""
    cases = {}
    for capability, limits in LIMITS.items():
        for name, sizes in CONFIGURATIONS.items():
            problem = Problem(sizes, "cpu", limits)

            def speak(kind: str, rows: int, problem: Problem = problem, **options: Any) -> Any:
                # The plan is made for `rows`, and one row is enough to see what would be launched.
                return problem.generator(kind, rows, **options)(
                    problem.begin(1), problem.constant, 1, 0, torch.zeros(1, 1, dtype=torch.int32))

            def fill(problem: Problem = problem) -> Any:
                return prefill_some(problem, 1, 1)

            where = f"sm_{capability} {name}"
            cases[f"{where} latency"] = Case(latency, "latency_kernel", lambda speak=speak: speak("latency", 1),
                                             capability)
            if name in "AB":  # wider layers leave no room for it, or so little that it cannot pay
                cases[f"{where} fused latency"] = Case(latency, "latency_kernel",
                                                       lambda speak=speak: speak("latency", 1, fused=True), capability)
            for rows in (1, BATCHES[-1]):
                cases[f"{where} batch {rows}"] = Case(batch, "generate_kernel",
                                                      lambda speak=speak, rows=rows: speak("batch", rows), capability)
            for kernel in ("layer_kernel", "logits_kernel"):
                cases[f"{where} prefill {kernel}"] = Case(prefill, kernel, fill, capability)
    return cases


def complaints(name: str, found: Compiled, budget: dict[str, dict[str, int]] | None, capability: int) -> list[str]:
    """What is wrong with a compiled case.

    Args:
        budget: of this Triton; None checks only what the device demands.
    """
    limit = SHARED_LIMITS[capability]
    wrong = [] if found.shared <= limit else [f"{found.shared} bytes of shared memory, a program has {limit}"]
    if not found.tensor_core:
        wrong.append("no tensor-core instruction")
    wanted = None if budget is None else budget.get(name)
    if wanted is not None:
        wrong += [f"{number} {getattr(found, number)}, budget {wanted[number]}" for number in NO_MORE
                  if getattr(found, number) > wanted[number]]
        wrong += [f"{number} 0, budget {wanted[number]}" for number in NUMBERS
                  if number not in NO_MORE and wanted[number] and not getattr(found, number)]
    elif budget is not None:
        wrong.append("no budget; run kernels/benchmarks/compile_budget.py --write")
    return [f"{name}: {problem}" for problem in wrong]


def read_budget() -> dict[str, dict[str, dict[str, int]]]:
    """Triton version, case, number."""
    if not BUDGET.exists():
        return {}
    budget: dict[str, dict[str, dict[str, int]]] = json.loads(BUDGET.read_text(encoding="utf-8"))
    return budget


def write_budget(budget: dict[str, dict[str, dict[str, int]]]) -> None:
    """One case a line, so that a change of one is a change of a line."""
    parts = []
    for version, cases in sorted(budget.items()):
        lines = [f'  "{name}": {json.dumps(numbers)}' for name, numbers in sorted(cases.items())]
        parts.append(f' "{version}": {{\n' + ",\n".join(lines) + "\n }")
    BUDGET.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words the name of a case must hold, with commas between")
    parser.add_argument("--write", action="store_true", help="make what is found the budget")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    budget, wrong = read_budget(), []
    print(f"Triton {triton.__version__}: " + ("its budget is known" if VERSION in budget else "no budget is known"))
    for name, case in make_cases().items():
        if not all(word in name.split() for word in words):
            continue
        found = case.compile()
        numbers = {number: getattr(found, number) for number in NUMBERS}
        if options.write:
            budget.setdefault(VERSION, {})[name] = numbers
            write_budget(budget)
        problems = complaints(name, found, budget.get(VERSION), case.capability)
        wrong += problems
        print(f"{name:32} {numbers} {found.seconds:.1f} s {'; '.join(problems)}", flush=True)
        if case.kernel == "generate_kernel":
            constants, given = case._arguments()
            per_row = constants["PARTS"] * given["num_warps"] / constants["ROWS"]
            print(f"{'':32} {constants['ROWS']} rows, {constants['PARTS']} parts: {found.layer_loop()}, "
                  f"{found.layer_loop()['instructions'] * per_row:.0f} of a warp for each layer and row", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
