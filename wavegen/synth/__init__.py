"""From a model to audio: the Python door of wavegen."""

from __future__ import annotations

from wavegen.synth.plan import Plan, Request, split_labels
from wavegen.synth.synthesizer import AudioChunk, Report, Synthesizer, load, numbered

__all__ = ["AudioChunk", "Plan", "Report", "Request", "Synthesizer", "load", "numbered", "split_labels"]
