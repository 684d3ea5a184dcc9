"""Which precision of the fused CPU engine `auto` takes: the fastest that is close enough to float64.

Close enough is what calibration measured on recordings: a mean KL per sample of at most the model's
limit. Which is fastest is known before anything runs, from what the CPU offers:

    multiplies bytes (VNNI)   i8 before i8x15 before i16 before f32
    does not                  i16 before f32; 8-bit weights would be unpacked first and gain nothing

A model that was never calibrated speaks in float32. Asked for by name, a precision is always taken.
"""

from __future__ import annotations

from wavegen.config import Calibration


def choose_precision(calibration: Calibration | None, speed_order: tuple[str, ...]) -> tuple[str, str]:
    """The precision, and why, in few words for a report.

    Args:
        calibration: figures of the model, if it has any.
        speed_order: precisions this machine runs, fastest first; f32 among them.
    """
    if calibration is None:
        return "f32", "auto: the model is not calibrated"
    limit = calibration.limit
    slower: list[str] = []
    for precision in speed_order:
        figures = calibration.precisions.get(precision)
        if precision == "f32":
            return precision, f"auto: {', '.join(slower)}" if slower else "auto: the fastest here"
        if figures is not None and figures.kl <= limit:
            return precision, f"auto: KL {short(figures.kl)} under {short(limit)}"
        if figures is not None:
            slower.append(f"KL of {precision} {short(figures.kl)} over {short(limit)}")
    return "f32", "auto"


def short(number: float) -> str:
    """0.00041 as 4e-4."""
    mantissa, exponent = f"{number:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
