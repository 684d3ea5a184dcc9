"""A judge: a small classifier that says which label and which speaker it hears.

    waveform -> level, trim -> log-mel (1, n_mels, F) -> 3 x [conv, norm, relu, pool] -> features -> label
                                                                                                 -> speaker

It is trained on recordings only (`wavegen.metrics.judge_training`) and measures generated clips:
accuracy is the share of clips heard as what they were meant to be, and its features are what the
Frechet distance compares. On disk it is `judge.json` and `judge.safetensors`; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from wavegen.audio.atomic import atomic_write
from wavegen.config import parse
from wavegen.errors import ConfigError, ModelFileError
from wavegen.metrics.hearing import BATCH_CLIPS, Ear, hear

CONFIG, WEIGHTS = "judge.json", "judge.safetensors"
COUNTS = "num_batches_tracked"  # a buffer of batch normalisation


class JudgeConfig(Ear):
    """What a judge hears, how large it is and how it was trained."""

    format: Literal["wavegen-judge"] = "wavegen-judge"
    format_version: Literal[1] = 1
    labels: tuple[str, ...]
    speakers: tuple[str, ...] = ()
    channels: tuple[int, int, int] = (16, 32, 48)  # of the three convolutions
    squeezed_channels: int = Field(24, gt=0)
    feature_channels: int = Field(64, gt=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    augmented: bool  # whether it was trained on noisy, shifted and stretched copies too
    seed: int = Field(0, ge=0)
    epochs: int = Field(gt=0)
    store_digest: str = ""  # of the store whose training clips it learned from
    test_label_accuracy: float | None = None  # on the recordings of the test split
    test_speaker_accuracy: float | None = None
    weights_sha256: str = ""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a judge heard in N clips.

    Attributes:
        labels: float32 (N, labels), probabilities.
        speakers: float32 (N, speakers), probabilities; (N, 0) if it knows no speakers.
        features: float32 (N, feature_channels), for the Frechet distance.
    """

    labels: np.ndarray
    speakers: np.ndarray
    features: np.ndarray

    def label_accuracy(self, label_ids: np.ndarray) -> float:
        """Share of clips heard as the label they were meant to be."""
        return float((self.labels.argmax(1) == label_ids).mean())

    def speaker_accuracy(self, speaker_ids: np.ndarray) -> float:
        """Share of clips heard as the speaker they were meant to be."""
        return float((self.speakers.argmax(1) == speaker_ids).mean())


class JudgeNetwork(nn.Module):
    """The classifier behind a judge: log-mel frames to logits and features."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        (first, second, third), squeezed = config.channels, config.squeezed_channels
        self.body = nn.Sequential(
            nn.BatchNorm2d(1), *_block(1, first), *_block(first, second), *_block(second, third),
            nn.Conv2d(third, squeezed, 1, bias=False), nn.BatchNorm2d(squeezed), nn.ReLU(),
            nn.Flatten(), nn.Dropout(config.dropout))
        width = squeezed * (config.mel.n_mels // 8) * (config.num_frames // 8)
        self.features = nn.Linear(width, config.feature_channels)
        self.label = nn.Linear(config.feature_channels, len(config.labels))
        self.speaker = nn.Linear(config.feature_channels, len(config.speakers)) if config.speakers else None

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, labels), logits (B, speakers) and features (B, C) of log-mels (B, n_mels, F)."""
        features = self.features(self.body(mels[:, None]))
        heard = torch.relu(features)
        speaker = self.speaker(heard) if self.speaker is not None else heard[:, :0]
        return self.label(heard), speaker, features


class Judge:
    """A trained classifier of clips; made by `train_judge`, read by `Judge.load`."""

    def __init__(self, config: JudgeConfig, network: JudgeNetwork, basis: np.ndarray) -> None:
        self.config = config
        # Weights are kept and stored in half precision, so that a judge measures the same before and after.
        self.network = network.half().float().eval()
        self.basis = basis  # mel filters (n_mels, n_fft // 2 + 1): stored, so that no library can change them

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.mel.sample_rate

    def __call__(self, waveforms: Sequence[np.ndarray]) -> Verdict:
        """Hear clips.

        Args:
            waveforms: float (T,) each, at the judge's sample rate; any level, any length.
        """
        heard: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.inference_mode():
            for begin in range(0, len(waveforms), BATCH_CLIPS):
                mels = hear(waveforms[begin : begin + BATCH_CLIPS], self.config, self.basis)
                label, speaker, features = self.network(torch.from_numpy(mels))
                heard.append((label.softmax(1), speaker.softmax(1), features))
        if not heard:
            widths = (len(self.config.labels), len(self.config.speakers), self.config.feature_channels)
            return Verdict(*(np.zeros((0, width), np.float32) for width in widths))
        return Verdict(*(torch.cat(parts).numpy() for parts in zip(*heard, strict=True)))

    def save(self, folder: str | Path) -> None:
        """Write the judge; the configuration comes last and names the weights it belongs to."""
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.half().contiguous() for name, value in self.network.state_dict().items()
                   if not name.endswith(COUNTS)}
        content = save({**tensors, "basis": torch.from_numpy(self.basis)})
        config = self.config.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
        with atomic_write(folder / WEIGHTS) as file:
            file.write(content)
        with atomic_write(folder / CONFIG) as file:
            file.write(json.dumps(config.model_dump(mode="json"), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """Read a judge.

        Raises:
            ModelFileError: none is there, it is damaged, or it is not one of ours.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        folder = Path(folder)
        config = _read_config(folder)
        try:
            content = (folder / WEIGHTS).read_bytes()
            if hashlib.sha256(content).hexdigest() != config.weights_sha256:
                raise ModelFileError(f"{folder / WEIGHTS} is damaged: its sha256 is not the one in {CONFIG}; "
                                     "train or fetch the judge again")
            tensors = load(content)
            basis = tensors.pop("basis").numpy()
            with torch.random.fork_rng(devices=[]):  # loading leaves the caller's random numbers alone
                network = JudgeNetwork(config)
            # Batch counts are of use in training only and not stored.
            counts = {name: value for name, value in network.state_dict().items() if name.endswith(COUNTS)}
            network.load_state_dict({**tensors, **counts})
        except OSError as error:
            raise ModelFileError(f"{folder / WEIGHTS} cannot be read: {error.strerror}") from error
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ModelFileError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
        return cls(config, network, basis)


def load_judges(folder: str | Path) -> dict[str, Judge]:
    """The judges in a folder by name: each subfolder that holds one, or the folder itself.

    Raises:
        ModelFileError: there is none.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        return {folder.name: Judge.load(folder)}
    found = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not found:
        raise ModelFileError(f"{folder} holds no judge (no {CONFIG} in it or one folder below); "
                             "recipes/judge.py trains one")
    return {path.name: Judge.load(path) for path in found}


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def _read_config(folder: Path) -> JudgeConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelFileError(f"{folder} holds no judge (no {CONFIG}); recipes/judge.py trains one")
    try:
        return parse(JudgeConfig, json.loads(path.read_text("utf-8")), str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise ModelFileError(f"{path} is not the configuration of a judge: {error}") from error
