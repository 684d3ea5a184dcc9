"""What an integer precision needs to know of a network, and what it costs: ranges and divergence.

    ranges       how large every activation grows on an excerpt, from one pass over whole clips
    divergence   teacher-forced, mean over the samples of the excerpt, in double precision:
                 KL(float64 || engine) in nats, and the change of -log2 p(code) in bits

The pass computes clip by clip in parallel over time; it shares no code with the engines that step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from wavegen.audio import lpc
from wavegen.audio.mulaw import silence_code
from wavegen.config import PrecisionFigures
from wavegen.engines.base import AbstractEngine, Conditioning, check_codes
from wavegen.engines.conditioning import FrameBlocks, ModelConditioning
from wavegen.engines.packing import Network
from wavegen.engines.ranges import ActivationRanges
from wavegen.models import ConditioningInputs

logger = logging.getLogger(__name__)

MAX_CLIP = 65_536  # samples of one clip that are looked at: memory stays small
OWN_ROWS, OWN_SAMPLES = 4, 2048  # what a model without stored ranges speaks to find its own
OWN_SEED = 0

Clip = tuple[NDArray[np.int64], Conditioning]  # codes (T,) and what the model is told with them


@dataclass(frozen=True, eq=False)
class Forward:
    """One clip through a network: logits (T, Q), and how large everything on the way grew."""

    logits: NDArray[Any]
    ranges: ActivationRanges


def forward(network: Network, codes: NDArray[np.int64], conditioning: Conditioning, row: int = 0,
            dtype: torch.dtype = torch.float32) -> Forward:
    """Teacher-forced pass over one clip, all samples at once.

    Args:
        codes: int64 (T,), T >= 1.
        conditioning: whose row `row` goes with the clip.

    Raises:
        BadInputError: NaN or infinity in the conditioning.
    """
    p = {name: torch.from_numpy(value).to(dtype) for name, value in network.parameters.items()}
    frames, coefficients = _told(network, conditioning, row, len(codes))
    held = torch.arange(len(codes)) // conditioning.hop_length
    table = torch.from_numpy(frames).to(dtype)  # (F, L, 2R)
    with torch.inference_mode():
        h = _embed(network, p, codes, coefficients, conditioning.hop_length)
        skip, hidden, gated = p["skip_bias"].expand(len(codes), -1), [], []
        size = network.residual_channels
        for layer, dilation in enumerate(network.dilations):
            hidden.append(_range(h))
            a = h @ p["dilated_weight"][layer, 0] + table[held, layer]
            for tap in range(1, network.kernel_size):
                delay = min(tap * dilation, len(codes))
                a[delay:] += h[:len(codes) - delay] @ p["dilated_weight"][layer, tap]
            z = torch.tanh(a[:, :size]) * torch.sigmoid(a[:, size:])
            gated.append(_range(z))
            skip = skip + z @ p["skip_weight"][layer * size:(layer + 1) * size]
            if layer < network.num_layers - 1:
                h = (h + z @ p["residual_weight"][layer] + p["residual_bias"][layer]) * network.residual_scale
        s = torch.relu(skip * network.skip_scale)
        o = torch.relu(s @ p["output_weight"] + p["output_bias"])
        logits = (o @ p["end_weight"] + p["end_bias"]).numpy()
    ranges = ActivationRanges(np.stack(hidden), np.stack(gated), _range(s)[:, 1], _range(o)[:, 1])
    return Forward(logits, ranges)


def measure_ranges(network: Network, codes: ArrayLike, conditioning: Conditioning) -> ActivationRanges:
    """Ranges of the activations over codes (B, T) under a conditioning of as many rows, or of one."""
    given = check_codes(codes, network.quantization_channels)
    rows = [(row, given[row]) for row in range(len(given))]
    return merged(forward(network, clip, conditioning, row if conditioning.batch_size > 1 else 0).ranges
                  for row, clip in rows)


def ranges_of_clips(network: Network, clips: Sequence[Clip]) -> ActivationRanges:
    """Ranges of the activations over clips of any lengths."""
    return merged(forward(network, codes[:MAX_CLIP], told).ranges for codes, told in clips)


def merged(parts: Iterator[ActivationRanges]) -> ActivationRanges:
    """The ranges over all parts."""
    total = next(parts)
    for part in parts:
        total = total.merge(part)
    return total


def own_ranges(network: Network, model: Any, make_engine: Callable[[], AbstractEngine]) -> ActivationRanges:
    """Ranges over about a second of the model's own speech in float32: for a model that brings none.

    The labels and speakers take turns, the seed is fixed: the same model gives the same ranges.
    """
    conditioning = ModelConditioning(model, _some_inputs(model))
    engine = make_engine()
    codes = engine.step(engine.start(OWN_ROWS, conditioning, seeds=OWN_SEED), OWN_SAMPLES)
    return measure_ranges(network, codes, conditioning)


def divergence(engine: AbstractEngine, network: Network, clips: Sequence[Clip]) -> PrecisionFigures:
    """How far an engine is from float64 on clips, teacher-forced."""
    return divergences({"": engine}, network, clips)[""]


def divergences(engines: dict[str, AbstractEngine], network: Network, clips: Sequence[Clip],
                progress: Callable[[int], None] | None = None) -> dict[str, PrecisionFigures]:
    """`divergence` of several engines, each clip's float64 pass shared by all.

    Args:
        progress: told the number of clips done.
    """
    sums = {name: np.zeros(2) for name in engines}
    truth_bits, total = 0.0, 0
    for done, (codes, told) in enumerate(clips):
        codes = codes[:MAX_CLIP]
        truth = _log_softmax(forward(network, codes, told, dtype=torch.float64).logits)
        spoken = np.arange(len(codes)), codes
        truth_bits -= float(truth[spoken].sum()) / math.log(2)
        total += len(codes)
        for name, engine in engines.items():
            found = _log_softmax(engine.logits(codes[None], told)[0])
            sums[name] += [float((np.exp(truth) * (truth - found)).sum()), -float(found[spoken].sum()) / math.log(2)]
        if progress is not None:
            progress(done + 1)
    count = max(1, total)
    return {name: PrecisionFigures(kl=max(0.0, kl / count), bits=bits / count, bits_change=(bits - truth_bits) / count)
            for name, (kl, bits) in sums.items()}


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    result: NDArray[np.float64] = values - np.log(np.exp(values).sum(-1, keepdims=True))
    return result


def _told(network: Network, conditioning: Conditioning, row: int, num_samples: int) -> tuple[Any, Any]:
    """Frames (F, L, 2R) and coefficients (1, F, order) of a clip, checked as the engines check them."""
    columns = (network.num_layers, 2 * network.residual_channels)
    blocks = FrameBlocks(conditioning, columns, order=network.lpc_order)
    frames, coefficients, position = [], [], 0
    while position < num_samples:
        block, _, end = blocks.at(position)
        frames.append(block[row])
        coefficients.append(blocks.prediction[min(row, len(blocks.prediction) - 1)])
        position = end
    return np.concatenate(frames), np.concatenate(coefficients)[None]


def _embed(network: Network, p: dict[str, torch.Tensor], codes: NDArray[np.int64], coefficients: NDArray[np.float32],
           hop_length: int) -> torch.Tensor:
    """Input (T, R) of the first layer."""
    size, taps = len(codes), network.input_taps
    if network.lpc_order:
        replay = lpc.replay(codes[None], coefficients, hop_length, network.quantization_channels)
        rows, past = replay.inputs[0].T, np.concatenate([np.zeros(taps + 1, np.float32), replay.signal[0]])
    else:
        silence = silence_code(network.quantization_channels)
        padded = np.concatenate([np.full(max(taps + 1, network.input_kernel_size), silence), codes])
        rows = np.stack([padded[len(padded) - size - 1 - k:len(padded) - 1 - k]
                         for k in range(network.input_kernel_size)])
        past = network.decoded[padded[-size - taps - 1:]]
    h = sum((p["embedding"][k][torch.from_numpy(row)] for k, row in enumerate(rows.astype(np.int64))),
            torch.zeros((), dtype=p["embedding"].dtype))
    if taps:
        window = torch.from_numpy(past[:-1]).to(h.dtype)[-size - taps + 1:].unfold(0, taps, 1)
        h = h + window @ p["input_projection"].flip(0)
    return torch.tanh(h) if network.input_tanh else h


def _range(x: torch.Tensor) -> NDArray[np.float32]:
    """(channels, 2): lowest and highest of (T, channels)."""
    result: NDArray[np.float32] = torch.stack([x.amin(0), x.amax(0)], -1).float().numpy()
    return result


def _some_inputs(model: Any) -> ConditioningInputs:
    """Conditions for `OWN_ROWS` rows of own speech: whatever the model can be told, in turns."""
    tables, told = model.conditioning.tables, model.config.conditioning
    rows = torch.arange(OWN_ROWS)

    def turns(kind: str) -> torch.Tensor | None:
        return rows % len(tables[kind]) if kind in tables else None

    prediction = torch.zeros(1, 1, model.lpc_order) if model.lpc_order else None
    features = None
    if told.features:
        generator = torch.Generator().manual_seed(OWN_SEED)
        frames = -(-OWN_SAMPLES // model.hop_length)
        features = torch.randn(OWN_ROWS, told.features, frames, generator=generator)
        features = features * told.feature_scale + told.feature_mean
    return ConditioningInputs(label=turns("label"), speaker=turns("speaker"), features=features,
                              num_samples=torch.full((OWN_ROWS,), OWN_SAMPLES), prediction=prediction)
