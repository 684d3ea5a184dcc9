from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from stores import tones_store
from tiny import save_tiny
from wavegen.checkpoint import load_model
from wavegen.config import ConditioningConfig, MelSpec, ModelFolder
from wavegen.engines import ModelConditioning, build_engine
from wavegen.engines.calibration import divergence
from wavegen.engines.numba_engine import KERNELS_VARIABLE
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError, StoreError
from wavegen.evaluate import calibrate as module
from wavegen.evaluate.calibrate import calibrate, excerpt, summary
from wavegen.info import describe_model
from wavegen.models import ConditioningInputs
from wavegen.synth import load

pytestmark = pytest.mark.usefixtures("plain_kernels")


@pytest.fixture(scope="module")
def calibrated(model, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "model"
    return out, calibrate(model, store.path, out)


def test_ranges_and_figures_are_stored_beside_the_weights(calibrated, model, store):
    out, spec = calibrated
    loaded, before = load_model(out), load_model(model)
    assert loaded.spec.calibration == spec.calibration and before.spec.calibration is None and not before.ranges
    assert {name: value.shape for name, value in loaded.ranges.items()} == {
        "hidden": (3, 8, 2), "gated": (3, 8, 2), "skip": (8,), "output": (8,)}
    assert np.abs(loaded.ranges["gated"]).max() < 1 and (loaded.ranges["skip"] >= 0).all()
    for name, value in before.model.state_dict().items():
        assert value.equal(loaded.model.state_dict()[name])
    figures = spec.calibration
    assert figures.store_digest == store.digest and (figures.ranges_split, figures.split) == ("train", "test")
    assert figures.precisions["f32"].kl < 1e-8 and abs(figures.precisions["f32"].bits_change) < 1e-5
    assert figures.clips == 12 and figures.samples == store.lengths[store.rows("test")].sum()
    assert "f32: KL" in summary(spec)


def test_what_was_measured_is_among_the_facts_of_the_model(calibrated):
    facts = describe_model(calibrated[0])
    assert facts["calibration"]["precisions"]["f32"]["kl"] < 1e-8
    assert facts["parameters"] == sum(value.numel() for value in load_model(calibrated[0]).model.state_dict().values())


def test_the_same_store_gives_the_same_bytes(calibrated, model, store, tmp_path):
    out, _ = calibrated
    calibrate(model, store.path, tmp_path / "model")
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "model" / path.name).read_bytes()


def test_a_calibrated_model_is_calibrated_again_in_place(calibrated, store, tmp_path):
    shutil.copytree(calibrated[0], tmp_path / "model")
    again = calibrate(tmp_path / "model", store.path, tmp_path / "model", name="other", limit=0.5)
    assert (again.name, again.calibration.limit) == ("other", 0.5)
    assert calibrate(tmp_path / "model", store.path, tmp_path / "model").calibration.limit == 0.5
    assert again.calibration.precisions == calibrated[1].calibration.precisions


def test_a_card_written_by_hand_is_kept(model, store, tmp_path):
    shutil.copytree(model, tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("# My model\n")
    calibrate(tmp_path / "mine", store.path, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "# My model\n"


def test_auto_speaks_in_a_precision_within_the_limit_and_says_why(calibrated):
    voice = load(calibrated[0])
    voice.generate("1", "ben", 0.02)
    chosen = voice.engine.precision
    assert calibrated[1].calibration.precisions[chosen].kl <= 1e-3
    assert f"precision {chosen} (auto: " in str(voice.report)


def test_an_excerpt_is_spread_over_the_split(model, store):
    loaded = load_model(model)
    clips = excerpt(loaded.model, store, "test", 5 * int(store.lengths[store.rows("test")].mean() + 1))
    rows = store.rows("test")[[0, 3, 6, 8, 11]]
    assert [len(codes) for codes, _ in clips] == [int(store.lengths[row]) for row in rows]
    assert len(excerpt(loaded.model, store, "test", 1)) == module.MIN_CLIPS


def test_a_model_of_the_path_lpc_is_calibrated_on_its_excitation(tmp_path):
    mel = MelSpec(sample_rate=8000, n_fft=256, win_length=256, hop_length=160, n_mels=20)
    audio = {"mel": mel, "signal_path": "lpc", "preemphasis": 0.85}
    store = tones_store(tmp_path, **audio, takes=range(3))
    folder = save_tiny(tmp_path / "vocoder", conditional=False, audio=audio,
                       conditioning=ConditioningConfig(features=20, hop_length=160, hidden_channels=8))
    spec = calibrate(folder, store.path, folder)
    assert spec.calibration.precisions["f32"].kl < 1e-8
    plain = tones_store(tmp_path / "plain", takes=range(3))
    with pytest.raises(StoreError, match="has signal_path direct, the model"):
        calibrate(folder, plain.path, folder)


def test_what_does_not_fit_is_refused(model, store, tmp_path):
    other = tones_store(tmp_path, labels=("x", "y"))
    with pytest.raises(StoreError, match="has labels"):
        calibrate(model, other.path, tmp_path / "out")
    with pytest.raises(ConfigError, match="must be above 0, found -1"):
        calibrate(model, store.path, tmp_path / "out", limit=-1)
    assert not (tmp_path / "out").exists()


def test_a_config_without_ranges_or_ranges_of_another_size_are_damage(calibrated, tmp_path):
    from safetensors.torch import load_file, save_file

    from wavegen.errors import ModelFileError

    def rewritten(change):
        shutil.copytree(calibrated[0], tmp_path / "model", dirs_exist_ok=True)
        weights = load_file(tmp_path / "model" / "model.safetensors")
        change(weights)
        save_file(weights, tmp_path / "model" / "model.safetensors")
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        content = (tmp_path / "model" / "model.safetensors").read_bytes()
        config["weights_sha256"] = hashlib.sha256(content).hexdigest()
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        return tmp_path / "model"

    with pytest.raises(ModelFileError, match=r"lacks activation_range\.skip"):
        load_model(rewritten(lambda weights: weights.pop("activation_range.skip")))
    with pytest.raises(ModelFileError, match=r"activation_range\.skip is 7, wanted 8"):
        name = "activation_range.skip"
        load_model(rewritten(lambda weights: weights.update({name: weights[name][:7].clone()})))
    with pytest.raises(ModelFileError, match="hold NaN"):
        load_model(rewritten(lambda weights: weights["activation_range.hidden"].fill_(float("nan"))))


def test_a_config_of_before_calibration_still_loads(model):
    config = json.loads((model / "config.json").read_text())
    del config["calibration"]
    assert ModelFolder.model_validate(config).calibration is None


def test_a_precision_this_machine_cannot_run_is_left_out(model, store, tmp_path, monkeypatch, caplog):
    from wavegen.errors import EngineUnavailableError

    real = module.build_engine

    def build(network, engine, precision, **options):
        if precision == "i8":
            raise EngineUnavailableError("not here")
        return real(network, engine, precision, **options)

    monkeypatch.setattr(module, "build_engine", build)
    spec = calibrate(model, store.path, tmp_path / "out")
    assert "i8" not in spec.calibration.precisions and "precision i8 is not measured: not here" in caplog.text


def test_the_bundled_digits_are_as_close_to_float64_as_their_figures_say(monkeypatch):
    monkeypatch.delenv(KERNELS_VARIABLE)
    voice = load("digits", precision="f32")
    figures = voice.spec.calibration.precisions
    assert figures["i16"].kl <= 1e-4 and figures["i8x15"].kl <= 5e-4 and figures["i8"].kl <= 5e-3
    assert figures["i8x15"].bits_change <= 1e-3
    told = ConditioningInputs(label=torch.tensor([7]), speaker=torch.tensor([0]), num_samples=torch.tensor([3000]))
    conditioning = ModelConditioning(voice.model, told)
    codes = voice.engine.step(voice.engine.start(1, conditioning, seeds=1), 1500)[0]
    ranges = load_model("digits").ranges
    engine = build_engine(voice.model, "numba", "i8x15", ranges=ranges)
    found = divergence(engine, network_of(voice.model), [(codes, conditioning)])
    assert found.kl < 3 * figures["i8x15"].kl, "the kernels have changed; calibrate digits again"
