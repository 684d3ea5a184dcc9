"""Coqui TTS: `plug_in(synthesizer, voc)`, then `synthesizer.tts(text)` speaks through wavegen."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

from wavegen.config import MelSpec
from wavegen.errors import MelMismatch
from wavegen.integrations.adapter import AbstractAdapter, Statistics, normalised_spec, setting
from wavegen.synth import Vocoder


class CoquiVocoder(AbstractAdapter):
    """Called like the models of `TTS.vocoder`."""

    def __init__(self, vocoder: Vocoder, spec: MelSpec, **options: Any) -> None:
        super().__init__(vocoder, spec, **options)
        # The toolkit sends the mel to the device of the first parameter.
        self.place = torch.nn.Parameter(torch.zeros(0), requires_grad=False)

    def inference(self, c: torch.Tensor) -> torch.Tensor:
        """The waveforms (B, 1, T) of (B, n_mels, F)."""
        return self.speak(c).waveform[:, None]

    forward = inference


def plug_in(synthesizer: Any, vocoder: Vocoder, **options: Any) -> CoquiVocoder:
    """Let a `TTS.utils.synthesizer.Synthesizer` with an acoustic model speak through a vocoder of wavegen.

    The synthesizer hands over decibels with the acoustic model's normalisation undone, and interpolates a mel of
    another sample rate without a word; here that is an error.

    Raises:
        MelMismatch: the vocoder reads another mel than `synthesizer.tts_model` gives.
    """
    adapter = CoquiVocoder(vocoder, coqui_spec(synthesizer.tts_model.ap, denormalised=True), **options)
    synthesizer.vocoder_model = adapter
    synthesizer.vocoder_ap = SimpleNamespace(normalize=lambda decibels: decibels)
    synthesizer.vocoder_config = {"audio": {"sample_rate": adapter.sample_rate}}
    synthesizer.output_sample_rate = adapter.sample_rate
    return adapter


def coqui_spec(audio: Any, statistics: Statistics | None = None, denormalised: bool = False) -> MelSpec:
    """The mel of a Coqui model, from its `config.audio` or its `AudioProcessor`.

    Args:
        audio: mapping or object with the settings of `BaseAudioConfig`.
        statistics: mean and standard deviation of the decibels of every band, where `stats_path` names a file of them.
        denormalised: the spec of the decibels after `AudioProcessor.denormalize`.

    Raises:
        MelMismatch: it is none that a `MelSpec` can say: of a pre-emphasised signal, without a logarithm, normalised
            with statistics that are not given.
    """
    def get(name: str) -> Any:
        return setting(audio, name)

    if get("preemphasis") or not get("do_amp_to_db_mel") or get("stft_pad_mode") not in ("reflect", "constant"):
        raise MelMismatch(
            f"Coqui's mel has preemphasis {get('preemphasis')}, do_amp_to_db_mel {get('do_amp_to_db_mel')}, "
            f"stft_pad_mode {get('stft_pad_mode')}; wavegen reads those without pre-emphasis, with a logarithm, padded "
            "by reflection or zeros")
    hop_length, win_length = get("hop_length"), get("win_length")
    if hop_length is None:
        win_length = int(get("frame_length_ms") / 1000 * get("sample_rate"))
        hop_length = int(win_length / (get("frame_length_ms") / get("frame_shift_ms")))
    gain, natural = float(get("spec_gain")), get("log_func") == "np.log"
    plain = MelSpec(
        sample_rate=get("sample_rate"),
        n_fft=get("fft_size"),
        hop_length=hop_length,
        win_length=win_length,
        n_mels=get("num_mels"),
        fmin=get("mel_fmin"),
        fmax=get("mel_fmax"),
        log_base="e" if natural else "10",
        floor=1e-8,
        pad_mode="reflect" if get("stft_pad_mode") == "reflect" else "zero",
    )
    if denormalised or not get("signal_norm"):
        return plain if gain == 1 else normalised_spec(plain, (0.0, 1 / gain))
    if get("stats_path"):
        if statistics is None:
            raise MelMismatch(f"Coqui's mel is normalised with the statistics in {get('stats_path')}; give mean and "
                              "standard deviation of the bands as statistics")
        mean, deviation = (torch.as_tensor(part, dtype=torch.float64) for part in statistics)
        return normalised_spec(plain, (mean / gain, deviation / gain))
    # (decibels - ref_level_db - min_level_db) / -min_level_db lies in [0, 1], and that in [0, k] or [-k, k].
    span, k = -float(get("min_level_db")), float(get("max_norm"))
    lowest = float(get("ref_level_db")) - span
    width, start = (2 * k, -k) if get("symmetric_norm") else (k, 0.0)
    scale = span / width / gain
    floor = (math.e if natural else 10.0) ** (lowest / gain) if get("clip_norm") else 1e-8
    return normalised_spec(plain.model_copy(update={"floor": floor}), (lowest / gain - start * scale, scale))
