"""What all adapters are: a vocoder, and what a toolkit means by a mel.

    acoustic model -> mel as the toolkit's own vocoder would get it -> adapter -> waveform as that one would give it

An adapter refuses an acoustic model whose mel the vocoder does not read when the two are put together, not
at the first utterance. It holds no weights and imports no toolkit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from wavegen.audio.mel_formats import MelConverter, mel_spec
from wavegen.config import MelSpec
from wavegen.errors import ConfigError
from wavegen.synth import Audio, Vocoder

Statistics = tuple[Any, Any]  # mean and scale of every band, each (n_mels,) or a number


class AbstractAdapter(torch.nn.Module):
    """A vocoder in a toolkit's clothes: a module without parameters, so that it can stand where one is expected.

    Args:
        vocoder: from `wavegen.load`.
        spec: the mel the acoustic model gives; a `MelSpec` or the name of a preset.
        statistics: mean and scale (standard deviation) of every band, where the mel given is (log-mel - mean) / scale.
        options: of every call of the vocoder, such as seed, temperature or check.

    Raises:
        MelMismatch: the vocoder reads another mel; every field that differs is named.
        ConfigError: an unknown preset, statistics of another number of bands.
    """

    def __init__(self, vocoder: Vocoder, spec: MelSpec | str, statistics: Statistics | None = None,
                 **options: Any) -> None:
        super().__init__()
        self.vocoder, self.options = vocoder, options
        self.spec = normalised_spec(spec, statistics)
        MelConverter(self.spec, vocoder.spec)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.vocoder.sample_rate

    def speak(self, mel: Any, lengths: Any = None, layout: str = "BCT") -> Audio:
        """The vocoder's audio of the toolkit's mel; tensors on the device of the mel."""
        return self.vocoder(mel, lengths, spec=self.spec, layout=layout, **self.options)


def normalised_spec(spec: MelSpec | str, statistics: Statistics | None = None) -> MelSpec:
    """The spec of a mel that is normalised band by band, (log-mel - mean) / scale.

    Args:
        spec: of the log-mel before that.
        statistics: mean and scale, arrays or tensors (n_mels,) or numbers; None is not normalised.

    Raises:
        ConfigError: an unknown preset, another number of bands, or a scale that is not above 0.
    """
    spec = mel_spec(spec)
    if statistics is None:
        return spec
    mean, scale = (tuple(np.asarray(part, np.float64).ravel().tolist()) for part in statistics)
    for name, values in (("mean", mean), ("scale", scale)):
        if len(values) not in (1, spec.n_mels):
            raise ConfigError(f"the statistics have {len(values)} numbers as {name}, the mel has {spec.n_mels} bands")
    if not np.isfinite([*mean, *scale]).all() or min(scale) <= 0:
        raise ConfigError("the statistics must be finite, and every scale (the standard deviation of a band) above 0")
    return spec.model_copy(update={"mean": mean, "scale": scale})


def setting(config: Any, name: str, default: Any = None) -> Any:
    """A setting of a toolkit's configuration, be it a mapping or an object."""
    if isinstance(config, Mapping):
        return config.get(name, default)
    return getattr(config, name, default)
