"""The frames of an MP3 file, which alone say how long it is.

libsndfile reads as many samples as the header promises. Where the header does not count the frames it takes the first
frame's size for that of all, which is wrong in either direction: whole files were refused, and others read by half.
"""

import struct
from dataclasses import dataclass
from mmap import mmap

RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By version (3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5) and the index in the header."""
KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
LONGEST_JUNK = 2**17
"""Bytes before the first frame that are searched for it, beside an ID3 tag."""


@dataclass(frozen=True, slots=True)
class Frames:
    """What a file holds.

    Args:
        count: whole frames, without the one that only counts the others.
        promised: frames that the header counts; None where it counts none.
        cut: whether the last frame is not whole.
    """

    count: int
    promised: int | None
    cut: bool


def frames_of(data: bytes | mmap) -> Frames:
    """Walk from frame to frame.

    Source: ISO/IEC 11172-3 section 2.4.1, for the sizes; the headers of Xing and LAME, for the count.
    """
    start = _first(data)
    if start is None:
        return Frames(0, None, cut=False)
    first = data[start : start + (_size(data, start) or 0)]
    promised = _counted(first)
    position = start + len(first) if _tag(first) >= 0 else start
    count, cut = 0, False
    while (size := _size(data, position)) is not None:
        if position + size > len(data):
            cut = True
            break
        position, count = position + size, count + 1
    cut = cut or (0 < len(data) - position < 4 and data[position] == 255)  # not even a header of the next
    return Frames(count, promised, cut)


def _first(data: bytes | mmap) -> int | None:
    """Where the first frame is: behind the ID3 tag, and followed by another frame or the end."""
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:
        start = 10 + sum(
            (byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True)
        )
    for place in range(start, min(len(data), start + LONGEST_JUNK)):
        size = _size(data, place)
        if size is not None and (place + size >= len(data) or _size(data, place + size) is not None):
            return place
    return None


def _size(data: bytes | mmap, place: int) -> int | None:
    """Bytes of the frame of layer III that begins here; None where none does."""
    head = data[place : place + 4]
    if len(head) < 4 or head[0] != 255 or head[1] & 0xE6 != 0xE2:
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate == 3 or bits in (0, 15):
        return None
    kbits, slots = (KBITS_1, 144) if version == 3 else (KBITS_2, 72)
    return slots * kbits[bits] * 1_000 // RATES_HZ[version][rate] + (head[2] >> 1 & 1)


def _tag(frame: bytes) -> int:
    """Where the header of Xing begins in a frame, -1 where it has none: behind the side information."""
    if len(frame) < 4:
        return -1
    mono, first = frame[3] >> 6 == 3, frame[1] >> 3 & 3 == 3
    place = 4 + ((17 if mono else 32) if first else (9 if mono else 17)) + (0 if frame[1] & 1 else 2)
    return place if frame[place : place + 4] in (b"Xing", b"Info") else -1


def _counted(frame: bytes) -> int | None:
    """The number of frames that a first frame says, if it is one that says it."""
    place = _tag(frame)
    if place < 0 or len(frame) < place + 12:
        return None
    flags, count = struct.unpack(">II", frame[place + 4 : place + 12])
    return count if flags & 1 and count else None
