"""What the host does around the GPU engine's kernels, on a GPU that is not there: see `fake_gpu`.

Kernels are their plain-torch twins; what the kernels themselves compute is tested in tests/interpreted.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")

from triton.runtime.errors import OutOfResources

import wavegen
from fake_gpu import GPU, engine_on_fake_gpu
from networks import make_rnn, make_uniforms, make_wavenet, random_codes
from tiny import save_tiny, save_tiny_vocoder, tiny_family, tiny_mel
from wavegen.engines import ModelConditioning, build_engine, triton_engine
from wavegen.errors import ConfigError, EngineUnavailableError, WavegenError
from wavegen.models import ConditioningInputs
from wavegen_kernels.gpu import batch, latency

# At 1 kHz a block is 12 samples: three frames, or one and a half.
MEL = {"sample_rate": 1000, "n_fft": 32, "win_length": 32, "hop_length": 4, "n_mels": 6}
KINDS = {
    "lpc": ("lpc", {}),
    "direct": ("direct", {"context_frames": 0}),
    "upsampled lpc": ("lpc", {"hop_length": 2, "upsampling": 2}),
    "upsampled direct": ("direct", {"hop_length": 1, "upsampling": 4}),
    "speakers": ("lpc", {"speaker": True}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def gpu():
    with engine_on_fake_gpu() as mode:
        yield mode


def vocoder(folder, kind, engine="triton", precision="f16"):
    name = folder / kind.replace(" ", "-")
    if not name.exists():
        path, told = KINDS[kind]
        save_tiny_vocoder(name, path, mel=MEL, conditioning=told, dilations=(1, 2))
    return wavegen.load(name, engine=engine, precision=precision)


def mel(frames, seed=0):
    return (tiny_mel(frames, seed, 6) - 2).clip(-11.4)


def told(kind, **options):
    return options | ({"speaker": "ben"} if kind == "speakers" else {})


@every_kind
def test_a_vocoder_speaks_the_references_samples(gpu, folder, kind):
    options = told(kind, guard=False, matching=0, seed=3, temperature=0.9)
    ours, theirs = vocoder(folder, kind, precision="f32"), vocoder(folder, kind, "reference", "f64")
    assert ours.engine.name == "triton"
    heard = ours([mel(9), mel(5, 1)], **options)
    assert np.abs(heard.waveform - theirs([mel(9), mel(5, 1)], **options).waveform).max() < 1e-6
    assert np.array_equal(ours.codes(mel(9)[None], **told(kind, guard=False, seed=3, temperature=0.9)),
                          theirs.codes(mel(9)[None], **told(kind, guard=False, seed=3, temperature=0.9)))


@every_kind
def test_the_laws_hold_for_streams_batches_and_copies(gpu, folder, kind):
    voc = vocoder(folder, kind)
    assert (voc.engine.name, voc.engine.precision) == ("triton", "f16")
    options = told(kind, matching=1)
    whole = voc(mel(11)[None], **options).waveform[0]
    assert voc.report.guarded.attempts, "the guard of this network must have something to do"
    stream, given = voc.stream(**options), []
    for start, stop in ((0, 1), (1, 6), (6, 6)):
        given.append(stream.push(mel(11)[:, start:stop]))
    fork = stream.copy()
    other = fork.push(mel(11)[:, 6:8] * 0.9)
    rest = [stream.push(mel(11)[:, 6:]), stream.finish()]
    assert np.array_equal(np.concatenate([*given, *rest]), whole)
    assert np.concatenate([other, fork.finish()]).size == 4 * 8
    rows = voc([mel(4, 1), mel(11), mel(7, 2)], seed=[5, 0, 7], temperature=[0.8, 1.0, 1.0], min_p=[0, 0, 0.1],
               **options)
    assert np.array_equal(rows[1].waveform, whole)
    assert np.array_equal(rows[2].waveform, voc(mel(7, 2)[None], seed=7, min_p=0.1, **options).waveform[0])
    assert np.array_equal(rows[0].waveform, voc(mel(4, 1)[None], seed=5, temperature=0.8, **options).waveform[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mel_on_the_device_gives_audio_on_the_device(gpu, folder, dtype):
    voc, there = vocoder(folder, "lpc"), torch.from_numpy(mel(6)).to(GPU, dtype)
    audio = voc([there, there[:, :4]], guard=False)
    expected = voc(there.to("cpu", torch.float32).numpy()[None], guard=False).waveform[0]
    assert audio.waveform.device == GPU and audio.lengths.device == GPU
    assert np.array_equal(audio[0].waveform, expected) and audio[1].waveform.shape == (16,)
    stream = voc.stream(guard=False)
    spoken = [stream.push(there[:, :3]), stream.push(there[:, 3]), stream.push(there[:, 4:]), stream.finish()]
    assert np.array_equal(np.concatenate(spoken), expected)


def test_a_block_of_a_stream_waits_for_the_device_once(gpu, folder):
    voc = vocoder(folder, "lpc")
    for guard, launches in ((False, 1), (True, 3)):  # the abort word; and a copy of the state, which is two pieces
        stream = voc.stream(guard=guard)
        for start in range(0, 24, 3):
            gpu.counts.clear()
            spoken = stream.push(mel(24)[:, start:start + 3])
            if start > 3 and gpu.counts["kernels"] == 1:
                assert spoken.size == 12
                assert dict(gpu.counts) == {"kernels": 1, "launches": launches, "to_device": 2, "to_host": 1,
                                            "waits": 1}
                break
        else:
            pytest.fail("no block was spoken at the first try")
    gpu.counts.clear()
    voc(np.stack([mel(3)] * 3), guard=False)
    assert gpu.counts["waits"] == 1 and gpu.counts["kernels"] == 1


def test_many_rows_take_no_more_calls_than_few(gpu):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")
    counts = []
    for rows in (12, 40):
        state = engine.start(rows)
        gpu.counts.clear()
        engine.step(state, 3)
        counts.append(dict(gpu.counts))
    assert counts[0] == counts[1] == {"kernels": 1, "to_device": 2, "to_host": 1, "waits": 1}


@pytest.mark.parametrize("kernel", ["batch", "latency"])
def test_a_prompt_uniforms_and_logits_pass_the_device(gpu, kernel):
    model = make_wavenet(16, 16, 16, (1, 2), 16, input_taps=3)
    engine, reference = build_engine(model, "triton", "f32" if kernel == "batch" else "f16"), build_engine(model,
                                                                                                         "reference")
    assert (engine.plan_for(2).spread is None) == (kernel == "batch")
    codes = random_codes(16, 2, 9)
    truth = reference.logits(codes)
    assert np.abs(engine.logits(codes) - truth).max() < 5e-3
    state = engine.start(2)
    assert np.abs(engine.prefill(state, codes[:, :6], want_logits=True) - truth[:, :6]).max() < 5e-3
    uniforms = make_uniforms(1, 2, 4)
    known = engine.start(2)
    engine.force(known, codes[:, :6])
    assert np.array_equal(engine.step(state, 4, uniforms), engine.step(known, 4, uniforms))
    assert engine.layer_inputs(state).shape == (2, 2, 16)


def test_the_last_row_of_a_batch_is_launched_as_all_of_them_were(gpu, folder, monkeypatch):
    voc, twin, seen = vocoder(folder, "lpc"), batch.generate, []

    def watched(packed, memory, table, hop, position, codes, *arguments, prediction, **options):
        seen.append((table.shape[0], prediction.shape[0], int(memory.told["active"].sum())))
        twin(packed, memory, table, hop, position, codes, *arguments, prediction=prediction, **options)

    monkeypatch.setattr(latency, "generate", watched)
    heard = voc([mel(9), mel(3, 1), mel(6, 2)], guard=False)
    assert np.array_equal(heard[0].waveform, voc(mel(9)[None], guard=False).waveform[0])
    monkeypatch.setattr("wavegen.synth.vocoder.SPAN_SAMPLES", 1)  # a block at a time
    seen.clear()
    again = voc([mel(9), mel(3, 1), mel(6, 2)], guard=False)
    assert np.array_equal(again.waveform, heard.waveform)
    assert [entry for entry in seen if entry[2] < 3] == [(2, 2, 2), (2, 2, 1)]


def test_the_reference_engine_runs_on_a_device_too(gpu):
    for model in (make_wavenet(16, 16, 16, (1, 2), 16, input_taps=3, label=True), make_rnn(label=True)):
        told = ModelConditioning(model, ConditioningInputs(torch.tensor([1, 0]), num_samples=torch.tensor([40, 40])))
        here, there = (build_engine(model, "reference", "f32", device) for device in ("cpu", "meta"))
        found = there.step(there.start(2, told, seeds=3), 5)
        assert np.array_equal(found, here.step(here.start(2, told, seeds=3), 5))
        assert gpu.counts["launches"] > 50


def test_rows_come_and_go(gpu):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")
    alone = engine.step(engine.start(1, seeds=4, streams=[9]), 6)
    state = engine.start(3, seeds=4)
    twin = state.copy()
    engine.step(state, 2)
    engine.retire(state, [1])
    assert (engine.step(state, 2)[1] == engine.silence).all()
    engine.admit(state, [1], seeds=4, streams=[9])
    both = engine.step(state, 6)
    assert np.array_equal(both[1], alone[0])
    assert np.array_equal(both[[0, 2]], engine.step(twin, 10)[[0, 2], 4:])


def test_a_synthesizer_and_a_wavenet_decoder_speak_on_the_device_and_other_families_say_why_not(gpu, folder):
    ours, theirs = (wavegen.load(save_tiny(folder / name), engine=name, precision=precision)
                    for name, precision in (("triton", "f32"), ("reference", "f64")))
    for clip, wanted in zip(*(voice.generate(["0", "2"], "ben", 0.004, count=3) for voice in (ours, theirs)),
                            strict=True):
        assert np.array_equal(clip.waveform, wanted.waveform)
    speaking = wavegen.load(tiny_family("vae_wavenet", folder / "vae_wavenet"), engine="triton", precision="f32")
    assert speaking.engine.name == "triton"
    wanted = wavegen.load(folder / "vae_wavenet", engine="reference").generate("1", seconds=0.005)
    assert np.array_equal(speaking.generate("1", seconds=0.005).waveform, wanted.waveform)
    for family in ("vae", "wgan"):
        with pytest.raises(EngineUnavailableError, match="leave --engine out"):
            wavegen.load(tiny_family(family, folder / family), engine="triton")
    with pytest.raises(EngineUnavailableError, match='runs WaveNet only, this model is "rnn"; use engine="reference"'):
        build_engine(make_rnn(), "triton")


def test_states_pass_in_and_out_of_inference_mode(gpu):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")
    expected = engine.step(engine.start(2), 6)
    with torch.inference_mode():
        state = engine.start(2)
        first = engine.step(state, 2)
    rest = [engine.step(state.copy(), 4), engine.step(state, 4)]
    assert all(np.array_equal(np.concatenate([first, part], 1), expected) for part in rest)


def test_threads_share_an_engine(gpu, monkeypatch):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")
    inside, seen = [], []

    def alone(*arguments, **options):
        inside.append(1)
        seen.append(len(inside))
        inside.pop()

    monkeypatch.setattr(batch, "generate", alone)
    monkeypatch.setattr(latency, "generate", alone)
    states = [engine.start(rows) for rows in (1, 12)]
    threads = [threading.Thread(target=lambda state=state: [engine._launch(alone, state, None) for _ in range(200)])
               for state in states]
    for state in states:
        engine._fill_table(state)
        state.memory.send()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400 and max(seen) == 1


def test_a_plan_the_device_has_no_room_for_is_tried_once(gpu, monkeypatch, caplog):
    engine = build_engine(make_wavenet(64, 32, 32, (1, 2), 32), "triton")
    wanted, twin, tried = engine.plan_for(2), batch.generate, []

    def refuse(*arguments, **options):
        tried.append("latency")
        raise OutOfResources(19, "fewer", "programs at once")

    def narrow(*arguments, parts, **options):
        tried.append(parts)
        if parts == 1:
            raise OutOfResources(300_000, 200_000, "shared memory")
        return twin(*arguments, **options)

    monkeypatch.setattr(latency, "generate", refuse)
    monkeypatch.setattr(batch, "generate", narrow)
    with caplog.at_level(logging.WARNING):
        found = engine.step(engine.start(2), 3)
    assert wanted.spread is not None and tried == ["latency", 1, 2]
    assert caplog.text.count("takes over from the latency kernel") == 1
    assert np.array_equal(engine.step(engine.start(2), 3), found) and tried == ["latency", 1, 2, 2]
    assert engine.plan_for(2).parts == 2 and engine.plan_for(2).spread is None
    monkeypatch.setattr(batch, "generate", lambda *_, **__: refuse())
    with pytest.raises(EngineUnavailableError, match=r'does not fit this GPU .* use engine="reference"'):
        engine.step(engine.start(2), 3)


@pytest.mark.parametrize(("error", "message"), [
    (RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
     "cannot build its kernels here .*C compiler.* install one"),
    (RuntimeError("PassManager::run failed"), 'PassManager::run failed.*; use engine="reference"'),
    (triton_engine.TritonError("ptxas fatal"), "ptxas fatal"),
])
def test_a_kernel_that_cannot_be_built_is_one_clear_error(gpu, monkeypatch, error, message):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(latency, "generate", fail)
    with pytest.raises(EngineUnavailableError, match=message):
        engine.step(engine.start(), 1)


def test_what_else_goes_wrong_on_the_device_is_not_hidden(gpu, monkeypatch):
    engine = build_engine(make_wavenet(16, 16, 16, (1, 2), 16), "triton")

    def abort(*arguments, abort, **options):
        abort.fill_(1)

    monkeypatch.setattr(latency, "generate", abort)
    state = engine.start()
    with pytest.raises(WavegenError, match=r"waited in vain for another: not all of its [0-9]+ ran at once"):
        engine.step(state, 1)
    with pytest.raises(ConfigError, match="lost when a generation was broken off"):
        engine.step(state, 1)

    def crash(*arguments, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(latency, "generate", crash)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.step(engine.start(), 1)
