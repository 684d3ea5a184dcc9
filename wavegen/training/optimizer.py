"""Muon on matrices, AdamW on the rest, as one optimizer with clipping and a guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavegen.config import OptimizerConfig


class MuonAdamW(torch.optim.Optimizer):
    """Muon for stacks of matrices and AdamW for everything else, stepped together.

    `torch.optim.Muon` takes single matrices only; the layers of our networks are stacked, and
    orthogonalising a whole stack at once is a few batched products instead of thousands.

    A step whose gradient is not finite changes nothing and is counted in `bad_steps`, which
    returns to zero with the next good one.

    Reference: Muon, https://kellerjordan.github.io/posts/muon; AdamW, arXiv:1711.05101.
    """

    def __init__(self, matrices: Sequence[tuple[Tensor, tuple[int, int, int]]], others: Sequence[Tensor],
                 config: OptimizerConfig, gradient_clip: float) -> None:
        groups: list[dict[str, Any]] = [
            {"params": [parameter], "kind": "muon", "shape": list(shape), "lr": config.muon_lr,
             "weight_decay": config.weight_decay}
            for parameter, shape in matrices]
        groups.append({"params": list(others), "kind": "adamw", "lr": config.adamw_lr, "weight_decay": 0.0,
                       "betas": list(config.betas)})
        super().__init__([group for group in groups if group["params"]], {})
        self.gradient_clip = gradient_clip
        self.gradient_norm = 0.0
        self.bad_steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Clip the gradient and update, unless it is not finite."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.gradient_norm = float(norm)
        if not math.isfinite(self.gradient_norm):
            self.bad_steps += 1
            return loss
        self.bad_steps = 0
        torch._foreach_mul_(gradients, min(1.0, self.gradient_clip / (self.gradient_norm + 1e-6)))
        for group in self.param_groups:
            if group["kind"] == "muon":
                self._muon(group)
            else:
                self._adamw(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        parameter = group["params"][0]
        if parameter.grad is None:
            return
        gradient = parameter.grad.view(group["shape"])
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 0.05)
        update = orthogonalise(gradient.lerp(momentum, 0.95))
        inputs, outputs = group["shape"][1:]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * math.sqrt(max(1.0, outputs / inputs)))

    def _adamw(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p].update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        for state in states:
            state["step"] += 1
        count = states[0]["step"]
        gradients = [p.grad for p in parameters]
        means, squares = [s["mean"] for s in states], [s["square"] for s in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominator = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominator, math.sqrt(1 - beta2**count))
        torch._foreach_add_(denominator, 1e-8)
        torch._foreach_addcdiv_(parameters, means, denominator, -group["lr"] / (1 - beta1**count))


def orthogonalise(stack: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack (N, a, b), by five Newton-Schulz steps."""
    x = stack / (torch.linalg.matrix_norm(stack, keepdim=True) + 1e-7)
    wide = x.shape[1] <= x.shape[2]
    if not wide:
        x = x.transpose(1, 2)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.transpose(1, 2)


def build_optimizer(model: nn.Module, config: OptimizerConfig, gradient_clip: float) -> MuonAdamW:
    """The optimizer a recipe asks for over a model that names its `matrices()`."""
    shapes = model.matrices() if config.name == "muon" else {}  # type: ignore[operator]
    parameters = dict(model.named_parameters())
    matrices = [(parameters[name], shape) for name, shape in shapes.items()]
    others = [parameter for name, parameter in parameters.items() if name not in shapes]
    return MuonAdamW(matrices, others, config, gradient_clip)


def learning_rate_factor(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at a step: linear warm-up, flat, cosine to `final_fraction`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = config.flat_fraction * max_steps
    if step <= start or max_steps <= start:
        return warm
    progress = min(1.0, (step - start) / (max_steps - start))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return warm * (config.final_fraction + (1 - config.final_fraction) * cosine)
