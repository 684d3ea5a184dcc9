"""Log-mel spectrograms: golden values, torchaudio's, and the number of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.audio import mel
from wavegen.config import MelSpec

GOLDEN = Path(__file__).parent / "golden"
SPECS = {
    "vocoder": MelSpec(sample_rate=22050),
    "digits": MelSpec(sample_rate=8000, n_fft=256, win_length=200, hop_length=80, n_mels=40, fmin=50, fmax=3800),
    "power": MelSpec(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, mel_scale="htk",
                     norm="none", power=2.0, log_base="10", floor=1e-10, center=False),
}


def sweep(num_samples=4000, rate=16000):
    """A tone that rises from 100 Hz to half the rate and grows: float32 (T,)."""
    time = np.arange(num_samples) / num_samples
    phase = 2 * np.pi * num_samples / rate * (100 * time + (rate / 2 - 100) / 2 * time**2)
    return (0.8 * time * np.sin(phase)).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_features_are_those_of_the_golden_file(name):
    spec = SPECS[name]
    golden = np.load(GOLDEN / f"mel_{name}.npy")
    np.testing.assert_allclose(mel.log_mel(sweep(rate=spec.sample_rate), spec)[:, ::3], golden, atol=2e-3)


@pytest.mark.parametrize("name", SPECS)
def test_features_are_those_of_torchaudio(name, torchaudio):
    torch, spec = pytest.importorskip("torch"), SPECS[name]
    transform = torchaudio.transforms.MelSpectrogram(
        spec.sample_rate, spec.n_fft, spec.win_length, spec.hop_length, spec.fmin, spec.fmax, n_mels=spec.n_mels,
        power=spec.power, center=spec.center, norm="slaney" if spec.norm == "slaney" else None,
        mel_scale=spec.mel_scale)
    waveform = sweep(rate=spec.sample_rate)
    theirs = transform(torch.from_numpy(waveform)).clamp(min=spec.floor)
    theirs = torch.log10(theirs) if spec.log_base == "10" else torch.log(theirs)
    np.testing.assert_allclose(mel.log_mel(waveform, spec), theirs.numpy(), atol=5e-3)


@given(st.sampled_from(sorted(SPECS)), st.integers(1, 2000))
@settings(max_examples=40)
def test_every_length_gives_its_number_of_finite_frames(name, num_samples):
    spec = SPECS[name]
    features = mel.log_mel(sweep(num_samples), spec)
    assert features.shape == (spec.n_mels, mel.num_frames(num_samples, spec))
    assert features.dtype == np.float32 and np.isfinite(features).all()


def test_a_batch_equals_its_rows():
    spec, clips = SPECS["digits"], np.stack([sweep(1000), sweep(1000)[::-1]])
    together = mel.log_mel(clips, spec)
    assert together.shape == (2, 40, 13)
    for clip, features in zip(clips, together, strict=True):
        assert np.array_equal(mel.log_mel(clip, spec), features)


def test_a_stored_basis_is_used():
    spec = SPECS["digits"]
    basis = mel.mel_basis(spec)
    assert basis.shape == (40, 129) and basis.dtype == np.float32
    assert np.array_equal(mel.log_mel(sweep(900), spec, basis), mel.log_mel(sweep(900), spec))
    assert (mel.log_mel(sweep(900), spec, 0 * basis) == np.float32(np.log(spec.floor))).all()


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        mel.log_mel(np.zeros(0), SPECS["digits"])
    with pytest.raises(ValueError, match="basis has shape"):
        mel.log_mel(sweep(900), SPECS["digits"], np.zeros((3, 4)))
