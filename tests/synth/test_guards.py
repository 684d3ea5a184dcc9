"""Guards redraw what breaks the mel's word and change nothing else; the laws hold bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wavegen
from tiny import save_tiny_vocoder, tiny_mel
from wavegen.metrics.bursts import check_against_mel
from wavegen.synth import guards
from wavegen.synth.guards import GuardReport, silence_factor


@pytest.fixture(scope="module", params=["lpc", "direct"])
def voc(request, tmp_path_factory):
    """A vocoder that knows nothing: many of its frames are louder than any mel."""
    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    return wavegen.load(save_tiny_vocoder(folder, request.param), precision="f32")


def mixed_mel(num_frames=40, seed=3):
    """Frames it keeps to, frames it cannot, and silence."""
    mel = tiny_mel(num_frames, seed)
    mel[:, ::7] += 4.0
    mel[:, 20:24] = np.log(1e-5)
    return np.minimum(mel, -1.5)


def test_bursts_are_spoken_again_and_fewer_are_left(voc):
    mel = mixed_mel()[None]
    plain, watched = voc(mel, guard=False).waveform, None
    assert voc.report.guarded is None
    watched = voc(mel).waveform
    report = voc.report.guarded
    assert report.frames == 40 and report.bursts > 0 and report.attempts > 0
    assert report.bursts_left <= report.bursts
    assert not np.array_equal(plain, watched)
    assert "bursts: " in str(voc.report)


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_a_stream_is_the_whole_however_it_is_cut(voc, cuts):
    mel = mixed_mel()
    whole = voc(mel[None])
    stream, pieces, start = voc.stream(), [], 0
    for cut in cuts:
        pieces.append(stream.push(mel[:, start : start + cut]))
        start += cut
    pieces += [stream.push(mel[:, start:]), stream.finish()]
    assert np.array_equal(np.concatenate(pieces), whole.waveform[0])
    voc(mel[None])
    assert stream.report.guarded == voc.report.guarded


def test_a_batch_is_its_rows(voc):
    mels = [mixed_mel(40, 3), mixed_mel(33, 4), mixed_mel(25, 5)]
    together, total = voc(mels, seed=[1, 2, 3]), GuardReport()
    report = voc.report.guarded
    for row, mel in enumerate(mels):
        assert np.array_equal(voc(mel[None], seed=row + 1).waveform[0], together[row].waveform)
        total += voc.report.guarded
    assert total == report and report.attempts > 0


def test_a_copied_stream_has_the_same_future(voc):
    mel, stream = mixed_mel(), voc.stream()
    stream.push(mel[:, :17])
    copy = stream.copy()
    assert np.array_equal(stream.push(mel[:, 17:]), copy.push(mel[:, 17:]))
    assert np.array_equal(stream.finish(), copy.finish())
    assert stream.report.guarded == copy.report.guarded


def test_a_copy_has_no_memory_in_common_with_what_it_is_a_copy_of(voc):
    # Memory that is written over may be what another stream stands on, once it went back to a block.
    stream = voc.stream()
    stream.push(mixed_mel(12))
    guard, copied = stream._utterance.guard, stream.copy()._utterance.guard
    guard._spare = stream._utterance._state.copy()
    assert guard.copy()._spare is None and copied.watch is not guard.watch


def test_of_all_attempts_the_least_faulty_is_kept(voc, monkeypatch):
    tries, turned_back = [], []
    usual_try, usual_again = guards.Guard._try, guards.Guard._again

    def count_try(self, *arguments):
        found = usual_try(self, *arguments)
        tries.append((found[1].fault.max(), found[0].waveform.copy()))
        return found

    def check_again(self, engine, kept, expected, heat, active, first):
        tries.clear()
        found = usual_again(self, engine, kept, expected, heat, active, first)
        least, waveform = min(tries, key=lambda entry: entry[0])
        assert least <= first.fault.max() and np.array_equal(found.waveform, waveform)
        turned_back.append(least < tries[guards.ATTEMPTS - 1][0] if len(tries) > guards.ATTEMPTS else False)
        return found

    monkeypatch.setattr(guards.Guard, "_try", count_try)
    monkeypatch.setattr(guards.Guard, "_again", check_again)
    voc(mixed_mel()[None])
    assert any(turned_back), "no block whose last attempt was not its best"


def test_where_all_is_well_nothing_changes(voc, monkeypatch):
    monkeypatch.setattr(guards, "QUIET_DB", -200.0)
    monkeypatch.setattr(guards, "SILENT_DB", -300.0)
    monkeypatch.setattr(guards, "CREDITS", 0.0)
    mel = mixed_mel()[None]
    assert np.array_equal(voc.codes(mel), voc.codes(mel, guard=False))


def test_a_mel_that_cannot_be_met_costs_little(voc):
    """Every frame asks for silence and the network makes noise."""
    mel = np.full((1, 12, 400), np.log(1e-5), np.float32)
    voc(mel, check=False)
    report = voc.report.guarded
    assert report.bursts > 300 and report.attempts <= guards.CREDITS + 400 * guards.CREDITS_PER_FRAME


def test_silence_is_spoken_at_a_lower_temperature(voc):
    levels = np.array([-40.0, guards.QUIET_DB, (guards.QUIET_DB + guards.SILENT_DB) / 2, guards.SILENT_DB, -120.0])
    expected = np.broadcast_to((10 ** (levels / 10))[None, :, None, None], (1, 5, 2, 3))
    assert silence_factor(expected).tolist() == [[1.0, 1.0, 0.75, 0.5, 0.5]]
    voc(mixed_mel()[None])
    assert 3 <= voc.report.guarded.quiet_frames <= 5


def test_reports_add_up():
    one = GuardReport(0.01, 100, 2, 1, 4, 1, 0, 7)
    both = one + GuardReport(0.01, 300, 0, 0, 0, 0, 0, 0)
    assert both.seconds == pytest.approx(4.0) and both.bursts == 2
    assert both.per_1000_seconds() == {"bursts": 500.0, "silences": 250.0, "attempts": 1000.0, "bursts_left": 250.0,
                                       "silences_left": 0.0}
    assert str(both) == "bursts: 3 blocks, 1 left after 4 more draws" and str(GuardReport()) == "no bursts"
    assert str(GuardReport(0.01, 20, 2)).endswith("more draws")
    assert "another voice" in str(GuardReport(0.01, 20, 2, 1))


def test_what_stays_too_loud_is_turned_down(voc):
    """Not one frame of a network that knows nothing is louder than its mel lets it be."""
    mel = tiny_mel(40, 3)
    taken, guarded = voc(mel[None], guard=False).waveform[0], voc(mel[None]).waveform[0]
    left = voc.report.guarded.bursts_left
    loud = [check_against_mel(clip, mel, voc.spec, None).bursts for clip in (taken, guarded)]
    assert left > 0 and loud[0] > 0 and loud[1] <= 1


def test_what_is_turned_down_falls_quickly_and_comes_back_slowly():
    waveform, before = np.ones((1, 3 * 64), np.float32), np.ones(1)
    guards._turn_down(waveform, np.array([[1.0, 0.5, 1.0]]), before, 64)
    first, second, third = waveform[0].reshape(3, 64)
    assert (first == 1).all() and before[0] == 1
    np.testing.assert_allclose(second[:5], [0.875, 0.75, 0.625, 0.5, 0.5])
    assert np.isclose(third[0], 0.5 + 0.5 / 32) and np.isclose(third[15], 0.75) and (third[31:] == 1).all()
