"""The recurrent baseline: one GRU over the same codes, conditions and loss as WaveNet."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavegen.audio.mulaw import silence_code
from wavegen.config import AudioConfig, RNNConfig, Vocabulary
from wavegen.models.conditioning import ConditioningInputs, ConditioningNetwork


class RNN(nn.Module):
    """A gated recurrent unit that predicts the next code (arXiv:1406.1078, SampleRNN's top tier).

    The conditions enter where the previous code does, so they are a bias of the three gates,
    held for a frame: the same table interface as WaveNet, with one layer and 3H columns.
    """

    def __init__(self, config: RNNConfig, audio: AudioConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.quantization_channels = config, audio.quantization_channels
        self.silence = silence_code(audio.quantization_channels)
        self.compute_dtype = torch.float32  # the trainer sets bfloat16 where the recipe asks for it
        hidden, embedding = config.hidden_channels, config.embedding_channels
        self.embedding = nn.Parameter(torch.randn(audio.quantization_channels, embedding) * 0.3)
        self.conditioning = ConditioningNetwork(config.conditioning, vocabulary)
        condition = config.conditioning.hidden_channels if self.conditioning.is_active else 0
        self.gru = nn.GRU(embedding + condition, hidden)
        self.output_weight = nn.Parameter(torch.randn(hidden, config.output_channels) / math.sqrt(hidden))
        self.output_bias = nn.Parameter(torch.zeros(config.output_channels))
        self.end_weight = nn.Parameter(
            torch.randn(config.output_channels, audio.quantization_channels) * 0.3 / math.sqrt(config.output_channels))
        self.end_bias = nn.Parameter(torch.zeros(audio.quantization_channels))

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Parameters that are stacks of matrices, as (count, outputs, inputs): what Muon updates."""
        hidden = self.config.hidden_channels
        shapes = {"gru.weight_ih_l0": (3, hidden, self.gru.input_size), "gru.weight_hh_l0": (3, hidden, hidden),
                  "output_weight": (1, *self.output_weight.shape)}
        shapes |= {f"conditioning.{name}": shape for name, shape in self.conditioning.matrices().items()}
        return shapes

    @property
    def hop_length(self) -> int:
        """Samples one conditioning frame is held for."""
        return self.config.conditioning.hop_length

    def forward(self, previous_codes: Tensor, inputs: ConditioningInputs | None = None) -> Tensor:
        """Logits float32 (B, T, Q) of every sample from the codes (B, T) before it."""
        batch, num_samples = previous_codes.shape
        x = functional.embedding(previous_codes.t(), self.embedding)
        if self.conditioning.is_active:
            frames = -(-num_samples // self.hop_length)
            hidden = self.conditioning(inputs or ConditioningInputs(), 0, frames).transpose(0, 1)
            held = hidden.repeat_interleave(self.hop_length, dim=0)[:num_samples]
            x = torch.cat([x, held.expand(-1, batch, -1)], dim=-1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.compute_dtype == torch.bfloat16):
            states, _ = self.gru(x)
        return self._logits(states.to(x.dtype)).transpose(0, 1)

    def conditioning_table(self, inputs: ConditioningInputs, start_frame: int, num_frames: int) -> Tensor:
        """Bias and conditioning of the three gates, (B, num_frames, 1, 3H), in torch's r, z, n order."""
        bias = self.gru.get_parameter("bias_ih_l0").expand(inputs.batch_size, num_frames, -1)
        if self.conditioning.is_active:
            hidden = self.conditioning(inputs, start_frame, num_frames)
            bias = bias + hidden @ self.gru.get_parameter("weight_ih_l0")[:, self.config.embedding_channels :].t()
        return bias[:, :, None]

    def initial_state(self, batch: int) -> Tensor:
        """Hidden state (B, H) before the first sample."""
        return self.end_bias.new_zeros(batch, self.config.hidden_channels)

    def step(self, previous_code: Tensor, state: Tensor, table_frame: Tensor) -> tuple[Tensor, Tensor]:
        """One sample: logits (B, Q) and the next state, from the code (B,) before it and a frame (B, 3H)."""
        weight = self.gru.get_parameter("weight_ih_l0")[:, : self.config.embedding_channels]
        given = functional.embedding(previous_code, self.embedding) @ weight.t() + table_frame
        past = state @ self.gru.get_parameter("weight_hh_l0").t() + self.gru.get_parameter("bias_hh_l0")
        given_r, given_z, given_n = given.chunk(3, dim=-1)
        past_r, past_z, past_n = past.chunk(3, dim=-1)
        update = torch.sigmoid(given_z + past_z)
        candidate = torch.tanh(given_n + torch.sigmoid(given_r + past_r) * past_n)
        state = (1 - update) * candidate + update * state
        return self._logits(state), state

    def _logits(self, states: Tensor) -> Tensor:
        hidden = functional.relu(states @ self.output_weight + self.output_bias)
        return hidden @ self.end_weight + self.end_bias
