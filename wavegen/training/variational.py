"""One training step of a variational auto-encoder, as Lightning sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavegen.audio.mulaw import decode, from_companded
from wavegen.config import Recipe, VAEConfig, VariationalConfig, Vocabulary
from wavegen.data.batches import Batch
from wavegen.engines import ModelConditioning, build_engine
from wavegen.engines.sampling import normal
from wavegen.metrics.spectral import log_mel_distance, stft_distance
from wavegen.models import VAE, ConditioningInputs, WaveNet
from wavegen.models.likelihood import expand, logistic_nats
from wavegen.models.vae import Posterior
from wavegen.training.losses import nats, shift
from wavegen.training.module import TrainingModule, companded, to_inputs

DEPTH = 70.0  # dB the spectral distance of a training looks down
ACTIVE_VARIANCE = 0.01  # of a latent's mean over the data, arXiv:1509.00519 section 5


@dataclass(frozen=True, eq=False)
class Reading:
    """What a decoder makes of a batch whose latents it was given.

    Attributes:
        nats: float (B, T'), of each code; T' is shorter than the window where only silence follows.
        weight: float (B, T'), 1 where a sample counts in training.
        waveform: float (B, T), the reconstruction of a conv decoder, else None.
    """

    nats: Tensor
    weight: Tensor
    waveform: Tensor | None


class VariationalModule(TrainingModule):
    """Auto-encoding: likelihood of the codes, spectral distance, KL of the latents to their prior."""

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> None:
        super().__init__(recipe, vocabulary, store_digest)
        assert isinstance(recipe.model, VAEConfig)
        self.objective: VariationalConfig = recipe.training.variational
        self.window = recipe.model.num_samples
        self.quantization_channels = recipe.audio.quantization_channels

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seed_step()
        codes, inputs = window_inputs(batch, self.window, self.device)
        posterior = self.model.encode(companded(batch, self.quantization_channels, self.device), inputs)
        reading = self.read(self.model, codes, batch, posterior.sample(), inputs)
        kl = posterior.kl()
        figures = self._figures(reading, kl.detach(), batch)
        if posterior.log_std is not None:
            figures["latent_noise"] = float(posterior.log_std.detach().exp().mean())
        # Each window's loss, per sample of a window; a rank without a window of its own runs one that counts nothing.
        counts = torch.from_numpy(batch.weight[:, 0]).to(self.device)
        loss = self.objective.likelihood_weight * (reading.nats * reading.weight).sum(1) / self.window
        loss = loss + self.kl_weight(self.global_step) * kl_cost(kl, self.objective.free_bits) / self.window
        if self.objective.spectral_weight:
            assert reading.waveform is not None
            resolutions = [(size, size // 4, size) for size in self.objective.spectral_sizes]
            distance = stft_distance(reading.waveform, self.recorded(codes), resolutions, DEPTH)
            loss = loss + self.objective.spectral_weight * distance
            figures["spectral_distance"] = float(distance.detach().mean())
        self.figures = figures
        world = self.trainer.world_size
        self.last_samples = batch.codes.size * world
        # Divided by the windows over all ranks: see SequenceModule.
        return (loss * counts).sum() * world * self.window / batch.total_weight

    def kl_weight(self, step: int) -> float:
        """The weight of the KL at a step; it rises from 0, so that the latents are put to use first."""
        rise = min(1.0, step / self.objective.kl_warmup_steps) if self.objective.kl_warmup_steps else 1.0
        return self.objective.kl_weight * rise

    def read(self, model: VAE, codes: Tensor, batch: Batch, latents: Tensor, inputs: ConditioningInputs) -> Reading:
        """Let the decoder say how likely the codes (B, T) are, and how they sound."""
        if not isinstance(model.decoder, WaveNet):
            picture = model.picture(latents, inputs)
            costs = logistic_nats(codes, picture.location, picture.log_scale, self.quantization_channels)
            return Reading(costs, torch.ones_like(costs), expand(picture.companded, self.quantization_channels))
        # The wavenet decoder costs much for each sample: the silence after the longest clip is left out.
        tail, hop = self.recipe.training.tail_samples, model.decoder.hop_length
        lengths = torch.from_numpy(np.minimum(batch.num_samples + tail, self.window)).to(self.device)
        size = int(min(self.window, -(-int(lengths.max()) // hop) * hop))
        told = with_latents(model, latents, inputs)
        costs = nats(model.decoder(shift(codes[:, :size].contiguous(), model.silence), told), codes[:, :size])
        weight = torch.arange(size, device=self.device) < lengths[:, None]
        return Reading(costs, weight.to(costs.dtype), None)

    def recorded(self, codes: Tensor) -> Tensor:
        """The waveform of codes."""
        return torch.from_numpy(decode(codes.cpu().numpy(), self.quantization_channels)).to(self.device)

    def _figures(self, reading: Reading, kl: Tensor, batch: Batch) -> dict[str, float]:
        inside = torch.from_numpy(batch.inside[:, : reading.nats.shape[1]]).to(self.device)
        cost, count = float((reading.nats.detach() * inside).sum()), max(1.0, float(inside.sum()))
        per_window = float(kl.sum()) / len(kl)
        return {"reconstruction_bits": cost / count / math.log(2), "kl_nats": per_window,
                "kl_bits_per_dimension": per_window / math.log(2) / kl[0].numel(),
                "bits_per_sample": (cost + float(kl.sum())) / count / math.log(2),
                "kl_weight": self.kl_weight(self.global_step)}

    def on_validation_start(self) -> None:
        torch.manual_seed(self.recipe.training.seed)
        dimensions = self.model.config.latent_channels * self.model.config.latent_frames
        self._sums = torch.zeros(5, dtype=torch.float64)  # clips, samples inside, nats, KL, log-mel distance
        self._means = torch.zeros(2, dimensions, dtype=torch.float64)  # sums of the means and of their squares

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        codes, inputs = window_inputs(batch, self.window, self.device)
        model = self._averaged
        posterior = model.encode(companded(batch, self.quantization_channels, self.device, noise=False), inputs)
        reading = self.read(model, codes, batch, posterior.sample(), inputs)
        inside = torch.from_numpy(batch.inside[:, : reading.nats.shape[1]]).to(self.device)
        distance = 0.0
        if model.is_one_pass:
            sound = expand(model.decode(posterior.mean, inputs), self.quantization_channels)
            rate = self.recipe.audio.sample_rate
            distance = float(log_mel_distance(sound, self.recorded(codes), rate).sum())
        self._sums += torch.tensor([len(codes), float(inside.sum()), float(reading.nats[inside].double().sum()),
                                    float(posterior.kl().double().sum()), distance], dtype=torch.float64)
        flat = posterior.mean.flatten(1).double().cpu()
        self._means += torch.stack([flat.sum(0), flat.square().sum(0)])

    def on_validation_epoch_end(self) -> None:
        sums = torch.cat([self._sums, self._means.flatten()]).to(self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        sums = sums.cpu()
        clips, samples, cost, kl, distance = sums[:5].tolist()
        first, second = sums[5:].view(2, -1) / clips
        active = int((second - first**2 > ACTIVE_VARIANCE).sum())
        figures = {"validation_bits": (cost + kl) / samples / math.log(2),
                   "validation_reconstruction_bits": cost / samples / math.log(2),
                   "validation_kl_nats": kl / clips, "validation_active_units": float(active)}
        figures["validation_kl_bits_per_dimension"] = kl / clips / math.log(2) / len(first)
        if self.model.is_one_pass:
            figures["validation_log_mel_distance"] = distance / clips
        self.results = {**figures, "step": self.global_step}
        self.log_dict({name.replace("validation_", "validation/"): value for name, value in figures.items()},
                      rank_zero_only=True)

    def headline(self, smooth: dict[str, float]) -> str:
        spectral = f"  spectral {smooth['spectral_distance']:.3f}" if "spectral_distance" in smooth else ""
        return (f"reconstruction {smooth.get('reconstruction_bits', float('nan')):.3f} bits{spectral}  "
                f"KL {smooth.get('kl_nats', float('nan')):.1f} nats")

    def validation_line(self) -> str:
        found = self.results
        heard = f", log-mel distance {found['validation_log_mel_distance']:.3f}" if self.model.is_one_pass else ""
        return (f"validation at most {found['validation_bits']:.4f} bits per sample, of these "
                f"{found['validation_reconstruction_bits']:.4f} given the latents; KL "
                f"{found['validation_kl_nats']:.1f} nats, {found['validation_active_units']:.0f} of "
                f"{self._means.shape[1]} latents active{heard}")

    def listen(self, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        count = inputs.batch_size
        config = self.model.config
        latents = normal(0, np.arange(count), config.latent_channels * config.latent_frames)
        shaped = torch.from_numpy(latents).view(count, config.latent_channels, config.latent_frames)
        return self._speak(shaped, inputs, min(num_samples, self.window))

    def sounds(self) -> dict[str, np.ndarray]:
        """A few held-out windows and what becomes of them on the way through the latents."""
        batch = next(iter(self.trainer.val_dataloaders.dataset))  # type: ignore[union-attr]
        _, inputs = window_inputs(batch, self.window, "cpu")
        with torch.no_grad():
            posterior: Posterior = self._averaged.encode(
                companded(batch, self.quantization_channels, self.device, noise=False), inputs.to(self.device))
        chosen = slice(0, 3)
        recorded = decode(batch.codes[chosen], self.quantization_channels)
        rebuilt = self._speak(posterior.mean[chosen].cpu(), rows_of(inputs, chosen), self.window)
        clips = {f"recordings/{i}": clip for i, clip in enumerate(recorded)}
        return clips | {f"reconstructions/{i}": clip for i, clip in enumerate(rebuilt)}

    @property
    def _averaged(self) -> VAE:
        model = self.ema.module
        assert isinstance(model, VAE)
        return model

    def _speak(self, latents: Tensor, inputs: ConditioningInputs, num_samples: int) -> np.ndarray:
        model = self._averaged
        with torch.no_grad():
            if model.is_one_pass:
                clips = model.decode(latents.to(self.device), inputs.to(self.device)).cpu().numpy()
                return from_companded(clips[:, :num_samples], self.quantization_channels)
            told = with_latents(model, latents.to(self.device), inputs.to(self.device))
        engine = build_engine(model.decoder, "auto")
        state = engine.start(len(latents), ModelConditioning(model.decoder, told), seeds=0)
        return decode(engine.step(state, num_samples), self.quantization_channels)


def kl_cost(kl: Tensor, free_bits: float) -> Tensor:
    """The KL a batch pays, in nats a window, from the KL (B, C, F) of each latent dimension.

    A dimension whose mean over the batch is below `free_bits` costs as if it were there: nothing is
    gained by using it even less (arXiv:1606.04934, appendix C.8).
    """
    mean = kl.mean(0)
    return (mean.clamp(min=free_bits * math.log(2)) if free_bits else mean).sum()


def window_inputs(batch: Batch, window: int, device: torch.device | str) -> tuple[Tensor, ConditioningInputs]:
    """Codes (B, T) of fixed windows and their conditions, whose clock begins with the window."""
    codes, inputs = to_inputs(batch, device)
    assert inputs.num_samples is not None
    return codes, ConditioningInputs(inputs.label, inputs.speaker, inputs.num_samples.clamp(max=window))


def with_latents(model: VAE, latents: Tensor, inputs: ConditioningInputs) -> ConditioningInputs:
    """The conditions of a wavenet decoder: what it is told, and the latents at its frame rate."""
    features = model.features(latents, inputs)
    return ConditioningInputs(inputs.label, inputs.speaker, inputs.num_samples, features=features)


def rows_of(inputs: ConditioningInputs, rows: slice) -> ConditioningInputs:
    """The conditions of some rows of a batch."""
    return ConditioningInputs(**{name: None if value is None else value[rows] for name, value in vars(inputs).items()})
