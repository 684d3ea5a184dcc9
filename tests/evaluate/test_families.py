"""One report for all families: the same keys, and what a family has not is None."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tiny import save_tiny, tiny_family
from wavegen.audio import mulaw
from wavegen.data.store import Store
from wavegen.evaluate import evaluate, summary
from wavegen.evaluate.autoencoding import distances, evidence_bound, reconstruct
from wavegen.evaluate.newness import diversity_beside, newness
from wavegen.metrics.bits import bits_per_sample
from wavegen.synth import load

FAMILIES = ("wavenet", "wgan", "vae", "vae_wavenet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    made = {family: tiny_family(family, place / family) for family in FAMILIES[1:]}
    return {**made, "wavenet": save_tiny(place / "wavenet")}


@pytest.fixture(scope="module")
def reports(folders, store, judges):
    return {family: evaluate(folders[family], store.path, judge=judges, seeds=2) for family in FAMILIES}


def keys_of(value):
    return {key: keys_of(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def test_the_keys_are_those_of_every_family(reports):
    for report in reports.values():
        assert json.loads(json.dumps(report)) == report
        assert set(report) == set(reports["wavenet"])
        assert set(report["generated"]) == set(reports["wavenet"]["generated"])
        assert keys_of(report["generated"]["neighbours"]) == keys_of(reports["wavenet"]["generated"]["neighbours"])
        heard = report["generated"]["judges"]["augmented"]
        assert 1 <= heard["inception_score"] <= 3 and heard["modified_inception_score"] >= 1
        assert report["generated"]["diversity"]["ratio"] > 0


def test_bits_say_what_they_are(reports):
    kinds = {family: (report["bits_per_sample"] or {}).get("kind") for family, report in reports.items()}
    assert kinds == {"wavenet": "exact", "wgan": None, "vae": "bound", "vae_wavenet": "bound"}
    for family in ("vae", "vae_wavenet"):
        bits, again = reports[family]["bits_per_sample"], reports[family]["reconstructions"]
        assert bits["all"] > bits["reconstruction"] > 0 and bits["kl_nats"] > 0
        assert again["clips"] == 12 and again["log_mel_distance"] > 0 and set(again["judges"]) == {"augmented", "clean"}
    assert reports["wgan"]["reconstructions"] is None and reports["wavenet"]["reconstructions"] is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_summary_can_be_read(reports, family):
    text = summary(reports[family])
    assert "None" not in text and "nearest training clip" in text and "diversity" in text
    assert ("ELBO" in text) == family.startswith("vae") == ("reconstructions of 12" in text)


def test_a_plain_auto_encoder_has_no_bound(tmp_path, store):
    folder = tiny_family("vae", tmp_path / "ae", latent_noise="none")
    bits = evaluate(folder, store.path, seeds=0)["bits_per_sample"]
    assert bits["kind"] == "reconstruction" and bits["kl_nats"] == 0 and bits["all"] == bits["reconstruction"]


def test_the_bound_of_a_speaking_decoder_is_its_likelihood_and_the_price_of_the_latents(folders, store):
    model = load(folders["vae_wavenet"]).model
    found = evidence_bound(model, store, "test")
    # Latents that change nothing leave the decoder's own bits.
    for parameter in model.decoder.conditioning.parameters():
        parameter.data.zero_()
    silent = evidence_bound(model, store, "test")
    assert silent.kl_nats == pytest.approx(found.kl_nats)
    lengths = store.lengths[store.rows("test")]
    price = found.kl_nats * len(lengths) / lengths.sum() / np.log(2)
    assert found.bits.mean == pytest.approx(found.reconstruction + price)


def test_a_reconstruction_has_the_length_of_its_recording(folders, store):
    rows = store.rows("test")[:3]
    for family in ("vae", "vae_wavenet"):
        again = reconstruct(load(folders[family]), store, rows)
        assert [len(waveform) for waveform in again] == store.lengths[rows].tolist()


def test_distances_of_recordings_to_themselves_are_0(store):
    clips = [mulaw.decode(store.codes(int(row))) for row in store.rows("test")[:2]]
    found = distances(clips, clips, 8000)
    assert found == {"clips": 2, "stft_distance": 0.0, "log_mel_distance": 0.0}


def test_copies_of_training_clips_are_found(store):
    rows = store.rows("train")[:6]
    copies = [0.5 * mulaw.decode(store.codes(int(row))) for row in rows]  # the level does not hide them
    assert newness(copies, store, store.rows("test"))["ratio"] < 0.2


def test_one_sound_only_has_no_diversity(store):
    rows = store.rows("train")
    recorded = [mulaw.decode(store.codes(int(row))) for row in rows]
    labels = store.label_ids[rows]
    assert diversity_beside(recorded, labels, recorded, labels)["ratio"] == pytest.approx(1)
    same = [recorded[list(labels).index(label)] for label in labels]
    assert diversity_beside(same, labels, recorded, labels)["ratio"] < 0.01
    assert diversity_beside(recorded[:1], labels[:1], recorded, labels) is None


def test_the_page_of_an_auto_encoder_has_its_reconstructions(folders, store, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    evaluate(folders["vae"], store.path, seeds=1, html=tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    players = sorted(path.name for path in (tmp_path / "page" / "reconstructions").iterdir())
    assert len(players) == 20 and all(f"reconstructions/{name}" in text for name in players)
    assert (tmp_path / "page" / "reconstructions.png").read_bytes()[:4] == b"\x89PNG"
    assert "http" not in text  # it opens from a file


def test_bits_of_the_speaking_family_are_as_before(folders, store, reports):
    found = reports["wavenet"]["bits_per_sample"]
    expected = bits_per_sample(load(folders["wavenet"]).model, Store.open(store.path), "test")
    assert found["all"] == pytest.approx(expected.mean, abs=1e-4)
