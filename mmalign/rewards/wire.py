"""Samples as JSON, version 1: what ``RemoteReward`` sends and ``mmalign serve`` reads.

A sample is ``{"prompt": TEXT, "media": MEDIUM, "context": {NAME: TEXT or MEDIUM}}``. A medium is one of

- ``{"type": "image/png", "data": BASE64}``: a file, of any format that can be read; ``"modality"`` where the format
  leaves it open (``speech``, ``scene3d``), with ``"transcript"`` and ``"voice"`` for speech;
- ``{"frames": [BASE64, ...], "fps": NUMBER}``: a video as pictures;
- ``{"path": TEXT}``: a file on the server, below the folder that it serves from.

Pixels travel with 8 bits and waveforms with 16, as files keep them, so a remote score is that of the saved medium.
"""

import base64
import binascii
import io
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import DataError
from mmalign.media import MEDIA, Audio, Image, Media, Sample, SampleFile, Scene3D, Speech, Video
from mmalign.media.checks import Modality
from mmalign.media.from_bytes import media_from_bytes

VERSION = 1
SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "audio/wav": ".wav",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/mpeg": ".mp3",
    "model/gltf-binary": ".glb",
}
"""Media types and the suffixes of their files."""
MOST_FRAMES = 4096
LONGEST_TEXT = 65_536


def encode_sample(sample: Sample) -> dict[str, Any]:
    """A sample as JSON, its medium without loss beyond 8 or 16 bits.

    Raises:
        ConfigError: a mesh, and the extra ``mesh`` is not installed.
    """
    context = {name: e if isinstance(e, str) else encode_media(e) for name, e in sample.context.items()}
    media = None if sample.media is None else encode_media(sample.media)
    return {"prompt": sample.prompt, "media": media, **({"context": context} if context else {})}


def encode_media(media: Media) -> dict[str, Any]:
    """A medium as JSON.

    Raises:
        ConfigError: a mesh, and the extra ``mesh`` is not installed.
    """
    match media:
        case Image():
            return {"type": "image/png", "data": _file(media, ".png")}
        case Video():
            return {
                "frames": [_file(Image(frame), ".png") for frame in media.frames],
                "fps": float(media.fps),
            }
        case Speech():
            words = {"transcript": media.transcript, "voice": media.voice}
            return {
                "type": "audio/wav",
                "modality": "speech",
                "data": _file(media, ".wav"),
                **{name: text for name, text in words.items() if text is not None},
            }
        case Audio():
            return {"type": "audio/wav", "data": _file(media, ".wav")}
        case Scene3D():
            kind, suffix = (
                ("image/png", ".views.png") if media.views is not None else ("model/gltf-binary", ".glb")
            )
            return {"type": kind, "modality": "scene3d", "data": _file(media, suffix)}


def _file(media: Media, suffix: str) -> str:
    """The bytes that saving a medium gives, in base64."""
    if isinstance(media, Image):
        buffer = io.BytesIO()
        media.to_pil().save(buffer, "PNG", compress_level=1)
        return base64.b64encode(buffer.getvalue()).decode()
    with tempfile.TemporaryDirectory(prefix="mmalign-") as folder:
        path = Path(folder) / f"media{suffix}"
        media.save(path)
        return base64.b64encode(path.read_bytes()).decode()


def bounds(low_high: tuple[float, float] | None) -> list[float | None] | None:
    """A range as JSON, which has no infinity: null for an end that is open, and for a range that nobody knows.

    >>> bounds((0.0, math.inf)), bounds(None)
    ([0.0, None], None)
    """
    return None if low_high is None else [end if math.isfinite(end) else None for end in low_high]


def range_of(entry: Any) -> tuple[float, float] | None:
    """A range from JSON.

    Raises:
        ValueError: it is none.

    >>> range_of([0.0, None])
    (0.0, inf)
    """
    if entry is None:
        return None
    low, high = (
        infinite if end is None else float(end)
        for end, infinite in zip(entry, (-math.inf, math.inf), strict=True)
    )
    if not low < high:
        raise ValueError(f"{low} to {high} is no range")
    return low, high


def decode_sample(entry: Any, *, name: str, root: Path | None = None) -> Sample:
    """A sample from JSON.

    Args:
        entry: what JSON gave.
        name: what errors call it, "sample 3".
        root: the folder in which ``path`` has to lie; None refuses every path.

    Raises:
        DataError: it is no sample, a medium cannot be read, or a path is not allowed.
    """
    if not isinstance(entry, dict):
        raise DataError(f"expected an object with prompt and media, got {short(entry)}", file=name)
    unknown = entry.keys() - {"prompt", "media", "context"}
    if unknown:
        raise DataError(f"unknown field '{min(unknown)}'; known: prompt, media, context", file=name)
    prompt = entry.get("prompt")
    context = entry.get("context") or {}
    if not isinstance(context, dict):
        raise DataError(f"context: expected named texts and media, got {short(context)}", file=name)
    media = entry.get("media")
    return Sample(
        "" if prompt is None else _text(prompt, "prompt", name),
        None if media is None else decode_media(media, name=f"{name}, media", root=root),
        {
            key: _text(value, key, name)
            if isinstance(value, str)
            else decode_media(value, name=f"{name}, {str(key)[:40]}", root=root)
            for key, value in context.items()
        },
    )


def decode_media(entry: Any, *, name: str, root: Path | None = None) -> Media:
    """A medium from JSON.

    Raises:
        DataError: it is none, cannot be read, or its path is not allowed.
    """
    if not isinstance(entry, dict):
        raise DataError(f"expected an object with data, frames or path, got {short(entry)}", file=name)
    modality = _modality(entry, name)
    if "path" in entry:
        return _from_path(_text(entry["path"], "path", name), modality, name, root)
    if "frames" in entry:
        return _from_frames(entry, name)
    if "data" not in entry:
        raise DataError("expected data, frames or path, and there is none of them", file=name)
    kind = entry.get("type")
    if kind not in SUFFIXES:
        raise DataError(f"type {short(kind)} is not known; known: {', '.join(SUFFIXES)}", file=name)
    suffix = SUFFIXES[kind]
    if modality == "scene3d" and suffix == ".png":
        suffix = ".views.png"
    media = media_from_bytes(_bytes(entry["data"], name), name=name, suffix=suffix, modality=modality)
    if isinstance(media, Speech):
        transcript, voice = (
            None if entry.get(key) is None else _text(entry[key], key, name)
            for key in ("transcript", "voice")
        )
        media = replace(media, transcript=transcript, voice=voice)
    return media


def _from_path(text: str, modality: Modality | None, name: str, root: Path | None) -> Media:
    if root is None:
        raise DataError(
            "paths are not allowed here; send data, or start the server with --root FOLDER", file=name
        )
    try:
        media = SampleFile("", root / text, None, name, modality, root).load().media
    except DataError as error:
        # Where the folder lies is nothing that a client needs to know.
        said = (
            str(error)
            .removeprefix(f"{name}: ")
            .replace(str(root / text), text)
            .replace(str(root), "the root")
        )
        raise DataError(said, file=name) from None
    assert media is not None
    return media


def _from_frames(entry: Mapping[str, Any], name: str) -> Video:
    frames, fps = entry["frames"], entry.get("fps", 8.0)
    if not isinstance(frames, list) or not 0 < len(frames) <= MOST_FRAMES:
        raise DataError(f"frames: expected a list of 1 to {MOST_FRAMES} pictures", file=name)
    if isinstance(fps, bool) or not isinstance(fps, int | float):
        raise DataError(f"fps: expected a number, got {short(fps)}", file=name)
    pictures = []
    for number, frame in enumerate(frames):
        place = f"{name}, frame {number}"
        media = media_from_bytes(_bytes(frame, place), name=place, modality="image")
        assert isinstance(media, Image)
        pictures.append(media.pixels)
    sizes = {tuple(pixels.shape) for pixels in pictures}
    if len(sizes) > 1:
        raise DataError(f"frames: expected one size, got {len(sizes)}", file=name)
    try:
        return Video(torch.stack(pictures), float(fps))
    except Exception as error:
        raise DataError(str(error), file=name) from None


def _modality(entry: Mapping[str, Any], name: str) -> Modality | None:
    modality = entry.get("modality")
    if modality is not None and modality not in MEDIA:
        raise DataError(f"modality {short(modality)} is not known; known: {', '.join(MEDIA)}", file=name)
    return modality


def _text(value: Any, what: str, name: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        raise DataError(
            f"{what}: expected a text of at most {LONGEST_TEXT:,} characters, got {short(value)}", file=name
        )
    return value


def _bytes(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DataError(f"data: expected base64, got {short(value)}", file=name) from None


def short(value: Any) -> str:
    """A value as an error quotes it.

    >>> short("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
