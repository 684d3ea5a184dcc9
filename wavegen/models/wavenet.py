"""WaveNet: the next mu-law code from all codes before it (arXiv:1609.03499).

    codes -> embedding (+ linear taps) -> gated dilated stack -> skip sum -> two layers -> logits
                                               ^ conditioning table, at frame rate
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.audio.mulaw import decode_table, silence_code
from wavegen.config import AudioConfig, Vocabulary, WaveNetConfig
from wavegen.errors import ConfigError
from wavegen.models.conditioning import ConditioningInputs, ConditioningNetwork
from wavegen.models.stack import gated_stack


class WaveNet(nn.Module):
    """The canonical gated WaveNet with every size free.

    h0[t]  = sum_k E_k[code[t-1-k]] + sum_j x[t-1-j] W_in[j]            x: decoded samples
    a      = sum_k h[t - k d] W_k + b + cond[frame]
    z      = tanh(a[:R]) sigmoid(a[R:])
    h      = (h + z W_res + b) residual_scale
    skip   = [z of all layers] W_skip + b
    logits = relu(relu(skip skip_scale) W_out + b) W_end + b

    Before the first sample the codes are silence and h is zero. All weights are input-major.

    On the signal path lpc (`wavegen.audio.lpc`) the codes are those of the excitation, and h0 is
    E_0[code of s[t-1]] + E_1[code of p[t]] + E_2[e[t-1]] + sum_j s[t-1-j] W_in[j].
    """

    decoded: Tensor  # (Q,) waveform value of each code

    def __init__(self, config: WaveNetConfig, audio: AudioConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.quantization_channels = config, audio.quantization_channels
        self.silence = silence_code(audio.quantization_channels)
        self.lpc_order = audio.lpc_order if audio.signal_path == "lpc" else 0  # 0 is the signal path direct
        self.compute_dtype = torch.float32  # the trainer sets bfloat16 where the recipe asks for it
        layers, kernel, channels = config.num_layers, config.kernel_size, config.residual_channels
        skip, hidden, codes = config.skip_channels, config.output_channels, audio.quantization_channels

        rows = 3 if self.lpc_order else config.input_kernel_size
        self.embedding = nn.Parameter(_smooth_embedding(rows, codes, channels))
        if config.input_taps:
            # A decoded sample is small where a code is informative, hence the large start.
            self.input_projection = nn.Parameter(torch.randn(config.input_taps, channels) * 0.3)
        self.dilated_weight = _matrix(layers, kernel, channels, 2 * channels, fan_in=kernel * channels)
        self.residual_weight = _matrix(layers - 1, channels, channels, fan_in=channels, gain=0.3)
        self.skip_weight = _matrix(layers * channels, skip, fan_in=layers * channels)
        self.output_weight = _matrix(skip, hidden, fan_in=skip)
        self.end_weight = _matrix(hidden, codes, fan_in=hidden, gain=0.3)
        if config.bias:
            self.dilated_bias = nn.Parameter(torch.zeros(layers, 2 * channels))
            self.residual_bias = nn.Parameter(torch.zeros(layers - 1, channels))
            self.skip_bias = nn.Parameter(torch.zeros(skip))
            self.output_bias = nn.Parameter(torch.zeros(hidden))
            self.end_bias = nn.Parameter(torch.zeros(codes))
        self.conditioning = ConditioningNetwork(config.conditioning, vocabulary)
        if self.conditioning.is_active:
            width = config.conditioning.hidden_channels
            self.conditioning_weight = _matrix(width, layers * 2 * channels, fan_in=width, gain=0.5)
        self.register_buffer("decoded", torch.from_numpy(np.array(decode_table(codes))), persistent=False)

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Parameters that are stacks of matrices, as (count, inputs, outputs): what Muon updates."""
        layers, kernel, channels, width = self.dilated_weight.shape
        shapes = {"dilated_weight": (layers, kernel * channels, width), "skip_weight": (1, *self.skip_weight.shape),
                  "output_weight": (1, *self.output_weight.shape)}
        if layers > 1:
            shapes["residual_weight"] = tuple(self.residual_weight.shape)
        shapes |= {f"conditioning.{name}": shape for name, shape in self.conditioning.matrices().items()}
        return shapes

    @property
    def receptive_field(self) -> int:
        """Number of past samples one prediction depends on."""
        return self.config.receptive_field

    @property
    def hop_length(self) -> int:
        """Samples one conditioning frame is held for."""
        return self.config.conditioning.hop_length

    def forward(self, previous_codes: Tensor, inputs: ConditioningInputs | None = None,
                signal: Tensor | None = None) -> Tensor:
        """Logits of every sample, given the codes before it.

        Args:
            previous_codes: int64 (B, T), the code before each sample; silence at the start. On the path
                lpc int64 (B, T, 3), `wavegen.audio.lpc.Analysis.inputs`.
            inputs: conditions of the batch.
            signal: float (B, T), the coded signal, for a model of the path lpc with `input_taps`.

        Returns:
            float32 (B, T, Q).

        Raises:
            ConfigError: codes of the other signal path, or no signal where the model needs it.
        """
        batch, num_samples = previous_codes.shape[:2]
        h = self.embed(previous_codes, signal)
        table = self._table(inputs or ConditioningInputs(), batch, 0, -(-num_samples // self.hop_length))
        config = self.config
        z = gated_stack(h, table, self.dilated_weight, self.residual_weight,
                        self._bias("residual_bias", self.residual_weight.shape[:2]),
                        config.dilations, self.hop_length, config.residual_scale, self.compute_dtype)
        skip = self._linear(z, "skip")
        hidden = functional.relu(skip * config.skip_scale)
        if config.dropout:
            hidden = functional.dropout(hidden, config.dropout, self.training)
        hidden = functional.relu(self._linear(hidden, "output"))
        logits = self._linear(hidden, "end").to(torch.promote_types(torch.float32, h.dtype))
        return logits.view(num_samples, batch, -1).transpose(0, 1)

    def embed(self, previous_codes: Tensor, signal: Tensor | None = None) -> Tensor:
        """Input (T, B, R) of the first layer, time-major; arguments as of `forward`."""
        axes = 3 if self.lpc_order else 2
        if previous_codes.ndim != axes:
            wanted = "(B, T, 3): codes of s[t-1], p[t], e[t-1]" if axes == 3 else "(B, T)"
            raise ConfigError(f"a model of the signal path {'lpc' if axes == 3 else 'direct'} takes codes {wanted}; "
                              f"found {tuple(previous_codes.shape)}")
        h = self._embed_excitation(previous_codes, signal) if axes == 3 else self._embed_codes(previous_codes)
        return torch.tanh(h) if self.config.input_tanh else h

    def _embed_excitation(self, previous_codes: Tensor, signal: Tensor | None) -> Tensor:
        codes, taps = previous_codes.transpose(0, 1), self.config.input_taps
        h: Tensor = functional.embedding(codes[..., 0], self.embedding[0])
        for row in (1, 2):
            h = h + functional.embedding(codes[..., row], self.embedding[row])
        if taps:
            if signal is None:
                raise ConfigError("this model has input_taps on the signal path lpc and needs the coded signal")
            past = functional.pad(signal.to(self.embedding.dtype).t()[:-1], (0, 0, taps, 0))
            h = h + past.unfold(0, taps, 1) @ self.input_projection.flip(0)
        return h

    def _embed_codes(self, previous_codes: Tensor) -> Tensor:
        codes = previous_codes.t()
        num_samples, config = codes.shape[0], self.config
        reach = max(config.input_kernel_size, config.input_taps) - 1
        padded = functional.pad(codes, (0, 0, reach, 0), value=self.silence)
        h: Tensor = functional.embedding(codes, self.embedding[0])
        for k in range(1, config.input_kernel_size):
            h = h + functional.embedding(padded[reach - k : reach - k + num_samples], self.embedding[k])
        if config.input_taps:
            decoded = self.decoded.to(self.embedding.dtype)[padded]
            # unfold gives the oldest sample first; the projection's first row is the newest.
            taps = decoded[reach - config.input_taps + 1 :].unfold(0, config.input_taps, 1)
            h = h + taps @ self.input_projection.flip(0)
        return h

    def prediction_table(self, inputs: ConditioningInputs, start_frame: int, num_frames: int) -> Tensor | None:
        """Coefficients (B or 1, num_frames, order) of the path lpc, None on the path direct; the last holds on.

        Raises:
            ConfigError: the model needs coefficients and was given none, or of another order.
        """
        given = inputs.prediction
        if not self.lpc_order:
            return None
        if given is None:
            raise ConfigError("this model speaks what a linear prediction leaves over and needs the coefficients "
                              "(prediction); wavegen.audio.lpc.mel_to_lpc computes them from a mel spectrogram")
        if given.ndim != 3 or given.shape[2] != self.lpc_order or 0 in given.shape:
            raise ConfigError(f"prediction coefficients must be (B, frames, {self.lpc_order}), "
                              f"found {tuple(given.shape)}")
        frames = torch.arange(start_frame, start_frame + num_frames, device=given.device)
        frames = frames // self.config.conditioning.upsampling
        return given[:, frames.clamp(max=given.shape[1] - 1)]

    def conditioning_table(self, inputs: ConditioningInputs, start_frame: int, num_frames: int) -> Tensor:
        """Bias of the dilated convolutions plus conditioning, (B, num_frames, L, 2R)."""
        return self._table(inputs, inputs.batch_size, start_frame, num_frames).permute(2, 1, 0, 3)

    def _table(self, inputs: ConditioningInputs, batch: int, start_frame: int, num_frames: int) -> Tensor:
        """(L, F, B, 2R)."""
        layers, width = self.config.num_layers, 2 * self.config.residual_channels
        bias = self._bias("dilated_bias", (layers, width))[:, None, None]
        if not self.conditioning.is_active:
            return bias.expand(layers, num_frames, batch, width)
        hidden = self.conditioning(inputs, start_frame, num_frames).transpose(0, 1)  # (F, B, C)
        table = (hidden @ self.conditioning_weight).view(num_frames, -1, layers, width)
        return table.permute(2, 0, 1, 3) + bias

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight = getattr(self, f"{name}_weight").to(x.dtype)
        bias = getattr(self, f"{name}_bias", None)
        return x @ weight if bias is None else torch.addmm(bias.to(x.dtype), x, weight)

    def _bias(self, name: str, shape: tuple[int, ...] | torch.Size) -> Tensor:
        bias: Tensor | None = getattr(self, name, None)
        return bias if bias is not None else self.embedding.new_zeros(shape)


def _matrix(*shape: int, fan_in: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * (gain / math.sqrt(fan_in)))


def _smooth_embedding(taps: int, codes: int, channels: int) -> Tensor:
    """Start of the code embeddings: sines and cosines of the companded amplitude.

    Neighbouring codes begin with neighbouring vectors, so the order of the codes need not be
    learned from scratch.
    """
    amplitude = torch.arange(codes) / (codes - 1) * 2 - 1
    channel = torch.arange(channels)
    angle = math.pi / 2 * (channel // 2 + 1) * amplitude[:, None]
    wave = torch.where(channel % 2 == 0, torch.sin(angle), torch.cos(angle))
    wave = wave / torch.sqrt(1.0 + channel // 2)
    signs = torch.where(torch.rand(taps, channels) < 0.5, -1.0, 1.0)
    signs[0] = 1.0
    scales = torch.tensor([0.7] + [0.3] * (taps - 1))
    return wave[None] * signs[:, None] * scales[:, None, None]
