"""Stand-ins for the text-to-speech toolkits: classes with the documented calls, and nothing of the weights.

Each gives mels of noise at the level of speech. They serve where a toolkit is not installed, and where a page of the
documentation would fetch a model from the network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

FRAMES = 9  # of every mel


def noise(*shape: int, low: float = -4.0, high: float = -1.0, seed: int = 0) -> torch.Tensor:
    return torch.empty(*shape).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def install(monkeypatch: Any, **modules: Any) -> None:
    """Put stand-in modules where `import` finds them; "a__b" is the module a.b, whose parents are made too."""
    for name, names in modules.items():
        parts = name.split("__")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if depth == len(parts) or path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, ModuleType(path))
        vars(sys.modules[".".join(parts)]).update(names)


class FromNowhere:
    """`from_pretrained` without the network."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Any:
        return cls()


class Processor(FromNowhere):
    """`SpeechT5Processor` and the tokenizers: one number a word."""

    def __call__(self, text: str | list[str], return_tensors: str, padding: bool = False) -> dict[str, torch.Tensor]:
        assert return_tensors == "pt"
        texts = [text.split() for text in ([text] if isinstance(text, str) else text)]
        longest = max(map(len, texts))
        ids = torch.tensor([[2 + len(word) for word in words] + [1] * (longest - len(words)) for words in texts])
        return {"input_ids": ids, "attention_mask": (ids != 1).long()}


class SpeechT5(FromNowhere):
    """`SpeechT5ForTextToSpeech.generate_speech`, and the parts that it is made of."""

    def __init__(self) -> None:
        hidden = SimpleNamespace(last_hidden_state=noise(1, 1, 4), past_key_values=None)
        self.speecht5 = SimpleNamespace(
            encoder=lambda input_values, attention_mask: hidden,
            decoder=SimpleNamespace(prenet=lambda spoken, speaker: spoken, wrapped_decoder=lambda **_: hidden))
        self.speech_decoder_postnet = SimpleNamespace(
            feat_out=lambda hidden: noise(1, 160), prob_out=lambda hidden: torch.full((1, 2), -5.0),
            postnet=lambda mel: mel)

    def generate_speech(self, input_ids: torch.Tensor, speaker_embeddings: torch.Tensor, attention_mask: Any = None,
                        vocoder: Any = None, return_output_lengths: bool = False) -> Any:
        rows = len(input_ids)
        assert speaker_embeddings.shape == (rows, 512)
        mels, lengths = noise(rows, FRAMES, 80), [FRAMES - row for row in range(rows)]
        for mel, length in zip(mels, lengths, strict=True):
            mel[length:] = 0
        if not return_output_lengths:
            return (vocoder or torch.nn.Identity())(mels[0])
        return vocoder(mels), [256 * length for length in lengths]


def random_speecht5(transformers: Any) -> Any:
    """The real SpeechT5 with random weights, whose mel is a quiet one and as long as it may be: 20 frames a word."""
    config = transformers.SpeechT5Config(
        vocab_size=60, hidden_size=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, speech_decoder_prenet_units=8,
        speech_decoder_postnet_units=8, speaker_embedding_dim=512)
    torch.manual_seed(0)
    model = transformers.SpeechT5ForTextToSpeech(config).eval()
    with torch.no_grad():
        model.speech_decoder_postnet.feat_out.bias.fill_(-4.0)
        model.speech_decoder_postnet.prob_out.bias.fill_(-5.0)
    return model


class FastSpeech2(torch.nn.Module, FromNowhere):
    """`FastSpeech2ConformerWithHifiGan`."""

    def forward(self, input_ids: torch.Tensor, return_dict: bool) -> dict[str, torch.Tensor]:
        mel = noise(len(input_ids), FRAMES, 80, low=-2, high=2)
        return {"spectrogram": mel, "waveform": self.vocoder(mel)}


class Text2Speech(FromNowhere):
    """`espnet2.bin.tts_inference.Text2Speech`."""

    vocoder: Any = None
    feats_extract = SimpleNamespace(
        fs=22050, n_fft=1024, hop_length=256, win_length=None, window="hann", n_mels=80, fmin=80, fmax=7600,
        logmel=SimpleNamespace(log_base=10.0, mel_options={"htk": False}), stft=SimpleNamespace(center=True))

    @property
    def fs(self) -> int:
        return self.vocoder.fs

    def __call__(self, text: str) -> dict[str, torch.Tensor]:
        mel = noise(FRAMES, 80)
        return {"feat_gen_denorm": mel, "wav": self.vocoder(mel)}


class SpeechBrainTacotron2:
    """`speechbrain.inference.TTS.Tacotron2`."""

    @classmethod
    def from_hparams(cls, source: str, savedir: str) -> SpeechBrainTacotron2:
        return cls()

    def encode_batch(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, None]:
        assert [len(text) for text in texts] == sorted((len(text) for text in texts), reverse=True)
        return noise(len(texts), 80, FRAMES, low=-9), torch.arange(FRAMES, FRAMES - len(texts), -1), None


class FastPitch(FromNowhere):
    """`nemo.collections.tts.models.FastPitchModel`."""

    cfg = SimpleNamespace(preprocessor={
        "features": 80, "lowfreq": 0, "highfreq": 8000, "n_fft": 1024, "n_window_size": 1024, "n_window_stride": 256,
        "sample_rate": 22050, "window": "hann", "normalize": None, "preemph": None, "log": True,
        "log_zero_guard_type": "add", "log_zero_guard_value": 1e-5, "mag_power": 1.0})

    def eval(self) -> FastPitch:
        return self

    def parse(self, text: str) -> torch.Tensor:
        return torch.zeros(1, len(text), dtype=torch.int64)

    def generate_spectrogram(self, *, tokens: torch.Tensor) -> torch.Tensor:
        return noise(len(tokens), 80, FRAMES, low=-9).requires_grad_()


def coqui_audio(**changes: Any) -> dict[str, Any]:
    """The settings of Coqui's `BaseAudioConfig`, its defaults, that make a mel."""
    return {"fft_size": 1024, "win_length": 1024, "hop_length": 256, "frame_shift_ms": None, "frame_length_ms": None,
            "stft_pad_mode": "reflect", "sample_rate": 22050, "preemphasis": 0.0, "ref_level_db": 20,
            "log_func": "np.log10", "do_trim_silence": False, "num_mels": 80, "mel_fmin": 0.0, "mel_fmax": None,
            "spec_gain": 20, "do_amp_to_db_mel": True, "signal_norm": True, "min_level_db": -100,
            "symmetric_norm": True, "max_norm": 4.0, "clip_norm": True, "stats_path": None, **changes}


class CoquiAudioProcessor(SimpleNamespace):
    """`AudioProcessor` with the default normalisation or none."""

    def normalize(self, decibels: np.ndarray) -> np.ndarray:
        if not self.signal_norm:
            return decibels
        return np.clip(8 * (decibels - 20 + 100) / 100 - 4, -4, 4)

    def denormalize(self, mel: np.ndarray) -> np.ndarray:
        return (np.clip(mel, -4, 4) + 4) * 100 / 8 - 100 + 20 if self.signal_norm else mel


class CoquiSynthesizer:
    """`TTS.utils.synthesizer.Synthesizer`: what it does between the acoustic model and the waveform."""

    def __init__(self, audio: dict[str, Any] | None = None, *, tts_checkpoint: str = "",
                 tts_config_path: str = "") -> None:
        audio = audio or coqui_audio(mel_fmax=8000.0)
        processor = CoquiAudioProcessor(**audio)
        mel = processor.normalize(audio["spec_gain"] * noise(FRAMES, 80).numpy())
        outputs = {"outputs": {"model_outputs": torch.tensor(mel)[None]}}
        self.tts_model = SimpleNamespace(ap=processor, mel=mel, synthesize=lambda **_: outputs)
        self.vocoder_model = self.vocoder_ap = self.vocoder_config = None
        self.output_sample_rate = audio["sample_rate"]

    def tts(self, text: str) -> np.ndarray:
        device = next(self.vocoder_model.parameters()).device
        mel = self.tts_model.synthesize(text=text)["outputs"]["model_outputs"][0].numpy()
        given = self.vocoder_ap.normalize(self.tts_model.ap.denormalize(mel.T))
        assert self.vocoder_config["audio"]["sample_rate"] == self.tts_model.ap.sample_rate, "would be interpolated"
        return self.vocoder_model.inference(torch.tensor(given)[None].to(device)).numpy().squeeze()

    def save_wav(self, waveform: np.ndarray, path: str) -> None:
        import soundfile

        soundfile.write(path, waveform, self.output_sample_rate)


class TorchaudioTacotron2:
    """`bundle.get_tacotron2()`."""

    def infer(self, tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        rows = len(tokens)
        return noise(rows, 80, FRAMES, low=-9), torch.arange(FRAMES, FRAMES - rows, -1, dtype=torch.int32), None


class WyomingEvent:
    """`wyoming.event.Event`, and an event's class: `form(type)` makes one."""

    def __init__(self, type: str, data: dict[str, Any] | None = None, payload: bytes | None = None) -> None:
        self.type, self.data, self.payload = type, data or {}, payload

    @staticmethod
    def form(kind: str) -> type:
        class Form(SimpleNamespace):
            @staticmethod
            def is_type(kind_given: str) -> bool:
                return kind_given == kind

            @classmethod
            def from_event(cls, event: WyomingEvent) -> Any:
                return cls(**event.data)

            def event(self) -> WyomingEvent:
                data = dict(vars(self))
                return WyomingEvent(kind, data, data.pop("audio", None))

        return Form


WYOMING_AUDIO = {name: WyomingEvent.form(kind) for name, kind in (
    ("AudioStart", "audio-start"), ("AudioChunk", "audio-chunk"), ("AudioStop", "audio-stop"))}
WYOMING_TTS = {"Synthesize": WyomingEvent.form("synthesize")}


class SoundCard:
    """`sounddevice.OutputStream`: keeps what it is given."""

    played: list[np.ndarray]

    def __init__(self, samplerate: int, channels: int, dtype: str, latency: float = 0.1) -> None:
        assert (channels, dtype) == (1, "float32")
        self.samplerate = samplerate

    def __enter__(self) -> SoundCard:
        SoundCard.played = []
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def write(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32 and samples.shape[1] == 1
        self.played.append(samples[:, 0].copy())


def put_player(folder: Path, monkeypatch: Any) -> Path:
    """A program `aplay` that writes what it is given into the file returned."""
    played = folder / "played.raw"
    player = folder / "bin/aplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\nexec cat > '{played}'\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(player.parent), prepend=":")
    return played
