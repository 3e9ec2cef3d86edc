"""One hash of a sample's content: equal wherever the prompt and the medium, as files keep it, are equal."""

import hashlib
from collections.abc import Iterator
from dataclasses import astuple

import torch
from torch import Tensor

from mmalign.media.audio import Audio
from mmalign.media.checks import to_8_bits, to_16_bits
from mmalign.media.image import Image
from mmalign.media.sample import Media, Sample
from mmalign.media.scene3d import Scene3D
from mmalign.media.video import Video


def content_hash(sample: Sample) -> str:
    """SHA-256, in hexadecimal, of a sample's prompt, medium and context; ``meta`` does not count.

    A medium counts as its modality, shape, rate and content, pixels rounded to 8 bits and waveforms to 16, so that one
    saved without loss keeps its hash (PNG, WAV, FLAC; WebP, to whole milliseconds a frame). Words that describe it, as
    the transcript and voice of speech do, do not count. Every part goes in with its length, so no two samples are spelt
    alike.

    >>> content_hash(Sample("a red circle", Image(torch.zeros(3, 2, 2))))[:16]
    'b411e9a65276a6b7'
    """
    digest = hashlib.sha256()
    for part in _parts(sample):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _parts(sample: Sample) -> Iterator[bytes]:
    yield _text(sample.prompt)
    yield from _media_parts(sample.media)
    for name in sorted(sample.context):
        entry = sample.context[name]
        yield _text(name)
        if isinstance(entry, str):
            yield b"text"
            yield _text(entry)
        else:
            yield from _media_parts(entry)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _media_parts(media: Media | None) -> Iterator[bytes]:
    """Modality, rate, and the arrays of a medium; all media of one modality give equally many parts."""
    if media is None:
        yield b"none"
        return
    yield media.modality.encode()
    match media:
        case Image():
            yield from _array(to_8_bits(media.pixels))
        case Video():
            yield repr(float(media.fps)).encode()
            yield from _array(to_8_bits(media.frames))
        case Audio():
            yield str(media.sample_rate_hz).encode()
            yield from _array(to_16_bits(media.waveform))
        case Scene3D():
            yield repr([astuple(camera) for camera in media.cameras]).encode()
            mesh = media.mesh
            yield from _array(None if media.views is None else to_8_bits(media.views))
            yield from _array(None if mesh is None else mesh.vertices.detach().float().cpu())
            yield from _array(None if mesh is None else mesh.faces.to(torch.int64).cpu())
            yield from _array(None if mesh is None or mesh.colours is None else to_8_bits(mesh.colours))


def _array(values: Tensor | None) -> Iterator[bytes]:
    if values is None:
        yield b"none"
        yield b""
    else:
        yield str(list(values.shape)).encode()
        yield values.contiguous().numpy().tobytes()
