"""That what is timed computes the same, and that the report says what it should; never how fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import make_rnn, make_wavenet, random_codes
from tiny import save_tiny_vocoder
from wavegen import bench as package
from wavegen.bench import bench_synthesis, bench_training, speed, streams, timing, training
from wavegen.bench.eager import EagerStep
from wavegen.bench.training import ConvWaveNet
from wavegen.config import WaveNetConfig
from wavegen.engines import ModelConditioning, build_engine
from wavegen.engines.packing import network_of
from wavegen.errors import ConfigError, WavegenError
from wavegen.models import ConditioningInputs

ODD = {"residual": 7, "skip": 13, "output": 5, "dilations": (1, 3, 2), "quantization_channels": 30, "kernel_size": 3,
       "residual_scale": 0.7, "skip_scale": 0.3}


@pytest.fixture
def quick(monkeypatch):
    """Rounds of a few samples."""
    def short(contenders, rounds=2, seconds=0.0, clock="wall"):
        return timing.interleave(contenders, 2, 0.0, clock)

    monkeypatch.setattr(speed, "interleave", short)
    monkeypatch.setattr(training, "interleave", short)
    monkeypatch.setattr(training, "NUM_SAMPLES", 200)


@pytest.mark.parametrize("options", [{}, {"input_taps": 4, "input_tanh": True}, {"input_kernel_size": 1},
                                     {"signal_path": "lpc", "lpc_order": 5, "input_taps": 7}, {"signal_path": "lpc"}])
@pytest.mark.parametrize("label", [False, True])
def test_the_eager_step_computes_the_network(options, label):
    model = make_wavenet(**ODD, **options, label=label)
    zeros = torch.zeros(1, 1, model.lpc_order) if model.lpc_order else None
    inputs = (ConditioningInputs(torch.tensor([1]), None, torch.tensor([10**6]), prediction=zeros) if label
              else ConditioningInputs(prediction=zeros))
    conditioning = ModelConditioning(model, inputs)
    codes = random_codes(30, 1, 15)
    expected = build_engine(model, "reference").logits(codes, conditioning)[0]
    step = EagerStep(network_of(model), conditioning.frames(0, 1)[0, 0])
    for t, code in enumerate(codes[0]):
        assert np.abs(step.logits().numpy() - expected[t]).max() < 1e-4
        step.feed(int(code))
    step.restart()
    assert np.abs(step.logits().numpy() - expected[0]).max() < 1e-4
    assert len(step.generate(5)) == 5


@pytest.mark.parametrize("options", [{}, {"input_kernel_size": 1, "bias": False}])
def test_the_conv1d_form_computes_the_network(options):
    model = make_wavenet(**ODD, **options)
    codes = torch.from_numpy(random_codes(30, 2, 60))
    with torch.no_grad():
        assert (ConvWaveNet(model)(codes).transpose(1, 2) - model(codes)).abs().max() < 1e-4


def test_synthesis_is_reported_beside_baseline_and_floor(quick):
    report = bench_synthesis(make_wavenet(label=True), 8000, "tiny", "numba", "f32", batch=2, threads=2)
    assert report["engine"] == "numba" and report["precision"] == "f32"
    assert "precision_choice" not in report, "it was asked for by name"
    assert report["batch"] == 2 and report["threads"] == 2
    assert report["times_realtime"] == pytest.approx(report["samples_per_second"] / 8000, abs=1e-3)
    assert report["p20"] <= report["samples_per_second"] <= report["p80"]
    assert report["weight_bytes"] == build_engine(make_wavenet(label=True), "numba", "f32").weight_bytes
    assert report["memory_megabytes"] >= round(report["weight_bytes"] / 1e6, 2)
    for key in ("times_baseline", "fraction_of_floor", "first_sample_milliseconds", "cpu", "torch", "date"):
        assert key in report


def test_models_without_a_fused_engine_are_timed_too(quick):
    report = bench_synthesis(make_rnn(), 8000, "tiny", "auto")
    assert report["engine"] == "reference" and "times_baseline" not in report
    assert "fraction_of_floor" not in bench_synthesis(make_wavenet(), 8000, "tiny", "reference")


def test_training_is_reported_beside_conv1d(quick):
    threads = torch.get_num_threads()
    config = WaveNetConfig(residual_channels=8, skip_channels=8, output_channels=8, dilations=(1, 2), input_taps=3)
    report = bench_training(config)
    assert report["model"] == "WaveNet R8 S8 O8 L2 K2"
    assert report["samples_per_second"] > 0 and report["times_baseline"] > 0
    assert torch.get_num_threads() == threads


def test_what_computes_something_else_is_not_timed(quick, monkeypatch):
    monkeypatch.setattr(EagerStep, "feed", lambda step, code: None)
    with pytest.raises(WavegenError, match="nothing was timed"):
        bench_synthesis(make_wavenet(), 8000, "tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": "E"}, 'no configuration "E"'),
        ({"model": "digits", "config": "A"}, "not both"),
        ({"batch": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"threads": "auto", "train": True}, "number of threads"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        package.bench(**arguments)


def test_the_configurations_have_the_sizes_of_the_design():
    sizes = {name: (c.residual_channels, c.skip_channels, c.output_channels, c.num_layers, c.kernel_size)
             for name, c in package.CONFIGURATIONS.items()}
    assert sizes == {"A": (64, 256, 256, 20, 2), "B": (32, 128, 256, 30, 2), "C": (128, 256, 256, 30, 2),
                     "D": (128, 128, 128, 24, 3)}
    assert max(package.CONFIGURATIONS["D"].dilations) == 32


def test_contenders_take_turns():
    order = []
    timings, share = timing.interleave({"a": lambda n: order.append("a"), "b": lambda n: order.append("b")}, 3, 0.0)
    assert order[-6:] == ["a", "b"] * 3
    assert len(timings["a"].seconds) == 3 and share >= 0
    slow, fast = timings["b"].spread()
    assert slow <= timings["b"].samples_per_second <= fast


@pytest.mark.parametrize("signal_path", ["lpc", "direct"])
def test_a_vocoder_is_measured_and_how_soon_it_speaks(quick, tmp_path, monkeypatch, signal_path):
    monkeypatch.setattr(package, "limits", dict)
    monkeypatch.setattr(package, "bench_streams", lambda voc: streams.bench_streams(voc, streams=2, frames=5))
    report = package.bench(str(save_tiny_vocoder(tmp_path / "tiny", signal_path)), precision="f32")
    assert report["times_baseline"] > 0 and report["lookahead_frames"] == 1
    assert 0 < report["first_audio_milliseconds"] <= report["first_audio_p80"] and report["stream_times_realtime"] > 0
