"""The likelihood of codes under a continuous decoder is a distribution over codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavegen.audio.mulaw import decode, to_companded
from wavegen.models.likelihood import expand, logistic_nats


def _all_codes(location, log_scale, channels):
    codes = torch.arange(channels)
    shape = codes.to(torch.float64)
    return logistic_nats(codes, shape * 0 + location, shape * 0 + log_scale, channels)


@pytest.mark.parametrize("channels", [2, 16, 256])
@pytest.mark.parametrize(("location", "log_scale"), [(0.0, -2.0), (0.7, -7.0), (-1.0, -7.0), (1.4, 0.0), (0.1, 2.0)])
def test_probabilities_of_all_codes_add_up_to_one(channels, location, log_scale):
    assert _all_codes(location, log_scale, channels).neg().exp().sum() == pytest.approx(1, abs=1e-9)


def test_probability_is_the_mass_of_the_bin():
    codes = torch.tensor([0, 3, 15])
    location, scale = torch.tensor(0.2, dtype=torch.float64), 0.3
    def below(edge):
        return torch.sigmoid((edge - location) / scale)
    half = 1 / 15
    expected = [below(-1 + half), below(-0.6 + half) - below(-0.6 - half), 1 - below(1 - half)]
    found = logistic_nats(codes, location.expand(3), torch.full((3,), np.log(scale), dtype=torch.float64), 16)
    assert torch.allclose(found, -torch.stack(expected).log())


def test_far_off_codes_have_finite_cost_and_gradient():
    location = torch.tensor([-1.0, 1.0], requires_grad=True)
    log_scale = torch.tensor([-7.0, -7.0], requires_grad=True)
    nats = logistic_nats(torch.tensor([255, 0]), location, log_scale, 256)
    nats.sum().backward()
    assert nats.isfinite().all() and (nats > 1000).all()
    assert location.grad.isfinite().all() and log_scale.grad.isfinite().all()


def test_expanding_the_companded_codes_decodes_them():
    codes = np.arange(256)
    found = expand(torch.from_numpy(to_companded(codes)), 256)
    assert np.allclose(found.numpy(), decode(codes), atol=1e-6)
