"""Generate audio sample by sample: `wavegen.load("digits").generate(label="7", speaker="george")`.

Names are imported when they are first used: `import wavegen` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Audio", "AudioChunk", "Report", "Request", "Synthesizer", "Vocoder", "VocoderStream", "__version__",
           "load", "load_synthesizer", "load_vocoder"]

if TYPE_CHECKING:
    from wavegen.synth import (
        Audio,
        AudioChunk,
        Report,
        Request,
        Synthesizer,
        Vocoder,
        VocoderStream,
        load,
        load_synthesizer,
        load_vocoder,
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'wavegen' has no attribute {name!r}")
    from wavegen import synth

    return getattr(synth, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
