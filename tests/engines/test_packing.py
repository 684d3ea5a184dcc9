from __future__ import annotations

import numpy as np
import pytest

from networks import make_wavenet
from wavegen.config import WaveNetConfig
from wavegen.engines.packing import code_order, make_network, network_of, pack
from wavegen.errors import ModelFileError


def parameters(model):
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def test_a_network_is_made_from_plain_arrays():
    model = make_wavenet(dilations=(1, 3), bias=False, input_taps=3)
    network = make_network(parameters(model), model.config)
    assert network.num_layers == 2 and network.residual_channels == 8 and network.input_taps == 3
    assert np.array_equal(network.parameters["skip_bias"], np.zeros(8))
    assert np.array_equal(network.parameters["end_weight"], model.end_weight.detach().numpy())


@pytest.mark.parametrize("name", ["embedding", "dilated_weight", "residual_weight", "skip_weight", "end_bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(name, value):
    model = make_wavenet()
    values = {key: array.copy() for key, array in parameters(model).items()}
    values[name].flat[-1] = value
    with pytest.raises(ModelFileError, match=f'"{name}" holds NaN or infinity'):
        make_network(values, model.config)


def test_a_missing_or_misshapen_parameter_is_named():
    model = make_wavenet()
    with pytest.raises(ModelFileError, match='no parameter "skip_weight"'):
        make_network({k: v for k, v in parameters(model).items() if k != "skip_weight"}, model.config)
    wider = WaveNetConfig(**{**model.config.model_dump(), "skip_channels": 9})
    with pytest.raises(ModelFileError, match=r'"skip_weight" is \(32, 8\), the configuration needs \(32, 9\)'):
        make_network(parameters(model), wider)


def test_a_run_of_codes_lies_in_one_lane():
    order = code_order(64)
    assert sorted(order) == list(range(64))
    assert order.reshape(4, 16)[:, 3].tolist() == [12, 13, 14, 15]


@pytest.mark.parametrize(("registers", "residual"), [(8, 24), (8, 8), (4, 40), (2, 33), (1, 16)])
def test_every_weight_is_packed_once(registers, residual):
    model = make_wavenet(residual, 20, 36, (1, 2, 4), kernel_size=3, input_taps=5, residual_scale=1.0)
    packed = pack(network_of(model), registers)
    values = parameters(model)
    floats = packed.weights.view(np.float32)
    stored = np.sort(floats[(floats != 0) & (floats > -1e29)])
    given = [values[name].ravel() for name in values if "embedding" not in name and name != "dilated_bias"]
    assert np.array_equal(stored, np.sort(np.concatenate(given)))
    assert packed.weights.ctypes.data % 64 == 0


def test_frames_are_padded_half_by_half():
    frames = np.arange(2 * 3 * 4 * 10, dtype=np.float32).reshape(2, 3, 4, 10)
    packed = pack(network_of(make_wavenet(5, 8, 8, (1, 2, 4, 8))), 8).pack_frames(frames)
    assert packed.shape == (2, 3, 4, 32)
    assert np.array_equal(packed[..., :5], frames[..., :5])
    assert np.array_equal(packed[..., 16:21], frames[..., 5:])
    assert not packed[..., 5:16].any() and not packed[..., 21:].any()
