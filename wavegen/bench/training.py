"""Training speed: forward and backward of the training form beside plain conv1d modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.bench.timing import interleave
from wavegen.config import AudioConfig, Vocabulary, WaveNetConfig
from wavegen.errors import WavegenError
from wavegen.models import WaveNet

MIDDLE = WaveNetConfig(residual_channels=48, skip_channels=96, output_channels=96,
                       dilations=tuple(2**exponent for exponent in range(10)) * 2)
SAMPLE_RATE = 8000  # Hz, of the spoken digits; for times real time
BATCH, NUM_SAMPLES = 4, 3000  # one step of 12,000 samples
PARITY = 1e-3


class ConvWaveNet(nn.Module):
    """The same network as one would write it first: (B, C, T) through nn.Conv1d, skips added up.

    Takes its weights from a `WaveNet` without conditioning.
    """

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        config = model.config
        self.config, self.silence, self.embedding = config, model.silence, nn.Parameter(model.embedding.detach())
        size, layers = config.residual_channels, config.num_layers
        skips = model.skip_weight.detach().view(layers, size, -1)
        self.dilated = nn.ModuleList(
            _conv(model.dilated_weight[layer].flip(0), _part(model, "dilated_bias", layer), dilation)
            for layer, dilation in enumerate(config.dilations))
        self.residual = nn.ModuleList(
            _conv(weight[None], _part(model, "residual_bias", layer))
            for layer, weight in enumerate(model.residual_weight))
        skip_bias = getattr(model, "skip_bias", None)
        self.skip = nn.ModuleList(_conv(skips[layer][None], skip_bias if layer == 0 else None)
                                  for layer in range(layers))
        self.output = _conv(model.output_weight[None], getattr(model, "output_bias", None))
        self.end = _conv(model.end_weight[None], getattr(model, "end_bias", None))

    def forward(self, previous_codes: Tensor) -> Tensor:
        """Logits (B, Q, T)."""
        config = self.config
        h = self.embedding[0][previous_codes].transpose(1, 2)
        for k in range(1, config.input_kernel_size):
            older = functional.pad(previous_codes, (k, 0), value=self.silence)[:, :-k]
            h = h + self.embedding[k][older].transpose(1, 2)
        skip: Tensor | None = None
        for layer, dilation in enumerate(config.dilations):
            padded = functional.pad(h, ((config.kernel_size - 1) * dilation, 0))
            u, v = self.dilated[layer](padded).chunk(2, dim=1)
            z = torch.tanh(u) * torch.sigmoid(v)
            part = self.skip[layer](z)
            skip = part if skip is None else skip + part
            if layer < len(self.residual):
                h = (h + self.residual[layer](z)) * config.residual_scale
        assert skip is not None
        hidden = functional.relu(self.output(functional.relu(skip * config.skip_scale)))
        result: Tensor = self.end(hidden)
        return result


def bench_training(config: WaveNetConfig | None = None, threads: int = 1, clock: str = "wall",
                   rounds: int = 7) -> dict[str, Any]:
    """Forward and backward samples per second, without optimiser, in turns with conv1d.

    Args:
        config: size; None is `MIDDLE`. Conditioning and input taps are left out on both sides.
        threads: CPU threads of torch.
        clock: see `interleave`; "cpu" for one thread only.
        rounds: interleaved turns.

    Raises:
        WavegenError: the two forms compute different logits.
    """
    size = (config or MIDDLE).model_copy(update={"conditioning": MIDDLE.conditioning, "input_taps": 0,
                                                 "input_tanh": False, "dropout": 0.0})
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = WaveNet(size, AudioConfig(sample_rate=SAMPLE_RATE), Vocabulary())
        plain = ConvWaveNet(model)
        codes = torch.randint(0, 256, (BATCH, NUM_SAMPLES), generator=torch.Generator().manual_seed(0))
        _check_parity(model, plain, codes[:, :300])
        contenders = {
            "wavegen": _repeat(lambda: _time_major_loss(_in(model, torch.float32, codes), codes), model),
            "bfloat16": _repeat(lambda: _time_major_loss(_in(model, torch.bfloat16, codes), codes), model),
            "conv1d": _repeat(lambda: functional.cross_entropy(plain(codes), codes), plain)}
        timings, share = interleave(contenders, rounds=rounds, seconds=0.0, clock=clock)
    finally:
        torch.set_num_threads(torch_threads)
    return _report(size, threads, clock, share, timings)


def _report(size: WaveNetConfig, threads: int, clock: str, share: float, timings: Any) -> dict[str, Any]:
    from wavegen.bench.speed import machine

    samples = BATCH * NUM_SAMPLES
    ours, plain = timings["wavegen"], timings["conv1d"]
    rate, base = samples * ours.samples_per_second, samples * plain.samples_per_second
    half = samples * timings["bfloat16"].samples_per_second
    slow, fast = ours.spread()
    return {
        "model": f"WaveNet R{size.residual_channels} S{size.skip_channels} O{size.output_channels} "
                 f"L{size.num_layers} K{size.kernel_size}",
        "pass": f"forward and backward, {BATCH} x {NUM_SAMPLES} samples, f32", "threads": threads, "clock": clock,
        "share_of_core": round(share, 3), "samples_per_second": round(rate, 1), "p20": round(samples * slow, 1),
        "p80": round(samples * fast, 1), "times_realtime": round(rate / SAMPLE_RATE, 2),
        "sample_rate": SAMPLE_RATE,
        "bfloat16_samples_per_second": round(half, 1), "bfloat16_times_baseline": round(half / base, 2),
        "baseline": "nn.Conv1d modules, (B, C, T)", "baseline_samples_per_second": round(base, 1),
        "times_baseline": round(rate / base, 2), **machine()}


def _repeat(loss: Any, module: nn.Module) -> Any:
    def run(count: int) -> None:
        for _ in range(count):
            module.zero_grad(set_to_none=True)
            loss().backward()

    return run


def _in(model: WaveNet, dtype: torch.dtype, codes: Tensor) -> Tensor:
    """Logits with the matrix products of the stack in `dtype`, as `training.precision` sets it."""
    model.compute_dtype = dtype
    logits: Tensor = model(codes)
    return logits


def _time_major_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """As in training: (B, T, Q) is a transposed view of time-major logits, so flattening copies nothing."""
    return functional.cross_entropy(logits.transpose(0, 1).flatten(0, 1), codes.t().reshape(-1))


def _check_parity(model: WaveNet, plain: ConvWaveNet, codes: Tensor) -> None:
    """First green, then fast."""
    with torch.no_grad():
        error = float((model(codes) - plain(codes).transpose(1, 2)).abs().max())
    if not error < PARITY:
        raise WavegenError(f"the conv1d form's logits differ by {error:.1e}: nothing was timed")


def _part(model: WaveNet, name: str, layer: int) -> Tensor | None:
    bias: Tensor | None = getattr(model, name, None)
    return None if bias is None else bias[layer]


def _conv(weight: Tensor, bias: Tensor | None, dilation: int = 1) -> nn.Conv1d:
    """A convolution from input-major weights (K, inputs, outputs), oldest tap first."""
    kernel, inputs, outputs = weight.shape
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight.permute(2, 1, 0))
        if bias is not None:
            conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv
