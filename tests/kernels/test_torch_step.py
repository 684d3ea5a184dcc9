"""That the torch baselines of the Triton kernels compute the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import load_script
from networks import make_wavenet, random_codes
from wavegen.engines import build_engine
from wavegen.engines.packing import network_of

MODES = ["eager", *(pytest.param(mode, marks=pytest.mark.gpu) for mode in ("graphed", "compiled"))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"kernel_size": 3, "residual_scale": 0.7, "skip_scale": 0.3},
                                     {"input_kernel_size": 1}])
def test_the_step_computes_the_network(mode, options):
    model, device = make_wavenet(**options), "cpu" if mode == "eager" else "cuda"
    network, codes = network_of(model), random_codes(64, 3, 12)
    step = load_script("kernels/benchmarks/torch_step.py").TorchStep(
        network.parameters, network.dilations, network.parameters["dilated_bias"], 3, torch.float32, device, mode,
        network.residual_scale, network.skip_scale)
    for ring in step.rings:
        ring.zero_()
    step.clock.zero_()
    step.code.fill_(32)
    step.older.fill_(32)
    found = []
    with torch.inference_mode():
        for column in torch.from_numpy(codes).to(device).unbind(1):
            found.append(step.logits().cpu().numpy())
            step.feed(column)
    assert np.abs(np.stack(found, 1) - build_engine(model, "reference").logits(codes)).max() < 1e-4
    step.generate(6)
    assert int(step.clock) == 12 + 8
