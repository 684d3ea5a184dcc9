"""The gated residual stack of a WaveNet, laid out for training speed.

Time-major rows (row = t * B + b) make the tap d samples back the same matrix shifted by d * B
rows: both taps of a dilated convolution are contiguous views, so a layer is one matrix product
per tap, one fused gate and one product for the residual. z of all layers lands in one
(T * B, L * R) matrix, so that the skip sum is a single product.

On a CPU the forward and backward passes are written out by hand over the kernels in
`wavegen.models.gate`; `gated_stack_ref` is the same arithmetic in plain torch, the truth of the
tests and the path on a GPU, where `torch.compile` fuses it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.models import gate


def gated_stack(h: Tensor, table: Tensor, dilated_weight: Tensor, residual_weight: Tensor, residual_bias: Tensor,
                dilations: tuple[int, ...], hop_length: int, residual_scale: float,
                dtype: torch.dtype = torch.float32) -> Tensor:
    """Gated outputs of all layers of the stack, from a zero start state.

    Args:
        h: (T, B, R), input of the first layer; float64 takes the plain path.
        table: float32 (L, F, B, 2R), bias and conditioning of each layer, frame = t // hop_length.
        dilated_weight: (L, K, R, 2R); tap k sees the input k * dilation samples ago.
        residual_weight: (L - 1, R, R).
        residual_bias: (L - 1, R).
        dtype: float32 or bfloat16, the format of the matrix products on a CPU. The residual
            stream stays in float32.

    Returns:
        `dtype` (T * B, L * R).

    Reference: WaveNet, sections 2.1 to 2.4 (arXiv:1609.03499).
    """
    if h.device.type == "cpu" and h.dtype == torch.float32:
        return _GatedStack.apply(h, table, dilated_weight, residual_weight, residual_bias,
                                 dilations, hop_length, residual_scale, dtype)  # type: ignore[no-any-return]
    return gated_stack_ref(h, table, dilated_weight, residual_weight, residual_bias, dilations, hop_length,
                           residual_scale)


def gated_stack_ref(h: Tensor, table: Tensor, dilated_weight: Tensor, residual_weight: Tensor, residual_bias: Tensor,
                    dilations: tuple[int, ...], hop_length: int, residual_scale: float) -> Tensor:
    """`gated_stack` in plain torch, any device and dtype."""
    num_samples, batch, channels = h.shape
    frames = torch.arange(num_samples, device=h.device) // hop_length
    outputs = []
    for layer, dilation in enumerate(dilations):
        a = h @ dilated_weight[layer, 0] + table[layer][frames]
        for tap in range(1, dilated_weight.shape[1]):
            delay = tap * dilation
            if delay < num_samples:
                past = h[: num_samples - delay] @ dilated_weight[layer, tap]
                a = a + torch.nn.functional.pad(past, (0, 0, 0, 0, delay, 0))
        z = torch.tanh(a[..., :channels]) * torch.sigmoid(a[..., channels:])
        outputs.append(z)
        if layer + 1 < len(dilations):
            h = (h + z @ residual_weight[layer] + residual_bias[layer]) * residual_scale
    return torch.cat(outputs, dim=-1).reshape(num_samples * batch, -1)


def _array(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as numpy; bfloat16 as its uint16 bit pattern."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


class _GatedStack(torch.autograd.Function):
    """Hand-written forward and backward of `gated_stack` for the CPU."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, dilated_weight: Tensor, residual_weight: Tensor,
                residual_bias: Tensor, dilations: tuple[int, ...], hop: int, scale: float,
                dtype: torch.dtype) -> Tensor:
        num_samples, batch, channels = h.shape
        rows, num_layers, taps = num_samples * batch, len(dilations), dilated_weight.shape[1]
        weight = dilated_weight.detach().to(dtype)
        residual = residual_weight.detach().to(dtype)
        # The residual stream accumulates in float32; the products read it in `dtype`.
        stream = h.detach().reshape(rows, channels).clone()
        inputs, gates = [stream.to(dtype, copy=True)], []
        z_all = torch.empty(rows, num_layers * channels, dtype=dtype)
        conditioning = table.detach().float().contiguous()
        for layer, dilation in enumerate(dilations):
            x = inputs[layer]
            pre = x @ weight[layer, 0]
            for tap in range(1, taps):
                shift = min(tap * dilation * batch, rows)
                if shift < rows:
                    pre[shift:].addmm_(x[: rows - shift], weight[layer, tap])
            gate.gate_forward(_array(pre), _array(conditioning[layer]).reshape(-1, 2 * channels), _array(z_all),
                              layer * channels, batch, hop)
            gates.append(pre)
            if layer + 1 < num_layers:
                update = z_all[:, layer * channels : (layer + 1) * channels] @ residual[layer]
                following = torch.empty_like(x)
                gate.residual_forward(_array(stream), _array(update), _array(residual_bias.detach()[layer]),
                                      np.float32(scale), _array(stream), _array(following))
                inputs.append(following)
        ctx.layout = (inputs, gates, z_all, dilations, hop, scale, batch)
        ctx.save_for_backward(table, weight, residual)
        return z_all

    @staticmethod
    def backward(ctx: Any, grad_z_all: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, gates, z_all, dilations, hop, scale, batch = ctx.layout
        table, weight, residual = ctx.saved_tensors
        rows, channels = inputs[0].shape
        grad_z_all = grad_z_all.contiguous()
        grad_table = torch.zeros_like(table, dtype=torch.float32)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32)
        grad_residual = torch.zeros(residual.shape, dtype=torch.float32)
        grad_bias = torch.zeros(residual.shape[0], channels, dtype=torch.float32)
        grad_h: Tensor | None = None  # gradient of the input of the layer above
        for layer in range(len(dilations) - 1, -1, -1):
            columns = slice(layer * channels, (layer + 1) * channels)
            grad_z, column = grad_z_all, layer * channels
            if grad_h is not None:
                if scale != 1.0:
                    grad_h *= scale
                grad_z, column = torch.addmm(grad_z_all[:, columns], grad_h, residual[layer].t()), 0
                grad_residual[layer] = z_all[:, columns].t() @ grad_h
                grad_bias[layer] = grad_h.sum(0, dtype=torch.float32)
            grad_pre, x = gates[layer], inputs[layer]
            gate.gate_backward(_array(grad_pre), _array(grad_z), column,
                               _array(grad_table[layer]).reshape(-1, 2 * channels), batch, hop)
            grad_x = grad_pre @ weight[layer, 0].t()
            grad_weight[layer, 0] = x.t() @ grad_pre
            for tap in range(1, weight.shape[1]):
                shift = min(tap * dilations[layer] * batch, rows)
                if shift < rows:
                    grad_weight[layer, tap] = x[: rows - shift].t() @ grad_pre[shift:]
                    grad_x[: rows - shift].addmm_(grad_pre[shift:], weight[layer, tap].t())
            if grad_h is not None:
                grad_x += grad_h
            grad_h = grad_x
        ctx.layout = None
        assert grad_h is not None
        return (grad_h.float().view(-1, batch, channels), grad_table, grad_weight, grad_residual, grad_bias,
                None, None, None, None)
