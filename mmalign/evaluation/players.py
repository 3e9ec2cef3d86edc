"""Media as data inside a page: what moves plays, what sounds has a bar to start it, what is solid turns around."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from mmalign.errors import MmalignError
from mmalign.evaluation.page import (
    LARGEST_BYTES,
    Html,
    data_address,
    escaped,
    image_element,
    lost,
    picture,
    small,
)
from mmalign.evaluation.previews import sound_picture, view_pictures
from mmalign.media import AUDIO_SUFFIXES, Audio, Image, Scene3D, Video, load_media
from mmalign.media.checks import to_8_bits
from mmalign.media.video_files import write

LARGEST_PX = 320
"""Longer side of a video that is written anew, and of a turning view."""
SMALLER_CRF = 26
TURN_MS = 2400
"""Once around a scene."""
AS_THEY_ARE = {".mp4": "video/mp4", ".webm": "video/webm", ".wav": "audio/wav", ".mp3": "audio/mpeg"}
"""What all browsers play. Small files of these kinds go into the page byte for byte; everything else as MP4 or MP3."""
CODECS = {".mp4": (b"avc1",), ".webm": (b"V_VP8", b"V_VP9", b"V_AV1")}
"""Names of the codecs that all browsers have, as the containers spell them."""
MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def player(path: Path, alternative: str) -> Html:
    """A media file as an element of a page, with all its data in it.

    Pictures are ``<img>``, as :func:`mmalign.evaluation.page.picture` gives them, and so are small animations. Videos
    are ``<video>``, looped and muted; large ones are reduced to 320 pixels. Sounds are a drawing above ``<audio>``;
    large ones become MP3. Scenes turn around in an animated WebP. A file that is missing or unreadable is said to be so
    in its place.

    Args:
        path: any media file; its suffix says what it is.
        alternative: what the element shows, for those who cannot see or hear it.
    """
    try:
        media = load_media(path)
        match media:
            case Video():
                return _video(media, path, alternative)
            case Audio():
                return _sound(media, path, alternative)
            case Scene3D():
                return turning(media, alternative)
            case Image():
                return picture(path, alternative)
    except MmalignError:
        return lost(alternative)


def is_sound(path: Path) -> bool:
    """Whether a file is heard and not seen."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def turning(scene: Scene3D, alternative: str) -> Html:
    """A scene as an animated WebP of its views, once around in 2.4 seconds; a mesh is drawn from twelve sides."""
    pictures = view_pictures(scene, drawn=12)
    for view in pictures:
        view.thumbnail((LARGEST_PX, LARGEST_PX))
    file = io.BytesIO()
    first, *others = pictures
    time_ms = max(40, TURN_MS // len(pictures))
    exact = max(first.size) <= 128  # their pixels are to be seen, and they are small anyway
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=time_ms,
        loop=0,
        quality=85,
        lossless=exact,
    )
    return image_element("image/webp", file.getvalue(), first.size, alternative)


def _video(video: Video, path: Path, alternative: str) -> Html:
    height, width = video.frames.shape[2:]
    suffix = path.suffix.lower()
    if suffix in (".gif", ".webp") and path.stat().st_size <= LARGEST_BYTES:
        return image_element(f"image/{suffix[1:]}", path.read_bytes(), (width, height), alternative)
    data = path.read_bytes() if path.stat().st_size <= LARGEST_BYTES else b""
    if any(codec in data for codec in CODECS.get(suffix, ())):
        kind = AS_THEY_ARE[suffix]
    else:
        kind, (data, width, height) = "video/mp4", _smaller(video)
    attributes = f'src="{data_address(kind, data)}" width="{width}" height="{height}"'
    plays = "controls loop muted autoplay playsinline"
    return Html(
        f'<video{small((width, height))} {attributes} {plays} aria-label="{escaped(alternative)}"></video>'
    )


def _smaller(video: Video) -> tuple[bytes, int, int]:
    """MP4 with sides of at most 320 pixels, both even, and its size."""
    height, width = video.frames.shape[2:]
    scale = min(1.0, LARGEST_PX / max(height, width))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    frames = video.frames.float()
    if frames.shape[2:] != (height, width):
        from torch.nn.functional import interpolate

        frames = interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    pixels = to_8_bits(frames).permute(0, 2, 3, 1).contiguous().numpy()
    rate = Fraction(video.fps).limit_denominator(1001)
    return _written(".mp4", lambda path: write(path, ".mp4", pixels, rate, crf=SMALLER_CRF)), width, height


def _sound(sound: Audio, path: Path, alternative: str) -> Html:
    kind = AS_THEY_ARE.get(path.suffix.lower())
    if kind is not None and path.stat().st_size <= LARGEST_BYTES:
        data = path.read_bytes()
    else:
        kind, data = "audio/mpeg", _written(".mp3", _for_mp3(sound).save)
    drawn = sound_picture(sound)
    file = io.BytesIO()
    drawn.quantize(64).save(file, "PNG", optimize=True)
    shown = image_element("image/png", file.getvalue(), drawn.size, alternative)
    address = data_address(kind, data)
    return Html(f'{shown}<audio src="{address}" controls aria-label="{escaped(alternative)}"></audio>')


def _for_mp3(sound: Audio) -> Audio:
    """A sound with at most two channels and at a rate that MP3 has."""
    few = sound if len(sound.waveform) <= 2 else sound.mono()
    if few.sample_rate_hz in MP3_RATES_HZ:
        return few
    higher = [rate for rate in MP3_RATES_HZ if rate >= few.sample_rate_hz]
    return few.resampled(min(higher, default=MP3_RATES_HZ[-1]))


def _written(suffix: str, save: Callable[[Path], None]) -> bytes:
    """The bytes of a file that is written and forgotten."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"media{suffix}"
        save(path)
        return path.read_bytes()
