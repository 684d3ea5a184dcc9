"""A vocoder on the kernels themselves, interpreted; what the host does around them is tested in tests/engines."""

from __future__ import annotations

import numpy as np
import pytest

import wavegen
from tiny import save_tiny_vocoder, tiny_mel
from wavegen.engines.triton_engine import Plan
from wavegen_kernels.gpu.latency import make_spread

# At 400 Hz a block is four samples: two frames, of two rows of the table each.
MEL = {"sample_rate": 400, "n_fft": 16, "win_length": 16, "hop_length": 2, "n_mels": 4}
UPSAMPLED = {"hop_length": 1, "upsampling": 2}


@pytest.mark.parametrize(("kernel", "signal_path"), [("batch", "lpc"), ("latency", "lpc"), ("batch", "direct")])
def test_upsampled_frames_of_a_ragged_batch_speak_the_references_codes(tmp_path, kernel, signal_path):
    folder = save_tiny_vocoder(tmp_path / "voice", signal_path, mel=MEL, conditioning=UPSAMPLED, dilations=(1, 2))
    voc, reference = wavegen.load(folder, engine="triton", device="cpu"), wavegen.load(folder, engine="reference")
    sizes = voc.engine.packed.sizes
    if kernel == "latency":
        voc.engine.plan = Plan(spread=make_spread(sizes, voc.engine.packed.dtype, 2, 1 << 17, 132))
        assert voc.engine.plan.spread.programs > 3
    mels, options = [(tiny_mel(frames, frames, 4) - 3).clip(-11.4) for frames in (4, 2)], {"guard": False, "seed": 5}
    found = voc.codes(mels, **options)
    assert np.array_equal(found, reference.codes(mels, **options)) and len(np.unique(found)) > 4
    if kernel == "batch":
        stream = voc.stream(**options)
        spoken = [stream.push(mels[0][:, :3]), stream.push(mels[0][:, 3:]), stream.finish()]
        assert np.abs(np.concatenate(spoken) - reference(mels[0][None], **options).waveform[0]).max() < 1e-6
