"""One training step of a generator against a critic, as Lightning sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wavegen.audio.mulaw import from_companded
from wavegen.config import AdversarialConfig, Recipe, Vocabulary, WGANConfig
from wavegen.data.batches import Batch
from wavegen.models import ConditioningInputs
from wavegen.models.critic import Critic
from wavegen.training.module import TrainingModule, companded, to_inputs
from wavegen.training.optimizer import build_optimizer


class AdversarialModule(TrainingModule):
    """WGAN (arXiv:1701.07875, arXiv:1704.00028) and the original GAN, by manual optimisation.

    A step is `critic_steps` updates of the critic, each on its own batch, and one of the generator.
    Lightning counts the generator's updates only, so its step is ours.
    """

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> None:
        super().__init__(recipe, vocabulary, store_digest)
        assert isinstance(recipe.model, WGANConfig)
        self.automatic_optimization = False
        self.game: AdversarialConfig = recipe.training.adversarial
        self.batches_per_step = self.game.critic_steps
        self.critic = Critic(self.game.critic, recipe.model, vocabulary)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.critic.compute_dtype = self.model.compute_dtype

    def configure_optimizers(self) -> Any:
        training = self.recipe.training
        settings = training.optimizer
        theirs = settings.model_copy(update={"adamw_lr": self.game.critic_lr or settings.adamw_lr})
        optimizers = [build_optimizer(self.model, settings, training.gradient_clip),
                      build_optimizer(self.critic, theirs, training.gradient_clip)]
        return optimizers, [{"scheduler": self.build_schedule(one), "interval": "step"} for one in optimizers]

    def training_step(self, batches: list[Batch], batch_idx: int) -> None:
        self.seed_step()
        generator, critic = self.optimizers()  # type: ignore[misc, attr-defined]
        for batch in batches:
            self._critic_step(batch, critic.optimizer)
        _, inputs = to_inputs(batches[-1], self.device)
        self._generator_step(inputs, generator)
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.last_samples = sum(batch.codes.size for batch in batches)

    def _critic_step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        _, inputs = to_inputs(batch, self.device)
        real = companded(batch, self.recipe.audio.quantization_channels, self.device, noise=self.game.in_bin_noise)
        with torch.no_grad():
            fake = self.model(self.latents(len(real)), inputs)
        scores = self.critic(torch.cat([real, fake]), _twice(inputs))
        loss, figures = critic_loss(scores[: len(real)], scores[len(real) :], self.game.objective)
        if self.game.objective == "wasserstein" and self.game.regulariser == "gp":
            norm = penalty_norm(self.critic, real, fake, inputs)
            loss = loss + self.game.penalty_weight * (norm - 1).square().mean()
            figures["critic_gradient"] = float(norm.detach().mean())
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()
        if self.game.objective == "wasserstein" and self.game.regulariser == "clip":
            clip_weights(self.critic, self.game.clip_value)
        self.figures = figures

    def _generator_step(self, inputs: ConditioningInputs, optimizer: Any) -> None:
        assert inputs.num_samples is not None
        self.critic.requires_grad_(False)
        scores = self.critic(self.model(self.latents(len(inputs.num_samples)), inputs), inputs)
        loss = generator_loss(scores, self.game.objective)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()
        self.critic.requires_grad_(True)
        self.average_weights()

    def latents(self, count: int) -> Tensor:
        """Standard normal latents (count, Z) from torch's global random state."""
        return torch.randn(count, *self.model.latent_shape).to(self.device)

    def on_validation_start(self) -> None:
        self._gaps: list[float] = []
        torch.manual_seed(self.recipe.training.seed)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        _, inputs = to_inputs(batch, self.device)
        real = companded(batch, self.recipe.audio.quantization_channels, self.device, noise=self.game.in_bin_noise)
        scores = self.critic(torch.cat([real, self.model(self.latents(len(real)), inputs)]), _twice(inputs))
        _, figures = critic_loss(scores[: len(real)], scores[len(real) :], self.game.objective)
        self._gaps += [figures["distance"]] * len(real)

    def on_validation_epoch_end(self) -> None:
        value = float(np.mean(self._gaps))
        self.results = {"validation_distance": value, "step": self.global_step}
        self.log("validation/distance", value, rank_zero_only=True)

    def headline(self, smooth: dict[str, float]) -> str:
        return f"distance {smooth.get('distance', float('nan')):.3f}"

    def validation_line(self) -> str:
        return f"estimated distance to held-out recordings {self.results['validation_distance']:.4f}"

    def listen(self, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        assert inputs.num_samples is not None
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(len(inputs.num_samples), *self.model.latent_shape, generator=generator)
        with torch.no_grad():
            clips = self.ema.module(latents.to(self.device), inputs.to(self.device))
        return from_companded(clips.cpu().numpy(), self.recipe.audio.quantization_channels)[:, :num_samples]


def critic_loss(real: Tensor, fake: Tensor, objective: str) -> tuple[Tensor, dict[str, float]]:
    """What the critic lowers, and its estimate of the distance between recordings and generated clips.

    The estimate is E[D(real)] - E[D(fake)] for Wasserstein, the Jensen-Shannon divergence in nats
    (at most log 2) for the others: log 2 minus half the loss.
    """
    if objective == "wasserstein":
        loss = fake.mean() - real.mean()
        return loss, {"distance": -float(loss.detach())}
    loss = functional.softplus(-real).mean() + functional.softplus(fake).mean()
    return loss, {"distance": float(np.log(2) - 0.5 * loss.detach())}


def generator_loss(fake: Tensor, objective: str) -> Tensor:
    """What the generator lowers, from the critic's scores of its clips."""
    if objective == "wasserstein":
        return -fake.mean()
    if objective == "js":
        return -functional.softplus(fake).mean()
    return functional.softplus(-fake).mean()


def penalty_norm(critic: torch.nn.Module, real: Tensor, fake: Tensor, inputs: ConditioningInputs) -> Tensor:
    """Norm (B,) of the critic's gradient at points between recordings and clips, differentiable."""
    share = torch.rand(len(real), 1).to(real.device)
    between = (real + share * (fake - real)).requires_grad_(True)
    scores = critic(between, inputs)
    gradient, = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return gradient.float().norm(dim=1)


@torch.no_grad()
def clip_weights(critic: torch.nn.Module, limit: float) -> None:
    """Bring every weight of the critic into [-limit, limit]."""
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)


def _twice(inputs: ConditioningInputs) -> ConditioningInputs:
    def doubled(value: Tensor | None) -> Tensor | None:
        return None if value is None else torch.cat([value, value])

    return ConditioningInputs(label=doubled(inputs.label), speaker=doubled(inputs.speaker),
                              num_samples=doubled(inputs.num_samples))
