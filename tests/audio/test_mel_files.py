"""Mel spectrograms from files and streams: every layout and type, and every way it goes wrong."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegen.audio.mel_files import FrameReader, load_mel
from wavegen.errors import BadInputError, ConfigError

BANDS, FRAMES = 5, 12
MEL = np.random.default_rng(0).standard_normal((BANDS, FRAMES)).astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


STREAMS = {
    "bare": MEL.T.tobytes(),
    "TC": npy(np.ascontiguousarray(MEL.T)),
    "CT": npy(MEL),
    "CT in Fortran order": npy(np.asfortranarray(MEL)),
    "several": npy(MEL[:, :3]) + npy(MEL[:, 3:4]) + npy(MEL[:, 4:]),
}


class Pipe(io.BytesIO):
    """Gives what was written in pieces as they were written, as a pipe does."""

    def __init__(self, content: bytes, cuts=()):
        super().__init__(content)
        self.cuts = sorted(cuts)

    def read1(self, size=-1):
        later = [cut for cut in self.cuts if cut > self.tell()]
        return super().read(min([size, *(cut - self.tell() for cut in later[:1])]))


def read(content: bytes, layout=None, cuts=(), bands=BANDS) -> tuple[np.ndarray, FrameReader]:
    reader = FrameReader(Pipe(content, cuts), bands, layout)
    return np.concatenate(list(reader), axis=1), reader


@pytest.mark.parametrize("array", [MEL, MEL.T, MEL[None], MEL.T[None], np.asfortranarray(MEL), MEL.astype(np.float16),
                                   MEL.astype(">f8").T, (MEL * 10).astype(np.int16)])
def test_a_numpy_file_in_either_layout(tmp_path, array):
    wanted = array.reshape(array.shape[-2:])
    wanted = wanted if wanted.shape[0] == BANDS else wanted.T
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    np.savez_compressed(tmp_path / "b.npz", other=np.zeros(3), mel=array)
    for name in ("a.npy", "a.npz", "b.npz"):
        np.testing.assert_array_equal(load_mel(tmp_path / name, BANDS), wanted)
    streamed, reader = read(npy(array))
    np.testing.assert_array_equal(streamed, wanted)
    assert reader.num_frames == FRAMES
    reader.check_whole()


def test_bare_frames(tmp_path):
    (tmp_path / "a.f32").write_bytes(MEL.T.astype("<f4").tobytes())
    np.testing.assert_array_equal(load_mel(tmp_path / "a.f32", BANDS), MEL)
    np.testing.assert_array_equal(read((tmp_path / "a.f32").read_bytes())[0], MEL)


@given(st.sets(st.integers(1, 4 * BANDS * FRAMES - 1)), st.sampled_from(sorted(STREAMS)))
def test_the_cuts_of_a_stream_change_nothing(cuts, kind):
    streamed, reader = read(STREAMS[kind], cuts=cuts)
    np.testing.assert_array_equal(streamed, MEL)
    reader.check_whole()


def test_a_square_must_be_explained(tmp_path):
    square = MEL[:, :BANDS]
    np.save(tmp_path / "a.npy", square)
    with pytest.raises(ConfigError, match=r"5 both ways: say --layout CT"):
        load_mel(tmp_path / "a.npy", BANDS)
    np.testing.assert_array_equal(load_mel(tmp_path / "a.npy", BANDS, "CT"), square)
    np.testing.assert_array_equal(load_mel(tmp_path / "a.npy", BANDS, "TC"), square.T)
    with pytest.raises(ConfigError, match="5 both ways"):
        read(npy(square))
    # The first of several arrays says it for the others.
    np.testing.assert_array_equal(read(npy(MEL[:, :7]) + npy(MEL[:, 7:]) + npy(square))[0],
                                  np.concatenate([MEL, square], axis=1))


@pytest.mark.parametrize(
    ("array", "layout", "complaint"),
    [
        (MEL[:4], None, r"shape \(4, 12\), the model wants 5 bands: it was computed for another model"),
        (MEL, "TC", "it looks like --layout CT"),
        (MEL.T, "CT", "it looks like --layout TC"),
        (np.stack([MEL, MEL]), None, "save each of the batch alone"),
        (MEL[0], None, r"wanted is one spectrogram \(5, frames\)"),
        (MEL[:, :0], None, "it holds no frames"),
        (MEL.astype(complex), None, "complex128; a mel spectrogram is an array of real numbers"),
        (MEL > 0, None, "bool"),
    ],
)
def test_a_wrong_array_is_told(tmp_path, array, layout, complaint):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BadInputError, match=complaint):
        load_mel(tmp_path / "a.npy", BANDS, layout)
    with pytest.raises(BadInputError, match=complaint):
        read(npy(array), layout)


def test_a_wrong_file_is_told(tmp_path):
    def refused(name: str, content: bytes | None, complaint: str) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=complaint):
            load_mel(tmp_path / name, BANDS)

    objects = io.BytesIO()
    np.save(objects, np.array([{}]), allow_pickle=True)
    refused("none.npy", None, "does not exist")
    refused("half.npy", npy(MEL)[:150], "cannot be read as npy")
    refused("empty.npy", b"", "cannot be read as npy")
    refused("objects.npy", objects.getvalue(), "nothing is unpickled")
    refused("pickle.npy", b"\x80\x04N.", "cannot be read as npy: it is a pickle")
    refused("half.npz", b"PK\x03\x04", "cannot be read as npz")
    refused("a.pt", b"", 'so wavegen opens none: numpy.save')
    refused("a.wav", b"", "--like takes audio")
    refused("a.npyy", b"", 'did you mean ".npy"')
    refused("a.f32", b"123", "has 3 bytes, which is no whole number of frames of 5 float32 numbers")
    refused("b.f32", b"", "has 0 bytes")
    np.savez(tmp_path / "two.npz", a=MEL, b=MEL)
    refused("two.npz", None, r'2 arrays \(a, b\) and none of them is named "mel"')
    refused("two.npy", (tmp_path / "two.npz").read_bytes(), "is an .npz file under another name")
    (tmp_path / "folder.npy").mkdir()
    refused("folder.npy", None, "is not a file")
    with pytest.raises(ConfigError, match='no layout "BCT"'):
        load_mel(tmp_path / "half.npy", BANDS, "BCT")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no whole frame was read; a frame is 5 numbers"),
        (b"1234567", "no whole frame was read, only 7 bytes"),
        (b"RIFF....WAVE", "is a wav file, not frames"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x93NUMPY", "begins like an .npy file and is none"),
        (b"\x93NUMPY\x09\x00........", r"version 9\.0 of the format"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': object}", "begins like an .npy file and is none"),
        (npy(MEL)[:-1], "with its bands first, none of its frames is whole"),
        (npy(MEL) + b"\n", "goes on with what is no .npy array"),
    ],
)
def test_a_wrong_stream_is_told(content, complaint):
    with pytest.raises(BadInputError, match=complaint):
        read(content)


def test_bare_frames_have_one_layout():
    with pytest.raises(ConfigError, match="their layout is TC"):
        read(MEL.T.tobytes(), layout="CT")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (MEL.T.tobytes()[:-3], "ends inside a frame, 17 bytes into number 12; the 11 frames before it were spoken"),
        (npy(np.ascontiguousarray(MEL.T))[:-23], "ends 2 frames before the end its header promises; the 10 that came"),
    ],
)
def test_what_came_before_a_stream_broke_off_is_given(content, complaint):
    streamed, reader = read(content)
    np.testing.assert_array_equal(streamed, MEL[:, : reader.num_frames])
    with pytest.raises(BadInputError, match=complaint):
        reader.check_whole()


def test_frames_are_handed_on_before_the_input_ends():
    source, sink = os.pipe()
    received, frames = threading.Event(), MEL.T.tobytes()

    def write() -> None:
        with os.fdopen(sink, "wb", buffering=0) as file:
            for place in range(0, len(frames), 20):
                file.write(frames[place : place + 20])
                assert received.wait(60)
                received.clear()

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(source, "rb") as file:
        for place, block in enumerate(FrameReader(file, BANDS)):
            np.testing.assert_array_equal(block, MEL[:, place : place + 1])
            received.set()
    thread.join()
    assert place == FRAMES - 1
