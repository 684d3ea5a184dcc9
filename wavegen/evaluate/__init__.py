"""How good a model is: what `wavegen eval` measures and shows."""

from __future__ import annotations

from wavegen.evaluate.measure import evaluate
from wavegen.evaluate.report import summary

__all__ = ["evaluate", "summary"]
