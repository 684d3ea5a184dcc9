"""One training step of a generator against its critics, as Lightning sees it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.audio.mulaw import from_companded
from wavegen.config import AdversarialConfig, Recipe, Vocabulary, WGANConfig
from wavegen.data.batches import Batch
from wavegen.errors import ConfigError
from wavegen.metrics.diversity import diversity
from wavegen.metrics.frechet import frechet_distance
from wavegen.metrics.judge import Judge, load_judges
from wavegen.models import ConditioningInputs
from wavegen.models.critic import CompandedView, Critic, LogMelView
from wavegen.training.module import TrainingModule, companded, to_inputs
from wavegen.training.optimizer import build_optimizer

logger = logging.getLogger(__name__)


class AdversarialModule(TrainingModule):
    """WGAN (arXiv:1701.07875, arXiv:1704.00028) and the original GAN, by manual optimisation.

    A step is `critic_steps` updates of the critics, each on its own batch, and one of the generator.
    Lightning counts the generator's updates only, so its step is ours.

    Each critic looks at clips through a view of its own: the first at the samples, others at
    spectrograms. Each estimates a distance, and keeps its own gradient penalty, in its own space.
    """

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> None:
        super().__init__(recipe, vocabulary, store_digest)
        model = recipe.model
        assert isinstance(model, WGANConfig)
        self.automatic_optimization = False
        self.game: AdversarialConfig = recipe.training.adversarial
        self.batches_per_step = self.game.critic_steps
        self.views = nn.ModuleList([CompandedView()])
        self.critics = nn.ModuleList([Critic(self.game.critic, model.num_samples, 1, model, vocabulary)])
        self.weights = [1.0]
        for view in self.game.spectral:
            self.views.append(LogMelView(view, recipe.audio))
            frames = model.num_samples // view.hop_length
            self.critics.append(Critic(view.critic, frames, view.n_mels, model, vocabulary))
            self.weights.append(view.weight)
        self.judges = _load_judges(self.game.judge, recipe, vocabulary)
        self._truth: dict[str, np.ndarray] = {}  # what each judge hears in the held-out recordings

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for critic in self.critics:
            critic.compute_dtype = self.model.compute_dtype  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        if self.trainer.world_size > 1:
            raise ConfigError(f"family wgan trains in one process, found {self.trainer.world_size}; start it without "
                              "torchrun")
        training = self.recipe.training
        settings = training.optimizer
        theirs = settings.model_copy(update={"adamw_lr": self.game.critic_lr or settings.adamw_lr})
        optimizers = [build_optimizer(self.model, settings, training.gradient_clip),
                      build_optimizer(self.critics, theirs, training.gradient_clip)]
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
        real, inputs = self._recordings(batch)
        with torch.no_grad():
            fake = self.model(self.latents(len(real)), inputs)
        optimizer.zero_grad(set_to_none=True)
        figures: dict[str, float] = {}
        for i, (view, critic) in enumerate(zip(self.views, self.critics, strict=True)):
            with torch.no_grad():
                seen = view(torch.cat([real, fake]))
            loss, found = self._critic_loss(critic, seen, inputs)
            self.manual_backward(loss)
            figures |= {name if i == 0 else f"{name}_spectral_{i}": value for name, value in found.items()}
        optimizer.step()
        if self.game.objective == "wasserstein" and self.game.regulariser == "clip":
            clip_weights(self.critics, self.game.clip_value)
        self.figures = figures

    def _critic_loss(self, critic: nn.Module, seen: Tensor, inputs: ConditioningInputs
                     ) -> tuple[Tensor, dict[str, float]]:
        count = len(seen) // 2
        scores = critic(seen, _twice(inputs))
        loss, distance = critic_loss(scores[:count], scores[count:], self.game.objective)
        figures = {"distance": distance}
        if self.game.objective == "wasserstein" and self.game.regulariser == "gp":
            norm = penalty_norm(critic, seen[:count], seen[count:], inputs)
            loss = loss + self.game.penalty_weight * (norm - 1).square().mean()
            figures["critic_gradient"] = float(norm.detach().mean())
        return loss, figures

    def _generator_step(self, inputs: ConditioningInputs, optimizer: Any) -> None:
        assert inputs.num_samples is not None
        self.critics.requires_grad_(False)
        clips = self.model(self.latents(len(inputs.num_samples)), inputs)
        loss = torch.zeros((), device=clips.device)
        for view, critic, weight in zip(self.views, self.critics, self.weights, strict=True):
            loss = loss + weight * generator_loss(critic(view(clips), inputs), self.game.objective)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()
        self.critics.requires_grad_(True)
        self.average_weights()

    def _recordings(self, batch: Batch) -> tuple[Tensor, ConditioningInputs]:
        _, inputs = to_inputs(batch, self.device)
        return companded(batch, self.recipe.audio.quantization_channels, self.device,
                         noise=self.game.in_bin_noise), inputs

    def latents(self, count: int) -> Tensor:
        """Standard normal latents (count, Z) from torch's global random state."""
        return torch.randn(count, *self.model.latent_shape).to(self.device)

    def on_validation_start(self) -> None:
        torch.manual_seed(self.recipe.training.seed)
        self._distances: list[float] = []
        self._labels: list[np.ndarray] = []
        self._clips: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        real, inputs = self._recordings(batch)
        latents = self.latents(len(real))
        scores = self.critics[0](self.views[0](torch.cat([real, self.model(latents, inputs)])), _twice(inputs))
        _, distance = critic_loss(scores[: len(real)], scores[len(real) :], self.game.objective)
        self._distances += [distance] * len(real)
        self._labels.append(batch.label)
        codes = self.recipe.audio.quantization_channels
        for clips, kept in zip((real, self.ema.module(latents, inputs)), self._clips, strict=True):
            kept.append(from_companded(clips.cpu().numpy(), codes))

    def on_validation_epoch_end(self) -> None:
        labels = np.concatenate(self._labels)
        real, fake = (np.concatenate(kept) for kept in self._clips)
        figures = {"validation_distance": float(np.mean(self._distances)),
                   "diversity": diversity(fake, labels) / diversity(real, labels)}
        for name, judge in self.judges.items():
            heard = judge(list(fake))
            if name not in self._truth:  # the recordings are the same each time
                self._truth[name] = judge(list(real)).features
            figures[f"accuracy_{name}"] = float((heard.labels.argmax(1) == labels).mean())
            figures[f"frechet_{name}"] = frechet_distance(heard.features, self._truth[name])
        self.results = {**figures, "step": self.global_step}
        self.log_dict({f"validation/{name}": value for name, value in figures.items()}, rank_zero_only=True)
        if figures["diversity"] < self.game.collapse_ratio:
            logger.warning("step %d: the generator may have collapsed: its clips of one label differ %.2f times as "
                           "much as recordings do; lower the learning rate or raise training.adversarial.critic_steps",
                           self.global_step, figures["diversity"])

    def headline(self, smooth: dict[str, float]) -> str:
        gradient = f"  gradient {smooth['critic_gradient']:.2f}" if "critic_gradient" in smooth else ""
        return f"distance {smooth.get('distance', float('nan')):.3f}{gradient}"

    def validation_line(self) -> str:
        figures = "  ".join(f"{name} {value:.3f}" for name, value in self.results.items() if name != "step")
        return figures

    def listen(self, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        assert inputs.num_samples is not None
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(len(inputs.num_samples), *self.model.latent_shape, generator=generator)
        with torch.no_grad():
            clips = self.ema.module(latents.to(self.device), inputs.to(self.device))
        return from_companded(clips.cpu().numpy(), self.recipe.audio.quantization_channels)[:, :num_samples]


def _load_judges(folder: str | None, recipe: Recipe, vocabulary: Vocabulary) -> dict[str, Judge]:
    if folder is None:
        return {}
    judges = load_judges(folder)
    for name, judge in judges.items():
        for kind, found, wanted in (("hears", f"{judge.sample_rate} Hz", f"{recipe.audio.sample_rate} Hz"),
                                    ("knows the labels", judge.config.labels, vocabulary.labels)):
            if found != wanted:
                raise ConfigError(f'judge "{name}" in {folder} {kind} {found}, the store has {wanted}; train one on '
                                  "this store (recipes/fsdd/judge.py), or leave training.adversarial.judge out")
    return judges


def critic_loss(real: Tensor, fake: Tensor, objective: str) -> tuple[Tensor, float]:
    """What a critic lowers, and its estimate of the distance between recordings and generated clips.

    The estimate is E[D(real)] - E[D(fake)] for Wasserstein, and for the others the Jensen-Shannon
    divergence in nats, log 2 minus half the loss, which is at most log 2.
    """
    if objective == "wasserstein":
        loss = fake.mean() - real.mean()
        return loss, -float(loss.detach())
    loss = functional.softplus(-real).mean() + functional.softplus(fake).mean()
    return loss, float(np.log(2) - 0.5 * float(loss.detach()))


def generator_loss(fake: Tensor, objective: str) -> Tensor:
    """What the generator lowers, from a critic's scores of its clips."""
    if objective == "wasserstein":
        return -fake.mean()
    if objective == "js":
        return -functional.softplus(fake).mean()
    return functional.softplus(-fake).mean()


def penalty_norm(critic: nn.Module, real: Tensor, fake: Tensor, inputs: ConditioningInputs) -> Tensor:
    """Norm (B,) of the critic's gradient at points between recordings and clips, differentiable."""
    share = torch.rand(len(real), *[1] * (real.ndim - 1)).to(real.device)
    between = (real + share * (fake - real)).requires_grad_(True)
    scores = critic(between, inputs)
    gradient, = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return gradient.float().flatten(1).norm(dim=1)


@torch.no_grad()
def clip_weights(critics: nn.Module, limit: float) -> None:
    """Bring every weight of the critics into [-limit, limit]."""
    for parameter in critics.parameters():
        parameter.clamp_(-limit, limit)


def _twice(inputs: ConditioningInputs) -> ConditioningInputs:
    def doubled(value: Tensor | None) -> Tensor | None:
        return None if value is None else torch.cat([value, value])

    return ConditioningInputs(label=doubled(inputs.label), speaker=doubled(inputs.speaker),
                              num_samples=doubled(inputs.num_samples))
