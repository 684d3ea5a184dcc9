"""Every recipe is read, says what it costs, and trains for two steps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavegen.config import load_recipe
from wavegen.data.prepare import prepare
from wavegen.data.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("recipes/**/*.yaml"))
SMALL = [
    "training.max_steps=2",
    "training.samples_per_batch=2000",
    "training.validation_interval=2",
    "training.validation_batches=1",
    "training.sample_interval=0",
    "training.threads=1",
    "training.compile=false",
    "training.loader_workers=0",
    "training.copy_clips=0",
]
LARGE = [f"model.{name}=16" for name in ("residual_channels", "skip_channels", "output_channels")]
SMALLER: dict[str, list[str]] = {  # published sizes, and what would take longer than it tells
    "recipes/drums/wgan.yaml": ["model.channels=[32,16,8,8,8]", "training.adversarial.critic.channels=[8,8,8,16,32]"],
    **{f"recipes/{corpus}/large.yaml": LARGE for corpus in ("kathleen", "ljspeech", "vctk", "libritts")},
    "recipes/speech_commands/wavenet.yaml": ["model.skip_channels=64", "model.output_channels=64"],
    "recipes/speech_commands/wgan.yaml": ["model.channels=[32,16,8,8,8]",
                                          "training.adversarial.critic.channels=[8,8,8,16,32]"],
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DRUMS = ("sonic-pi/bd_ada", "sonic-pi/sn_dub", "TR-808/hihat-open/oh10", "TR-808/cymbal/cy0000", "Casio-SK1/tom-hi",
         "TR-808/conga-mid/mc75", "sonic-pi/tabla_na", "TR-808/clap/cp", "LM-2/kick", "sonic-pi/hat_gem")
NOTES = ("electric_grand_piano/060-C4-FF", "acoustic_guitar/MartinGM2_040__E2_1", "pizzicato_strings/VS_PizzStr_C1",
         *(f"sung_martin/{name}" for name in ("A#3", "A3-2", "B3-5", "C3", "D2-3", "E2", "F#2-2", "G2")))
CLIPS = {
    "fsdd": [f"{digit}_{speaker}_{take}.wav" for digit in "07" for speaker in ("theo", "lucas") for take in (0, 5, 6)],
    "drums": [f"{name}.wav" for name in DRUMS],
    "notes": [f"{name}.flac" for name in NOTES],
    "kathleen": [f"data/arctic_a{prompt:04d}_1592700000.flac" for prompt in (1, 2, 3, 385, 386, 405)],
    "ljspeech": [f"wavs/LJ001-{number:04d}.wav" for number in (1, 2, 3, 12, 20, 22)],
    "vctk": [f"wav48_silence_trimmed/{speaker}/{speaker}_{take:03d}_mic1.flac"
             for speaker in ("p225", "p226", "p227", "p232", "s5") for take in (1, 2)],
    "libritts": [f"{subset}/{speaker}/174/{speaker}_174_000001_00000{take}.wav" for take in (0, 1)
                 for subset, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-clean", 121))],
    "speech_commands": [f"{digit}/{speaker}_nohash_0.wav" for digit in DIGITS[:3] for speaker in "0123456789"],
}


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_is_read_and_says_what_it_costs(path):
    recipe = load_recipe(REPOSITORY / path)
    assert recipe.name
    head = (REPOSITORY / path).read_text().split("name:")[0]
    assert re.search(r"#.*\d\s*(min|h)\b", head), f"{path}: say in a comment at the top what training costs"


# The large size of a vocoder shares the store of the small one, which tests/recipes/test_corpora.py checks.
@pytest.mark.parametrize("path", [path for path in RECIPES if not path.endswith("/large.yaml")])
def test_a_recipe_finds_the_recordings_at_either_folder(path, tmp_path):
    recipe = load_recipe(REPOSITORY / path)
    num_clips = write_clips(tmp_path / "data" / "below", path)
    for place in ("data", "data/below"):
        prepare(recipe, tmp_path / place, tmp_path / place.replace("/", "-") / "store", workers=0, progress=False)
        store = Store.open(tmp_path / place.replace("/", "-") / "store")
        assert len(store) == num_clips and len(store.rows("train")) and len(store.rows("test"))
        assert store.labels == (recipe.prepare.labels or ())
        assert not store.labels or (store.label_ids >= 0).all()


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_trains_for_two_steps(path, tmp_path):
    training = pytest.importorskip("wavegen.training", reason="the train extra is not installed")
    recipe = load_recipe(REPOSITORY / path, [*SMALL, *SMALLER.get(path, [])])
    write_clips(tmp_path / "data", path)
    prepare(recipe, tmp_path / "data", tmp_path / "store", workers=0, progress=False)
    checkpoint = training.fit(recipe, tmp_path / "store", tmp_path / "run")
    assert checkpoint.name == "step-2.ckpt"  # though it is far from a whole interval
    assert np.float32(1e-40) * np.float32(0.5) > 0, "training flushes denormals, and should stop when it ends"


def write_clips(folder: Path, path: str) -> int:
    """A few tones named like the recordings a recipe is for; gives their number."""
    names = CLIPS[Path(path).parent.name]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(1600 + 40 * number) / 16000
        tone = 0.5 * np.sin(2 * np.pi * (200 + 50 * number) * time) * np.exp(-8 * time)
        soundfile.write(folder / name, tone, 16000)
    return len(names)
