"""The script that compares GAN and WGAN: what it writes, that it continues, how it ranks."""

from __future__ import annotations

import json

import pytest

from helpers import load_script

gan = load_script("recipes/lecture/gan.py")


def test_ranks_are_compared_and_not_values():
    assert gan.rank_correlation([1, 2, 3, 10], [5, 6, 7, 8]) == pytest.approx(1)
    assert gan.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert gan.rank_correlation([1, 2], [1, 2]) is None


def test_kinds_differ_in_objective_and_noise_alone(tmp_path):
    recipes = [gan.recipe_of(kind, 1, 10, 2, tmp_path) for kind in gan.KINDS]
    assert {r.training.adversarial.objective for r in recipes} == {"wasserstein", "js_nonsaturating"}
    plain = {"objective": "js", "in_bin_noise": True}
    alike = [r.model_copy(update={"training": r.training.model_copy(
        update={"adversarial": r.training.adversarial.model_copy(update=plain)})}) for r in recipes]
    assert all(r == alike[0] for r in alike) and alike[0].training.adversarial.spectral == ()


def test_a_report_is_summarised_and_drawn(tmp_path):
    curve = {"step": [10, 20, 30, 40], "distance": [0.1, 0.6, 0.6931, 0.6931],
             "training_distance": [0.1, 0.5, 0.6931, 0.6931],
             "frechet": [50.0, 40.0, 30.0, 20.0], "accuracy": [0.1, 0.2, 0.3, 0.4], "diversity": [1, 1, 1, 1]}
    runs = [{"kind": kind, "seed": 0, "curve": curve, "rank_correlation": {"distance": -1.0, "training_distance": -1.0}}
            for kind in gan.KINDS]
    summary = gan.summarise(runs)
    assert summary["js, codes"]["share_of_log_2"][0] == pytest.approx(0.7168, abs=1e-3)
    assert "share_of_log_2" not in summary["wasserstein, codes"] and summary["wasserstein, codes"]["frechet"] == [20.0]
    gan.draw({"runs": runs, "steps": 40}, tmp_path / "gan.png")
    assert (tmp_path / "gan.png").stat().st_size > 1000


def test_what_is_in_the_report_is_not_trained_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gan, "fit", None)
    out = tmp_path / "gan.json"
    out.write_text(json.dumps({"steps": 40, "runs": [{"kind": kind, "seed": 0} for kind in gan.KINDS],
                               "probes": [{"seed": 0}]}))
    arguments = ["gan.py", "--store", "x", "--judge", "x", "--out", str(out), "--seeds", "1", "--steps"]
    monkeypatch.setattr("sys.argv", [*arguments, "40"])
    assert gan.main() == 0
    monkeypatch.setattr("sys.argv", [*arguments, "50"])
    assert gan.main() != 0 and "holds runs of 40 steps, not of 50" in capsys.readouterr().err
