"""What an auto-encoder makes of recordings: the bits it needs for them, and how they sound again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.audio import mulaw
from wavegen.data.store import Store
from wavegen.engines.sampling import normal
from wavegen.metrics.bits import conditioning_inputs
from wavegen.metrics.spectral import log_mel_distance, stft_distance
from wavegen.metrics.tally import BitsPerSample, tally
from wavegen.models import VAE
from wavegen.models.likelihood import logistic_nats
from wavegen.synth import Request, Synthesizer

BATCH_CLIPS = 8
SEED = 0  # of the latents drawn from the posterior


@dataclass(frozen=True)
class Bound:
    """What an auto-encoder needs for the samples of clips.

    Attributes:
        bits: reconstruction and latents together, an upper bound of the bits per sample under the model (the
            negative ELBO); of a plain auto-encoder, whose latents are not drawn, the reconstruction alone.
        reconstruction: bits per sample of the codes, given the latents.
        kl_nats: of the latents of a clip, in the mean; 0 for a plain auto-encoder.
        kl_bits_per_dimension: of a clip's latents, for each of their dimensions.
    """

    bits: BitsPerSample
    reconstruction: float
    kl_nats: float
    kl_bits_per_dimension: float


def evidence_bound(model: VAE, store: Store, split: str,
                   on_clip: Callable[[int], None] | None = None) -> Bound:
    """The evidence lower bound of every clip of a split, one draw of the latents each, in bits per sample.

    Only samples inside the clips count, as for the models that speak code after code. What is left out lies at the
    end of a window, so the bound stays one.

    Args:
        model: evaluated on its device.
        store: at the model's rate, codes and names.
        split: with at least one clip.
        on_clip: told the number of clips done.
    """
    rows = store.rows(split)
    cost, kl = np.zeros(len(rows)), np.zeros(len(rows))
    dimensions, done = 0, 0
    order = np.argsort(store.lengths[rows], kind="stable")
    with torch.inference_mode():
        for begin in range(0, len(order), BATCH_CLIPS):
            chosen = order[begin : begin + BATCH_CLIPS]
            cost[chosen], kl[chosen], size = _batch(model, store, rows[chosen])
            dimensions += size
            done += len(chosen)
            if on_clip is not None:
                on_clip(done)
    lengths, groups = store.lengths[rows], store.speaker_ids[rows]
    bits = tally((cost + kl) / math.log(2), lengths, groups, store.speakers)
    return Bound(bits, float(cost.sum() / lengths.sum() / math.log(2)), float(kl.mean()),
                 float(kl.sum() / max(1, dimensions) / math.log(2)))


def _batch(model: VAE, store: Store, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Nats of the codes (B,) and of the latents (B,), and how many dimensions those have together."""
    codes, inputs = whole_windows(model, store, rows), conditioning_inputs(store, rows)
    posterior = model.encode(torch.from_numpy(mulaw.to_companded(codes, store.audio.quantization_channels)), inputs)
    latents = posterior.mean
    if posterior.log_std is not None:
        drawn = normal(SEED, rows.astype(np.uint64), math.prod(latents.shape[1:]))
        latents = latents + posterior.log_std.exp() * torch.from_numpy(drawn).view(latents.shape)
    targets = torch.from_numpy(codes)
    if model.is_one_pass:
        picture = model.picture(latents, inputs)
        nats = logistic_nats(targets, picture.location, picture.log_scale, store.audio.quantization_channels)
    else:
        previous = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=model.silence)
        told = replace(inputs, features=model.features(latents, inputs))
        logits = model.decoder(previous.contiguous(), told)
        nats = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
    inside = torch.arange(codes.shape[1]) < torch.from_numpy(store.lengths[rows])[:, None]
    return ((nats.double() * inside).sum(1).numpy(), posterior.kl().double().sum((1, 2)).numpy(),
            latents.numel() if posterior.log_std is not None else 0)


def whole_windows(model: VAE, store: Store, rows: np.ndarray) -> np.ndarray:
    """Codes int64 (B, T) of rows, silence behind them up to whole windows."""
    window = model.config.num_samples
    size = -(-int(store.lengths[rows].max()) // window) * window
    codes = np.full((len(rows), size), mulaw.silence_code(store.audio.quantization_channels), np.int64)
    for place, row in enumerate(rows):
        codes[place, : store.lengths[row]] = store.codes(int(row))
    return codes


def reconstruct(synthesizer: Synthesizer, store: Store, rows: np.ndarray,
                on_clip: Callable[[int], None] | None = None) -> list[np.ndarray]:
    """Each recording through encoder and decoder: float32 (T,) of its own length.

    The latents are the means of the posterior. A decoder that speaks code after code draws with seed 0.
    """
    waveforms = []
    for done, row in enumerate(rows, 1):
        codes = whole_windows(synthesizer.model, store, np.array([row]))
        companded = torch.from_numpy(mulaw.to_companded(codes, store.audio.quantization_channels))
        with torch.inference_mode():
            latents = synthesizer.model.encode(companded, conditioning_inputs(store, np.array([row]))).mean[0]
        request = Request(
            store.labels[store.label_ids[row]] if synthesizer.labels else None,
            store.speakers[store.speaker_ids[row]] if synthesizer.speakers else None, clip=int(row))
        (clip,) = synthesizer.decode([latents], [request])
        waveforms.append(clip.waveform[: store.lengths[row]])
        if on_clip is not None:
            on_clip(done)
    return waveforms


def distances(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], sample_rate: int) -> dict[str, Any]:
    """Mean spectral distances of reconstructions to their recordings.

    Args:
        found, wanted: float32 (T,) each, equally long pair by pair.
        sample_rate: Hz.

    Returns:
        `stft_distance` and `log_mel_distance` (nats), averaged over clips.
    """
    def pair(function: Callable[[Tensor, Tensor], Tensor]) -> float:
        values = [float(function(torch.from_numpy(np.ascontiguousarray(a))[None],
                                 torch.from_numpy(np.ascontiguousarray(b))[None]))
                  for a, b in zip(found, wanted, strict=True)]
        return float(np.mean(values))

    return {"clips": len(found), "stft_distance": pair(stft_distance),
            "log_mel_distance": pair(lambda a, b: log_mel_distance(a, b, sample_rate))}
