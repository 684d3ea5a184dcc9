"""Mu-law companding and quantisation: the codec `round255`.

    encode(x) = floor((sign(x) ln(1 + mu |x|) / ln(1 + mu) + 1) / 2 * mu + 0.5),   mu = Q - 1

Equal to torchaudio's `mu_law_encoding` on every 16-bit value. Seven other variants exist
in the wild, so the codec's name travels with every store and every model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 2**16  # samples in float64 at once: long recordings stay small, and in the cache


def encode(waveform: np.ndarray, quantization_channels: int = 256) -> np.ndarray:
    """Compand and quantise a waveform to mu-law codes.

    Args:
        waveform: float (..., T), amplitude in [-1, 1].
        quantization_channels: number of codes Q; mu is Q - 1.

    Returns:
        int64 (..., T) in [0, Q). Silence is Q // 2.

    Raises:
        ValueError: if a sample is not finite or lies outside [-1, 1].

    Reference: WaveNet, section 2.2 (arXiv:1609.03499).
    """
    mu = _mu(quantization_channels)
    waveform = np.asarray(waveform)
    peak = max(float(np.max(waveform)), -float(np.min(waveform))) if waveform.size else 0.0
    if not peak <= 1.0:
        found = f"a peak of {peak:g}" if np.isfinite(peak) else "NaN or infinite samples"
        raise ValueError(f"mu-law codes need finite samples in [-1, 1], found {found}; "
                         "normalise the waveform first")
    codes, flat = np.empty(waveform.size, np.int64), waveform.reshape(-1)
    for start in range(0, len(codes), BLOCK):
        # float64, so that a store does not depend on how a machine rounds float32 logarithms.
        amplitude = flat[start : start + BLOCK].astype(np.float64)
        companded = np.sign(amplitude) * np.log1p(mu * np.abs(amplitude)) / np.log1p(mu)
        codes[start : start + BLOCK] = np.floor((companded + 1.0) / 2.0 * mu + 0.5)
    return codes.reshape(waveform.shape)


def decode(codes: np.ndarray, quantization_channels: int = 256) -> np.ndarray:
    """Turn mu-law codes back into a waveform; `encode(decode(c)) == c` for every code.

    Args:
        codes: integers (..., T) in [0, Q).
        quantization_channels: number of codes Q.

    Returns:
        float32 (..., T) in [-1, 1].

    Raises:
        ValueError: if a code lies outside [0, Q).
    """
    codes = _checked(codes, quantization_channels)
    waveform: np.ndarray = decode_table(quantization_channels)[codes]
    return waveform


def to_companded(codes: np.ndarray, quantization_channels: int = 256) -> np.ndarray:
    """The companded amplitude of each code: what continuous models see.

    Args:
        codes: integers (..., T) in [0, Q).
        quantization_channels: number of codes Q.

    Returns:
        float32 (..., T) in [-1, 1], equally spaced by 2 / (Q - 1).
    """
    codes = _checked(codes, quantization_channels)
    companded: np.ndarray = codes.astype(np.float64) * 2.0 / _mu(quantization_channels) - 1.0
    return companded.astype(np.float32)


def from_companded(companded: np.ndarray, quantization_channels: int = 256) -> np.ndarray:
    """The waveform of continuous companded amplitudes; `from_companded(to_companded(c)) == decode(c)` but for rounding.

    Args:
        companded: float (..., T); clipped to [-1, 1].
        quantization_channels: number of codes Q.

    Returns:
        float32 (..., T) in [-1, 1].

    Raises:
        ValueError: if a value is not finite.
    """
    mu = _mu(quantization_channels)
    clipped = np.clip(np.asarray(companded, np.float32), -1.0, 1.0)
    if not np.isfinite(clipped).all():
        raise ValueError("companded amplitudes must be finite, found NaN")
    waveform: np.ndarray = np.copysign(np.expm1(np.abs(clipped) * np.float32(np.log1p(mu))) / np.float32(mu), clipped)
    return waveform


def silence_code(quantization_channels: int = 256) -> int:
    """The code of amplitude 0."""
    _mu(quantization_channels)
    return quantization_channels // 2


@lru_cache(maxsize=8)
def decode_table(quantization_channels: int = 256) -> np.ndarray:
    """The amplitude of every code: float32 (Q,), increasing, read-only."""
    mu = _mu(quantization_channels)
    companded = np.arange(quantization_channels, dtype=np.float64) * 2.0 / mu - 1.0
    amplitude = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu
    table: np.ndarray = np.clip(amplitude, -1.0, 1.0).astype(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=8)
def thresholds(quantization_channels: int = 256) -> np.ndarray:
    """The least amplitude of every code but the first: float32 (Q - 1,), increasing, read-only.

    The code of a float32 amplitude x in [-1, 1] is the number of thresholds <= x, exactly: a search
    in this table needs no logarithm and gives the same code on every machine.
    """
    codes, values = np.arange(1, quantization_channels), decode_table(quantization_channels)
    # Floats in order are integers in order once the sign is taken care of: halve the way from one
    # code's amplitude to the next until a single float is left.
    low, high = (_order(array).astype(np.int64) for array in (values[:-1], values[1:]))
    while (high - low > 1).any():
        middle = (low + high) // 2
        above = encode(_unorder(middle), quantization_channels) >= codes
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    table: np.ndarray = _unorder(high)
    table.flags.writeable = False
    return table


def _order(values: np.ndarray) -> np.ndarray:
    """float32 as integers that increase with them."""
    bits = values.view(np.int32)
    return np.where(bits >= 0, bits, np.int32(-(2**31)) - bits)


def _unorder(places: np.ndarray) -> np.ndarray:
    places = places.astype(np.int32)
    bits: np.ndarray = np.where(places >= 0, places, np.int32(-(2**31)) - places)
    return bits.view(np.float32)


def _mu(quantization_channels: int) -> int:
    if not 2 <= quantization_channels <= 65536:
        raise ValueError(f"quantization_channels must lie in [2, 65536], found {quantization_channels}")
    return int(quantization_channels) - 1


def _checked(codes: np.ndarray, quantization_channels: int) -> np.ndarray:
    _mu(quantization_channels)
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers, found {codes.dtype}")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < quantization_channels:
        raise ValueError(f"codes must lie in [0, {quantization_channels}), "
                         f"found {codes.min()} to {codes.max()}")
    return codes
