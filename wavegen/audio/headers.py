"""What the header of an audio file claims, where libsndfile takes a damaged file without complaint.

libsndfile reads a WAV that was cut in half as a shorter WAV. Each check here compares a claim
of the header with the size of the file and gives a reason, or None if nothing is wrong.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

# A program that writes to a pipe cannot know the length: ffmpeg leaves 0xFFFFFFFF, others a value near 2**31.
UNKNOWN_LENGTH = 0x7FFFF000
MAX_CHUNKS = 4096  # a file that is nothing but empty chunks must not keep us busy


def damage(file: BinaryIO, num_bytes: int) -> str | None:
    """Why the file cannot be what its header says, or None.

    Args:
        file: seekable, at any position; the position is moved.
        num_bytes: size of the file.
    """
    file.seek(0)
    start = file.read(16)
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return _chunks_damage(file, num_bytes, "<" if start[:4] != b"RIFX" else ">", b"data")
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return _chunks_damage(file, num_bytes, ">", b"SSND")
    if start[:4] in (b".snd", b"dns.") and len(start) >= 12:
        order = ">" if start[:4] == b".snd" else "<"
        offset, length = struct.unpack(order + "II", start[4:12])
        return _cut_short(offset, length, num_bytes)
    if start[:4] == b"fLaC":
        return _flac_damage(file, num_bytes)
    if start[:4] == b"OggS":
        return _ogg_damage(file, num_bytes)
    return None


def _cut_short(offset: int, length: int, num_bytes: int) -> str | None:
    if length >= UNKNOWN_LENGTH or offset + length <= num_bytes:
        return None
    return f"cut short: the header promises {length} bytes of audio, {max(0, num_bytes - offset)} are there"


def _chunks_damage(file: BinaryIO, num_bytes: int, order: str, wanted: bytes) -> str | None:
    """Walk the chunks of a WAV or AIFF up to the one that holds the samples."""
    position, length64 = 12, None
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return None  # no audio at all: libsndfile says so better
        name, length = head[:4], struct.unpack(order + "I", head[4:])[0]
        if name == b"ds64":  # RF64 keeps its 64-bit lengths here: of the file, of the data
            sizes = file.read(16)
            length64 = struct.unpack("<QQ", sizes)[1] if len(sizes) == 16 else None
        if name == wanted:
            if length64 is not None and length == 0xFFFFFFFF:
                missing = position + 8 + length64 - num_bytes
                return f"cut short: {missing} bytes of audio are missing" if missing > 0 else None
            if length == 0 and num_bytes - position - 8 > 8:
                return (f"the header promises no audio though {num_bytes - position - 8} bytes follow; "
                        "was its writer interrupted?")
            return _cut_short(position + 8, length, num_bytes)
        position += 8 + length + (length & 1)
    return f"no audio within the first {MAX_CHUNKS} chunks"


def _flac_damage(file: BinaryIO, num_bytes: int) -> str | None:
    """Compare the stated length of a FLAC with the bytes of its frames."""
    position, total_bits, num_frames = 4, 0, None
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            return "cut short: it ends within its FLAC header"
        kind, length = head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if kind == 0:  # STREAMINFO: 20 bits rate, 3 bits channels - 1, 5 bits depth - 1, 36 bits length
            packed = int.from_bytes(file.read(18)[10:18], "big")
            num_frames = packed & (2**36 - 1)
            total_bits = num_frames * ((packed >> 41 & 7) + 1) * ((packed >> 36 & 31) + 1)
        position += 4 + length
        if head[0] & 0x80:
            break
    if num_frames == 0:
        return "its FLAC header states no length, which libsndfile cannot read; encode it again with `flac`"
    # A FLAC frame is never larger than its raw samples and a small header.
    if num_frames is not None and num_bytes - position > total_bits / 8 * 1.05 + 8192:
        return f"the FLAC header states {num_frames} frames, but the file holds more audio than that"
    return None


def _ogg_damage(file: BinaryIO, num_bytes: int) -> str | None:
    """The last page of a whole Ogg stream is marked as the last."""
    tail = min(num_bytes, 2 * 65307)  # a page has 65307 bytes at most
    file.seek(num_bytes - tail)
    data = file.read(tail)
    page = data.rfind(b"OggS")
    ended = page >= 0 and len(data) > page + 5 and bool(data[page + 5] & 4)
    return None if ended else "cut short: the Ogg stream has no last page"
