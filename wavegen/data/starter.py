"""A first recipe for recordings of one's own: what lies in a folder, and settings that suit it.

    folder -> survey: how many, how long, which rates, labels by folder -> recipe, a commented YAML
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from wavegen.config import PrepareConfig
from wavegen.data.splits import split_of
from wavegen.errors import BadInputError, ConfigError, did_you_mean

KINDS = ("sounds", "speech", "long", "vocoder")
ENDINGS = "wav|flac|ogg|opus|mp3|aiff?|au|w64"
MAX_FILES = 20_000  # whose headers are read
MAX_LABELS = 100
SHORT_SECONDS, WORD_SECONDS = 1.5, 6.0  # 95 % of the clips are shorter: one-shots, words and short sentences
HOP_SECONDS = 0.01


@dataclass(frozen=True)
class Survey:
    """What was found below a folder.

    Attributes:
        names: of the recordings, paths below the folder.
        seconds: length of each, by its header.
        sample_rate: the most frequent one, Hz.
        labels: the names of the folders right above the recordings, if there are some and each holds several; else
            empty.
        unreadable: files with the ending of a recording that are none.
    """

    names: tuple[str, ...]
    seconds: np.ndarray
    sample_rate: int
    labels: tuple[str, ...]
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        low, middle, high = np.quantile(self.seconds, [0, 0.5, 1])
        told = f", {len(self.labels)} labels by folder: {', '.join(self.labels[:8])}" if self.labels else ""
        more = ", ..." if len(self.labels) > 8 else ""
        spoiled = f"; {len(self.unreadable)} cannot be read, first {self.unreadable[0]}" if self.unreadable else ""
        return (f"{len(self.names)} recordings, {self.seconds.sum() / 60:.1f} minutes, {low:.2f} to {high:.2f} s each "
                f"({middle:.2f} s in the median), mostly {self.sample_rate} Hz{told}{more}{spoiled}")


def survey(folder: Path) -> Survey:
    """Read the headers of the recordings below a folder.

    Raises:
        BadInputError: there is no such folder, or no recording in it.
    """
    import soundfile

    if not folder.is_dir():
        raise BadInputError(f"there is no folder {folder}; --data names the one your recordings lie in")
    ending = re.compile(rf".*\.(?:{ENDINGS})", re.IGNORECASE)
    paths = sorted(path for path in folder.rglob("*")
                   if ending.fullmatch(path.name) and not path.name.startswith(".") and path.is_file())[:MAX_FILES]
    names, seconds, rates, unreadable = [], [], Counter[int](), []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            info = soundfile.info(str(path))
        except (RuntimeError, OSError, ValueError, TypeError):
            unreadable.append(name)
            continue
        if info.frames < 1:
            unreadable.append(name)
            continue
        names.append(name)
        seconds.append(info.frames / info.samplerate)
        rates[int(info.samplerate)] += 1
    if not names:
        raise BadInputError(f"no recording found below {folder}: no file that can be read ends in "
                            f"{ENDINGS.replace('|', ', ').replace('?', '')}")
    return Survey(tuple(names), np.array(seconds), rates.most_common(1)[0][0], _labels(names), tuple(unreadable))


def kind_of(found: Survey) -> str:
    """What such recordings are usually used for; never a vocoder, which nobody can hear from their length."""
    usual = float(np.quantile(found.seconds, 0.95))
    return "sounds" if usual <= SHORT_SECONDS else "speech" if usual <= WORD_SECONDS else "long"


def starter_recipe(name: str, found: Survey, kind: str | None = None) -> str:
    """A recipe as commented YAML, ready for `wavegen prepare`.

    Args:
        name: of the model it will make.
        found: from `survey`.
        kind: "sounds" (one-shots, a WaveGAN), "speech" (words, a WaveNet told how far a clip has come), "long" (a
            WaveNet that goes on for ever), "vocoder" (a mel to audio), or None for `kind_of`.

    Raises:
        ConfigError: no such kind.
    """
    kind = kind or kind_of(found)
    if kind not in KINDS:
        raise ConfigError(f'no kind of recipe "{kind}"; {did_you_mean(kind, KINDS)}')
    rate = min(found.sample_rate, 16000)
    if kind == "vocoder":
        rate = 22050 if found.sample_rate >= 22050 else 16000
    label = bool(found.labels) and kind != "vocoder"
    minutes = float(found.seconds.sum()) / 60
    head = [f"# Made by `wavegen init` for {len(found.names)} recordings, {minutes:.1f} minutes: change what you like.",
            f"name: {name}", ""]
    if minutes < 5:
        head.insert(1, "# That is little: expect a model that repeats what it heard. More recordings help more than "
                       "anything else.")
    pattern = rf"(?:.*/)?{'(?P<label>[^/]+)/' if label else ''}[^/]+\.(?i:{ENDINGS})"
    body = {"sounds": _sounds, "speech": _speech, "long": _long, "vocoder": _vocoder}[kind](found, rate, label)
    text = "\n".join([*head, body])
    return text.replace("PATTERN", pattern).replace("SHARE", f"{_share(found.names):g}")


def _labels(names: list[str]) -> tuple[str, ...]:
    """Names of the folders right above, where they look like labels: two at least, and files of them all."""
    folders = Counter(PurePosixPath(name).parent.name for name in names)
    if "" in folders or not 2 <= len(folders) <= MAX_LABELS or min(folders.values()) < 2:
        return ()
    return tuple(sorted(folders))


def _share(names: tuple[str, ...]) -> float:
    """The share of the test split, a tenth or what it takes for both splits to have a clip."""
    for share in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        config = PrepareConfig(hash_splits={"test": share})
        splits = {split_of(config, name, {"id": name}) for name in names}
        if splits == {"train", "test"}:
            return share
    return 0.1


def _steps(found: Survey, rate: int, samples_per_step: int, passes: int, least: int, most: int) -> int:
    """So many steps that the recordings are heard `passes` times, in round numbers."""
    steps = passes * float(found.seconds.sum()) * rate / samples_per_step
    return int(min(most, max(least, round(steps, -2))))


PREPARE = """prepare:
  pattern: 'PATTERN' # of a path below --data
  hash_splits: {test: SHARE} # kept for testing, chosen by a hash of the path
"""


def _sounds(found: Survey, rate: int, label: bool) -> str:
    usual = min(2.0, max(0.5, float(np.quantile(found.seconds, 0.95))))
    window = 4096 * max(1, round(usual * rate / 4096))  # whole strides of all critics
    return f"""audio:
  sample_rate: {rate} # Hz; what is higher in the recordings is lost, but half the rate trains in half the time

{PREPARE}  normalize: peak
  peak: 0.9
  trim: {{threshold: 0.005, frame_ms: 5, keep_before_ms: 2, keep_after_ms: 50}} # the attack comes first in a window
  crop_seconds: {window / rate} # longer ones are cut here and fade out
  fade_in_ms: 0.5
  fade_out_ms: 10

model: # WaveGAN: a whole clip at once, from noise{" and a label" if label else ""}
  family: wgan
  num_samples: {window} # {window / rate:.3f} s
  latent_channels: 64
  channels: [256, 128, 64, 32, 16]
  strides: [4, 4, 4, 4, 4]
  kernel_size: 16
  conditioning: {{label: {str(label).lower()}, hidden_channels: 32}}

training:
  max_steps: 2500 # of the generator
  samples_per_batch: {8 * window} # 8 clips
  optimizer: {{name: adamw, adamw_lr: 0.001, betas: [0.5, 0.9], warmup_steps: 0, flat_fraction: 0.4}}
  gradient_clip: 1000 # in effect none
  precision: bf16 # "32" on a CPU without bfloat16
  balance_labels: {str(label).lower()}
  validation_interval: 500
  checkpoint_interval: 100
  log_interval: 50
  adversarial:
    critic_steps: 3
    critic: {{channels: [8, 16, 32, 64, 128], strides: [4, 4, 4, 4, 4], kernel_size: 16, phase_shuffle: 2}}
    spectral: # two more critics, of log-mel frames
      - {{n_fft: 512, hop_length: 128, n_mels: 64}}
      - n_fft: 1024
        hop_length: 256
        n_mels: 80
        critic: {{channels: [128, 192, 256], strides: [2, 2, 2], kernel_size: 4, phase_shuffle: 0}}
"""


def _wavenet(rate: int, label: bool, clock: int) -> str:
    """The network of the digits: it hears 2079 samples, a quarter of a second at 8 kHz."""
    return f"""model: # WaveNet: sample by sample
  family: wavenet
  residual_channels: 64
  skip_channels: 128
  output_channels: 128
  dilations: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
  input_taps: 32
  dropout: 0.05
  conditioning:
    label: {str(label).lower()}
    hidden_channels: 64
    hop_length: {round(HOP_SECONDS * rate)} # {1000 * HOP_SECONDS:g} ms
    progress_steps: {clock} # {"it is told how far a clip has come, and so learns to end" if clock else "no clock"}
"""


def _speech(found: Survey, rate: int, label: bool) -> str:
    return f"""audio:
  sample_rate: {rate} # Hz; 8000 is a telephone, and trains in half the time

{PREPARE}  normalize: peak
  peak: 0.9
  trim: {{threshold: 0.02, frame_ms: 10, keep_before_ms: 10, keep_after_ms: 50}} # silence at both ends
  # speakers: name a group (?P<speaker>...) in the pattern, and set model.conditioning.speaker

{_wavenet(rate, label, 24)}
training:
  max_steps: {_steps(found, rate, 12000, 40, 2000, 22000)} # 40 times through the recordings, but 2000 to 22000
  samples_per_batch: 12000
  tail_samples: {round(0.06 * rate)} # 60 ms of silence, so that clips end
  balance_labels: {str(label).lower()}
{TRAINING}"""


def _long(found: Survey, rate: int, label: bool) -> str:
    return f"""audio:
  sample_rate: {rate} # Hz; half of it trains in half the time

{PREPARE}  normalize: peak
  peak: 0.9
  trim: null

{_wavenet(rate, label, 0)}
training:
  max_steps: {_steps(found, rate, 16384, 40, 2000, 22000)} # 40 times through the recordings, but 2000 to 22000
  samples_per_batch: 16384
  chunk_samples: 8192 # recordings are cut into windows
  tail_samples: 0
{TRAINING}"""


TRAINING = """  optimizer: {name: muon, muon_lr: 0.01, adamw_lr: 0.003, weight_decay: 0.02, warmup_steps: 60}
  precision: bf16 # "32" on a CPU without bfloat16
  validation_interval: 500
  checkpoint_interval: 250
  log_interval: 50
"""

MELS = {16000: ("speecht5", """    sample_rate: 16000
    n_fft: 1024
    hop_length: 256
    win_length: 1024
    n_mels: 80
    fmin: 80
    fmax: 7600
    log_base: "10"
    floor: 1.0e-10
""", -2.0, 0.8), 22050: ("tacotron2", """    sample_rate: 22050
    n_fft: 1024
    hop_length: 256
    win_length: 1024
    n_mels: 80
    fmax: 8000
""", -5.3, 2.1)}


def _vocoder(found: Survey, rate: int, label: bool) -> str:
    preset, mel, mean, scale = MELS[rate]
    return f"""audio:
  sample_rate: {rate} # Hz
  signal_path: lpc # the network speaks what a linear prediction, computed from the mel, leaves over
  preemphasis: 0.85
  mel: # the preset {preset}; it must be that of your acoustic model
{mel}
{PREPARE}  normalize: none # acoustic models are trained at the level of the recordings
  trim: null # pauses teach silence
  fade_in_ms: 0
  fade_out_ms: 0

model:
  family: wavenet
  residual_channels: 64
  skip_channels: 128
  output_channels: 128
  dilations: [1, 2, 4, 8, 16, 32, 64, 128, 256, 1, 2, 4, 8, 16, 32, 64, 128, 256]
  conditioning:
    features: 80
    hidden_channels: 128
    hop_length: 256
    context_frames: 3 # frames of look-ahead
    feature_mean: {mean}
    feature_scale: {scale}

training:
  max_steps: 9000
  samples_per_batch: 12288
  chunk_samples: 5120
  tail_samples: 0
  code_noise: 1.0
  optimizer: {{name: muon, muon_lr: 0.008, adamw_lr: 0.0015, weight_decay: 0.1, warmup_steps: 60, flat_fraction: 0.0}}
  precision: bf16 # "32" on a CPU without bfloat16
  validation_interval: 1000
  checkpoint_interval: 500
  copy_clips: 4 # test recordings spoken from their own mel; the best checkpoint is chosen by them
  copy_interval: 1000
  log_interval: 50

sampling:
  temperature: 0.85
  matching: 2
"""
