"""The mel contract: what other toolkits mean by "log-mel", and the changes that lose nothing.

Half of all "my vocoder gives noise" reports are two programs that mean different things by the
same array. Here a spectrogram travels with its `MelSpec`; only layout, logarithm, floor and affine
normalisation are converted, and everything else that differs is an error that names it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavegen.audio.mel import mel_basis
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
HEADROOM = 1.5  # over a full-scale sine, before a spectrogram is called implausible
UNDERSHOOT = 1.15  # natural logarithm, 10 dB: so far below the floor an acoustic model may guess
CHECKED_FRAMES = 1024  # looked at together
ABSURD = 190.0  # no natural logarithm of a level is as large, nor what a prediction is made from
FEW_FRAMES = 10  # fewer say too little about which logarithm was taken
# Spread of log-mel values over bands and frames of speech and single notes at full level: natural
# logarithm 1.55 to 3.7, base 10 0.67 to 1.6, where it is above 1 only with bands at the floor.
NATURAL_SPREAD = 1.2
# Recordings without treble have a spread as large in base 10, but differ less from frame to frame (the middle band of
# speech 0.13 to 0.28, natural 0.24 to 0.65) and from band to band (0.14 to 0.35, natural 0.33 to 0.71), in the mean.
NATURAL_CHANGE, NATURAL_STEP = 0.33, 0.38
CUT_OFF_SHARE = 0.002  # of all values, around the floor: it is one


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
        lowest = np.log(self.target.floor) / _unit(self.target)
        self._lowest = ((lowest - _column(self.target.mean)) / _column(self.target.scale)).astype(np.float32)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (..., n_mels, T) of the source as those of the target, raised to its floor where they lie below."""
        if self.is_identity:
            return np.maximum(features, self._lowest)
        source, target = self.source, self.target
        logarithm = features.astype(np.float64) * _column(source.scale) + _column(source.mean)
        natural = logarithm * _unit(source)
        result = (natural / _unit(target) - _column(target.mean)) / _column(target.scale)
        return np.maximum(result.astype(np.float32), self._lowest)


def check_mel(features: NDArray[np.floating[Any]], spec: MelSpec) -> None:
    """Refuse a spectrogram that cannot be what the spec says, and say what it looks like.

    Args:
        features: (..., n_mels, T), T >= 1.
        spec: what it is said to be.

    Raises:
        BadInputError: NaN or infinity, a wrong number of bands, or values no recording has.
    """
    if features.ndim < 2 or features.shape[-1] == 0:
        raise BadInputError(f"a mel spectrogram needs bands and at least one frame, found shape {features.shape}")
    check = MelCheck(spec)
    check.observe(features)
    check.conclude()


class MelCheck:
    """`check_mel` of frames that come in pieces, in memory that does not grow with them.

        check.observe(frames)    refuses what is not finite, or has other bands
        check.judge()            refuses values that no frame of such a spectrogram has
        check.conclude()         refuses, besides, a spread that such a spectrogram has not as a whole
    """

    def __init__(self, spec: MelSpec) -> None:
        self.spec, self.num_frames = spec, 0
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self._low, self._high, self._lowest, self._highest = np.inf, -np.inf, np.inf, -np.inf
        self._changes, self._last = np.zeros(spec.n_mels), np.zeros(0)  # |differences| of each band, the latest frame
        self._steps = 0.0  # |differences| from band to band
        self._floored, self._floor = 0, np.log(spec.floor) / _unit(spec)  # values around the floor

    def observe(self, features: NDArray[np.floating[Any]]) -> None:
        """Take in frames (..., n_mels, n).

        Raises:
            BadInputError: NaN or infinity, absurdly large, or a wrong number of bands; nothing is taken in.
        """
        spec = self.spec
        if features.ndim < 2 or features.shape[-2] != spec.n_mels:
            bands = features.shape[-2] if features.ndim >= 2 else len(features)
            swapped = "; the axes look swapped: give layout=\"BTC\"" if features.shape[-1] == spec.n_mels else ""
            raise BadInputError(f"the mel has {bands} bands, {spec.n_mels} are wanted{swapped}")
        if features.size == 0:
            return
        finite = np.isfinite(features)
        if not finite.all():
            bad = int((~finite).sum())
            place = np.argwhere(~finite)[0]
            raise BadInputError(f"the mel holds NaN or infinity in {bad} of {features.size} places, first at frame "
                                f"{self.num_frames + int(place[-1])}, band {int(place[-2])}; look at the acoustic "
                                "model that made it")
        largest = float(np.abs(features).max()) * max(spec.scale) + max(map(abs, spec.mean))
        if largest * _unit(spec) > ABSURD:
            low, high = float(features.min()), float(features.max())
            raise BadInputError(f"the mel reaches from {low:.3g} to {high:.3g}: these are no logarithms of anything")
        for start in range(0, features.shape[-1], CHECKED_FRAMES):
            self._take(features[..., start : start + CHECKED_FRAMES])
        self.num_frames += features.shape[-1]

    def _take(self, features: NDArray[np.floating[Any]]) -> None:
        logarithm = features.astype(np.float64) * _column(self.spec.scale) + _column(self.spec.mean)
        self._low, self._high = min(self._low, float(logarithm.min())), max(self._high, float(logarithm.max()))
        self._lowest = min(self._lowest, float(features.min()))
        self._highest = max(self._highest, float(features.max()))
        before = self._last if self._last.size else logarithm[..., 0]
        changes = np.abs(np.diff(logarithm, axis=-1, prepend=before[..., None])).sum(-1)
        self._changes = self._changes + changes.reshape(-1, self.spec.n_mels).mean(0)
        self._last = logarithm[..., -1].copy()
        self._steps += float(np.abs(np.diff(logarithm, axis=-2)).sum())
        self._floored += int((np.abs(logarithm - self._floor) < 0.1).sum())
        self._count += features.size
        self._sum += float(logarithm.sum())
        self._squares += float(np.square(logarithm).sum())

    def judge(self) -> None:
        """Refuse what the frames so far show one by one.

        Raises:
            BadInputError: says what they look like.
        """
        self._refuse(_impossible(self._low, self._high, self.spec) if self._count else "")

    def conclude(self) -> None:
        """Refuse what the frames so far show together.

        Raises:
            BadInputError: says what they look like.
        """
        self.judge()
        if self.num_frames >= FEW_FRAMES and not _is_normalised(self.spec):
            mean = self._sum / self._count
            spread = float(np.sqrt(max(0.0, self._squares / self._count - mean**2)))
            change = float(np.median(self._changes)) / (self.num_frames - 1)
            step = self._steps / max(1, self._count * (self.spec.n_mels - 1) // self.spec.n_mels)
            texture = change > NATURAL_CHANGE or step > NATURAL_STEP
            is_cut_off = self._floored > CUT_OFF_SHARE * self._count
            self._refuse(_unlikely(self._low, self._high, spread, texture, is_cut_off, self.spec))

    def _refuse(self, guess: str) -> None:
        if guess:
            base = "natural logarithm" if self.spec.log_base == "e" else "logarithm to base 10"
            raise BadInputError(f"the mel, {self._lowest:.2f} to {self._highest:.2f}, is not a {base} above a floor of "
                                f"{self.spec.floor:g} as its spec says: {guess}. If it is right, pass check=False "
                                "(--no-check)")


def _impossible(low: float, high: float, spec: MelSpec) -> str:
    """What values that no frame of a spec has seem to be; empty if they fit."""
    lowest, highest = np.log(spec.floor) / _unit(spec), _loudest(spec) / _unit(spec)
    if low < lowest - UNDERSHOOT / _unit(spec) and not _is_normalised(spec):
        if spec.log_base == "10" and low > -12 and high < _loudest(spec):
            return 'it looks like the natural logarithm; log_base is "e" there'
        return "it lies below the floor; it looks like decibels, or normalised with other statistics"
    if 0 <= low < 0.5 and high > 1:
        return "it looks like a spectrogram without a logarithm"
    if high > highest:
        if spec.log_base == "10" and high < _loudest(spec):
            return 'it looks like the natural logarithm; log_base is "e" there'
        return "it is louder than full scale can be; it looks like decibels, or like 16-bit samples"
    if low >= 0 and high <= 1 and high > low and not _is_normalised(spec):
        return "it looks normalised to [0, 1]"
    return ""


def _unlikely(low: float, high: float, spread: float, texture: bool, is_cut_off: bool, spec: MelSpec) -> str:
    """What values with a spread that no clip of a spec has seem to be; empty if they fit.

    Args:
        texture: whether neighbours differ as natural logarithms do.
        is_cut_off: whether the floor is where it should be.
    """
    # A quiet or silent clip has little spread in either logarithm: nothing can be said about it.
    if spec.log_base == "e" and low >= -5.3 and spread < NATURAL_SPREAD and high > -1.0 and high < 1.0:
        return 'it looks like the logarithm to base 10; log_base is "10" there'
    if spec.log_base == "10" and spread > NATURAL_SPREAD and texture and not is_cut_off and low < -5.5:
        return 'it looks like the natural logarithm; log_base is "e" there'
    return ""


def _is_normalised(spec: MelSpec) -> bool:
    return (spec.mean, spec.scale) != ((0.0,), (1.0,))


@cache
def _loudest(spec: MelSpec) -> float:
    """Natural logarithm of the largest value a recording can have: a full-scale sine, with headroom."""
    peak = spec.win_length / 4 * HEADROOM  # half the sum of a Hann window, and half of it for each sign
    return float(np.log(peak**spec.power * mel_basis(spec).max()))


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


def _unit(spec: MelSpec) -> float:
    """Natural logarithms in one unit of the spec's logarithm."""
    return 1.0 if spec.log_base == "e" else float(np.log(10.0))


def _column(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)[:, None]
