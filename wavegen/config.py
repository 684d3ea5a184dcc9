"""Every setting wavegen has, as frozen, printable values with their units.

A recipe is one YAML file read once by `load_recipe`; an unknown key is an error that
names the nearest valid one. Nothing else in wavegen reads YAML.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wavegen.errors import ConfigError, did_you_mean


class Config(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)
MAX_FOUND = 80  # letters of a wrong value that an error repeats


class MelSpec(Config):
    """How a log-mel spectrogram is computed; travels with every model that reads one."""

    sample_rate: int = Field(gt=0)  # Hz
    n_fft: int = Field(1024, gt=0)  # samples
    hop_length: int = Field(256, gt=0)  # samples
    win_length: int = Field(1024, gt=0)  # samples
    n_mels: int = Field(80, gt=0)
    fmin: float = Field(0.0, ge=0)  # Hz
    fmax: float | None = None  # Hz; None is sample_rate / 2
    mel_scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney", "none"] = "slaney"
    power: float = Field(1.0, gt=0)  # exponent of the magnitude
    log_base: Literal["e", "10"] = "e"
    floor: float = Field(1e-5, gt=0)  # clamp before the logarithm
    center: bool = True  # frame f is centred on sample f * hop_length: n_fft // 2 samples padded at both ends
    edge_padding: int = Field(0, ge=0)  # samples padded at both ends when `center` is false
    pad_mode: Literal["reflect", "zero"] = "reflect"
    window: Literal["hann", "hann_symmetric"] = "hann"  # periodic, or symmetric as in scipy
    mean: tuple[float, ...] = (0.0,)  # features are (log - mean) / scale; one number, or one a band
    scale: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)

    @model_validator(mode="after")
    def _fits(self) -> MelSpec:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} exceeds n_fft {self.n_fft}")
        if self.fmax is not None and not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"fmax {self.fmax} must lie in (fmin {self.fmin}, sample_rate / 2]")
        if self.center and self.edge_padding:
            raise ValueError(f"edge_padding {self.edge_padding} needs center: false, which pads n_fft // 2 by itself")
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) not in (1, self.n_mels):
                raise ValueError(f"{name} has {len(values)} numbers; give one, or one for each of {self.n_mels} bands")
        return self


class AudioConfig(Config):
    """What a code means: shared by the store, the models and the engines."""

    sample_rate: int = Field(gt=0)  # Hz
    quantization_channels: int = Field(256, ge=2, le=65536)  # Q; mu is Q - 1
    codec: Literal["round255"] = "round255"
    mel: MelSpec | None = None  # features stored beside the codes, if any
    signal_path: Literal["direct", "lpc"] = "direct"  # codes of the signal, or of what linear prediction leaves
    lpc_order: int = Field(16, ge=1, le=64)  # coefficients a frame, of the path lpc
    preemphasis: float = Field(0.0, ge=0, lt=1)  # of the signal that is coded; undone on the way out

    @property
    def is_plain(self) -> bool:
        """Whether codes are simply the mu-law codes of the waveform."""
        return self.signal_path == "direct" and self.preemphasis == 0


class TrimConfig(Config):
    """Silence removed at both ends of a clip, judged on the normalised waveform."""

    threshold: float = Field(0.02, gt=0)  # RMS of a frame, full scale 1
    frame_ms: float = Field(10.0, gt=0)
    keep_before_ms: float = Field(10.0, ge=0)
    keep_after_ms: float = Field(50.0, ge=0)


class PrepareConfig(Config):
    """From files to a store: which files, what they are called, how they are levelled."""

    glob: str = "**/*"  # below --data; files soundfile cannot open are reported and skipped
    pattern: str | None = None  # regular expression on the path below --data, "/" separated;
    # its named groups `label`, `speaker`, `id`, `text` fill the index, others serve `splits`
    label_rules: tuple[tuple[str, str], ...] = ()  # (label, regular expression): the first expression found
    # in the path below --data names the label, case ignored; instead of a group `label`
    text_file: str | None = None  # below --data, of each recording; {group} stands for what the pattern found
    text_table: str | None = None  # below --data: lines id|text|normalised text; as above
    manifest: str | None = None  # JSON lines below --data: path, label, speaker, id, text, split
    labels: tuple[str, ...] | None = None  # order of label ids; None is sorted order of appearance
    speakers: tuple[str, ...] | None = None
    splits: dict[str, dict[str, tuple[str, ...]]] = {}  # split -> {group: values}; rest is train
    hash_splits: dict[str, float] = {}  # split -> share, by a stable hash
    hash_group: str = "id"  # what is hashed: `speaker` keeps all clips of a speaker in one split
    hash_function: Literal["sha256", "speech_commands"] = "sha256"  # the second is that corpus's official one
    normalize: Literal["peak", "none"] = "peak"
    peak: float = Field(0.9, gt=0, le=1)  # full scale 1
    remove_dc: bool = True
    trim: TrimConfig | None = TrimConfig()
    crop_seconds: float | None = Field(None, gt=0)  # longer clips are cut here, after trimming
    crop_fade_ms: float = Field(100.0, ge=0)  # a clip that was cut fades out over this
    fade_in_ms: float = Field(3.0, ge=0)
    fade_out_ms: float = Field(10.0, ge=0)
    dither: float = Field(0.0, ge=0, le=0.01)  # RMS of noise in what is coded, full scale 1, not in the mel: 1e-4 keeps
    # digital silence from teaching one code for ever
    min_seconds: float = Field(0.0, ge=0)  # shorter clips are reported and skipped
    max_seconds: float | None = Field(None, gt=0)  # longer clips are reported and skipped
    shard_samples: int = Field(256_000_000, gt=0)


class ConditioningConfig(Config):
    """What the model is told besides the past: see `wavegen.models.conditioning`."""

    label: bool = False
    speaker: bool = False
    hidden_channels: int = Field(64, gt=0)
    hop_length: int = Field(80, gt=0)  # samples a conditioning frame is held for
    progress_steps: int = Field(0, ge=0)  # nodes of the progress clock; 0 is no clock
    features: int = Field(0, ge=0)  # channels of a sequence of feature frames; 0 is none
    context_frames: int = Field(0, ge=0)  # feature frames seen before and after each frame
    upsampling: int = Field(1, ge=1)  # conditioning frames of a feature frame: it lasts hop_length * this samples
    feature_mean: float = 0.0  # features enter as (feature - mean) / scale
    feature_scale: float = Field(1.0, gt=0)

    @property
    def feature_hop_length(self) -> int:
        """Samples a feature frame lasts."""
        return self.hop_length * self.upsampling

    @property
    def lookahead_frames(self) -> int:
        """Feature frames after its own that a conditioning frame depends on."""
        return self.context_frames + int(self.upsampling > 1)

    @model_validator(mode="after")
    def _fits(self) -> ConditioningConfig:
        if self.context_frames and not self.features:
            raise ValueError(f"context_frames {self.context_frames} widens the view on features, but features is 0")
        if self.upsampling > 1 and not self.features:
            raise ValueError(f"upsampling {self.upsampling} is of feature frames, but features is 0")
        return self


class WaveNetConfig(Config):
    """Size of a WaveNet (arXiv:1609.03499); every number is free."""

    family: Literal["wavenet"] = "wavenet"
    residual_channels: int = Field(gt=0)
    skip_channels: int = Field(gt=0)
    output_channels: int = Field(gt=0)  # width of the hidden output layer
    dilations: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    kernel_size: int = Field(2, ge=2)
    input_kernel_size: Literal[1, 2] = 2  # past codes that are embedded
    input_taps: int = Field(0, ge=0)  # past decoded samples that enter linearly
    input_tanh: bool = False
    bias: bool = True
    residual_scale: float = Field(1.0, gt=0)
    skip_scale: float = Field(1.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)  # on the skip sum, in training
    conditioning: ConditioningConfig = ConditioningConfig()

    @property
    def num_layers(self) -> int:
        return len(self.dilations)

    @property
    def receptive_field(self) -> int:
        """Number of past inputs one prediction can depend on, exactly on the signal path direct."""
        return max(self.input_kernel_size, self.input_taps) + (self.kernel_size - 1) * sum(self.dilations)


class RNNConfig(Config):
    """Size of the GRU baseline."""

    family: Literal["rnn"] = "rnn"
    hidden_channels: int = Field(gt=0)
    embedding_channels: int = Field(64, gt=0)
    output_channels: int = Field(gt=0)
    conditioning: ConditioningConfig = ConditioningConfig()


class EncoderConfig(Config):
    """Strided convolutions from companded samples to latent frames."""

    strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)  # their product: samples of a latent frame
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)  # after each stride
    taps: int = Field(3, gt=0)  # blocks of `stride` samples an output sees
    residual_layers: int = Field(1, ge=0)  # at each rate

    @model_validator(mode="after")
    def _fits(self) -> EncoderConfig:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides need as many channels, found {len(self.channels)}")
        return self

    @property
    def hop_length(self) -> int:
        """Samples of a latent frame."""
        return math.prod(self.strides)


class ConvDecoderConfig(Config):
    """Upsampling convolutions from latent frames to samples, in one pass."""

    family: Literal["conv"] = "conv"
    strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)  # from latent frames to samples
    channels: tuple[Annotated[int, Field(gt=0)], ...] = ()  # after each stride but the last, which gives the samples
    taps: int = Field(3, gt=0)  # input positions an output sees
    residual_layers: int = Field(1, ge=0)  # at each rate
    conditioning: ConditioningConfig = ConditioningConfig()

    @model_validator(mode="after")
    def _fits(self) -> ConvDecoderConfig:
        if len(self.channels) != len(self.strides) - 1:
            raise ValueError(f"{len(self.strides)} strides need {len(self.strides) - 1} channels (the last stride "
                             f"gives the samples), found {len(self.channels)}")
        if self.conditioning.features or self.conditioning.progress_steps:
            raise ValueError("a conv decoder is told label and speaker only: leave out features and progress_steps")
        return self


class VAEConfig(Config):
    """Size of a variational auto-encoder (arXiv:1312.6114) of windows of audio."""

    family: Literal["vae"] = "vae"
    num_samples: int = Field(gt=0)  # of a window; a longer clip is a sequence of windows
    latent_channels: int = Field(gt=0)
    latent_noise: Literal["learned", "none"] = "learned"  # none is the plain auto-encoder
    prior: Literal["standard", "conditional"] = "standard"  # conditional: learned, of each label and speaker its own
    encoder: EncoderConfig
    decoder: Annotated[ConvDecoderConfig | WaveNetConfig, Field(discriminator="family")]

    @property
    def conditioning(self) -> ConditioningConfig:
        """What the decoder is told besides the latents."""
        return self.decoder.conditioning

    @property
    def latent_frames(self) -> int:
        """Latent frames of a window."""
        return self.num_samples // self.encoder.hop_length

    @model_validator(mode="after")
    def _fits(self) -> VAEConfig:
        hop = self.encoder.hop_length
        if self.num_samples % hop:
            raise ValueError(f"num_samples {self.num_samples} must be a multiple of {hop}, the samples of a latent "
                             "frame (the product of encoder.strides)")
        if self.prior == "conditional":
            if self.latent_noise == "none":
                raise ValueError("prior: conditional is learned from the KL, which there is not without latent noise "
                                 "(latent_noise: none); leave it out")
            if not (self.conditioning.label or self.conditioning.speaker):
                raise ValueError("prior: conditional needs decoder.conditioning.label or .speaker to be true: it has "
                                 "a mean and a spread for each")
        if isinstance(self.decoder, ConvDecoderConfig):
            if math.prod(self.decoder.strides) != hop:
                raise ValueError(f"decoder.strides give {math.prod(self.decoder.strides)} samples a latent frame, "
                                 f"encoder.strides take {hop}; the products must be equal")
            return self
        told = self.decoder.conditioning
        if told.upsampling != 1:
            raise ValueError(f"decoder.conditioning.upsampling is {told.upsampling}: latents are held, set it to 1")
        if told.features != self.latent_channels:
            raise ValueError(f"decoder.conditioning.features is {told.features}, the latents have "
                             f"{self.latent_channels} channels; they must be equal")
        if hop % told.hop_length:
            raise ValueError(f"decoder.conditioning.hop_length {told.hop_length} must divide {hop}, the samples of a "
                             "latent frame")
        return self


class WGANConfig(Config):
    """Size of a generator that turns noise into a clip in one pass (WaveGAN, arXiv:1802.04208)."""

    family: Literal["wgan"] = "wgan"
    num_samples: int = Field(8192, gt=0)  # of a clip; a multiple of the product of the strides
    latent_channels: int = Field(100, gt=0)
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)  # input width of each layer
    strides: tuple[Annotated[int, Field(gt=1)], ...] = Field(min_length=1)  # upsampling of each layer
    kernel_size: int = Field(16, gt=0)  # samples at the output of a layer, rounded up to whole strides
    upsampling: Literal["transposed", "nearest"] = "transposed"
    post_filter_size: int = Field(0, ge=0)  # taps of a learned filter over the clip; 0 is none
    conditioning: ConditioningConfig = ConditioningConfig()

    @model_validator(mode="after")
    def _fits(self) -> WGANConfig:
        _check_strides(self.channels, self.strides, self.num_samples)
        if self.conditioning.progress_steps:
            raise ValueError("conditioning.progress_steps must be 0: a clip of fixed length has no progress clock")
        return self


ModelConfig = Annotated[WaveNetConfig | RNNConfig | VAEConfig | WGANConfig, Field(discriminator="family")]
FAMILIES: dict[str, type[Config]] = {"wavenet": WaveNetConfig, "rnn": RNNConfig, "vae": VAEConfig, "wgan": WGANConfig}
MEMBERS = FAMILIES | {"conv": ConvDecoderConfig}  # of all unions a recipe has: steps of a path that are no keys


class CriticConfig(Config):
    """Size of the network that tells recordings from generated clips; it is not part of a model folder."""

    channels: tuple[Annotated[int, Field(gt=0)], ...] = (16, 32, 64, 128, 256)  # output width of each layer
    strides: tuple[Annotated[int, Field(gt=1)], ...] = (4, 4, 4, 4, 4)  # downsampling of each layer
    kernel_size: int = Field(16, gt=0)  # samples at the input of a layer, rounded up to whole strides
    phase_shuffle: int = Field(2, ge=0)  # samples a layer's output is shifted by at most


class SpectralCriticConfig(Config):
    """A critic of log-mel frames beside the one of samples: a second distance, in the space of spectrograms."""

    n_fft: int = Field(256, gt=0)  # samples
    hop_length: int = Field(64, gt=0)  # samples; model.num_samples is a multiple of it
    n_mels: int = Field(48, gt=0)
    weight: float = Field(1.0, gt=0)  # of its score in the generator's loss
    critic: CriticConfig = CriticConfig(channels=(96, 128, 192, 256), strides=(2, 2, 2, 2), kernel_size=4,
                                        phase_shuffle=0)


class AdversarialConfig(Config):
    """The game of generator and critic; read by the family `wgan` alone."""

    objective: Literal["wasserstein", "js", "js_nonsaturating"] = "wasserstein"
    regulariser: Literal["gp", "clip"] = "gp"  # of the Wasserstein critic: gradient penalty or weight clipping
    penalty_weight: float = Field(10.0, ge=0)
    clip_value: float = Field(0.01, gt=0)  # weights stay within +- this
    critic_steps: int = Field(5, gt=0)  # for each step of the generator
    critic_lr: float | None = Field(None, gt=0)  # None is the generator's rate
    in_bin_noise: bool = True  # recordings are spread inside their mu-law bins
    critic: CriticConfig = CriticConfig()
    spectral: tuple[SpectralCriticConfig, ...] = ()  # critics of spectrograms, each with its own penalty
    judge: str | None = None  # folder of judges that score clips at each validation
    collapse_ratio: float = Field(0.3, ge=0)  # diversity of clips against recordings that raises the alarm


class VariationalConfig(Config):
    """What the family `vae` minimises, per sample of a window; read by no other family.

        bits of the codes + spectral_weight * spectral distance + kl_weight * KL to the prior

    With spectral_weight 0 and kl_weight 1 it is the evidence lower bound.
    """

    kl_weight: float = Field(1.0, ge=0)
    kl_warmup_steps: int = Field(0, ge=0)  # over which kl_weight rises from 0
    free_bits: float = Field(0.0, ge=0)  # of each latent dimension (channel and frame) that cost nothing
    likelihood_weight: float = Field(1.0, ge=0)
    spectral_weight: float = Field(0.0, ge=0)  # conv decoder only
    spectral_sizes: tuple[Annotated[int, Field(ge=8)], ...] = (128, 256, 512, 1024)  # samples of a frame


class OptimizerConfig(Config):
    """Muon on matrices, AdamW on the rest; `name: adamw` uses AdamW for all."""

    name: Literal["muon", "adamw"] = "muon"
    muon_lr: float = Field(0.01, gt=0)
    adamw_lr: float = Field(3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)  # on matrices
    warmup_steps: int = Field(60, ge=0)
    flat_fraction: float = Field(0.3, ge=0, le=1)  # of max_steps before the cosine starts
    final_fraction: float = Field(0.0, ge=0, le=1)  # of the peak rate at max_steps


class TrainingConfig(Config):
    """How long, on what, how fast, and what is written while it runs."""

    seed: int = Field(0, ge=0)
    max_steps: int = Field(gt=0)
    samples_per_batch: int = Field(12_000, gt=0)  # audio samples over all ranks, padding included
    chunk_samples: int | None = Field(None, gt=0)  # train on windows of this length; None: whole clips
    code_noise: float = Field(0.0, ge=0)  # errors in the codes fed back, of the signal path lpc: mean spread, in codes
    window_start: Literal["start", "random"] = "start"  # of a fixed-length window in a longer clip
    pitch_shift: float = Field(0.0, ge=0, le=12)  # semitones up or down, drawn for each fixed-length window anew
    balance_labels: bool = False  # clips of rarer labels come several times an epoch
    tail_samples: int = Field(480, ge=0)  # silence appended to each clip
    optimizer: OptimizerConfig = OptimizerConfig()
    gradient_clip: float = Field(1.0, gt=0)  # global norm
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Literal["32", "bf16"] = "32"  # bf16: matrix products of the stack, on a GPU all under autocast
    compile: bool = False  # torch.compile the network; pays on a GPU
    validation_split: str = "test"
    validation_interval: int = Field(1000, gt=0)  # steps
    validation_batches: int | None = Field(None, gt=0)  # None is the whole split
    checkpoint_interval: int = Field(500, gt=0)  # steps
    keep_checkpoints: int = Field(2, gt=0)
    sample_interval: int = Field(0, ge=0)  # steps between generated samples; 0 is never
    copy_clips: int = Field(0, ge=0)  # held-out clips a vocoder speaks from their own mel; 0 is none
    copy_interval: int = Field(1000, gt=0)  # steps between such copies, by which the best checkpoint is chosen
    check_clips: int = Field(2, ge=0)  # held-out clips a vocoder speaks at the end, to warn if it has collapsed
    log_interval: int = Field(50, gt=0)  # steps between lines of progress
    max_bad_steps: int = Field(3, gt=0)  # steps with a NaN loss in a row before training stops
    threads: int | None = Field(None, gt=0)  # CPU threads; None leaves torch's choice
    loader_workers: int = Field(0, ge=0)  # processes that make batches ahead; 0 makes them in the training's own
    adversarial: AdversarialConfig = AdversarialConfig()
    variational: VariationalConfig = VariationalConfig()


class SamplingDefaults(Config):
    """How a model draws where nobody says otherwise."""

    temperature: float = Field(1.0, gt=0)
    min_p: float = Field(0.0, ge=0, lt=1)
    matching: int = Field(0, ge=0, le=8)  # passes that bring a vocoder's audio to the levels of its mel


class Recipe(Config):
    """One YAML in `recipes/`: data, audio, model and training of one experiment."""

    name: str
    audio: AudioConfig
    prepare: PrepareConfig = PrepareConfig()
    model: ModelConfig
    training: TrainingConfig
    sampling: SamplingDefaults = SamplingDefaults()  # written into the model folder

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        mel = self.audio.mel
        if mel is not None and mel.sample_rate != self.audio.sample_rate:
            raise ValueError(f"audio.mel.sample_rate {mel.sample_rate} differs from audio.sample_rate "
                             f"{self.audio.sample_rate}")
        _check_signal(self.audio, self.model)
        if self.training.copy_clips and not is_vocoder(self.audio, self.model):
            raise ValueError(f"training.copy_clips is {self.training.copy_clips}, but only a vocoder makes copies: a "
                             "wavenet whose model.conditioning.features are the bands of audio.mel. Set it to 0")
        if self.training.code_noise and self.audio.signal_path != "lpc":
            raise ValueError("training.code_noise is for audio.signal_path lpc alone: leave it 0")
        if self.audio.signal_path == "lpc" and self.training.tail_samples:
            raise ValueError(f"training.tail_samples is {self.training.tail_samples}, but on the signal path lpc "
                             "a clip ends where its mel ends: set it to 0")
        if isinstance(self.model, WGANConfig):
            game, length = self.training.adversarial, self.model.num_samples
            _check_strides(game.critic.channels, game.critic.strides, length)
            for view in game.spectral:
                if length % view.hop_length:
                    raise ValueError(f"model.num_samples {length} must be a multiple of "
                                     f"training.adversarial.spectral.hop_length {view.hop_length}")
                _check_strides(view.critic.channels, view.critic.strides, length // view.hop_length)
        if self.training.pitch_shift and not isinstance(self.model, VAEConfig | WGANConfig):
            raise ValueError(f"training.pitch_shift is {self.training.pitch_shift}, but the family "
                             f"{self.model.family} learns clips as they are; it is for fixed windows (vae, wgan)")
        if isinstance(self.model, VAEConfig):
            _check_variational(self.model, self.training.variational)
        return self


def _check_signal(audio: AudioConfig, model: ModelConfig) -> None:
    if audio.signal_path == "lpc" and audio.mel is None:
        raise ValueError("audio.signal_path lpc predicts from a mel spectrogram: describe one in audio.mel")
    if isinstance(model, WaveNetConfig):
        told = model.conditioning
        if told.features and audio.mel is None:
            raise ValueError(f"model.conditioning.features is {told.features}, but without audio.mel a store has none")
        if audio.mel is not None and told.features not in (0, audio.mel.n_mels):
            raise ValueError(f"model.conditioning.features is {told.features}, audio.mel has {audio.mel.n_mels} bands; "
                             "they must be equal")
        framed = audio.mel is not None and (told.features or audio.signal_path == "lpc")
        if framed and audio.mel is not None and told.feature_hop_length != audio.mel.hop_length:
            raise ValueError(f"model.conditioning.hop_length is {told.hop_length} and upsampling {told.upsampling}: "
                             f"their product must be {audio.mel.hop_length}, the samples of a frame of audio.mel")
    elif not audio.is_plain:
        raise ValueError(f"a {model.family} models the waveform itself: leave audio.signal_path direct and "
                         "audio.preemphasis 0")


def _check_variational(model: VAEConfig, objective: VariationalConfig) -> None:
    if model.latent_noise == "none" and objective.kl_weight:
        raise ValueError(f"training.variational.kl_weight is {objective.kl_weight}, but without latent noise "
                         "(model.latent_noise: none) there is no KL; set it to 0 for the plain auto-encoder")
    if objective.spectral_weight and not isinstance(model.decoder, ConvDecoderConfig):
        raise ValueError(f"training.variational.spectral_weight is {objective.spectral_weight}, but the wavenet "
                         "decoder gives probabilities of codes, not a waveform; set it to 0")


class Vocabulary(Config):
    """Names of label and speaker ids and how long their clips are."""

    labels: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    durations: tuple[tuple[tuple[int, int, int], ...], ...] = ()
    # (labels or 1) x (speakers or 1) x (25 %, 50 %, 75 %) of num_samples in the training split

    def label_id(self, label: str | int) -> int:
        return _index(label, self.labels, "label")

    def speaker_id(self, speaker: str | int) -> int:
        return _index(speaker, self.speakers, "speaker")


class PrecisionFigures(Config):
    """What a precision costs, teacher-forced on recordings, means over their samples."""

    kl: float  # KL(float64 || engine), nats
    bits: float  # bits per sample in this precision
    bits_change: float  # of bits per sample, against float64


class Calibration(Config):
    """How the precisions of the fused CPU engine do on a model; ranges stand beside the weights."""

    store_digest: str  # of the recordings
    ranges_split: str  # whose clips set the ranges
    split: str  # whose clips the figures are of
    clips: int
    samples: int
    limit: float = Field(1e-3, gt=0)  # `--precision auto` takes the fastest with a KL of at most this
    precisions: dict[str, PrecisionFigures]


class ModelFolder(Config):
    """`config.json` of a model folder: all that is needed to build and use the model."""

    format: Literal["wavegen-model"] = "wavegen-model"
    format_version: Literal[1] = 1
    wavegen_version: str
    name: str
    audio: AudioConfig
    model: ModelConfig
    vocabulary: Vocabulary = Vocabulary()
    sampling: SamplingDefaults = SamplingDefaults()
    training: dict[str, Any] = {}  # steps, seed, store digest, bits per sample: for the card
    calibration: Calibration | None = None
    weights_sha256: str = ""  # of model.safetensors; empty in the copy that file holds itself

    @property
    def is_vocoder(self) -> bool:
        """Whether the model turns a mel spectrogram into audio."""
        return is_vocoder(self.audio, self.model)

    @property
    def lookahead_frames(self) -> int:
        """Frames of a vocoder's mel that must be known beyond the one the network speaks."""
        return max(self.model.conditioning.lookahead_frames, int(self.audio.signal_path == "lpc"))


def is_vocoder(audio: AudioConfig, model: ModelConfig) -> bool:
    """Whether a model turns a mel spectrogram into audio."""
    return audio.mel is not None and model.family == "wavenet" and model.conditioning.features == audio.mel.n_mels


def _check_strides(channels: tuple[int, ...], strides: tuple[int, ...], num_samples: int) -> None:
    if len(channels) != len(strides):
        raise ValueError(f"channels and strides must be of one length, found {len(channels)} and {len(strides)}")
    if num_samples % math.prod(strides):
        raise ValueError(f"the length {num_samples} must be a multiple of the product of the strides, "
                         f"{math.prod(strides)}")


def _index(name: str | int, names: tuple[str, ...], kind: str) -> int:
    if str(name) in names:
        return names.index(str(name))
    raise ConfigError(f'this model has no {kind} "{name}"; {did_you_mean(str(name), names)}')


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe, apply `key=value` overrides and check every key and value.

    Args:
        path: YAML file.
        overrides: dotted assignments such as `training.max_steps=100`.

    Raises:
        ConfigError: a missing file, broken YAML, an unknown key or a value out of range;
            the message names the key and the nearest valid one.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"recipe {path} does not exist; recipes are YAML files such as recipes/fsdd/wavenet.yaml")
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f'override "{override}" is not of the form key=value, such as training.max_steps=100')
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (YAMLError, OmegaConfBaseException, ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} must hold keys and values, found {type(values).__name__}")
    return parse(Recipe, values, str(path))


def parse(kind: type[C], values: Any, where: str) -> C:
    """Build a configuration from plain values.

    Raises:
        ConfigError: every key that is unknown, missing or out of range, one a line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(kind, detail) for detail in error.errors()]
        raise ConfigError(f"{where}: " + "\n  ".join(lines)) from error


def _explain(kind: type[BaseModel], detail: Any) -> str:
    # pydantic names the chosen member of a union ("wavenet") as a step of the path.
    steps = [str(step) for step in detail["loc"] if step not in MEMBERS]
    key = ".".join(steps)
    if detail["type"] == "extra_forbidden":
        return f'unknown key "{key}": {did_you_mean(steps[-1], _fields(kind, detail["loc"][:-1]))}'
    if detail["type"] == "missing":
        return f'missing key "{key}"'
    if detail["type"].startswith("union_tag"):  # which of several kinds it is decides what else it has
        kinds = str(detail["ctx"].get("expected_tags", "")).replace("'", "") or ", ".join(FAMILIES)
        if key != "model":
            kinds = "conv, wavenet"
        found = detail["input"].get("family") if isinstance(detail["input"], dict) else None
        return (f'missing key "{key}.family": one of {kinds}' if found is None
                else f'"{key}.family": {did_you_mean(str(found), kinds.split(", "))} (found {found!r})')
    if detail["type"] == "value_error":  # of settings that do not go together: the message names them
        reason = detail["msg"].removeprefix("Value error, ")
        return f'"{key}": {reason}' if key else reason
    found = repr(detail["input"])
    return f'"{key}": {detail["msg"]} (found {found if len(found) <= MAX_FOUND else found[:MAX_FOUND] + "..."})'


def _fields(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    from typing import get_args

    fields = kind.model_fields
    for step in location:
        if step in MEMBERS:
            fields = MEMBERS[str(step)].model_fields
            continue
        annotation = fields[str(step)].annotation if str(step) in fields else None
        members = [annotation, *get_args(annotation)]
        nested = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        if len(nested) == 1:
            fields = nested[0].model_fields
    return list(fields)
