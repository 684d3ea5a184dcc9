from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wavegen
from tiny import heard_mel, save_tiny_vocoder, tiny_mel, tiny_model
from wavegen.audio import io, mulaw
from wavegen.audio.mel import matching_delay
from wavegen.audio.mel_formats import PRESETS
from wavegen.audio.signal import decode_codes
from wavegen.checkpoint import save_model
from wavegen.checkpoint.folder import read_spec
from wavegen.config import MelSpec, SamplingDefaults
from wavegen.engines.numba_engine import KERNELS_VARIABLE
from wavegen.errors import BadInputError, ConfigError, MelMismatch
from wavegen.synth.mel_input import JUDGED_FRAMES
from wavegen.synth.vocoder import group_rows

# engine, precision, kernels: plain loops have the bits of the vector kernels and are compiled once for all shapes
VOICES = {"f32": ("numba", "f32", "auto"), "i16": ("numba", "i16", "plain"), "i8x15": ("numba", "i8x15", "plain"),
          "i8": ("numba", "i8", "plain"), "reference": ("reference", "f64", "auto")}
every_voice = pytest.mark.parametrize("name", list(VOICES))
# Blocks of five frames, so that pieces end inside a block too.
SHORT = {"hop_length": 16}
_voices: dict = {}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("vocoders")


@pytest.fixture
def voc(models):
    return voice(models, "f32")


def voice(models, name, signal_path="lpc", **options):
    """One vocoder of a kind for all tests."""
    key = (name, signal_path, str(options))
    if key not in _voices:
        folder = save_tiny_vocoder(models / f"tiny{len(_voices)}", signal_path, **options)
        engine, precision, kernels = VOICES[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KERNELS_VARIABLE, kernels)
            _voices[key] = wavegen.load(folder, engine=engine, precision=precision)
    return _voices[key]


def whole(voc, mel, **options):
    return voc(mel[None], **{**guarded(voc), **options}).waveform[0]


def guarded(voc):
    """A random network keeps its guard busy, and the reference is slow."""
    return {"guard": voc.engine.name != "reference"}


def streamed(voc, mel, cuts, **options):
    stream, start, given = voc.stream(**guarded(voc), **options), 0, []
    for size in [*cuts, mel.shape[1]]:
        given.append(stream.push(mel[:, start : start + size]))
        start += min(size, mel.shape[1] - start)
    return np.concatenate([*given, stream.finish()])


def test_a_mel_becomes_a_hop_of_samples_for_each_frame(voc):
    mel = tiny_mel(7)
    audio = voc(mel[None])
    assert audio.waveform.shape == (1, 7 * voc.hop_length) and audio.waveform.dtype == np.float32
    assert audio.lengths.tolist() == [7 * voc.hop_length] and audio.sample_rate == voc.sample_rate == 8000
    assert 0 < np.abs(audio.waveform).max() <= 1 and len(np.unique(audio.waveform)) > 50
    assert voc.spec.n_mels == voc.n_mels == 12 and voc.lookahead_frames == 1 and voc.speakers == ()


# The laws, bit for bit


@every_voice
@settings(max_examples=5)
@given(cuts=st.lists(st.integers(0, 6), max_size=9))
def test_a_stream_is_the_whole_however_it_is_cut(models, name, cuts):
    voc, mel = voice(models, name, mel=SHORT), tiny_mel(13)
    assert np.array_equal(streamed(voc, mel, cuts), whole(voc, mel))


@every_voice
@pytest.mark.parametrize("signal_path", ["lpc", "direct"])
def test_frame_by_frame_or_all_at_once(models, name, signal_path):
    # On the path direct without any look-ahead: not even the guard knows the next frame.
    told = {"context_frames": int(signal_path == "lpc")}
    voc, mel = voice(models, name, signal_path, mel=SHORT, conditioning=told), tiny_mel(12, seed=1)
    expected = whole(voc, mel)
    assert np.array_equal(streamed(voc, mel, [1] * 12), expected)
    assert np.array_equal(streamed(voc, mel, []), expected)
    chunks = [*voc.stream(mel, **guarded(voc))]
    assert np.array_equal(np.concatenate([chunk.waveform for chunk in chunks]), expected)
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.start_sample for chunk in chunks[1:]] == np.cumsum([c.num_samples for c in chunks[:-1]]).tolist()


@every_voice
@pytest.mark.parametrize(("signal_path", "factor"), [("lpc", 4), ("direct", 16)])
def test_the_laws_hold_for_frames_that_are_upsampled(models, name, signal_path, factor):
    voc = voice(models, name, signal_path, mel=SHORT, conditioning={"hop_length": 16 // factor, "upsampling": factor})
    mel = tiny_mel(9, seed=2)
    audio = voc([mel, mel[:, :4]], **guarded(voc))
    expected = whole(voc, mel)
    assert voc.lookahead_frames == voc.folder.lookahead_frames == 2 and voc.hop_length == 16
    assert np.array_equal(streamed(voc, mel, [1, 2, 1, 3]), expected) and np.array_equal(audio[0].waveform, expected)
    assert np.array_equal(audio[1].waveform, whole(voc, mel[:, :4]))
    # Coefficients are held over the mel's own frames, as a store's recordings were coded.
    plain = whole(voc, mel, guard=False)  # what a guard turns down is not in the codes
    assert np.array_equal(decode_codes(voc.codes(mel[None], guard=False)[0], voc.folder.audio, mel), plain)


@every_voice
def test_a_row_of_a_ragged_batch_is_the_row_alone(models, name):
    voc, lengths = voice(models, name, mel=SHORT), [5, 12, 11, 1]
    mels = [tiny_mel(frames, seed) for seed, frames in enumerate(lengths)]
    padded = np.full((4, 12, 12), 9e9, np.float32)  # what is padding is never looked at
    for row, mel in enumerate(mels):
        padded[row, :, : lengths[row]] = mel
    audio = voc(padded, lengths, **guarded(voc))
    assert audio.lengths.tolist() == [frames * 16 for frames in lengths]
    for row, mel in enumerate(mels):
        assert np.array_equal(audio[row].waveform, whole(voc, mel)), f"row {row}"
        assert not audio.waveform[row, lengths[row] * 16 :].any()
    assert np.array_equal(voc(mels, **guarded(voc)).waveform, audio.waveform)


@every_voice
def test_a_copy_of_a_stream_goes_on_as_the_stream_does(models, name):
    voc, mel, other = voice(models, name, mel=SHORT), tiny_mel(13), tiny_mel(13, seed=5)
    stream = voc.stream(seed=3, **guarded(voc))
    begin = stream.push(mel[:, :8])
    fork, away = stream.copy(), stream.copy()
    elsewhere = np.concatenate([away.push(other[:, 8:]), away.finish()])
    rest = np.concatenate([stream.push(mel[:, 8:]), stream.finish()])
    again = np.concatenate([fork.push(mel[:, 8:10]), fork.push(mel[:, 10:]), fork.finish()])
    assert np.array_equal(np.concatenate([begin, rest]), whole(voc, mel, seed=3))
    assert np.array_equal(again, rest) and not np.array_equal(elsewhere, rest)


def test_a_copy_before_the_first_frame_is_a_stream_of_its_own(voc):
    stream = voc.stream()
    fork = stream.copy()
    assert np.array_equal(streamed(voc, tiny_mel(5), []), np.concatenate([fork.push(tiny_mel(5)), fork.finish()]))
    assert stream.num_frames == 0 and fork.num_frames == 5 and fork.num_samples == 400


def test_what_came_later_changes_nothing(voc):
    mel, other = tiny_mel(20), tiny_mel(20)
    other[:, 11:] = -3
    first, second = whole(voc, mel), whole(voc, other)
    same = 80 * (11 - voc.lookahead_frames)
    assert np.array_equal(first[:same], second[:same]) and not np.array_equal(first[same:], second[same:])


# What is drawn, and in whose voice


def test_seeds_streams_and_temperatures_of_rows(voc):
    mels = np.stack([tiny_mel(6)] * 4)
    audio = voc(mels, seed=[1, 1, 2, 1], streams=[0, 1, 0, 0], temperature=[1.0, 1.0, 1.0, 0.5])
    rows = [audio[row].waveform for row in range(4)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(rows, 2))
    assert np.array_equal(rows[1], whole(voc, tiny_mel(6), seed=1, streams=1))
    assert np.array_equal(rows[3], streamed(voc, tiny_mel(6), [2], seed=1, temperature=0.5))
    assert np.array_equal(voc(mels)[0].waveform, voc(mels)[3].waveform)  # the same seed for all


def test_a_model_draws_as_its_folder_says(models, voc):
    usual = voc.folder.sampling.model_copy(update={"temperature": 0.4, "min_p": 0.1})
    cooler = wavegen.load(save_tiny_vocoder(models / "cooler"), precision="f32")
    cooler.folder = voc.folder.model_copy(update={"sampling": usual})
    assert np.array_equal(whole(cooler, tiny_mel(5)), whole(voc, tiny_mel(5), temperature=0.4, min_p=0.1))
    assert np.array_equal(whole(cooler, tiny_mel(5), temperature=1.0, min_p=0), whole(voc, tiny_mel(5)))


def test_rows_have_speakers_of_their_own(models, voc):
    choir = voice(models, "f32", conditioning={"speaker": True})
    mel = tiny_mel(6)
    audio = choir(np.stack([mel, mel]), speaker=["anna", "ben"])
    assert choir.speakers == ("anna", "ben") and not np.array_equal(audio[0].waveform, audio[1].waveform)
    assert np.array_equal(audio[1].waveform, streamed(choir, mel, [3], speaker="ben"))
    with pytest.raises(ConfigError, match="needs a speaker: one of anna, ben"):
        choir(mel[None])
    with pytest.raises(ConfigError, match='no speaker "carl"'):
        choir.stream(speaker="carl")
    with pytest.raises(ConfigError, match="speaker has 2 entries for a batch of 1"):
        choir(mel[None], speaker=["anna", "ben"])
    with pytest.raises(ConfigError, match='has no speakers, found speaker "anna"; leave it out'):
        voc(mel[None], speaker="anna")


def test_codes_become_the_waveform(models):
    voc, mel = voice(models, "f32", "direct"), tiny_mel(6)
    codes = voc.codes([mel, tiny_mel(2)], guard=False)
    assert codes.shape == (2, 480) and codes.dtype == np.int64 and (codes[1, 160:] == 128).all()
    assert np.array_equal(mulaw.decode(codes[0]), whole(voc, mel, guard=False))


# Mels of all kinds


@pytest.mark.parametrize("kind", ["float16", "float64", "fortran", "strided", "list", "BTC", "TC", "torch", "bfloat16",
                                  "of utterances", "read-only"])
def test_a_mel_may_come_in_any_array(voc, kind):
    mel = tiny_mel(8).astype(np.float16).astype(np.float32)
    layout, given = "BCT", {
        "float16": mel[None].astype(np.float16), "float64": mel[None].astype(np.float64),
        "fortran": np.asfortranarray(mel[None]), "strided": np.repeat(mel[None], 3, axis=2)[:, :, ::3],
        "list": mel[None].tolist(), "BTC": mel.T[None], "TC": mel.T, "of utterances": [mel],
        "torch": torch.from_numpy(mel[None].copy()).requires_grad_(),
        "bfloat16": torch.from_numpy(mel[None]).bfloat16(), "read-only": np.broadcast_to(mel, (1, *mel.shape))}[kind]
    if kind in ("BTC", "TC"):
        layout = kind
    audio = voc(given, layout=layout)
    assert isinstance(audio.waveform, torch.Tensor) == isinstance(audio.lengths, torch.Tensor) == (
        kind in ("torch", "bfloat16"))
    if kind == "bfloat16":  # eight bits of a number: another mel
        mel = given[0].float().numpy()
    assert np.array_equal(np.asarray(audio.waveform[0]), whole(voc, mel))
    if isinstance(audio.waveform, torch.Tensor):
        assert audio.waveform.dtype == torch.float32 and not audio.waveform.requires_grad
    pieces = given[0] if layout.startswith("B") else given
    stream = [chunk.waveform for chunk in voc.stream(pieces, layout=layout[-2:])] if kind != "list" else [
        chunk.waveform for chunk in voc.stream(mel.T.tolist())]
    assert np.array_equal(np.concatenate(stream), whole(voc, mel))


@pytest.mark.parametrize(("mel", "options", "message"), [
    (np.zeros((1, 12, 0)), {}, r"the mel is empty: shape \(1, 12, 0\)"),
    (np.zeros((0, 12, 5)), {}, "the mel is empty"),
    ([], {}, "layout \"BCT\" has 3 axes"),
    (tiny_mel(5)[0], {}, r'shape \(5,\), layout "BCT" has 3 axes'),
    (tiny_mel(5).T, {}, 'the mel has 5 bands, 12 are wanted; the axes look swapped: give layout="TC"'),
    (tiny_mel(5).T[None], {}, 'the mel has 5 bands, 12 are wanted; the axes look swapped: give layout="BTC"'),
    (tiny_mel(5)[None], {"layout": "BTC"}, 'the axes look swapped: give layout="BCT"'),
    (tiny_mel(5)[None, :11], {}, "the mel has 11 bands, 12 are wanted"),
    (np.full((1, 12, 5), np.nan), {}, "NaN or infinity in 60 of 60 places, first at frame 0, band 0"),
    (np.full((1, 12, 5), 1e300), {}, "NaN or infinity"),
    (tiny_mel(5)[None] > 0, {}, "an array of real numbers, found bool"),
    (tiny_mel(5)[None] * 1j, {}, "an array of real numbers, found complex64"),
    (torch.zeros(1, 12, 5, dtype=torch.complex64), {}, "real numbers, found torch.complex64"),
    ([["a"]], {}, "an array of real numbers, found <U1"),
    ([[[1.0], [1.0, 2.0]]], {}, "give a list of arrays, or pad them"),
    (10 ** tiny_mel(40)[None] + 5, {}, "louder than full scale can be"),
    (tiny_mel(40)[None] - 9, {}, "below the floor; it looks like decibels"),
    (heard_mel(40)[None] / np.log(10), {}, "it looks like the logarithm to base 10"),
    (tiny_mel(5)[None], {"lengths": [6]}, r"lengths\[0\] is 6; the mel of that row has 5 frames"),
    (tiny_mel(5)[None], {"lengths": [0]}, r"lengths\[0\] is 0"),
    (tiny_mel(5)[None], {"lengths": [1.0]}, "relative lengths are to be multiplied"),
    (tiny_mel(5)[None], {"lengths": [5, 5]}, r"lengths has shape \(2,\) for a batch of 1"),
])
def test_a_bad_mel_is_refused_and_the_message_says_what_it_looks_like(voc, mel, options, message):
    with pytest.raises(BadInputError, match=message):
        voc(mel, **options)


def test_a_mel_of_a_row_is_named(voc):
    mels = np.stack([tiny_mel(20)] * 3)
    mels[1, 4, 13] = np.inf
    with pytest.raises(BadInputError, match="row 1 of the batch: the mel holds NaN or infinity in 1 of 240 places, "
                                            "first at frame 13, band 4"):
        voc(mels)


def test_implausible_values_can_be_insisted_on_but_not_absurd_ones(models, voc):
    odd = tiny_mel(40)[None] / np.log(10)
    assert np.isfinite(voc(odd, check=False).waveform).all()
    for told in (voc, voice(models, "f32", "direct")):
        assert np.isfinite(told(odd * 15, check=False).waveform).all()
        with pytest.raises(BadInputError, match="these are no logarithms of anything"):
            told(odd * 1e30, check=False)
    with pytest.raises(BadInputError, match="NaN or infinity"):
        voc(odd * np.nan, check=False)


@pytest.mark.parametrize(("options", "message"), [
    ({"layout": "TCB"}, 'no layout "TCB"'), ({"spec": "tacotron"}, 'no mel preset "tacotron"; did you mean'),
    ({"temperature": 0}, "temperature must be above 0"), ({"min_p": 2}, r"min_p must lie in \[0, 1\]"),
    ({"seed": -1}, r"seeds must be whole numbers in \[0, 2\*\*64\)"), ({"seed": [1, 2]}, "seeds has 2 entries"),
    ({"streams": [1, 2]}, "streams has 2 entries"), ({"temperature": "warm"}, "temperature must be a number"),
])
def test_options_out_of_range_are_refused_at_the_call(voc, options, message):
    with pytest.raises(ConfigError, match=message):
        voc(tiny_mel(5)[None], **options)
    with pytest.raises(ConfigError, match=message):
        voc.stream(iter([]), **options)


def test_what_is_invertible_is_converted_and_the_rest_is_refused(voc):
    mel = tiny_mel(12)
    base10 = voc.spec.model_copy(update={"log_base": "10", "mean": (-2.0,), "scale": (0.5,)})
    converted = ((mel / np.log(10) + 2.0) / 0.5).astype(np.float32)
    expected = whole(voc, mel)
    assert np.abs(whole(voc, converted, spec=base10) - expected)[:400].mean() < 0.1  # rounded: others soon
    assert np.array_equal(streamed(voc, converted, [3, 4], spec=base10), whole(voc, converted, spec=base10))
    assert np.array_equal(whole(voc, mel, spec=voc.spec), expected)
    with pytest.raises(MelMismatch, match=r"sample_rate 22050 against 8000; .*n_mels 80 against 12"):
        voc(mel[None], spec="tacotron2")
    with pytest.raises(MelMismatch, match="hop_length 256 against 80"):
        voc.stream(spec="tacotron2")


# Streams


@pytest.mark.parametrize("signal_path", ["lpc", "direct"])
@pytest.mark.parametrize("cuts", [[1] * 23, [23], [0, 5, 9, 2, 0, 1]])
def test_matched_audio_is_the_same_however_it_arrives_and_in_any_company(models, signal_path, cuts):
    voc = voice(models, "f32", signal_path, mel=SHORT)
    mel, other = tiny_mel(23), tiny_mel(9, seed=1)
    alone = whole(voc, mel, matching=2)
    assert alone.shape == (23 * 16,) and not np.array_equal(alone, whole(voc, mel, matching=0))
    assert np.array_equal(streamed(voc, mel, cuts, matching=2), alone)
    batch = voc([other, mel, other[:, :2]], matching=2)
    assert np.array_equal(batch[1].waveform, alone)
    assert np.array_equal(batch[2].waveform, whole(voc, other[:, :2], matching=2))
    stream = voc.stream(matching=2)
    first = stream.push(mel[:, :20])
    copy = stream.copy()
    copy.push(other)
    assert np.array_equal(np.concatenate([first, stream.push(mel[:, 20:]), stream.finish()]), alone)


def test_matching_brings_audio_to_its_mel_and_makes_a_stream_wait(models):
    folder = save_tiny_vocoder(models / "matching")
    spec = read_spec(folder).model_copy(update={"sampling": SamplingDefaults(matching=1)})
    save_model(folder, tiny_model(spec), spec)
    voc = wavegen.load(folder, engine="numba", precision="f32")
    mel = voc.mel(0.3 * np.sin(np.arange(4000) * 0.3).astype(np.float32) * np.linspace(0, 1, 4000, dtype=np.float32))

    def distance(**options):
        return np.abs(voc.mel(whole(voc, mel, **options))[:, 3:-4] - mel[:, 3:-3]).mean()

    assert distance() < 0.7 * distance(matching=0) and distance(matching=3) < distance()
    assert voc.lookahead_frames == 1 + matching_delay(voc.spec, 1)
    stream = voc.stream()
    counts = [len(stream.push(mel[:, f])) for f in range(12)]
    assert counts == [0] * voc.lookahead_frames + [80] * (12 - voc.lookahead_frames)
    with pytest.raises(ConfigError, match="from 0 to 8, found 9"):
        voc(mel[None], matching=9)


def test_audio_comes_as_soon_as_the_look_ahead_allows(models):
    voc, mel = voice(models, "f32", conditioning={"context_frames": 3}), tiny_mel(9)
    stream = voc.stream()
    assert voc.lookahead_frames == 3
    assert [len(stream.push(mel[:, f])) for f in range(9)] == [0] * 3 + [80] * 6
    assert stream.num_samples == 480 and len(stream.finish()) == 240
    direct = voice(models, "f32", "direct", conditioning={"context_frames": 0})
    stream = direct.stream()
    assert direct.lookahead_frames == 0
    assert len(stream.push(mel[:, :1])) == 80 and len(stream.finish()) == 0
    last = [*direct.stream(mel)][-1]
    assert last.is_last and last.num_samples == 0 and last.start_sample == 720


def test_pieces_of_a_stream_of_all_kinds(voc):
    mel, expected = tiny_mel(9), whole(voc, tiny_mel(9))
    kinds = [iter(mel.T), (mel[:, f : f + 2] for f in range(0, 9, 2)), [mel[:, :4], mel[:, 4:4], mel[:, 4:]],
             [torch.from_numpy(mel)], [mel[None, :, :5], mel[None, :, 5:]], mel[None]]
    for frames in kinds:
        assert np.array_equal(np.concatenate([chunk.waveform for chunk in voc.stream(frames)]), expected)
    for frames in (mel.T, [mel.T[:3], mel.T[3:]], [mel.T[None]], mel.T[None]):
        given = [chunk.waveform for chunk in voc.stream(frames, layout="TC")]
        assert np.array_equal(np.concatenate(given), expected)


def test_a_reader_that_stops_half_way(voc):
    mel, given = tiny_mel(9), []

    def frames():
        yield mel[:, :4]
        yield mel[:, 4:6]
        raise OSError("the reader broke off")

    with pytest.raises(OSError, match="the reader broke off"):
        for chunk in voc.stream(frames()):
            given.append(chunk.waveform)
    assert np.array_equal(np.concatenate(given), whole(voc, mel)[: 80 * (6 - voc.lookahead_frames)])


def test_a_bad_piece_is_refused_and_the_stream_stands_where_it_stood(voc):
    mel, stream = tiny_mel(9), voc.stream()
    begin = stream.push(mel[:, :5])
    for bad, message in [(mel.T[:3], 'give layout="TC"'), (np.full((12, 2), np.nan), "first at frame 5, band 0"),
                         (mel[None].repeat(2, 0), "a stream is one utterance"), ("frames", "real numbers"),
                         (np.zeros((1, 1, 1, 1)), "a piece of a mel is"), (3.0, "a piece of a mel is"),
                         (mel[:, :2] + 40, "louder than full scale"), ([], "the mel has 0 bands")]:
        with pytest.raises(BadInputError, match=message):
            stream.push(bad)
    rest = [stream.push(mel[:, 5:]), stream.finish()]
    assert np.array_equal(np.concatenate([begin, *rest]), whole(voc, mel))
    for use in (stream.finish, lambda: stream.push(mel)):
        with pytest.raises(ConfigError, match="this stream is finished"):
            use()


def test_a_stream_without_frames(voc):
    for frames in (iter([]), [np.zeros((12, 0))], np.zeros((12, 0))):
        with pytest.raises(BadInputError, match="the mel is empty: not one frame arrived"):
            list(voc.stream(frames))
    for nothing in ("mel.npy", 5, b""):
        with pytest.raises(BadInputError, match="frames to stream are an array or an iterable of pieces, found"):
            list(voc.stream(nothing))


@pytest.mark.parametrize("cuts", [[1] * 120, [99, 3], [7] * 20, []])
def test_another_logarithm_shows_in_a_stream_at_the_same_frame_however_it_is_cut(voc, cuts):
    mel, stream, start = heard_mel(120) / np.float32(np.log(10)), voc.stream(), 0
    with pytest.raises(BadInputError, match="looks like the logarithm to base 10"):
        for size in [*cuts, 120]:
            stream.push(mel[:, start : start + size])
            start += size
    assert start <= JUDGED_FRAMES - 1
    with pytest.raises(BadInputError, match="looks like the logarithm to base 10"):
        list(voc.stream(mel[:, :30]))  # a short one, at its end
    assert len([*voc.stream(mel, check=False)]) > 0


# How much it takes


def peak_of(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_mel(voc):
    voc(tiny_mel(100)[None])  # everything loaded
    stretch = tiny_mel(50)
    mels = [np.broadcast_to(stretch[:, None], (12, count, 50)).reshape(12, -1)[None] for count in (3, 24)]

    def stream(count):
        for _ in voc.stream(itertools.repeat(stretch, count)):
            pass

    stream(24)
    # A sample kept as a float would be 336 kB, a frame's row of the conditioning 192 kB.
    assert peak_of(lambda: stream(24)) < peak_of(lambda: stream(3)) + 120_000
    short, long = (peak_of(lambda mel=mel: voc(mel)) - mel.shape[2] * 80 * 4 for mel in mels)
    assert long < short + 120_000


def test_a_million_frames_begin_at_once(voc):
    frames = np.broadcast_to(tiny_mel(1), (12, 1_000_000))
    assert peak_of(lambda: [*itertools.islice(voc.stream(frames), 3)]) < 1e6
    assert peak_of(lambda: [*itertools.islice(voc.stream(itertools.repeat(tiny_mel(1))), 3)]) < 1e6


def test_the_report_counts_what_was_spoken(voc):
    voc(np.stack([tiny_mel(9)] * 2), lengths=[9, 3])
    assert voc.report.num_samples == 80 * 12 and voc.report.samples_per_second > 0
    assert voc.report.first_audio_seconds is None  # all of it is given at once
    stream = voc.stream()
    assert voc.report.num_samples == 0 and voc.report.first_audio_seconds is None
    stream.push(tiny_mel(3))
    assert stream.report.num_samples == voc.report.num_samples == 160 and stream.report.first_audio_seconds > 0
    assert "first audio after" in str(stream.report)


def test_rows_of_like_length_share_a_batch():
    assert group_rows([3, 100, 40, 90, 4], 16, 0.5) == [[1, 3], [2], [4, 0]]
    assert group_rows([3, 100, 40, 90, 4], 4, 0.0) == [[1, 3, 2, 4], [0]]
    assert group_rows([5] * 5, 2, 0.5) == [[0, 1], [2, 3], [4]]
    assert group_rows([7], 16, 0.5) == [[0]]


def test_utterances_that_have_ended_are_left_out(models, monkeypatch):
    voc, lengths = voice(models, "i8", mel=SHORT), [40, 36, 30, 26, 22]  # plain kernels: a row is a tile
    mels, spoken, generate = [tiny_mel(frames, frames) for frames in lengths], [], voc.engine._generate

    def counted(calls):
        spoken.extend(call[-3].size for call in calls)  # codes (rows, samples)
        generate(calls)

    monkeypatch.setattr(voc.engine, "_generate", counted)
    monkeypatch.setattr("wavegen.synth.vocoder.SPAN_SAMPLES", 5 * 16 * 5)  # blocks of five frames, five rows
    audio = voc(mels, guard=False)
    # Rows are given up at the first block that begins behind their end.
    assert sum(spoken) == sum(-(-frames // 5) * 5 for frames in lengths) * 16 < 5 * 40 * 16
    for row, mel in enumerate(mels):
        assert np.array_equal(audio[row].waveform, whole(voc, mel, guard=False))


# Round the model


def test_the_mel_of_a_recording_is_what_the_model_reads(voc):
    time = np.arange(4000) / 8000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    mel = voc.mel(tone)
    assert mel.shape == (12, 51) and mel.dtype == np.float32
    assert voc(mel[None]).waveform.shape == (1, 51 * 80)
    twice = voc.mel(torch.from_numpy(np.repeat(tone, 2)), sample_rate=16000)
    assert twice.shape == mel.shape
    for bad in (tone[None], tone[:0], np.full(100, np.nan), tone > 0):
        with pytest.raises(BadInputError, match="recording"):
            voc.mel(bad)


def test_audio_is_saved_and_indexed(voc, tmp_path):
    audio = voc([tiny_mel(5), tiny_mel(3)])
    assert len(audio) == 2 and audio[1].num_samples == 240 and audio[1].is_last
    with pytest.raises(ConfigError, match=r"2 utterances to save; write each with audio\[row\].save"):
        audio.save(tmp_path / "a.wav")
    voc(torch.from_numpy(tiny_mel(5)), layout="CT").save(tmp_path / "a.wav")
    waveform, rate = io.load(tmp_path / "a.wav")
    assert rate == 8000 and np.abs(waveform - audio[0].waveform).max() < 1e-4


def test_a_vocoder_is_told_a_mel_and_another_model_is_not(voc):
    with pytest.raises(ConfigError, match="is a vocoder: it turns a mel into audio"):
        voc.generate(label="7")
    digits = wavegen.load("digits", engine="reference")
    with pytest.raises(ConfigError, match="is no vocoder: it is told a label, not a mel"):
        digits(tiny_mel(5))


def test_loading_the_wrong_kind(models, voc):
    from wavegen.synth import load_synthesizer, load_vocoder

    folder = save_tiny_vocoder(models / "again")
    assert load_vocoder(folder, engine="reference").spec == voc.spec
    with pytest.raises(ConfigError, match='"again" is a vocoder: it turns a mel into audio'):
        load_synthesizer(folder)
    with pytest.raises(ConfigError, match='"digits" is no vocoder'):
        load_vocoder("digits")
    told = {"label": True, "progress_steps": 0}
    with pytest.raises(ConfigError, match="besides a label or a progress clock"):
        wavegen.load(save_tiny_vocoder(models / "clock", conditioning={**told, "label": False, "progress_steps": 4}))


def test_every_preset_can_be_a_vocoders(models):
    for number, (name, spec) in enumerate(PRESETS.items()):
        assert isinstance(spec, MelSpec)
        told = {"context_frames": 0}
        voc = wavegen.load(save_tiny_vocoder(models / f"preset{number}", mel=spec.model_dump(), conditioning=told),
                           precision="f32")
        mel = voc.mel(np.random.default_rng(0).normal(0, 0.05, 4000).astype(np.float32))
        assert np.array_equal(streamed(voc, mel, [2, 3], spec=name), whole(voc, mel, spec=name))


def test_one_utterance_needs_no_axis_of_a_batch(voc):
    mel = tiny_mel(7)
    assert np.array_equal(voc(mel).waveform, voc(mel[None]).waveform)
    assert np.array_equal(voc(mel.T, layout="BTC").waveform, voc(mel[None]).waveform)
