"""Samples as elements of the labelling page, under addresses that say nothing of whose they are."""

import io
import mimetypes
import secrets
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmalign.errors import MmalignError
from mmalign.evaluation.page import Html, escaped, image_element, lost
from mmalign.evaluation.players import AS_THEY_ARE, CODECS, player, turning
from mmalign.evaluation.previews import sound_picture
from mmalign.media import VIEWS_SUFFIX, Audio, Image, Mesh, Scene3D, Video, load_media
from mmalign.roots import lies_in

KEPT = 64
"""Elements that are remembered, for the page that asks again."""
MOST_FACES = 12_000
"""Of a mesh that turns under the mouse; of a larger one every second, third, … triangle is drawn."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
"""What browsers read, and is sent byte for byte; so are sounds, of all kinds that we know."""


class LabelMedia:
    """The media of one folder.

    Args:
        folder: nothing outside it is ever sent, links followed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._keys: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._lock = threading.Lock()
        self.element = lru_cache(KEPT)(self._element)
        """A sample as HTML, by its file; remembered."""

    def key(self, file: str) -> str:
        """The part of an address that stands for a file: drawn at random, and the same as long as this runs."""
        with self._lock:
            if file not in self._keys:
                self._keys[file] = secrets.token_urlsafe(12)
                self._files[self._keys[file]] = file
            return self._keys[file]

    def path(self, key: str) -> Path | None:
        """The file that a key stands for; None for an unknown key, or a file that is gone or lies elsewhere by now."""
        file = self._files.get(key)
        if file is None:
            return None
        path = self.folder / file
        return path.resolve() if path.is_file() and lies_in(path, self.folder) else None

    def mesh(self, key: str) -> dict[str, Any] | None:
        """The triangles of a scene as plain lists, for the page to turn; None where there are none."""
        path = self.path(key)
        return None if path is None else _mesh_of(path)

    def _element(self, file: str) -> Html:
        path = self.folder / file
        try:
            media = load_media(path)
        except MmalignError:
            return lost("sample")
        address = f"/media/{self.key(file)}"
        match media:
            case Audio():
                return _sound(media, address)
            case Video() if _plays(path):
                height, width = media.frames.shape[2:]
                size = f'width="{width}" height="{height}"'
                return Html(f'<video src="{address}" {size} muted playsinline preload="auto"></video>')
            case Image() if path.suffix.lower() in IMAGES:
                height, width = media.pixels.shape[1:]
                small = ' class="small"' if max(height, width) <= 128 else ""
                return Html(f'<img{small} src="{address}" width="{width}" height="{height}" alt="sample">')
            case Scene3D():
                return _scene(media, path, address)
            case _:
                return player(path, "sample")


def _plays(path: Path) -> bool:
    codecs = CODECS.get(path.suffix.lower(), ())
    data = path.read_bytes() if codecs else b""
    return any(codec in data for codec in codecs)


def _sound(sound: Audio, address: str) -> Html:
    drawn, file = sound_picture(sound), io.BytesIO()
    drawn.quantize(64).save(file, "PNG", optimize=True)
    picture = image_element("image/png", file.getvalue(), drawn.size, "waveform above spectrogram")
    return Html(f'{picture}<audio src="{address}" controls preload="auto"></audio>')


def _scene(scene: Scene3D, path: Path, address: str) -> Html:
    shown = turning(scene, "the object turns around")
    if _mesh_file(path) is None:
        return shown
    return Html(
        f'{shown}<canvas class="orbit" data-mesh="{escaped(address)}/mesh" width="320" height="320" '
        'role="img" aria-label="the object, to be turned with the mouse"></canvas>'
    )


def _mesh_file(path: Path) -> Path | None:
    """A mesh, or the one that ``mmalign generate`` writes beside views."""
    if not path.name.endswith(VIEWS_SUFFIX):
        return path
    beside = path.with_name(path.name.removesuffix(VIEWS_SUFFIX) + ".glb")
    return beside if beside.is_file() and not beside.is_symlink() else None


def _mesh_of(path: Path) -> dict[str, Any] | None:
    file = _mesh_file(path)
    try:
        mesh = None if file is None else Mesh.load(file)
    except MmalignError:
        return None
    if mesh is None:
        return None
    faces = mesh.faces[:: 1 + (len(mesh.faces) - 1) // MOST_FACES]
    low, high = mesh.vertices.aminmax(dim=0)
    centred = mesh.vertices - (low + high) / 2
    scaled = centred / centred.norm(dim=1).max().clamp_min(1e-12)
    colours = None if mesh.colours is None else (255 * mesh.colours.clamp(0, 1)).round().int().tolist()
    return {
        "vertices": scaled.double().round(decimals=4).tolist(),
        "faces": faces.tolist(),
        "colours": colours,
    }


def content_type(path: Path) -> str:
    """What a file is sent as.

    >>> content_type(Path("a.wav")), content_type(Path("a.unknown"))
    ('audio/wav', 'application/octet-stream')
    """
    suffix = path.suffix.lower()
    return AS_THEY_ARE.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
