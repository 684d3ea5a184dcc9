"""The mel contract: what other toolkits mean by "log-mel", and the changes that lose nothing.

Half of all "my vocoder gives noise" reports are two programs that mean different things by the
same array. Here a spectrogram travels with its `MelSpec`; only layout, logarithm, floor and affine
normalisation are converted, and everything else that differs is an error that names it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavegen.audio.mel import column, unit
from wavegen.config import MelSpec
from wavegen.errors import BadInputError, ConfigError, MelMismatch, did_you_mean

_LJSPEECH = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 80}
_LOG10 = {"log_base": "10", "floor": 1e-10}

# What each toolkit's acoustic models emit. Where a toolkit normalises per band with statistics of
# its corpus (r9y9, pwg, speecht5), the preset is the spectrogram before that: give the statistics
# with `PRESETS[name].model_copy(update={"mean": ..., "scale": ...})` if it is still applied.
PRESETS = {
    # NVIDIA Tacotron 2, torchaudio's bundles, SpeechBrain
    "tacotron2": MelSpec(**_LJSPEECH, fmax=8000.0),
    # jik876's HiFi-GAN: frames lie half a hop later
    "hifigan": MelSpec(**_LJSPEECH, fmax=8000.0, center=False, edge_padding=384),
    "nemo": MelSpec(**_LJSPEECH, fmax=8000.0, center=False, edge_padding=384, pad_mode="zero",
                    window="hann_symmetric"),
    "r9y9": MelSpec(**_LJSPEECH, fmin=125.0, fmax=7600.0, **_LOG10),
    "pwg": MelSpec(**_LJSPEECH, fmin=80.0, fmax=7600.0, **_LOG10),  # ParallelWaveGAN, ESPnet
    "speecht5": MelSpec(**{**_LJSPEECH, "sample_rate": 16000}, fmin=80.0, fmax=7600.0, **_LOG10),
    # 20 log10(x) - 20 dB, brought from [-100, 0] to [-4, 4] and cut off there: 1.6 log10(x) + 2.4
    "coqui": MelSpec(**_LJSPEECH, log_base="10", floor=1e-4, mean=(-1.5,), scale=(0.625,)),
}
LAYOUTS = ("BCT", "BTC", "CT", "TC")
CONVERTIBLE = ("log_base", "floor", "mean", "scale")


def mel_spec(spec: MelSpec | str) -> MelSpec:
    """A preset by name, or the spec itself.

    Raises:
        ConfigError: no such preset; names the nearest.
    """
    if isinstance(spec, MelSpec):
        return spec
    if spec not in PRESETS:
        raise ConfigError(f'no mel preset "{spec}"; {did_you_mean(spec, PRESETS)}')
    return PRESETS[spec]


def preset_of(spec: MelSpec) -> str | None:
    """The name of the preset that a spec is; None if it is none."""
    same = (name for name, preset in PRESETS.items()
            if all(_field(spec, field) == _field(preset, field) for field in MelSpec.model_fields))
    return next(same, None)


def convert_mel(mel: ArrayLike, source: MelSpec | str, target: MelSpec | str, layout: str = "BCT",
                check: bool = True) -> NDArray[np.float32]:
    """Bring a log-mel spectrogram from one toolkit's convention to another's, where nothing is lost.

    Args:
        mel: real numbers in `layout`: B batch, C bands, T frames. Any float type and memory order.
        source: what it is; a `MelSpec` or the name of a preset.
        target: what is wanted, as above.
        layout: "BCT", "BTC", "CT" or "TC".
        check: refuse values that cannot be what `source` says; see `check_mel`.

    Returns:
        float32 (B, C, T), a copy; B is 1 for a layout without batch.

    Raises:
        MelMismatch: the specs differ in what cannot be converted; every such field is named with both values.
        BadInputError: the values are not finite, or not what `source` says.
        ConfigError: an unknown preset or layout.
    """
    converter = MelConverter(source, target)
    features = _bands_first(mel, converter.source, layout)
    if check:
        from wavegen.audio.mel_check import check_mel  # compiles: nobody who reads a spec needs it

        check_mel(features, converter.source)
    return converter(features)


class MelConverter:
    """`convert_mel` for frames that come in pieces: each number is converted by itself.

    Args:
        source: what is given; a `MelSpec` or the name of a preset.
        target: what is wanted, as above.

    Raises:
        MelMismatch: they differ in what cannot be converted; every such field is named with both values.
        ConfigError: an unknown preset.
    """

    def __init__(self, source: MelSpec | str, target: MelSpec | str) -> None:
        self.source, self.target = mel_spec(source), mel_spec(target)
        differing = [field for field in MelSpec.model_fields if field not in CONVERTIBLE
                     and _field(self.source, field) != _field(self.target, field)]
        if differing:
            lines = "; ".join(f"{field} {_field(self.source, field)} against {_field(self.target, field)}"
                              for field in differing)
            raise MelMismatch(f"the mel given and the one wanted differ in what cannot be converted: {lines}. "
                              "Compute the mel with the vocoder's spec, or use a vocoder trained for this one")
        self.is_identity = all(_field(self.source, field) == _field(self.target, field) for field in CONVERTIBLE)
        lowest = np.log(self.target.floor) / unit(self.target)
        self._lowest = ((lowest - column(self.target.mean)) / column(self.target.scale)).astype(np.float32)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (..., n_mels, T) of the source as those of the target, raised to its floor where they lie below."""
        if self.is_identity:
            return np.maximum(features, self._lowest)
        source, target = self.source, self.target
        logarithm = features.astype(np.float64) * column(source.scale) + column(source.mean)
        natural = logarithm * unit(source)
        result = (natural / unit(target) - column(target.mean)) / column(target.scale)
        return np.maximum(result.astype(np.float32), self._lowest)


def _bands_first(mel: ArrayLike, spec: MelSpec, layout: str) -> NDArray[np.float32]:
    if layout not in LAYOUTS:
        raise ConfigError(f'no layout "{layout}"; {did_you_mean(layout, LAYOUTS)}')
    array = np.asarray(mel)
    if array.dtype.kind not in "fiu":
        raise BadInputError(f"a mel is an array of real numbers, found {array.dtype}")
    if array.ndim != len(layout):
        raise BadInputError(f'the mel has shape {array.shape}, layout "{layout}" has {len(layout)} axes')
    if layout.endswith("TC"):
        if array.shape[-1] != spec.n_mels and array.shape[-2] == spec.n_mels:
            other = layout.replace("TC", "CT")
            raise BadInputError(f"the mel has shape {array.shape}, whose last axis is not the {spec.n_mels} bands; "
                                f'the axes look swapped: give layout="{other}"')
        array = np.swapaxes(array, -1, -2)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
        array = np.array(array, np.float32, order="C")
    array = array if len(layout) == 3 else array[None]
    if array.size == 0:
        raise BadInputError(f"the mel is empty: shape {tuple(np.shape(mel))}")
    return array


def _field(spec: MelSpec, field: str) -> Any:
    if field == "fmax" and spec.fmax is None:
        return spec.sample_rate / 2
    return getattr(spec, field)
