"""Does the PTX machine notice what is missing? Takes barriers and the like out of compiled kernels, one at a time.

    python tests/ptx/remove.py                     every barrier of five kernels, a quarter of an hour
    python tests/ptx/remove.py --what fence.proxy --only tall

A removal is reported, or changes nothing that was executed, or gives other numbers: that would be a hole.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("kernels", ".", "../kernels", "..")]

import torch  # noqa: E402
from test_compiled import LPC, ODD, WIDE, Case  # noqa: E402

from ptx.launch import Device  # noqa: E402
from ptx.machine import Code  # noqa: E402
from ptx.memory import Fault  # noqa: E402
from ptx.parse import parse  # noqa: E402
from wavegen_kernels.gpu import batch, latency  # noqa: E402

# Capability, network, rows, kernel, options.
CASES = {
    "batch": (80, ODD, 3, batch.generate, {}),
    "unpipelined": (80, ODD, 3, batch.generate, {"stages": 1}),
    "lpc": (90, LPC, 3, batch.generate, {}),
    "tall": (90, WIDE, 64, batch.generate, {"rows": 64, "warps": 8}),
    "latency": (80, LPC, 3, latency.generate, {}),
}


class Recorder(Device):
    """Keeps the PTX of what was compiled last."""

    text = ""

    def source(self, ptx: str) -> str:
        Recorder.text = ptx
        return ptx


def run(name: str) -> tuple[Recorder, tuple[torch.Tensor, torch.Tensor]]:
    capability, shape, rows, kernel, options = CASES[name]
    case, device = Case(shape, rows, shared=shape is WIDE), Recorder(capability)
    if kernel is latency.generate:
        options = {"spread": case.spread()}
    with device.holds(batch, latency):
        return device, case.generate(case.begin(), kernel, (3,), **({"warps": 4} | options))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="bar.sync", help="the instruction to take out")
    parser.add_argument("--only", choices=CASES, help="this kernel only")
    options = parser.parse_args()
    holes = 0
    for name in [options.only] if options.only else CASES:
        device, truth = run(name)
        code, lines = device.latest, Recorder.text.split("\n")
        key = next(key for key, value in Device.compiled.items() if value is code)
        places = [i for i, line in enumerate(lines) if line.strip().startswith(options.what)]
        reported = silent = wrong = 0
        for place in places:
            text = "\n".join(line if i != place else "" for i, line in enumerate(lines))
            Device.compiled[key] = Code(parse(text), code.shared)
            try:
                found = run(name)[1]
            except (Fault, latency.LostProgramError):
                reported += 1
                continue
            same = all(torch.equal(a, b) for a, b in zip(found, truth, strict=True))
            silent, wrong = silent + same, wrong + (not same)
            print(f"  {name}, PTX line {place + 1}: {'nothing changes' if same else 'OTHER NUMBERS'}", flush=True)
        holes += wrong
        print(f"{name}: {len(places)} times {options.what}: reported {reported}, no effect {silent}, holes {wrong}",
              flush=True)
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
