"""The auto-encoder's network: shapes, windows, KL, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from wavegen.config import (
    AudioConfig,
    ConditioningConfig,
    ConvDecoderConfig,
    EncoderConfig,
    VAEConfig,
    Vocabulary,
    WaveNetConfig,
)
from wavegen.errors import BadInputError, ConfigError
from wavegen.models import ConditioningInputs, build_model
from wavegen.models.vae import Posterior


def make_vae(seed=0, **options):
    told = ConditioningConfig(label=True, hidden_channels=8)
    config = {
        "num_samples": 64,
        "latent_channels": 3,
        "encoder": EncoderConfig(strides=(4, 8), channels=(8, 12)),
        "decoder": ConvDecoderConfig(strides=(8, 4), channels=(12,), conditioning=told),
        **options,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(VAEConfig(**config), AudioConfig(sample_rate=8000), Vocabulary(labels=("a", "b"))).eval()


def wavenet_decoder(features=3, hop_length=16, **options):
    return WaveNetConfig(residual_channels=8, skip_channels=8, output_channels=8, dilations=(1, 2, 4),
                         conditioning=ConditioningConfig(features=features, hop_length=hop_length, **options))


LABEL = ConditioningInputs(label=torch.tensor([0, 1]))


def _clips(batch=2, num_samples=64):
    return torch.rand(batch, num_samples, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_a_window_becomes_latents_and_a_window_again():
    model = make_vae()
    posterior = model.encode(_clips())
    assert posterior.mean.shape == posterior.log_std.shape == (2, 3, 2)
    assert model.decode(posterior.mean, LABEL).shape == (2, 64)
    assert model.decode(posterior.mean, LABEL).abs().max() < 1


def test_one_latent_frame_may_come_without_its_axis():
    model = make_vae(num_samples=32)
    latents = model.encode(_clips(2, 32)).mean
    assert torch.equal(model.decode(latents[:, :, 0], LABEL), model.decode(latents, LABEL))


@pytest.mark.parametrize("num_samples", [1, 63, 64, 65, 200])
def test_a_clip_of_any_length_is_a_sequence_of_windows(num_samples):
    model, clips = make_vae(), _clips(2, num_samples)
    windows = -(-num_samples // 64)
    silence = 128 * 2 / 255 - 1
    padded = torch.nn.functional.pad(clips, (0, windows * 64 - num_samples), value=silence)
    whole = model.encode(clips).mean
    assert whole.shape == (2, 3, 2 * windows)
    sound = model.decode(whole, LABEL)
    for window in range(windows):
        alone = model.encode(padded[:, window * 64 : window * 64 + 64]).mean
        assert torch.allclose(whole[:, :, 2 * window : 2 * window + 2], alone, atol=1e-6)
        assert torch.allclose(sound[:, window * 64 : window * 64 + 64], model.decode(alone, LABEL), atol=1e-5)


def test_kl_is_that_of_two_gaussians():
    mean, log_std = torch.tensor([[[0.0, 1.5, -2.0]]]), torch.tensor([[[0.0, -1.0, 0.5]]])
    one = torch.distributions.Normal(mean, log_std.exp())
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(Posterior(mean, log_std).kl(), expected)
    assert Posterior(mean, log_std).kl()[0, 0, 0] == 0


def test_without_noise_it_is_the_plain_auto_encoder():
    model = make_vae(latent_noise="none")
    posterior = model.encode(_clips())
    assert posterior.log_std is None and torch.equal(posterior.sample(), posterior.mean)
    assert not posterior.kl().any()


def conditional(**options):
    """A conditional prior that has learned something, and the same network with the standard prior."""
    model, plain = make_vae(prior="conditional", **options), make_vae(**options)
    with torch.no_grad():
        torch.nn.init.normal_(model.prior.head.weight, 0, 0.5, torch.Generator().manual_seed(1))
    return model, plain


def test_a_conditional_prior_begins_as_the_standard_normal():
    model, plain = make_vae(prior="conditional"), make_vae()
    one, two = model.encode(_clips(), LABEL), plain.encode(_clips())
    assert torch.equal(one.mean, two.mean) and torch.equal(one.log_std, two.log_std)
    assert torch.equal(model.generate(one.mean, LABEL), plain.generate(two.mean, LABEL))


@pytest.mark.parametrize("options", [{}, {"decoder": wavenet_decoder(label=True)}])
def test_a_conditional_prior_changes_what_is_paid_not_what_is_decoded(options):
    model, plain = conditional(**options)
    one, two = model.encode(_clips(), LABEL), plain.encode(_clips())
    decode = (lambda m, z: m.decode(z, LABEL)) if not options else (lambda m, z: m.features(z, LABEL))
    assert torch.allclose(decode(model, one.mean), decode(plain, two.mean), atol=1e-5)
    centre, log_scale = model.prior(LABEL)
    assert not torch.allclose(centre[0], centre[1], atol=0.1)
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(two.mean, two.log_std.exp()),
                                                 torch.distributions.Normal(centre, log_scale.exp()))
    assert torch.allclose(one.kl(), expected, atol=1e-4)


def test_a_conditional_prior_knows_mixtures_and_wants_to_be_told():
    model, _ = conditional()
    halves = ConditioningInputs(label=torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    mean, _ = model.prior(halves)
    assert torch.allclose(mean[0], model.prior(LABEL)[0][0]) and not torch.allclose(mean[1], mean[0], atol=1e-3)
    with pytest.raises(ConfigError, match="conditioned on a label; none was given"):
        model.encode(_clips())


def test_the_bound_is_a_bound():
    """On one latent the evidence can be integrated: the bound lies above it in bits, whatever the posterior."""
    from wavegen.models.likelihood import logistic_nats

    model = make_vae(num_samples=32, latent_channels=1, encoder=EncoderConfig(strides=(32,), channels=(8,)),
                     decoder=ConvDecoderConfig(strides=(32,))).double()
    with torch.no_grad():
        model.decoder.head.weight.mul_(4)
    codes = torch.randint(60, 200, (1, 32), generator=torch.Generator().manual_seed(0))
    def nats(latents):
        picture = model.picture(latents.reshape(-1, 1, 1))
        return logistic_nats(codes, picture.location, picture.log_scale, 256).sum(1)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    prior = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    with torch.no_grad():
        evidence = -float(torch.logsumexp(prior.log_prob(grid) - nats(grid), 0) + math.log(step))
        for mean, log_std in ((0.0, 0.0), (1.0, -1.0), (-2.0, -0.5)):
            posterior = Posterior(torch.full((1, 1, 1), mean).double(), torch.full((1, 1, 1), log_std).double())
            density = torch.distributions.Normal(torch.tensor(mean).double(), math.exp(log_std)).log_prob(grid).exp()
            bound = float((density * nats(grid)).sum() * step + posterior.kl().sum())
            assert bound >= evidence - 1e-6
        exact = (prior.log_prob(grid) - nats(grid) + evidence).exp()  # the true posterior closes the gap
        tight = float((exact * (nats(grid) + exact.clamp(min=1e-300).log() - prior.log_prob(grid))).sum() * step)
        assert tight == pytest.approx(evidence, abs=1e-6)


def test_the_wavenet_decoder_is_told_the_latents_frame_by_frame():
    model = make_vae(decoder=wavenet_decoder())
    latents = model.encode(_clips()).mean
    features = model.features(latents)
    assert features.shape == (2, 3, 4)  # 32 samples a latent frame, 16 a conditioning frame
    assert torch.equal(features[:, :, 0], features[:, :, 1]) and torch.equal(features[:, :, 2], latents[:, :, 1])
    assert not model.is_one_pass


def test_muon_gets_every_matrix():
    for model in (make_vae(prior="conditional"), make_vae(decoder=wavenet_decoder())):
        shapes, parameters = model.matrices(), dict(model.named_parameters())
        for name, shape in shapes.items():
            assert math.prod(shape) == parameters[name].numel()
        assert "encoder.head.weight" in shapes and any(name.startswith("decoder.") for name in shapes)


@pytest.mark.parametrize(("clips", "message"), [
    (torch.zeros(2, 0), r"at least one sample, found shape \(2, 0\)"),
    (torch.zeros(64), r"found shape \(64,\)"),
    (torch.full((1, 4), math.nan), "NaN or infinite"),
])
def test_clips_that_cannot_be_encoded(clips, message):
    with pytest.raises(BadInputError, match=message):
        make_vae().encode(clips)


@pytest.mark.parametrize(("latents", "message"), [
    (torch.zeros(1, 4, 2), r"\(B, 3, a multiple of 2\), found \(1, 4, 2\)"),
    (torch.zeros(1, 3, 3), r"found \(1, 3, 3\)"),
    (torch.zeros(1, 3, 0), r"found \(1, 3, 0\)"),
    (torch.zeros(3), r"found \(3,\)"),
    (torch.full((1, 3, 2), math.inf), "NaN or infinite"),
])
def test_latents_that_cannot_be_decoded(latents, message):
    with pytest.raises(BadInputError, match=message):
        make_vae().decode(latents, ConditioningInputs(label=torch.tensor([0])))


def test_a_missing_label_is_named():
    with pytest.raises(ConfigError, match="conditioned on a label; none was given"):
        make_vae().decode(torch.zeros(1, 3, 2))


@pytest.mark.parametrize(("options", "message"), [
    ({"num_samples": 65}, "num_samples 65 must be a multiple of 32"),
    ({"decoder": ConvDecoderConfig(strides=(8, 2), channels=(4,))}, "decoder.strides give 16 samples.*take 32"),
    ({"decoder": wavenet_decoder(features=4)}, "features is 4, the latents have 3 channels"),
    ({"decoder": wavenet_decoder(hop_length=24)}, "hop_length 24 must divide 32"),
    ({"prior": "conditional", "latent_noise": "none"}, "there is not without latent noise"),
    ({"prior": "conditional", "decoder": wavenet_decoder()}, r"needs decoder.conditioning.label or .speaker"),
])
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_vae(**options)
