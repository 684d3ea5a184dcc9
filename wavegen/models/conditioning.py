"""What a model is told besides the past samples, at frame rate.

    label, speaker, intended length, features  ->  hidden frames (B, F, C)  ->  one projection per model

Everything here runs once per conditioning frame (`hop_length` samples), so it costs next to
nothing in generation, and memory never grows with the sample rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavegen.config import ConditioningConfig, Vocabulary
from wavegen.errors import ConfigError


@dataclass(frozen=True)
class ConditioningInputs:
    """The conditions of a batch; None where a model has no such condition.

    Attributes:
        label: int64 (B,), index into the vocabulary's labels; or float (B, labels), the share of each in
            a mixture, as on the way from one sound to another.
        speaker: int64 (B,), index into the vocabulary's speakers; or float (B, speakers).
        num_samples: int64 (B,), intended length of the clip, which drives the progress clock.
        start_frame: int64 (B,), conditioning frame of the first sample of a window; None is 0.
        features: float (B, C, F), frames of the whole clip from its frame 0 on, also where a window
            begins later; the first and the last frame hold on beyond the ends.
        num_frames: int64 (B,), feature frames of each clip where shorter ones are padded; None is F.
        prediction: float32 (B or 1, F, order), coefficients of the linear prediction of the signal
            path lpc, one row a feature frame, as `wavegen.audio.lpc.mel_to_lpc` gives them.
    """

    label: Tensor | None = None
    speaker: Tensor | None = None
    num_samples: Tensor | None = None
    start_frame: Tensor | None = None
    features: Tensor | None = None
    num_frames: Tensor | None = None
    prediction: Tensor | None = None

    def to(self, device: torch.device | str) -> ConditioningInputs:
        """The same conditions on another device."""
        moved = {name: None if value is None else value.to(device) for name, value in vars(self).items()}
        return ConditioningInputs(**moved)

    @property
    def batch_size(self) -> int:
        """Rows of the conditions, 1 where there are none: they serve a batch of any size."""
        # The largest, because a prediction may have one row for all.
        return max((value.shape[0] for value in vars(self).values() if value is not None), default=1)


class ConditioningNetwork(nn.Module):
    """Hidden conditioning frames from label, speaker, a progress clock and a sequence of features.

    The progress clock tells the network how far a clip has come, relative to its intended
    length: each label and each speaker has a table of `progress_steps + 1` nodes over [0, 1],
    interpolated linearly, and one more row that holds after the end.

        position / num_samples   0 ----.----.----.---- 1 | after
        rows of a table          0    1    2   ...     P | P + 1

    Features (a mel spectrogram, latents of an auto-encoder) enter by a convolution: frame f sees the
    features f - context_frames to f + context_frames of its clip.

    With `upsampling` u a feature frame has u conditioning frames. What the convolution gives for feature frames f
    and f + 1 is drawn together in a straight line before the first tanh, at the middle of each conditioning frame:

        conditioning frame f u + i:   (1 - w) conv[f] + w conv[f + 1],   w = (i + 1/2) / u

    The convolution is linear, so this is the spectrogram drawn together, and all that is learned after it runs at the
    finer rate. It has no weights of its own for each i: nothing in a recording depends on where its frames begin.
    """

    def __init__(self, config: ConditioningConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        channels, rows = config.hidden_channels, config.progress_steps + 2
        sizes = {"label": len(vocabulary.labels), "speaker": len(vocabulary.speakers)}
        self.tables = nn.ParameterDict()
        self.clocks = nn.ParameterDict()
        for kind, scale in (("label", 0.2), ("speaker", 0.1)):
            if not getattr(config, kind):
                continue
            if sizes[kind] == 0:
                raise ConfigError(f"model.conditioning.{kind} is true but the store has no {kind}s; "
                                  f"name the group ({kind}) in prepare.pattern, or set it to false")
            self.tables[kind] = nn.Parameter(torch.randn(sizes[kind], channels) * 0.5)
            if config.progress_steps:
                self.clocks[kind] = nn.Parameter(torch.randn(sizes[kind], rows, channels) * scale)
        if config.progress_steps and not self.clocks:
            self.clocks["any"] = nn.Parameter(torch.randn(1, rows, channels) * 0.2)
        if config.progress_steps:
            self.duration = nn.Parameter(torch.zeros(channels))
        if config.features:
            window = (2 * config.context_frames + 1) * config.features  # (frame, channel), the oldest frame first
            self.feature_weight = nn.Parameter(torch.randn(window, channels) / math.sqrt(window))
            self.feature_bias = nn.Parameter(torch.zeros(channels))
        if self.is_active:
            self.hidden = nn.Linear(channels, channels)

    @property
    def is_active(self) -> bool:
        """Whether any condition reaches the model."""
        return bool(self.tables) or bool(self.clocks) or bool(self.config.features)

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Parameters that are matrices, as (1, inputs, outputs): what Muon updates."""
        shapes: dict[str, tuple[int, int, int]] = {}
        if self.is_active:
            shapes["hidden.weight"] = (1, *self.hidden.weight.shape)
        if self.config.features:
            shapes["feature_weight"] = (1, *self.feature_weight.shape)
        return shapes

    def forward(self, inputs: ConditioningInputs, start_frame: int, num_frames: int) -> Tensor:
        """Hidden frames float (B, num_frames, C) beginning at `start_frame`.

        Raises:
            ConfigError: if a condition the model was built with is missing, or features have another
                number of channels.
        """
        columns = {"label": inputs.label, "speaker": inputs.speaker}
        for kind in self.tables:
            if columns[kind] is None:
                raise ConfigError(f"this model is conditioned on a {kind}; none was given")
        rows = {kind: columns[kind] for kind in self.tables}
        hidden: Tensor = torch.zeros((), device=self.hidden.weight.device)
        for kind, table in self.tables.items():
            hidden = hidden + _entries(table, rows[kind])[:, None]
        if self.config.progress_steps:
            hidden = hidden + self._progress(inputs, rows, start_frame, num_frames)
        if self.config.features:
            hidden = hidden + self._features(inputs, start_frame, num_frames)
        hidden = torch.tanh(hidden)
        hidden = torch.tanh(self.hidden(hidden))
        return hidden.expand(-1, num_frames, -1)

    def _progress(self, inputs: ConditioningInputs, rows: dict[str, Tensor | None],
                  start_frame: int, num_frames: int) -> Tensor:
        if inputs.num_samples is None:
            raise ConfigError("this model has a progress clock and needs the intended length (num_samples)")
        steps, hop = self.config.progress_steps, self.config.hop_length
        length = inputs.num_samples.to(torch.float32)[:, None]
        frame = torch.arange(start_frame, start_frame + num_frames, device=length.device)[None]
        if inputs.start_frame is not None:
            frame = frame + inputs.start_frame[:, None]
        progress = (frame + 0.5) * hop / length  # (B, F), 1 at the end of the clip
        node = (progress * steps).clamp(max=steps - 1e-3)
        lower = node.long()
        weight = (node - lower)[..., None]
        batch = torch.arange(length.shape[0], device=length.device)[:, None]
        total: Tensor = self.duration * torch.log2(length / 4096.0)[..., None]
        for kind, clock in self.clocks.items():
            row = rows[kind] if kind != "any" else torch.zeros_like(batch[:, 0])
            nodes = _entries(clock, row)  # (B, P + 2, C)
            inside = nodes[batch, lower] * (1 - weight) + nodes[batch, lower + 1] * weight
            after = nodes[:, steps + 1][:, None]
            total = total + torch.where((progress >= 1)[..., None], after, inside)
        return total

    def _features(self, inputs: ConditioningInputs, start_frame: int, num_frames: int) -> Tensor:
        features, wanted, context = inputs.features, self.config.features, self.config.context_frames
        if features is None:
            raise ConfigError(f"this model is conditioned on frames of {wanted} features; none were given")
        if features.ndim != 3 or features.shape[1] != wanted or features.shape[2] == 0:
            raise ConfigError(f"this model is conditioned on features (B, {wanted}, frames), found "
                              f"{tuple(features.shape)}")
        begin = torch.full((1, 1), start_frame, device=features.device)
        if inputs.start_frame is not None:
            begin = begin + inputs.start_frame[:, None]
        factor, wanted_frames = self.config.upsampling, num_frames
        if factor > 1:
            # The feature frames that so many lie between, wherever the first of them lies in its own.
            num_frames = (num_frames + factor - 2) // factor + 2
        frame = begin // factor + torch.arange(-context, num_frames + context, device=features.device)
        last = features.shape[2] - 1 if inputs.num_frames is None else inputs.num_frames[:, None] - 1
        frame = torch.clamp(frame, min=0).minimum(torch.as_tensor(last, device=frame.device))
        frame = frame.expand(features.shape[0], -1)
        clip = torch.arange(features.shape[0], device=frame.device)[:, None]
        seen = features.transpose(1, 2)[clip, frame].to(self.feature_weight.dtype)
        seen = (seen - self.config.feature_mean) / self.config.feature_scale  # (B, num_frames + 2 context, C)
        windows = torch.cat([seen[:, i : i + num_frames] for i in range(2 * context + 1)], dim=2)
        seen = windows @ self.feature_weight + self.feature_bias
        if factor == 1:
            return seen
        fine = begin + torch.arange(wanted_frames, device=features.device)
        lower = (fine // factor - begin // factor).expand(len(clip), -1)
        weight = ((fine % factor + 0.5) / factor)[..., None].to(seen.dtype)
        return torch.lerp(seen[clip, lower], seen[clip, lower + 1], weight)


def _entries(table: Tensor, which: Tensor | None) -> Tensor:
    """Rows of a table (N, ...) by number (B,), or their mixture by shares (B, N): (B, ...)."""
    assert which is not None
    if not which.is_floating_point():
        return table[which]
    return torch.tensordot(which.to(table.dtype), table, dims=1)
