"""The kernels of configurations A to D as they are compiled for an A100 and an H200, run on the PTX machine.

    python tests/ptx/check.py                          all of them, an hour and more on one core
    python tests/ptx/check.py --only sm_90,A,latency   cases whose name holds these words

Rows have random pasts, so that every ring matters at the first sample. Logits and rings are held against
those `batch.generate_ref` has for the same codes, codes against a draw from the logits; two launches, so
that the second goes on from the first one's memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "kernels/benchmarks", "kernels", ".")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402
from compile_budget import LIMITS  # noqa: E402
from gpu_check import CONFIGURATIONS, Problem  # noqa: E402

from ptx.launch import Device  # noqa: E402
from wavegen_kernels import philox  # noqa: E402
from wavegen_kernels.gpu import batch, latency, prefill  # noqa: E402

TOLERANCE = 5e-3
# Kind, rows, rows the plan is made for.
KINDS = {"latency": ("latency", 2, 2), "batch": ("batch", 3, 1), "tall": ("batch", 17, 16896), "prefill": ("", 2, 2)}


def check(name: str, kind: str, capability: int, steps: int, seed: int | None) -> str:
    """Run one case; what is wrong, empty if nothing is."""
    problem = Problem(CONFIGURATIONS[name], "cpu", LIMITS[capability])
    kernel, rows, planned = KINDS[kind]
    table = problem.table(rows, steps)
    memory = problem.begin(rows, shared=False)
    memory.rings.normal_(generator=torch.Generator().manual_seed(0))
    expected = memory.copy()
    codes = torch.zeros(rows, 2 * steps, dtype=torch.int32)
    logits, wanted = torch.full((2, rows, 2 * steps, problem.sizes.codes), torch.nan)
    device, begin = Device(capability, seed), time.perf_counter()
    with device.holds(batch, latency, prefill):
        for start in (0, steps):
            here, part = codes[:, start:start + steps].clone(), logits[:, start:start + steps].clone()
            if kernel:
                problem.generator(kernel, planned)(memory, table, 2, start, here, part)
            else:
                prefill.prefill(problem.packed, memory, table, 2, start, here, part)
            codes[:, start:start + steps], logits[:, start:start + steps] = here, part
    seconds = time.perf_counter() - begin
    batch.generate_ref(problem.packed, expected, table, 2, 0, codes, wanted, forced=True)
    seeds, streams = (tensor.numpy().view(np.uint64)[:, None] for tensor in (memory.seeds, memory.streams))
    uniforms = torch.from_numpy(philox.uniform(seeds, streams, np.arange(2 * steps)))
    drawn = torch.stack([batch.draw_ref(logits[:, t], uniforms[:, t], memory.inverse_temperature, memory.min_p)
                         for t in range(2 * steps)], 1)
    error = float((logits - wanted).abs().max())
    past = float((memory.rings.double() - expected.rings.double()).abs().max())
    same = not kernel or bool(torch.equal(codes, drawn))
    print(f"sm_{capability} {name} {kind}: logits within {error:.1e}, rings within {past:.1e}, codes "
          f"{'equal' if same else 'DIFFER'}; {device.instructions} instructions, {seconds:.0f} s", flush=True)
    return "" if same and error < TOLERANCE and past < TOLERANCE else f"sm_{capability} {name} {kind} is off"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words the name of a case must hold, with commas between")
    parser.add_argument("--steps", type=int, default=1, help="samples of each of two launches")
    parser.add_argument("--seed", type=int, help="of a random schedule of the latency kernel's programs")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    print(f"Triton {triton.__version__}")
    wrong = []
    for capability in LIMITS:
        for name in CONFIGURATIONS:
            for kind in KINDS:
                if all(word in (f"sm_{capability}", name, kind) for word in words):
                    wrong.append(check(name, kind, capability, options.steps, options.seed))
    print("\n".join(filter(None, wrong)) or "all as it should be")
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
