"""Everything there is to know about the Triton kernels on a GPU, in one command and at most eight minutes.

    python kernels/benchmarks/gpu_check.py [--out kernels/benchmarks/results/gpu_NAME.json]
    python kernels/benchmarks/gpu_check.py --quick            in two minutes: configuration A, and the issue's figures
    python kernels/benchmarks/gpu_check.py --interpret        without a GPU: tiny sizes, in Triton's interpreter

Needs numpy, torch and triton and nothing installed; the sections "engine", "voices" and "training" need what wavegen
needs, and take it from build/gpu_site.tar.xz (`carry.py`) where the machine does not have it. What matters most comes
first, for the time is limited. It ends with 1 if anything was wrong. Each section runs in a process of its own with a
time limit, and the JSON is written after every one: a section that hangs, crashes or runs out of time
leaves what it had found so far, and the reason. $WAVEGEN_PEER_BENCH may name an executable that
benchmarks another implementation; it is run without arguments and what it prints is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

BUDGET, QUICK_BUDGET = 470.0, 115.0  # seconds for all sections
QUICK = ("device", "warm", "correctness", "determinism", "speed", "baselines")
SITE = HERE.parents[1] / "build" / "gpu_site.tar.xz"  # packages from `carry.py`
PEER = "WAVEGEN_PEER_BENCH"
TAIL = 1500  # characters kept of a traceback or of a program's output


# --- sections and their processes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of the check: a function of a `Report`, and how many seconds it may take."""

    run: Callable[[Report], None]
    limit: float


class Report:
    """Findings of one section, on disk after each of them.

    Args:
        path: JSON file.
        interpret: tiny sizes, no GPU.
        deadline: `time.time()` by which the section should end.
        quick: only what matters most.
    """

    def __init__(self, path: Path, interpret: bool, deadline: float, quick: bool = False) -> None:
        self.path, self.interpret, self.deadline, self.quick = path, interpret, deadline, quick
        self.found: dict[str, Any] = {}

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    def put(self, name: str, value: Any) -> None:
        self.found[name] = value
        write_json(self.path, self.found)

    def attempt(self, name: str, function: Callable[[], Any]) -> Any:
        """Put what a function gives, or the end of its traceback, so that one failure costs one finding."""
        if self.seconds_left < 1:
            self.put(name, {"skipped": "out of time"})
            return None
        try:
            value = function()
        except Exception as error:
            self.put(name, {"error": f"{type(error).__name__}: {error}"[-TAIL:],
                            "traceback": traceback.format_exc()[-TAIL:]})
            return None
        self.put(name, value)
        return value


def write_json(path: Path, value: Any) -> None:
    """Replace the file at once: whoever reads it finds the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def run_limited(command: list[str], limit: float, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """Run a command and all it starts for at most `limit` seconds.

    Returns:
        What was wrong, empty if nothing was; and the end of its output.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                 env=environment)
        try:
            code = child.wait(limit)
            problem = "" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            problem = f"took longer than {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what the child has started, too
            child.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - 4 * TAIL))
        return problem, output.read()[-TAIL:]


def run_section(names: list[str], limit: float, interpret: bool, quick: bool = False) -> dict[str, Any]:
    """Run sections in one process; what each has found, and what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", folder, "--limit", str(limit),
                   "--only", ",".join(names)]
        environment = dict(os.environ)
        if interpret:
            environment["TRITON_INTERPRET"] = "1"
        begin = time.time()
        if SITE.with_name("gpu_site").is_dir():  # after what the machine has: its torch and numpy come first
            environment["WAVEGEN_CARRIED"] = str(SITE.with_name("gpu_site"))
        command += ["--interpret"] * interpret + ["--quick"] * quick
        problem, tail = run_limited(command, limit + 5, environment)
        results: dict[str, Any] = {}
        for name in names:
            try:
                found = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = {}
            if problem and not found.get("finished"):
                found["problem"] = problem
                found["output"] = tail
            results[name] = found
        results[names[-1]].setdefault("wall_seconds", round(time.time() - begin, 1))
    return results


def run_child(folder: Path, names: list[str], limit: float, interpret: bool, quick: bool = False) -> None:
    """The other end of `run_section`."""
    deadline = time.time() + limit
    for name in names:
        report = Report(folder / f"{name}.json", interpret, deadline, quick)
        report.put("finished", False)
        report.attempt("result", lambda name=name, report=report: SECTIONS[name].run(report))
        if report.found.get("result") is None:
            report.found.pop("result", None)
        report.put("finished", "result" not in report.found)


# --- what is measured -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """A network of the benchmark."""

    residual: int
    skip: int
    output: int
    dilations: tuple[int, ...]
    kernel_size: int = 2
    codes: int = 256


CYCLE = tuple(2**exponent for exponent in range(10))
CONFIGURATIONS = {  # of `wavegen.bench`, which needs more packages than this script may
    "A": Sizes(64, 256, 256, CYCLE * 2),
    "B": Sizes(32, 128, 256, CYCLE * 3),
    "C": Sizes(128, 256, 256, CYCLE * 3),
    "D": Sizes(128, 128, 128, CYCLE[:6] * 4, 3),
}
TINY = {"A": Sizes(16, 16, 16, (1, 2), codes=16), "D": Sizes(16, 16, 16, (1, 2), 3, 16)}
BATCHES = (1, 8, 16, 64, 2112, 8448, 16896)


class Problem:
    """A network with random weights that 16 bits hold exactly, on a device, and rows that speak with it.

    Args:
        sizes: one of CONFIGURATIONS or of TINY.
        device: torch's.
        limits: what the device offers; None finds out.
        flat: logits that do not depend on the past.
    """

    def __init__(self, sizes: Sizes, device: str, limits: Any = None, flat: bool = False) -> None:
        import numpy as np
        import torch

        from wavegen.audio.mulaw import decode_table, thresholds
        from wavegen_kernels.gpu.pack import pack
        from wavegen_kernels.gpu.plan import find_limits

        self.sizes = s = sizes
        self.device = torch.device(device)
        self.limits = limits or find_limits(self.device)
        random, layers = np.random.default_rng(3), len(s.dilations)

        def normal(*shape: int, scale: float) -> Any:
            return random.normal(0, scale, shape).astype(np.float16).astype(np.float32)

        narrow = s.residual ** -0.5
        self.parameters = {
            "embedding": normal(2, s.codes, s.residual, scale=0.5),
            "dilated_weight": normal(layers, s.kernel_size, s.residual, 2 * s.residual, scale=narrow),
            "dilated_bias": normal(layers, 2 * s.residual, scale=0.1),
            "residual_weight": normal(layers - 1, s.residual, s.residual, scale=narrow / 2),
            "residual_bias": normal(layers - 1, s.residual, scale=0.1),
            "skip_weight": normal(layers * s.residual, s.skip, scale=narrow), "skip_bias": normal(s.skip, scale=0.1),
            "output_weight": normal(s.skip, s.output, scale=(layers * s.skip) ** -0.5),
            "output_bias": normal(s.output, scale=0.1),
            "end_weight": normal(s.output, s.codes, scale=0.0 if flat else 2 * s.output ** -0.5),
            "end_bias": normal(s.codes, scale=1.5 if flat else 0.1)}
        self.packed = pack(self.parameters, s.dilations, np.asarray(decode_table(s.codes), np.float32),
                           thresholds(s.codes), device=self.device, fused=True)
        self.bias = torch.from_numpy(self.parameters["dilated_bias"])[None, None].to(self.device)
        self.constant = self.table(1, 1)

    def table(self, rows: int, frames: int) -> Any:
        """Conditioning frames (rows, frames, L, 2R): the bias and some noise."""
        import torch

        noise = torch.randn(rows, frames, 1, 1, generator=torch.Generator().manual_seed(1)) * 0.1 * (frames > 1)
        return (self.bias + noise.to(self.device)).contiguous()

    def begin(self, rows: int, streams: Any = None, shared: bool = True) -> Any:
        """Rows before their first sample, each drawing from a stream of its own."""
        import numpy as np
        import torch

        from wavegen_kernels.gpu.memory import make_memory

        memory = make_memory(self.packed, rows)
        streams = np.arange(rows) if streams is None else np.asarray(streams)
        memory.begin(self.packed, list(range(rows)), 0, self.sizes.codes // 2, np.full(rows, 11, np.uint64),
                     streams.astype(np.uint64), np.ones(rows), np.zeros(rows))
        if not shared:
            memory.table_row[:] = torch.arange(rows)
        return memory

    def plan(self, batch_size: int) -> Any:
        """How the batch kernel is launched for so many rows."""
        from wavegen_kernels.gpu.plan import choose_plan

        return choose_plan(self.packed.sizes, batch_size, 2, self.limits)

    def generator(self, kind: str, batch_size: int, /, **options: Any) -> Callable[..., None]:
        """`generate` of the batch or the latency kernel with a plan for this many rows, or ValueError.

        Args:
            options: of `generate`, in place of the plan's.
        """
        from wavegen_kernels.gpu import batch, latency

        packed, limits = self.packed, self.limits
        if kind == "batch":
            plan = self.plan(batch_size)
            return lambda *arguments, **more: batch_generate(packed, batch.generate, plan, options, *arguments, **more)
        # Interpreted, programs need not run at once.
        programs = limits.programs if self.device.type == "cuda" else 132
        spread = latency.make_spread(packed.sizes, packed.dtype, batch_size, limits.shared_bytes, programs,
                                     options.pop("fused", False))
        if isinstance(spread, str):
            raise ValueError(f"the latency kernel does not take {spread}")
        return lambda *arguments, **more: latency.generate(packed, *arguments, spread=spread, **options, **more)

    def speak(self, kind: str, memory: Any, num_samples: int, position: int = 0, table: Any = None, hop: int = 1 << 20,
              logits: bool = False, uniforms: Any = None, **options: Any) -> Any:
        """Codes int32 (B, n), and logits if wanted."""
        import torch

        rows = memory.batch_size
        codes = torch.zeros(rows, num_samples, dtype=torch.int32, device=self.device)
        found = None
        if logits:
            found = torch.zeros(rows, num_samples, self.packed.sizes.codes, device=self.device)
        self.generator(kind, rows, **options)(memory, self.constant if table is None else table, hop, position, codes,
                                              found, uniforms)
        return (codes, found) if logits else codes

    def reference_logits(self, codes: Any, table: Any, hop: int) -> Any:
        """float64 logits (B, T, Q) that predict the codes, all time steps at once, from the definition."""
        import torch

        p = {name: torch.from_numpy(array).to(self.device, torch.float64) for name, array in self.parameters.items()}
        rows, count = codes.shape
        silence = torch.full((rows, 2), self.sizes.codes // 2, device=self.device)
        known = torch.cat([silence, codes.long()], 1)
        h = p["embedding"][0][known[:, 1:count + 1]] + p["embedding"][1][known[:, :count]]
        frame = table[:, torch.arange(count, device=self.device) // hop].double().expand(rows, -1, -1, -1)
        skip = p["skip_bias"].expand(rows, count, -1)
        size = self.sizes.residual
        for layer, dilation in enumerate(self.sizes.dilations):
            a = frame[:, :, layer]
            for k in range(self.sizes.kernel_size):
                shift = min(k * dilation, count)
                past = torch.cat([h.new_zeros(rows, shift, size), h[:, :count - shift]], 1)
                a = a + past @ p["dilated_weight"][layer, k]
            z = torch.tanh(a[..., :size]) * torch.sigmoid(a[..., size:])
            skip = skip + z @ p["skip_weight"][layer * size:(layer + 1) * size]
            if layer < len(p["residual_weight"]):
                h = h + z @ p["residual_weight"][layer] + p["residual_bias"][layer]
        o = torch.relu(torch.relu(skip) @ p["output_weight"] + p["output_bias"])
        return o @ p["end_weight"] + p["end_bias"]


def problem_of(name: str, interpret: bool, flat: bool = False) -> Problem:
    """The tiny problem on the CPU, or the one of the benchmark on the GPU that is here."""
    return Problem(TINY[name], "cpu", flat=flat) if interpret else Problem(CONFIGURATIONS[name], "cuda", flat=flat)


def batch_generate(packed: Any, generate: Any, plan: Any, options: dict[str, Any], *arguments: Any,
                   **more: Any) -> None:
    """The batch kernel by a plan, made more modest until the device has room for it."""
    from triton.runtime.errors import OutOfResources

    from wavegen_kernels.gpu.plan import more_modest

    while True:
        chosen = plan.batch_options | options
        try:
            generate(packed, *arguments, **chosen, **more)
            return
        except OutOfResources:
            plan = more_modest(packed.sizes, plan)
            if plan is None:
                raise


def names_of(report: Report) -> list[str]:
    return list(TINY if report.interpret else CONFIGURATIONS)[: 1 if report.quick else None]


# --- the sections -----------------------------------------------------------------------------------------------


def device(report: Report) -> None:
    """What this machine is."""
    import platform
    import shutil

    import numpy as np
    import torch
    import triton

    report.put("python", platform.python_version())
    report.put("versions", {"numpy": np.__version__, "torch": torch.__version__, "triton": triton.__version__})
    report.put("c_compiler", shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or
               "none: Triton builds its launcher with one, unless its cache has it")
    report.put("commit", subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                                        cwd=HERE).stdout.strip())
    report.put("date", time.strftime("%Y-%m-%d", time.gmtime()))
    if not torch.cuda.is_available():
        report.put("device", {"skipped": "no NVIDIA GPU that torch can use on this machine"})
        return
    facts = torch.cuda.get_device_properties(0)
    report.put("device", {"name": facts.name, "capability": f"{facts.major}.{facts.minor}",
                          "multiprocessors": facts.multi_processor_count, "memory_bytes": facts.total_memory,
                          "l2_bytes": getattr(facts, "L2_cache_size", None),
                          "shared_bytes_of_a_program": facts.shared_memory_per_block_optin})

    def clocks() -> dict[str, str]:
        names = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu"
        run = subprocess.run(["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"], capture_output=True,
                             text=True, timeout=20, check=True)
        return dict(zip(names.split(","), (part.strip() for part in run.stdout.split("\n")[0].split(",")), strict=True))

    report.attempt("nvidia_smi", clocks)


def micro(report: Report) -> None:
    """The latency of a packet from one multiprocessor to another, and bandwidths: what the designs stand on."""
    import torch

    if report.interpret:
        report.put("all", {"skipped": "needs a GPU: two programs must run at once"})
        return
    import gpu_probes as probes

    report.attempt("packet_hop", probes.packet_hop)
    report.attempt("l2_read", probes.l2_read)

    def copy() -> dict[str, float]:
        source = torch.zeros(1 << 30, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        seconds = median(time_calls(lambda: target.copy_(source), 5))
        return {"gigabytes_per_second_read_and_written": 2 * source.numel() / seconds / 1e9}

    report.attempt("memory_copy", copy)


def warm(report: Report) -> None:
    """Compile what the other sections launch, many at a time, into Triton's cache."""
    if report.interpret:
        report.put("all", {"skipped": "interpreted kernels are not compiled"})
        return
    cases = [f"{name}:{kind}:{rows}:{mode}" for name in names_of(report) for kind, rows, mode in (
        ("latency", 3, "logits"), ("batch", 3, "logits"), ("latency", 1, "draw"), ("batch", 1, "draw"),
        ("prefill", 3, "logits"))]
    cases += [f"A:batch:{rows}:draw" for rows in BATCHES if rows > 16]
    cases += [f"{name}:batch:{BATCHES[-1]}:draw" for name in names_of(report) if name != "A"]
    if not report.quick:
        import gpu_voices

        cases += gpu_voices.WARM if not gpu_voices.missing("wavegen.synth") else []
        cases += [f"{name}:{kind}:{rows}:draw:{json.dumps(options)}" for name, kind, rows, options in VARIANTS]
    waiting, running = list(dict.fromkeys(cases)), {}
    abreast = max(2, min(12, (os.cpu_count() or 2) - 2))
    while (waiting or running) and report.seconds_left > 1:
        while waiting and len(running) < abreast:
            case = waiting.pop(0)
            log = open(report.path.with_name(f"warm-{len(report.found)}-{len(waiting)}.log"), "w+")  # noqa: SIM115
            running[case] = (subprocess.Popen([sys.executable, __file__, "--warm", case], stdout=log,
                                              stderr=subprocess.STDOUT), log, time.time())
        for case, (child, log, begin) in list(running.items()):
            if child.poll() is not None:
                log.seek(0)
                fine = {"seconds": round(time.time() - begin, 1)}
                report.put(case, fine if child.returncode == 0 else {"error": log.read()[-TAIL:]})
                log.close()
                del running[case]
        time.sleep(0.2)
    for case in [*running, *waiting]:
        report.put(case, {"skipped": "out of time: compiled when it is first needed"})


def warm_case(case: str) -> None:
    """Launch one kernel once."""
    import torch

    name, kind, rows, mode, *options = case.split(":", 4)
    if name == "voice":
        import gpu_voices

        gpu_voices.warm(int(rows), mode)
        return
    problem, count = problem_of(name, False), int(rows)
    if kind == "prefill":
        prefill_some(problem, count, 20)
    elif mode == "logits":
        table, uniforms = problem.table(count, 2), torch.rand(count, 2, device=problem.device)
        problem.speak(kind, problem.begin(count, shared=False), 2, table=table, hop=64, logits=True, uniforms=uniforms)
    else:
        problem.speak(kind, problem.begin(count), 2, **json.loads(options[0] if options else "{}"))
    torch.cuda.synchronize()


def prefill_some(problem: Problem, rows: int, num_samples: int, codes: Any = None, table: Any = None,
                 hop: int = 64) -> tuple[Any, Any]:
    """Memory after `num_samples` known codes, and the logits that predict them."""
    import torch

    from wavegen_kernels.gpu import prefill

    memory = problem.begin(rows, shared=False)
    if codes is None:
        codes = torch.zeros(rows, num_samples, dtype=torch.int32, device=problem.device)
    logits = torch.zeros(*codes.shape, problem.packed.sizes.codes, device=problem.device)
    table = problem.table(rows, num_samples // hop + 1) if table is None else table
    prefill.prefill(problem.packed, memory, table, hop, 0, codes, logits)
    return memory, logits


def correctness(report: Report) -> None:
    """Logits and codes against float64, past the point where every ring has wrapped."""
    import torch

    count, rows, hop = (3, 2, 2) if report.interpret else (1100, 3, 64)
    for name in names_of(report):
        problem = problem_of(name, report.interpret)
        table = problem.table(rows, -(-count // hop))
        uniforms = torch.rand(rows, count, generator=torch.Generator().manual_seed(2)).to(problem.device)

        def generated(kind: str, problem: Problem = problem, table: Any = table,
                      uniforms: Any = uniforms, **options: Any) -> dict[str, Any]:
            memory = problem.begin(rows, shared=False)
            codes, logits = problem.speak(kind, memory, count, table=table, hop=hop, logits=True, uniforms=uniforms,
                                          **options)
            truth = problem.reference_logits(codes, table, hop)
            return compare_logits(logits, truth) | compare_codes(codes, truth, uniforms)

        def prefilled(problem: Problem = problem, table: Any = table) -> dict[str, Any]:
            random = torch.Generator().manual_seed(4)
            codes = torch.randint(0, problem.sizes.codes, (rows, count), generator=random, dtype=torch.int32)
            codes = codes.to(problem.device)
            _, logits = prefill_some(problem, rows, count, codes, table, hop)
            return compare_logits(logits, problem.reference_logits(codes, table, hop))

        report.attempt(f"{name} batch", lambda run=generated: run("batch"))
        report.attempt(f"{name} latency", lambda run=generated: run("latency"))
        report.attempt(f"{name} latency fused=True", lambda run=generated: run("latency", fused=True))
        if name == "A" or not report.interpret:
            tall = problem.plan(BATCHES[-1]).batch_options
            report.attempt(f"{name} batch, the tallest tile", lambda run=generated, tall=tall: run("batch", **tall))
        if name == "A":
            # The hardware's tanh is off by as much as f16 is; how much that is here decides nothing.
            for kind in ("batch", "latency"):
                report.attempt(f"{name} {kind} fast=True", lambda run=generated, kind=kind: {
                    key: value for key, value in run(kind, fast=True).items() if "fine" not in key})
        report.attempt(f"{name} prefill", prefilled)


def compare_logits(found: Any, truth: Any) -> dict[str, Any]:
    error = (found[..., :truth.shape[2]].double() - truth).abs()
    worst = error.amax((0, 2))
    return {"largest_error": float(error.max()), "rms_error": float(error.square().mean().sqrt()),
            "logits_std": float(truth.std()), "first_error_above_5e-3": int((worst > 5e-3).nonzero()[0])
            if bool((worst > 5e-3).any()) else None, "fine": bool(error.max() < 5e-3)}


def compare_codes(codes: Any, truth: Any, uniforms: Any) -> dict[str, Any]:
    """Each code against the one float64 draws after the same past, and how near a border the others are."""
    import torch

    sums = torch.cumsum(torch.softmax(truth, 2), 2)
    target = uniforms.double()[..., None]
    expected = (sums <= target).sum(2).clamp_max(truth.shape[2] - 1)
    differ = expected != codes
    margin = (sums - target).abs().amin(2)
    worst = float(margin[differ].max()) if bool(differ.any()) else 0.0
    return {"codes": codes.numel(), "codes_that_differ": int(differ.sum()), "their_largest_margin": worst,
            "codes_fine": worst < 2e-3}


def determinism(report: Report) -> None:
    """Equal bits over runs, splits into launches, batches, and a prompt fed by prefill."""
    import torch

    count = 2 if report.interpret else 1000
    names = names_of(report)[:1] if report.interpret else names_of(report)
    for name in names:
        problem = problem_of(name, report.interpret)
        for kind in ("batch", "latency"):
            report.attempt(f"{name} {kind}", lambda kind=kind, problem=problem: same_bits(problem, kind, count))

        def prompt(problem: Problem = problem) -> dict[str, Any]:
            table, half = problem.table(2, 1), count // 2
            whole = problem.speak("batch", problem.begin(2), count, table=table)
            memory, _ = prefill_some(problem, 2, half, whole[:, :half].contiguous(), table, 1 << 20)
            rest = problem.speak("batch", memory, count - half, half, table=table)
            return {"prefill_then_generate_equals_generate": bool(torch.equal(rest, whole[:, half:]))}

        report.attempt(f"{name} prompt", prompt)

        def kernels(problem: Problem = problem) -> dict[str, Any]:
            one, other = (problem.speak(kind, problem.begin(3), count) for kind in ("batch", "latency"))
            differ = (one != other).any(1)
            return {"rows_that_differ_between_the_kernels": int(differ.sum()),
                    "first_step": int((one != other).nonzero()[:, 1].min()) if bool(differ.any()) else None}

        report.attempt(f"{name} kernels", kernels)


def same_bits(problem: Problem, kind: str, count: int) -> dict[str, bool]:
    import torch

    rows = 3 if problem.device.type == "cpu" else 8
    whole = problem.speak(kind, problem.begin(rows), count)
    runs = 1 if problem.device.type == "cpu" else 2
    again = [problem.speak(kind, problem.begin(rows), count) for _ in range(runs)]
    memory, pieces, part = problem.begin(rows), [], max(1, count // 10)
    for start in range(0, count, part):
        pieces.append(problem.speak(kind, memory, min(part, count - start), start))
    some = [rows - 1, 0]
    few = problem.speak(kind, problem.begin(2, some), count)
    return {"over_runs": all(torch.equal(whole, other) for other in again),
            "over_launches": torch.equal(whole, torch.cat(pieces, 1)), "over_batches": torch.equal(whole[some], few)}


def draws(report: Report) -> None:
    """Chi-square of a million draws from a known distribution."""
    import torch

    for kind, rows, count in (("batch", 2, 4), ("latency", 2, 2)) if report.interpret else (
            ("batch", 4096, 256), ("latency", 8, 131072)):
        def chi_square(kind: str = kind, rows: int = rows, count: int = count) -> dict[str, Any]:
            problem = problem_of("A", report.interpret, flat=True)
            memory, drawn = problem.begin(rows), []
            for start in range(0, count, 16384):
                drawn.append(problem.speak(kind, memory, min(16384, count - start), start))
            codes = torch.cat(drawn, 1)
            bias = torch.from_numpy(problem.parameters["end_bias"]).double()
            expected = torch.softmax(bias, 0) * codes.numel()
            found = torch.bincount(codes.long().flatten().cpu(), minlength=len(bias)).double()
            chi = float(((found - expected).square() / expected).sum())
            freedom = len(bias) - 1
            # Wilson and Hilferty: the cube root of chi^2 / freedom is nearly normal.
            normal = ((chi / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))
            p = 0.5 * math.erfc(normal / math.sqrt(2))
            return {"draws": codes.numel(), "chi_square": chi, "degrees_of_freedom": freedom, "p": p,
                    "fine": p > 1e-4}

        report.attempt(kind, chi_square)


# What may be worth changing, each by itself: what is faster here becomes the default of `plan.py`.
VARIANTS: list[tuple[str, str, int, dict[str, Any]]] = [
    *(("A", kind, rows, {"fast": True}) for kind, rows in (
        ("latency", 1), ("latency", 8), ("batch", 2112), ("batch", BATCHES[-1]))),
    ("A", "latency", 1, {"warps": 4}), *((name, "latency", 1, {"fused": True}) for name in "ABD"),
    ("A", "batch", 2112, {"stages": 3}), ("A", "batch", 2112, {"warps": 4}), ("A", "batch", 2112, {"rows": 64}),
    ("A", "batch", BATCHES[-1], {"by_memory": False}), ("A", "batch", BATCHES[-1], {"parts": 2}),
    ("A", "batch", BATCHES[-1], {"rows": 64}), ("C", "batch", BATCHES[-1], {"rows": 128}),
    ("D", "batch", BATCHES[-1], {"rows": 128, "stages": 1})]


def speed(report: Report) -> None:
    """Samples per second, all rows together."""
    cases: list[tuple[str, str, int, dict[str, Any]]] = [("A", "batch", rows, {}) for rows in BATCHES]
    cases[1:1] = [("A", "latency", rows, {}) for rows in (1, 8)]
    cases += [(name, kind, rows, {}) for name in "BCD" for kind, rows in (
        ("latency", 1), ("latency", 8), ("batch", 1), ("batch", BATCHES[-1]))]
    cases += VARIANTS
    if report.quick:
        cases = [("A", "latency", 1, {}), ("A", "batch", BATCHES[-1], {}), ("A", "batch", 2112, {})]
    if report.interpret:
        cases = [("A", "batch", 2, {}), ("A", "latency", 1, {})]
    problems: dict[str, Problem] = {}
    for name, kind, rows, options in cases:
        changed = "".join(f" {key}={value}" for key, value in options.items())

        def rate(name: str = name, kind: str = kind, rows: int = rows,
                 options: dict[str, Any] = options) -> dict[str, Any]:
            problem = problems.setdefault(name, problem_of(name, report.interpret))
            memory, place = problem.begin(rows), [0]

            def run(count: int) -> None:
                problem.speak(kind, memory, count, place[0], **options)
                place[0] += count

            return measure(run, rows, report.interpret)

        report.attempt(f"{name} {kind} {rows}{changed}", rate)


def measure(run: Callable[[int], Any], rows: int, interpret: bool, seconds: float = 0.15) -> dict[str, Any]:
    """Median speed of a function that makes a number of samples of each row."""
    if interpret:
        count, times = 2, [timed(lambda: run(2))]
    else:
        run(16)  # compiles, if nobody has yet
        once = timed(lambda: run(64))
        count = max(16, min(4096, int(64 * seconds / once)))
        times = time_calls(lambda: run(count), 5)
    return rates(rows * count, times) | {"samples_per_launch": count}


def rates(samples: int, times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)
    slow, fast = ordered[int(0.8 * (len(ordered) - 1))], ordered[int(0.2 * (len(ordered) - 1))]
    return {"samples_per_second": samples / median(times), "p20": samples / slow, "p80": samples / fast,
            "rounds": len(times)}


def timed(function: Callable[[], Any]) -> float:
    """Seconds until the device is done; by the clock on the wall, as every call ends with a result on the host."""
    import torch

    begin = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def time_calls(function: Callable[[], Any], calls: int) -> list[float]:
    timed(function)
    return [timed(function) for _ in range(calls)]


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def baselines(report: Report) -> None:
    """The same networks step by step in torch: eager, in a CUDA graph, compiled; half precision."""
    import torch
    from torch_step import MODES, TorchStep

    # The baseline of the table first; what takes longest to prepare comes last.
    modes = MODES[:1] if report.interpret else ("graphed",) if report.quick else ("graphed", "eager", "compiled")
    cases = [("A", 2)] if report.interpret else [("A", 1), ("A", 16896), ("A", 64), ("A", 2112), ("A", 8), ("C", 1)]
    cases = cases[: 2 if report.quick else None]
    for mode in modes:
        for name, rows in cases if mode != "compiled" else cases[:2]:
            def rate(name: str = name, rows: int = rows, mode: str = mode) -> dict[str, Any]:
                problem = problem_of(name, report.interpret)
                dtype = torch.float32 if report.interpret else torch.float16
                begin = time.perf_counter()
                step = TorchStep(problem.parameters, problem.sizes.dilations, problem.parameters["dilated_bias"], rows,
                                 dtype, problem.device, mode)
                prepared = time.perf_counter() - begin
                codes = torch.zeros(rows, 6, dtype=torch.int64, device=problem.device)
                with torch.inference_mode():
                    truth = problem.reference_logits(codes, problem.table(1, 1), 1 << 20)
                    fresh = TorchStep(problem.parameters, problem.sizes.dilations, problem.parameters["dilated_bias"],
                                      rows, dtype, problem.device)
                    found = []
                    for column in codes.unbind(1):
                        found.append(fresh.logits())
                        fresh.feed(column)
                error = float((torch.stack(found, 1) - truth).abs().max())
                del truth, found, fresh
                return measure(step.generate, rows, report.interpret, 0.3) | {
                    "largest_error": error, "prepared_in_seconds": round(prepared, 1)}

            report.attempt(f"{name} {mode} {rows}", rate)


def engine(report: Report) -> None:
    """The engine of the package, where the packages it needs are installed."""
    import numpy as np

    try:
        from wavegen.engines.packing import Network
        from wavegen.engines.triton_engine import TritonEngine
    except ImportError as error:
        report.put("all", {"skipped": f"the engine needs a package that is not installed here: {error}"})
        return
    problem = problem_of("A", report.interpret)
    count = 3 if report.interpret else 500

    def speaks() -> dict[str, Any]:
        voice = TritonEngine(Network(problem.parameters, problem.sizes.dilations))
        whole = voice.step(voice.start(2, seeds=5), count)
        state = voice.start(2, seeds=5)
        parts = [voice.step(state, n) for n in (1, count - 1)]
        return {"codes": whole.size, "chunks_equal_the_whole": bool(np.array_equal(np.concatenate(parts, 1), whole))}

    report.attempt("A", speaks)


def peer(report: Report) -> None:
    """Another implementation's benchmark, if there is one here."""
    name = os.environ.get(PEER, "")
    if not name:
        report.put("all", {"skipped": f"${PEER} names no executable"})
        return
    if not os.access(name, os.X_OK):
        report.put("all", {"skipped": f"${PEER} is {name}, which cannot be executed"})
        return
    problem, output = run_limited([name], max(1.0, report.seconds_left - 2))
    report.put("all", {"executable": Path(name).name, "problem": problem, "output": output})


def voices(report: Report) -> None:
    """The bundled models, where the packages wavegen needs are installed."""
    import gpu_voices

    gpu_voices.voices(report)


def training(report: Report) -> None:
    """Training on the device, where the packages wavegen needs are installed."""
    import gpu_voices

    gpu_voices.training(report)


SECTIONS = {  # what matters most comes first
    "device": Section(device, 40), "warm": Section(warm, 130), "correctness": Section(correctness, 100),
    "determinism": Section(determinism, 60), "speed": Section(speed, 100), "baselines": Section(baselines, 80),
    "voices": Section(voices, 90), "training": Section(training, 100), "engine": Section(engine, 30),
    "draws": Section(draws, 30), "micro": Section(micro, 30), "peer": Section(peer, 60),
}
QUICK_LIMIT = 45.0  # seconds of a section


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """What is asked first: is all of it right, how fast, and how many times the baselines."""
    def checks(value: Any) -> list[bool]:
        if isinstance(value, dict):
            own = [bool(value[key]) for key in ("fine", "codes_fine") if key in value]
            return own + [check for part in value.values() for check in checks(part)]
        return []

    def failures(value: Any) -> int:
        if not isinstance(value, dict):
            return 0
        return int("error" in value or "problem" in value) + sum(failures(part) for part in value.values())

    equal = [value for part in results.get("determinism", {}).values() if isinstance(part, dict)
             for value in part.values() if isinstance(value, bool)]
    out: dict[str, Any] = {"checks": len(checks(results)), "checks_that_hold": sum(checks(results)),
                           "laws": len(equal), "laws_that_hold": sum(equal), "failures": failures(results)}
    rate = {}
    for section in ("speed", "baselines"):
        for name, value in results.get(section, {}).items():
            if isinstance(value, dict) and "samples_per_second" in value:
                rate[name] = value["samples_per_second"]
    for rows in (1, BATCHES[-1]):
        ours = [rate[name] for name in (f"A latency {rows}", f"A batch {rows}") if name in rate]
        for mode in ("eager", "graphed", "compiled"):
            base = rate.get(f"A {mode} {rows}")
            if ours and base:
                out[f"A, {rows} rows, times {mode}"] = round(max(ours) / base, 2)
    return out


FIGURES = (  # of the issue, configuration A: name, required, go for
    ("batch 1, samples/s per stream", 50e3, 100e3), ("aggregated, large batch, samples/s", 50e6, 150e6),
    ("times the CUDA-graphed torch step, batch 1", 10.0, 20.0),
    ("times the CUDA-graphed torch step, large batch", 30.0, 60.0))


def verdicts(results: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lines of the final table: what, found, wanted, verdict."""
    def rate(section: str, *names: str) -> float | None:
        found = [results.get(section, {}).get(name) for name in names]
        speeds = [value["samples_per_second"] for value in found
                  if isinstance(value, dict) and "samples_per_second" in value]
        return max(speeds, default=None)

    def ratio(ours: float | None, base: float | None) -> float | None:
        return None if ours is None or base is None else ours / base

    single = rate("speed", "A latency 1", "A batch 1")
    most = rate("speed", *(f"A batch {rows}" for rows in BATCHES if rows > 1000))
    found = (single, most, ratio(single, rate("baselines", "A graphed 1")),
             ratio(most, rate("baselines", f"A graphed {BATCHES[-1]}")))
    lines = []
    for (name, required, wanted), value in zip(FIGURES, found, strict=True):
        verdict = "no GPU" if "skipped" in results.get("device", {}).get("device", {}) else "not measured" if (
            value is None) else ("reached, and what was gone for" if value >= wanted else
                                                        "reached" if value >= required else "NOT REACHED")
        lines.append((name, "" if value is None else f"{value:,.0f}" if value > 1000 else f"{value:.1f}",
                      f"{required:,.0f} / {wanted:,.0f}", verdict))
    errors = [value["largest_error"] for value in results.get("correctness", {}).values()
              if isinstance(value, dict) and "largest_error" in value]
    lines.append(("logits against float64 (f16), largest error", f"{max(errors):.1e}" if errors else "", "5e-3",
                  "not measured" if not errors else "reached" if max(errors) <= 5e-3 else "NOT REACHED"))
    counts = results.get("summary", {})
    for name in ("checks", "laws"):
        there, held = counts.get(name, 0), counts.get(f"{name}_that_hold", 0)
        lines.append((f"{name} that hold", f"{held} of {there}", "all",
                      "not measured" if not there else "reached" if held == there else "NOT REACHED"))
    for name, value in results.items():
        for part, finding in value.items() if isinstance(value, dict) else ():
            if isinstance(finding, dict) and "error" in finding:
                lines.append((f"{name}: {part}", finding["error"].splitlines()[0][:70], "", "FAILED"))
        if isinstance(value, dict) and "problem" in value:
            lines.append((name, value["problem"], "", "FAILED"))
    return lines


def show(lines: list[tuple[str, str, str, str]]) -> str:
    """A table to read."""
    rows = [("on this device", "found", "required / go for", "verdict"), *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def unpack_carried() -> None:
    """Unpack what `carry.py` has packed, beside it and once."""
    if SITE.is_file() and not SITE.with_name("gpu_site").is_dir():
        import tarfile

        with tarfile.open(SITE) as archive:
            archive.extractall(SITE.parent, filter="data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interpret", action="store_true", help="tiny sizes in Triton's interpreter, no GPU")
    parser.add_argument("--quick", action="store_true", help=f"in two minutes: {', '.join(QUICK)}; configuration A")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="JSON file to write")
    parser.add_argument("--only", help=f"sections, of {','.join(SECTIONS)}")
    parser.add_argument("--budget", type=float, help="seconds for all sections")
    parser.add_argument("--limit", type=float, default=BUDGET, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if carried := os.environ.get("WAVEGEN_CARRIED"):
        sys.path.append(carried)
    names = options.only.split(",") if options.only else list(QUICK if options.quick else SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.warm:
        warm_case(options.warm)
        return 0
    if options.child:
        run_child(options.child, names, options.limit, options.interpret, options.quick)
        return 0
    end = time.time() + (options.budget or (QUICK_BUDGET if options.quick else BUDGET))
    unpack_carried()
    results: dict[str, Any] = {}
    # Interpreted, nothing is measured and nothing can hang the device: one process saves the others' start.
    for group in [names] if options.interpret else [[name] for name in names]:
        limit = min(sum(min(SECTIONS[name].limit, QUICK_LIMIT if options.quick else math.inf) for name in group),
                    end - time.time())
        if limit < 10:
            results |= {name: {"skipped": "out of time"} for name in group}
        else:
            results |= run_section(group, limit, options.interpret, options.quick)
        results["summary"] = summary(results)
        write_json(options.out, results)
        for name in group:
            print(f"{name}: {results[name].get('problem') or results[name].get('skipped') or 'done'}", flush=True)
    print(json.dumps(results["summary"], indent=1))
    print(show(verdicts(results)))
    return 0 if is_right(results["summary"]) else 1


def is_right(found: dict[str, Any]) -> bool:
    """Whether nothing failed and every check and law holds; speeds are another matter."""
    return (found["failures"] == 0 and found["checks"] == found["checks_that_hold"]
            and found["laws"] == found["laws_that_hold"])


if __name__ == "__main__":
    sys.exit(main())
