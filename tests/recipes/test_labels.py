"""What the rules of a recipe call the real recordings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from wavegen.config import load_recipe
from wavegen.data.plan import build_plan

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
DRUMS = {
    "kick": ("drum-machines/TR-808/kick/bd2550.ogg", "drum-machines/LM-2/kick-alt.ogg", "sonic-pi/bd_haus.flac",
             "sonic-pi/drum_bass_hard.flac", "sonic-pi/drum_heavy_kick.flac", "sonic-pi/elec_soft_kick.flac"),
    "snare": ("drum-machines/TR-808/snare/sd0010.ogg", "drum-machines/Yamaha-MR10/shortsn.ogg",
              "drum-machines/Micro-Rhythmer-12/univox-sd.ogg", "sonic-pi/sn_dub.flac", "sonic-pi/elec_lo_snare.flac"),
    "hat": ("drum-machines/Casio-SK1/hithat.ogg", "drum-machines/808-mini/hhopen-2.ogg",
            "drum-machines/Sequential-Circuits-Drumtraks/DT_Closedhat.ogg", "drum-machines/Yamaha-MR10/chihat.ogg",
            "drum-machines/Micro-Rhythmer-12/univox-oh.ogg", "sonic-pi/hat_tap.flac",
            "sonic-pi/drum_cymbal_pedal.flac"),
    "cymbal": ("drum-machines/Roland-CR-8000/cymball.ogg", "drum-machines/Casio-RZ1/crash.ogg",
               "drum-machines/Sequential-Circuits-Drumtraks/DT_Ride.ogg", "sonic-pi/ride_via.flac",
               "sonic-pi/drum_cymbal_hard.flac", "sonic-pi/drum_splash_soft.flac"),
    "tom": ("drum-machines/TR-808/mid-tom/mt25.ogg", "drum-machines/Yamaha-MR10/hitom.ogg",
            "drum-machines/Sequential-Circuits-Drumtraks/DT_Tom02.ogg", "sonic-pi/elec_fuzz_tom.flac"),
    "conga": ("drum-machines/TR-808/conga-hi/hc75.ogg", "drum-machines/LM-2/conga-lll.ogg"),
    "tabla": ("sonic-pi/tabla_ghe1.flac", "sonic-pi/tabla_te_ne.flac"),
    "other": ("drum-machines/TR-808/clap/cp.ogg", "drum-machines/Yamaha-MR10/brush.ogg", "sonic-pi/elec_bell.flac",
              "sonic-pi/perc_snap.flac", "sonic-pi/glitch_perc3.flac", "drum-machines/LM-2/stick-h.ogg"),
}
DRUM_COUNTS = {"kick": 55, "snare": 51, "hat": 53, "cymbal": 44, "tom": 45, "conga": 23, "tabla": 26, "other": 59}
NOTES = {  # file: label, pitch as it is written
    "acoustic_guitar/MartinGM2_046_Bb2_1.flac": ("guitar", "Bb2"),
    "acoustic_guitar/MartinGM2_040__E2_1.flac": ("guitar", "E2"),
    "electric_grand_piano/027-D#1-FF.flac": ("piano", "D#1"),
    "pizzicato_strings/VS_PizzStr_G#0.flac": ("strings", "G#0"),
    "sung_martin/A#3-2.flac": ("voice", "A#3"),
    "sung_martin/G#2-7-2.flac": ("voice", "G#2"),
    "sung_martin/D2.flac": ("voice", "D2"),
}


@pytest.fixture
def items_of(data_folder, tmp_path):
    def items(name, recipe):
        folder = data_folder / name
        if not folder.is_dir():
            pytest.skip(f"no folder {name} in {data_folder}")
        config = load_recipe(RECIPES / name / recipe).prepare
        plan = build_plan(tmp_path / "plan.sqlite", folder, config, tmp_path / "store")
        try:
            return list(plan.items())
        finally:
            plan.close()
    return items


@pytest.mark.parametrize("recipe", ["wgan.yaml", "vae.yaml"])
def test_drums_are_called_what_they_are(items_of, recipe):
    items = items_of("drums", recipe)
    labels = {item.source: item.label for item in items}
    for label, sources in DRUMS.items():
        assert {source: labels[source] for source in sources} == dict.fromkeys(sources, label)
    assert Counter(labels.values()) == DRUM_COUNTS and all(item.reason is None for item in items)
    splits = Counter((item.label, item.split) for item in items)
    assert all(splits[label, split] > 0 for label in DRUM_COUNTS for split in ("train", "test"))


def test_notes_have_instrument_and_pitch(items_of):
    items = items_of("notes", "vae.yaml")
    used = {item.source: (item.label, item.text) for item in items if item.reason is None}
    assert {source: used[source] for source in NOTES} == NOTES
    assert Counter(label for label, _ in used.values()) == {"piano": 18, "guitar": 15, "strings": 16, "voice": 69}
    left_out = sorted(item.source for item in items if item.reason is not None)
    assert left_out == [f"sung_martin/{name}.flac" for name in
                        ("A4-5-instable", "A4-6-instable", "D#2-ko", "D2-ko", "G2-bended", "bended")]
    assert all(text and text[0] in "ABCDEFG" and text[-1].isdigit() for _, text in used.values())
