"""Encode, decode, morph: through files, for clips of any length, at any rate."""

from __future__ import annotations

import numpy as np
import pytest

from tiny import save_tiny, tiny_family
from wavegen.audio import mulaw
from wavegen.errors import BadInputError, ConfigError
from wavegen.synth import Request, load
from wavegen.synth import latents as codec


@pytest.fixture(scope="module", params=["vae standard", "vae_wavenet standard", "vae conditional",
                                        "vae_wavenet conditional"])
def speaker(request, tmp_path_factory):
    family, prior = request.param.split()
    return load(tiny_family(family, tmp_path_factory.mktemp("models") / family, prior=prior))


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    return load(tiny_family("vae", tmp_path_factory.mktemp("models") / "vae"))


def clip(num_samples=700, seed=0, level=0.5):
    return (np.random.default_rng(seed).uniform(-level, level, num_samples)).astype(np.float32)


def same(one, two):
    assert one.num_samples == two.num_samples
    assert np.array_equal(one.waveform, two.waveform)


@pytest.mark.parametrize("num_samples", [1, 511, 512, 513, 1500])
def test_a_clip_of_any_length_comes_back_with_it(speaker, num_samples):
    found = codec.encode(speaker, clip(num_samples), 8000, "1")
    windows = -(-num_samples // 512)
    assert found.values.shape == (3, 8 * windows) and found.num_samples == num_samples
    sound = codec.decode(speaker, found)
    assert sound.num_samples == num_samples and np.isfinite(sound.waveform).all()
    same(sound, codec.decode(speaker, found))


def test_decoding_is_the_reconstruction_of_the_codes(conv):
    import torch

    from wavegen.models import ConditioningInputs

    waveform = clip(512)
    companded = torch.from_numpy(mulaw.to_companded(mulaw.encode(waveform)))[None]
    with torch.inference_mode():
        rebuilt = conv.model.decode(conv.model.encode(companded).mean, ConditioningInputs(label=torch.tensor([2])))
    sound = codec.decode(conv, codec.encode(conv, waveform, 8000, "2"))
    assert np.allclose(sound.waveform, mulaw.from_companded(rebuilt[0].numpy()), atol=1e-6)


def test_latents_go_through_a_file(speaker, tmp_path):
    found = codec.encode(speaker, clip(), 8000, "1")
    found.save(tmp_path / "a.npz")
    found.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = codec.load_latents(tmp_path / "a.npz")
    assert np.array_equal(again.values, found.values) and again.label == "1" and again.speaker is None
    same(codec.decode(speaker, again), codec.decode(speaker, found))


def test_a_clip_of_another_rate_is_resampled(conv):
    found = codec.encode(conv, clip(1400), 16000, "1")
    assert found.num_samples == 700


def test_silence_stays_finite_and_loud_clips_are_scaled(conv):
    silent = codec.encode(conv, np.zeros(600, np.float32), 8000, "0", normalize=True)
    assert np.isfinite(codec.decode(conv, silent).waveform).all()
    loud = codec.encode(conv, clip(level=3.0), 8000, "0")
    assert np.isfinite(loud.values).all()
    quiet = codec.encode(conv, clip(level=0.01), 8000, "0", normalize=True).values
    assert np.allclose(quiet, codec.encode(conv, clip(level=0.9), 8000, "0", normalize=True).values, atol=0.2)


def test_the_seed_decides_what_a_wavenet_draws(tmp_path):
    model = load(tiny_family("vae_wavenet", tmp_path / "model"))
    found = codec.encode(model, clip(), 8000, "1")
    assert not np.array_equal(codec.decode(model, found).waveform, codec.decode(model, found, seed=1).waveform)


@pytest.mark.parametrize("lengths", [(700, 700), (300, 1100)])
def test_a_morph_begins_and_ends_with_the_reconstructions(speaker, lengths):
    ends = [codec.encode(speaker, clip(length, seed), 8000, label)
            for seed, (length, label) in enumerate(zip(lengths, "02", strict=True))]
    way = list(codec.morph(speaker, *ends, steps=5))
    assert len(way) == 5
    same(way[0], codec.decode(speaker, ends[0]))
    same(way[-1], codec.decode(speaker, ends[1]))
    assert [step.num_samples for step in way] == [round(lengths[0] + (lengths[1] - lengths[0]) * i / 4)
                                                   for i in range(5)]
    assert all(np.isfinite(step.waveform).all() for step in way)
    assert codec.joined(way).num_samples == sum(step.num_samples for step in way)


def test_the_way_is_an_arc():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4, 3)).astype(np.float32)
    second *= 2
    for share in (0.0, 0.25, 0.5, 1.0):
        point = codec.arc(first, second, share)
        norm = (1 - share) * np.linalg.norm(first) + share * np.linalg.norm(second)
        assert np.linalg.norm(point) == pytest.approx(norm, rel=1e-5)
    assert np.allclose(codec.arc(first, second, 0), first, atol=1e-6)
    assert np.allclose(codec.arc(first, second, 1), second, atol=1e-5)
    assert np.allclose(codec.arc(first, first, 0.3), first, atol=1e-6)
    assert np.isfinite(codec.arc(first, -first, 0.5)).all()
    assert not codec.arc(first * 0, first * 0, 0.5).any()


@pytest.mark.parametrize(("waveform", "error", "message"), [
    (np.zeros(0, np.float32), BadInputError, "at least one sample"),
    (np.zeros((2, 5), np.float32), BadInputError, r"found shape \(2, 5\)"),
    (np.full(5, np.nan, np.float32), BadInputError, "NaN or infinite"),
])
def test_clips_that_cannot_be_encoded(conv, waveform, error, message):
    with pytest.raises(error, match=message):
        codec.encode(conv, waveform, 8000)


def test_names_that_do_not_fit(conv, tmp_path):
    with pytest.raises(ConfigError, match='no label "nine"'):
        codec.encode(conv, clip(), 8000, "nine")
    with pytest.raises(ConfigError, match='has no speakers, found speaker "anna"'):
        codec.encode(conv, clip(), 8000, "0", "anna")
    with pytest.raises(ConfigError, match="needs a label: one of 0, 1, 2"):
        codec.decode(conv, codec.encode(conv, clip(), 8000))
    wavenet = load(save_tiny(tmp_path / "wavenet"))
    with pytest.raises(ConfigError, match="is a wavenet, which has no encoder"):
        codec.encode(wavenet, clip(), 8000)


def test_a_conditional_prior_wants_the_label_of_a_clip_and_takes_another_to_decode(tmp_path):
    model = load(tiny_family("vae", tmp_path / "model", prior="conditional"))
    with pytest.raises(ConfigError, match="needs a label: one of 0, 1, 2"):
        codec.encode(model, clip(), 8000)
    found = codec.encode(model, clip(), 8000, "1")
    assert not np.allclose(found.values, codec.encode(model, clip(), 8000, "2").values, atol=1e-2)
    assert not np.array_equal(codec.decode(model, found).waveform, codec.decode(model, found, "2").waveform)


def test_latents_of_another_model_are_refused(speaker, tmp_path):
    other = load(tiny_family("vae", tmp_path / "other", hidden_channels=5))
    with pytest.raises(ConfigError, match=r'latents are of model "other".*encode the clip again'):
        codec.decode(speaker, codec.encode(other, clip(), 8000, "1"))


def test_steps_are_counted(conv):
    ends = [codec.encode(conv, clip(), 8000, "0")] * 2
    with pytest.raises(ConfigError, match=r"steps must be a whole number in \[2, 1000\], found 1"):
        list(codec.morph(conv, *ends, steps=1))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_files_that_hold_no_latents(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="does not hold latents"):
        codec.load_latents(path)
    with pytest.raises(BadInputError, match="does not exist"):
        codec.load_latents(tmp_path / "none.npz")


@pytest.mark.parametrize(("values", "number", "message"), [
    (np.zeros((0, 3), np.float32), 5, "shape"), (np.full((3, 8), np.inf, np.float32), 5, "finite"),
    (np.zeros((3, 8), np.float32), 0, "0 samples"),
])
def test_latents_that_make_no_sense(tmp_path, values, number, message):
    codec.Latents(values, number, None, None, "m", "0").save(tmp_path / "a.npz")
    with pytest.raises(BadInputError, match=message):
        codec.load_latents(tmp_path / "a.npz")


def test_prior_samples_of_a_wavenet_with_a_clock_have_a_usual_length(tmp_path):
    model = load(tiny_family("vae_wavenet", tmp_path / "model", speaker=True, progress_steps=2))
    found = model.generate_batch([Request("0", "anna", clip=i) for i in range(3)])
    assert all(360 <= one.num_samples <= 512 for one in found)
