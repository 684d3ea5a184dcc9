"""encode, decode and morph on the command line."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from tiny import tiny_family


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return tiny_family("vae", tmp_path_factory.mktemp("models") / "vae")


@pytest.fixture
def clips(tmp_path):
    time = np.arange(900) / 16000
    for name, pitch in (("a", 200), ("b", 400)):
        soundfile.write(tmp_path / f"{name}.wav", 0.5 * np.sin(2 * np.pi * pitch * time), 16000)
    return tmp_path


def test_a_clip_goes_through_latents(wavegen, vae, clips):
    done = wavegen("encode", vae, clips / "a.wav", "--label", "1", "-o", clips / "a.npz", "--json")
    assert done.code == 0 and '"num_samples": 450' in done.out and "3 channels x 8 frames" in done.err
    assert wavegen("decode", vae, clips / "a.npz", "-o", clips / "back.wav").code == 0
    assert soundfile.info(clips / "back.wav").frames == 450
    first = (clips / "back.wav").read_bytes()
    wavegen("decode", vae, clips / "a.npz", "-o", clips / "back.wav")
    assert (clips / "back.wav").read_bytes() == first
    wavegen("decode", vae, clips / "a.npz", "--label", "2", "-o", clips / "back.wav")
    assert (clips / "back.wav").read_bytes() != first


def test_a_morph_is_a_file_for_each_step_and_one_for_all(wavegen, vae, clips):
    done = wavegen("morph", vae, clips / "a.wav", clips / "b.wav", "--steps", "3", "--label", "0,2",
                   "--out", clips / "way")
    assert done.code == 0
    assert sorted(path.name for path in (clips / "way").iterdir()) == [
        "morph.wav", "step-00.wav", "step-01.wav", "step-02.wav"]
    steps = [soundfile.read(clips / "way" / f"step-{i:02d}.wav")[0] for i in range(3)]
    assert np.array_equal(soundfile.read(clips / "way" / "morph.wav")[0], np.concatenate(steps))
    wavegen("encode", vae, clips / "b.wav", "--label", "2", "-o", clips / "b.npz")
    wavegen("decode", vae, clips / "b.npz", "-o", clips / "b-back.wav")
    assert np.array_equal(steps[2], soundfile.read(clips / "b-back.wav")[0])


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["encode", "VAE", "DIR/a.wav", "-o", "DIR/a.txt"], 2, "give a name that ends in .npz"),
    (["encode", "VAE", "DIR/a.wav", "-o", "DIR/no/a.npz"], 2, "there is no folder"),
    (["encode", "VAE", "DIR/none.wav", "-o", "DIR/a.npz"], 3, "none.wav does not exist"),
    (["encode", "VAE", "DIR/a.wav", "--label", "x", "-o", "DIR/a.npz"], 2, 'no label "x"'),
    (["encode", "digits", "DIR/a.wav", "-o", "DIR/a.npz"], 2, "is a wavenet, which has no encoder"),
    (["decode", "VAE", "DIR/a.wav", "-o", "DIR/b.wav"], 3, "does not hold latents"),
    (["decode", "VAE", "DIR/none.npz", "-o", "DIR/b.wav"], 3, "none.npz does not exist"),
    (["decode", "VAE", "DIR/none.npz", "-o", "DIR/b.mp3"], 2, 'unknown format ".mp3"'),
    (["morph", "VAE", "DIR/a.wav", "DIR/b.wav", "--out", "DIR/way"], 2, "needs a label"),
    (["morph", "VAE", "DIR/a.wav", "DIR/b.wav", "--label", "0,1,2", "--out", "DIR/way"], 2, "--label names 3"),
    (["morph", "VAE", "DIR/a.wav", "DIR/b.wav", "--label", "0", "--steps", "1", "--out", "DIR/way"], 2, "found 1"),
])
def test_mistakes_are_told(wavegen, vae, clips, arguments, code, message):
    filled = [str(one).replace("DIR", str(clips)).replace("VAE", str(vae)) for one in arguments]
    done = wavegen(*filled)
    assert done.code == code and message in done.error
    assert not (clips / "way").exists()
