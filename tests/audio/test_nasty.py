"""Every file of the folder of odd, broken and empty files is read or refused with its reason."""

from __future__ import annotations

import csv

import numpy as np

from wavegen.audio import io
from wavegen.errors import AudioError

REFUSED = {  # why; all others must be read
    "flac-test-files/02 - increasing number of channels.flac": "no length",
    "flac-test-files/05 - wrong total number of samples.flac": "holds more audio",
    "hound/crash-24728523ef4be15c838293b676f6853e73723bf4.wav": "Malformed",
    "hound/crash-cbd757427cea12bd8a21f86cd8cf74d98ce56bee.wav": "Malformed",
    "hound/crash-e879de4eb4d206c59e21f0e01def16457af80fdc.wav": "No 'data' chunk",
    "made/nan_inf_float32.wav": "NaN or infinite",
    "made/no_frames_16k.wav": "0 frames",
    "made/text_renamed.wav": "not recognised",
    "made/truncated_data.wav": "cut short",
    "made/zero_bytes.wav": "not recognised",
    "pocketsphinx/awful.wav": "1092676 Hz",
    "pocketsphinx/evil.wav": "No 'data' chunk",
    "python-soundfile/mono.raw": "not recognised",
    "scipy/test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav": "No 'data' chunk",
    "scipy/test-44100Hz-le-1ch-4bytes-incomplete-chunk.wav": "No 'data' chunk",
    "scipy/test-8000Hz-le-3ch-5S-36bit.wav": "unimplemented",
    "scipy/test-8000Hz-le-3ch-5S-53bit.wav": "unimplemented",
}


def test_every_file_is_read_or_refused_with_its_reason(nasty_folder):
    with open(nasty_folder / "MANIFEST.csv", encoding="utf-8", newline="") as manifest:
        names = [row["file"] for row in csv.DictReader(manifest)]
    assert set(REFUSED) <= set(names)
    for name in names:
        try:
            waveform, rate = io.load(nasty_folder / name)
        except AudioError as error:
            assert name in REFUSED and REFUSED[name] in str(error) and name in str(error), f"{name}: {error}"
        else:
            assert name not in REFUSED, f"{name} was read"
            assert 1000 <= rate <= 384_000 and len(waveform) >= 1
            assert waveform.dtype == np.float32 and np.isfinite(waveform).all()
            assert np.abs(waveform).max() <= 1.5, name
