"""Sound files by libsndfile: WAV, FLAC, OGG Vorbis and MP3, read whole or refused."""

import io
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import mp3_files, sound_streams
from mmalign.media.checks import check_size
from mmalign.media.decoding import BYTES_PER_SOUND_VALUE, Growing

BLOCK = 2**16
"""Samples a time: libsndfile's Vorbis encoder crashes on long sounds that are given to it at once."""
KNOWN_LENGTH = 2**40
"""A header that promises more samples does not know its length: it was written by a stream."""
OTHER_CHUNKS = (b"LIST", b"bext", b"cue ", b"fact", b"id3 ", b"ID3 ", b"smpl", b"JUNK", b"PEAK")
"""What may stand behind the samples of a WAV file; behind none, if it is empty."""


def read(path: Path, *, max_samples: int) -> tuple[Tensor, int]:
    """Waveform [C, N] in fp32 and rate in Hz of any file that libsndfile knows.

    What a header promises is not believed: the sound is read in blocks up to ``max_samples`` values, and then has to
    be as long as promised.

    Raises:
        ShapeError: it is empty, or ends too early.
        ConfigError: it is longer than ``max_samples``.
    """
    import soundfile

    blocks = []
    values = 0
    with soundfile.SoundFile(_said_length(path) or str(path)) as file:
        if file.format == "MP3" and not _counts_its_frames(path):
            return sound_streams.read(path, "mp3", max_samples=max_samples)
        if file.format == "FLAC" and file.frames >= KNOWN_LENGTH:
            return sound_streams.read(path, "flac", max_samples=max_samples)
        promised = file.frames if file.frames < KNOWN_LENGTH else 0
        taken = Growing(BYTES_PER_SOUND_VALUE * file.channels * min(promised, max_samples))
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            values += block.size
            check_size(values, max_samples, "samples", "max_samples")
            taken.reach(BYTES_PER_SOUND_VALUE * values)
            blocks.append(torch.from_numpy(block))
        promised, rate, form = file.frames, file.samplerate, file.format
    length = sum(map(len, blocks))
    if length < promised < KNOWN_LENGTH:
        raise ShapeError(f"ends too early: {length} of {promised} samples")
    if form in ("WAV", "WAVEX"):
        _check_riff(path)
    if form == "OGG":
        _check_ogg(path)
    if not blocks:
        raise ShapeError("the sound is empty")
    return torch.cat(blocks).T.contiguous(), int(rate)


def _counts_its_frames(path: Path) -> bool:
    """Whether an MP3 file says how many frames it has, and has as many, so that libsndfile reads all of it.

    Raises:
        ShapeError: it has fewer, or its last one is not whole.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = mp3_files.frames_of(data)
    if found.count < (found.promised or 0):
        raise ShapeError(f"ends too early: {found.count} of {found.promised} frames")
    if found.cut:
        raise ShapeError(f"ends too early, in the middle of frame {found.count + 1}")
    return found.promised == found.count


def write(path: Path, suffix: str, waveform: Tensor, sample_rate_hz: int) -> None:
    """Write int16 [C, N].

    Raises:
        ConfigError: the format cannot hold this rate or so many channels.
    """
    import soundfile

    options: dict[str, Any] = {"format": suffix.removeprefix(".").upper()}
    lossy = suffix in (".ogg", ".mp3")
    if not lossy:
        options["subtype"] = "PCM_16"
    array = waveform.T.contiguous().numpy()
    if lossy:  # libsndfile mixes the channels of 16-bit numbers up when it writes MP3
        array = array.astype(np.float32) / 32768
    channels = array.shape[1]
    try:
        with soundfile.SoundFile(
            str(path), "w", samplerate=sample_rate_hz, channels=channels, **options
        ) as file:
            for start in range(0, len(array), BLOCK):
                file.write(array[start : start + BLOCK])
    except soundfile.LibsndfileError as error:
        raise ConfigError(
            f"{suffix} cannot hold {channels} channels at {sample_rate_hz} Hz ({error.error_string}); "
            "use .wav or .flac, or resample"
        ) from None


def _said_length(path: Path) -> io.BytesIO | None:
    """A WAV file that a stream wrote, with its length in place of the 0 that says none; None for all others."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return None
        file.seek(12)
        name, length = b"", 0
        while name != b"data":
            file.seek(length + length % 2, 1)
            if len(header := file.read(8)) < 8:
                return None
            name, length = struct.unpack("<4sI", header)
        start = file.tell()
        if length or file.read(4) in (b"", *OTHER_CHUNKS):
            return None
    data = bytearray(path.read_bytes())
    data[start - 4 : start] = struct.pack("<I", min(len(data) - start, 2**32 - 1))
    return io.BytesIO(data)


def _check_riff(path: Path) -> None:
    """Refuse a WAV file whose data is shorter than its header says, which libsndfile reads as a shorter sound."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", header)
            start = file.tell()
            # A stream that could not go back to its header leaves the largest number there, or none.
            if name == b"data" and 0 < length < 2**31 - 2**16 and start + length > size:
                raise ShapeError(f"ends too early: {size - start} of {length} bytes")
            if name == b"data":
                return
            file.seek(start + length + length % 2)


def _check_ogg(path: Path) -> None:
    """Refuse an OGG file whose last page is not whole or does not close its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 512))  # a page holds less than 64 kB
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 + len(lengths) + sum(lengths) or not lengths or not page[5] & 4:
        raise ShapeError("ends too early: its last page is not there, or not whole")
