"""Variational auto-encoder of windows of audio (arXiv:1312.6114), and the plain auto-encoder.

    companded window (B, T) -> strided convolutions -> mean, log_std (B, C, F)
    latents (B, C, F) -> `conv`:    upsampling convolutions -> companded window (B, T) and its uncertainty
                      -> `wavenet`: the core model, told the latents frame by frame

F is at least 1: one latent vector for a whole window, or a sequence at frame rate. A clip longer
than a window is a sequence of windows, each encoded and decoded on its own. Latents are standard
normal under the prior; a conditional prior scales and shifts them at both ends, by what is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.audio.mulaw import silence_code
from wavegen.config import AudioConfig, ConditioningConfig, ConvDecoderConfig, EncoderConfig, VAEConfig, Vocabulary
from wavegen.errors import BadInputError
from wavegen.models.conditioning import ConditioningInputs, ConditioningNetwork
from wavegen.models.polyphase import PolyphaseConv, matrices_of
from wavegen.models.wavenet import WaveNet

LOG_STD = (-7.0, 3.0)  # of a latent: beyond it is noise-free, or noise, for all purposes
LOG_SCALE = (-7.0, 2.0)  # of the logistic: from a quarter of a code's bin to more than the whole range


@dataclass(frozen=True)
class Posterior:
    """Where a window lies among the latents: a diagonal Gaussian, or a point if there is no noise.

    Attributes:
        mean: float32 (B, C, F).
        log_std: float32 (B, C, F); None for a plain auto-encoder.
    """

    mean: Tensor
    log_std: Tensor | None

    def sample(self) -> Tensor:
        """Latents drawn with torch's global random numbers: (B, C, F)."""
        if self.log_std is None:
            return self.mean
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """KL to the standard normal prior, in nats of each latent dimension: (B, C, F).

        Closed form: (mean^2 + std^2 - 1) / 2 - log std; zeros without noise, where there is none.
        """
        if self.log_std is None:
            return torch.zeros_like(self.mean)
        return 0.5 * (self.mean**2 + (2 * self.log_std).exp() - 1) - self.log_std


@dataclass(frozen=True)
class Picture:
    """What a conv decoder says about a window: how it sounds, and how sure it is.

    Attributes:
        companded: float32 (B, T) in (-1, 1).
        location, log_scale: float32 (B, T), the logistic distribution of the companded amplitude.
            The location is `companded` drawn towards silence where the decoder is unsure.
    """

    companded: Tensor
    location: Tensor
    log_scale: Tensor


class VAE(nn.Module):
    """Encoder and decoder of a variational auto-encoder, every size free."""

    def __init__(self, config: VAEConfig, audio: AudioConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.quantization_channels = config, audio.quantization_channels
        self.silence = silence_code(audio.quantization_channels)
        self.encoder = Encoder(config.encoder, config.latent_channels * (1 if config.latent_noise == "none" else 2))
        self.decoder: ConvDecoder | WaveNet
        if isinstance(config.decoder, ConvDecoderConfig):
            self.decoder = ConvDecoder(config.decoder, config.latent_channels, vocabulary)
        else:
            self.decoder = WaveNet(config.decoder, audio, vocabulary)
        # Built last, so that its random numbers change nothing else.
        self.prior = Prior(config, vocabulary) if config.prior == "conditional" else None
        self._compute_dtype = torch.float32

    @property
    def compute_dtype(self) -> torch.dtype:
        """Format of the matrix products; the trainer sets bfloat16 where the recipe asks for it."""
        return self._compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self._compute_dtype = dtype
        for part in (self.encoder, self.decoder):
            part.compute_dtype = dtype

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Parameters that are stacks of matrices, as (count, inputs, outputs): what Muon updates."""
        shapes = matrices_of(self)
        if isinstance(self.decoder, WaveNet):
            theirs = self.decoder.matrices()
        else:
            theirs = {f"conditioning.{name}": shape for name, shape in self.decoder.conditioning.matrices().items()}
        shapes |= {f"decoder.{name}": shape for name, shape in theirs.items()}
        if self.prior is not None:
            shapes |= {f"prior.conditioning.{name}": shape
                       for name, shape in self.prior.conditioning.matrices().items()}
        return shapes

    @property
    def hop_length(self) -> int:
        """Samples of a latent frame."""
        return self.config.encoder.hop_length

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one window, standard normal under the prior."""
        return self.config.latent_channels, self.config.latent_frames

    @property
    def is_one_pass(self) -> bool:
        """Whether the decoder gives a window at once; otherwise an engine speaks it code after code."""
        return isinstance(self.decoder, ConvDecoder)

    def encode(self, companded: Tensor, inputs: ConditioningInputs | None = None) -> Posterior:
        """The posterior of clips.

        Args:
            companded: float32 (B, T), T >= 1; what is missing to whole windows is taken for silence.
            inputs: label and speaker of the clips; only a conditional prior needs them.

        Returns:
            means and standard deviations (B, C, F), F = windows * latent frames of a window.

        Raises:
            BadInputError: there is no sample, or some are not finite.
            ConfigError: a conditional prior was not told what it depends on.
        """
        if companded.ndim != 2 or companded.shape[1] == 0:
            raise BadInputError(f"the encoder needs clips (B, T) of at least one sample, found shape "
                                f"{tuple(companded.shape)}")
        if not bool(companded.isfinite().all()):
            raise BadInputError("the clip holds NaN or infinite samples and was not encoded")
        batch, window = companded.shape[0], self.config.num_samples
        silence = self.silence * 2 / (self.quantization_channels - 1) - 1
        padded = functional.pad(companded, (0, -companded.shape[1] % window), value=silence)
        hidden = self.encoder(padded.reshape(-1, window))  # (windows, F, C or 2C)
        hidden = hidden.view(batch, -1, hidden.shape[2]).transpose(1, 2)
        if self.config.latent_noise == "none":
            return Posterior(hidden, None)
        mean, log_std = hidden.chunk(2, dim=1)
        log_std = log_std.clamp(*LOG_STD)
        if self.prior is not None:
            centre, log_scale = self.prior(inputs or ConditioningInputs())
            mean, log_std = (mean - centre) * (-log_scale).exp(), log_std - log_scale
        return Posterior(mean, log_std)

    def picture(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Picture:
        """What the conv decoder makes of latents (B, C, F): windows of `num_samples`, side by side."""
        assert isinstance(self.decoder, ConvDecoder)
        latents = self._placed(latents, inputs)
        frames, windows = self.config.latent_frames, latents.shape[2] // self.config.latent_frames
        # (B, C, F) -> (B * windows, frames, C): windows are decoded on their own.
        rows = latents.transpose(1, 2).reshape(-1, frames, latents.shape[1])
        wave, certainty, log_scale = self.decoder(rows, inputs or ConditioningInputs(), windows).unbind(2)
        companded = torch.tanh(wave)
        location = companded * torch.sigmoid(certainty)
        log_scale = LOG_SCALE[0] + functional.softplus(log_scale - LOG_SCALE[0])  # smooth at the lower end
        log_scale = log_scale.clamp(max=LOG_SCALE[1])
        return Picture(*(part.reshape(latents.shape[0], -1) for part in (companded, location, log_scale)))

    def decode(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """Companded windows float32 (B, T) of a conv decoder from latents (B, C, F), or (B, C) where F is 1.

        Raises:
            BadInputError: latents of another shape, or not finite.
        """
        return self.picture(latents, inputs).companded

    def generate(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """`decode`: what all one-pass families answer to."""
        return self.decode(latents, inputs)

    def features(self, latents: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """Latents (B, C, F) as the wavenet decoder is told them, at its frame rate: (B, C, F * repeats)."""
        assert isinstance(self.decoder, WaveNet)
        placed = self._placed(latents, inputs)
        return placed.repeat_interleave(self.hop_length // self.decoder.hop_length, dim=2)

    def _placed(self, latents: Tensor, inputs: ConditioningInputs | None) -> Tensor:
        """Checked latents (B, C, F) where the decoder looks for them: a conditional prior has moved them."""
        latents = self.check_latents(latents)
        if self.prior is None:
            return latents
        centre, log_scale = self.prior(inputs or ConditioningInputs())
        return centre + log_scale.exp() * latents

    def check_latents(self, latents: Tensor) -> Tensor:
        """Latents as (B, C, F), F a multiple of a window's frames.

        Raises:
            BadInputError: names the shape found and the shape wanted.
        """
        channels, frames = self.config.latent_channels, self.config.latent_frames
        shaped = latents[:, :, None] if latents.ndim == 2 else latents
        if shaped.ndim != 3 or shaped.shape[1] != channels or shaped.shape[2] == 0 or shaped.shape[2] % frames:
            raise BadInputError(f"latents of this model are (B, {channels}, a multiple of {frames}), found "
                                f"{tuple(latents.shape)}")
        if not bool(latents.isfinite().all()):
            raise BadInputError("the latents hold NaN or infinite values; nothing was decoded from them")
        return shaped


class Prior(nn.Module):
    """Mean and spread of the latents of each label and speaker, learned with the rest.

    A decoder that is told what a clip says needs no latents for it, but encoders leave it in them all the same. The
    posteriors of one word then fill a corner of the standard normal, and most of its samples fall beside it.

    Reference: Sohn et al., "Learning structured output representation using deep conditional generative models"
    (NIPS 2015), section 4.1.
    """

    def __init__(self, config: VAEConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        told = config.conditioning
        self.conditioning = ConditioningNetwork(
            ConditioningConfig(label=told.label, speaker=told.speaker, hidden_channels=told.hidden_channels),
            vocabulary)
        self.head = nn.Linear(told.hidden_channels, 2 * config.latent_channels)
        with torch.no_grad():  # begins as the standard normal
            self.head.weight.zero_()
            self.head.bias.zero_()

    def forward(self, inputs: ConditioningInputs) -> tuple[Tensor, Tensor]:
        """Mean and log spread, (B, C, 1) each."""
        placed: Tensor = self.head(self.conditioning(inputs, 0, 1)).transpose(1, 2)
        mean, log_std = placed.chunk(2, dim=1)
        return mean, log_std.clamp(*LOG_STD)


class ResidualLayer(nn.Module):
    """h + W2 silu(W1 [neighbours of h / rms(h)]): a small convolution beside the stream."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.mix = PolyphaseConv(channels, channels, taps)
        self.back = PolyphaseConv(channels, channels, gain=0.3)

    def forward(self, h: Tensor) -> Tensor:
        normalised = functional.rms_norm(h, (h.shape[2],), eps=1e-4)
        update: Tensor = self.back(functional.silu(self.mix(normalised)))
        return h + update


class Encoder(nn.Module):
    """(N, T) companded to (N, T / hop, outputs)."""

    def __init__(self, config: EncoderConfig, outputs: int) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.stages = nn.ModuleList()
        inputs = 1
        for place, (stride, channels) in enumerate(zip(config.strides, config.channels, strict=True), start=1):
            # Latent frames do not look at each other: most models have one, or few, in a window.
            taps = config.taps if place < len(config.strides) else 1
            self.stages.append(PolyphaseConv(inputs, channels, taps, down=stride, gain=math.sqrt(2)))
            self.stages.append(nn.Sequential(*(ResidualLayer(channels, taps) for _ in range(config.residual_layers))))
            inputs = channels
        self.head = PolyphaseConv(inputs, outputs, gain=0.5)

    def forward(self, companded: Tensor) -> Tensor:
        h = companded[:, :, None].to(_working(companded, self.compute_dtype))
        for place, (convolution, residual) in enumerate(zip(self.stages[::2], self.stages[1::2], strict=True)):
            h = residual(convolution(functional.silu(h) if place else h))
        # Of one size whatever the clip: an odd one must not throw its latents far from all others.
        h = functional.rms_norm(functional.silu(h), (h.shape[2],), eps=1e-4)
        hidden: Tensor = self.head(h).to(companded.dtype)
        return hidden


class ConvDecoder(nn.Module):
    """(N, F, C) latents to (N, F * hop, 3): waveform, certainty and log scale of each sample.

    Conditions enter beside the latents and as a bias of every rate.
    """

    def __init__(self, config: ConvDecoderConfig, latent_channels: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.conditioning = ConditioningNetwork(config.conditioning, vocabulary)
        told = config.conditioning.hidden_channels if self.conditioning.is_active else 0
        self.stages = nn.ModuleList()
        self.told = nn.ModuleList(PolyphaseConv(told, channels, gain=0.3) for channels in config.channels * bool(told))
        inputs = latent_channels + told
        for stride, channels in zip(config.strides, config.channels, strict=False):
            self.stages.append(PolyphaseConv(inputs, channels, config.taps if self.stages else 1, up=stride,
                                             gain=math.sqrt(2) if self.stages else 1.0))
            self.stages.append(nn.Sequential(*(ResidualLayer(channels, config.taps)
                                               for _ in range(config.residual_layers))))
            inputs = channels
        self.head = PolyphaseConv(inputs, 3, config.taps, up=config.strides[-1], gain=0.5)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, 0.0, -2.0]))

    def forward(self, latents: Tensor, inputs: ConditioningInputs, windows: int) -> Tensor:
        h, told = latents, None
        if self.conditioning.is_active:
            told = self.conditioning(inputs, 0, 1).expand(len(latents) // windows, -1, -1)
            told = told.repeat_interleave(windows, dim=0)
            h = torch.cat([h, told.expand(-1, h.shape[1], -1)], dim=2)
            told = told.to(_working(latents, self.compute_dtype))
        h = h.to(_working(latents, self.compute_dtype))
        for place, (convolution, residual) in enumerate(zip(self.stages[::2], self.stages[1::2], strict=True)):
            h = convolution(functional.silu(h) if place else h)
            if told is not None:
                h = h + self.told[place](told)
            h = residual(h)
        samples: Tensor = self.head(functional.silu(h) if len(self.stages) else h).to(latents.dtype)
        return samples


def _working(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The format of the products: float64 where the input asks for it, as tests do."""
    return x.dtype if x.dtype == torch.float64 else dtype
