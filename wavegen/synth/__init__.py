"""From a model to audio: the Python door of wavegen."""

from __future__ import annotations

from wavegen.synth.loading import load, load_synthesizer, load_vocoder
from wavegen.synth.plan import Near, Plan, Request, split_labels
from wavegen.synth.synthesizer import AudioChunk, Report, Synthesizer, numbered
from wavegen.synth.vocoder import Audio, Vocoder, VocoderStream

__all__ = ["Audio", "AudioChunk", "Near", "Plan", "Report", "Request", "Synthesizer", "Vocoder", "VocoderStream",
           "load", "load_synthesizer", "load_vocoder", "numbered", "split_labels"]
