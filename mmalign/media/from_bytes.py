"""Reads a medium that came as bytes: in a table's cell, or over a wire."""

import tempfile
from pathlib import Path

from mmalign.errors import DataError
from mmalign.media.checks import Modality
from mmalign.media.sample import Media, load_media

_HEADS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (8, b"WAVE", ".wav"),
    (8, b"AVI ", ".avi"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1a\x45\xdf\xa3", ".webm"),
    (0, b"fLaC", ".flac"),
    (0, b"OggS", ".ogg"),
    (0, b"ID3", ".mp3"),
    (0, b"\xff\xfb", ".mp3"),
    (0, b"\xff\xf3", ".mp3"),
    (0, b"glTF", ".glb"),
)
"""Where in a file, which bytes, and the suffix of what begins so."""


def suffix_of(data: bytes) -> str | None:
    r"""The suffix that the first bytes of a medium ask for, or None where they are of no format that we read.

    >>> suffix_of(b"\x89PNG\r\n\x1a\n..."), suffix_of(b"hello")
    ('.png', None)
    """
    for start, head, suffix in _HEADS:
        if data[start : start + len(head)] == head:
            return suffix
    return None


def media_from_bytes(
    data: bytes, *, name: str, suffix: str | None = None, modality: Modality | None = None
) -> Media:
    """Read a medium from the bytes of its file, by the same readers as from a file.

    The bytes pass through a temporary file, since decoders of video and sound want one.

    Args:
        data: a whole file.
        name: what errors call it, such as "row 3, column 'image'".
        suffix: of the file; None for what the first bytes say.
        modality: what it is; None for what the suffix says, as ``load_media`` does.

    Raises:
        DataError: the bytes are of no known format, or cannot be read as this medium.
    """
    suffix = suffix or suffix_of(data)
    if suffix is None:
        raise DataError("these bytes begin like no picture, video, sound or mesh that can be read", file=name)
    with tempfile.NamedTemporaryFile(prefix="mmalign-", suffix=suffix) as file:
        file.write(data)
        file.flush()
        try:
            return load_media(Path(file.name), modality)
        except DataError as error:
            # The temporary name says nothing to anybody, and it is gone.
            said = str(error).removeprefix(f"{file.name}: ").replace(file.name, name)
            raise DataError(said, file=name) from None
