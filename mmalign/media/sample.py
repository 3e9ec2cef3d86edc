"""What travels between packages: a prompt with its medium, or with the file that the medium is still in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image

from mmalign.errors import DataError, UnknownNameError
from mmalign.media.audio import AUDIO_SUFFIXES, Audio, Speech
from mmalign.media.checks import Modality
from mmalign.media.image import IMAGE_SUFFIXES, PILLOW_FORMATS, Image, frame_count
from mmalign.media.mesh import MESH_SUFFIXES
from mmalign.media.reading import reading
from mmalign.media.scene3d import VIEWS_SUFFIX, Scene3D
from mmalign.media.video import VIDEO_SUFFIXES, Video
from mmalign.roots import lies_in, outside

Media: TypeAlias = Image | Video | Scene3D | Audio | Speech
"""Any medium."""
MEDIA: dict[str, type[Media]] = {
    "audio": Audio,
    "image": Image,
    "scene3d": Scene3D,
    "speech": Speech,
    "video": Video,
}
"""By modality."""
WRITTEN_SUFFIX: dict[str, str] = {
    "audio": ".wav",
    "image": ".png",
    "scene3d": VIEWS_SUFFIX,
    "speech": ".wav",
    "video": ".mp4",
}
"""What samples are written as, by modality: what people can open, and lossless where that is possible."""
MEDIA_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *AUDIO_SUFFIXES, *MESH_SUFFIXES)
MAY_MOVE = (".gif", ".webp")
CONTEXT_MEDIA = ("reference", "sound")
"""Keys of ``Sample.context`` that hold a medium; those of files are named by path, and all others are text."""


def load_media(path: Path | str, modality: Modality | None = None) -> Media:
    """Read any medium.

    Args:
        path: a file.
        modality: what it is. None for what its suffix says: sound is then ``Audio``, a .gif or .webp that moves is a
            video, and .views.png and meshes are scenes.

    Raises:
        DataError: the file cannot be read as this medium, or no medium has its suffix.
        UnknownNameError: no such modality.
    """
    if modality is not None:
        if modality not in MEDIA:
            raise UnknownNameError("modality", modality, MEDIA)
        return MEDIA[modality].load(path)
    suffix = Path(path).suffix.lower()
    if str(path).lower().endswith(VIEWS_SUFFIX) or suffix in MESH_SUFFIXES:
        return Scene3D.load(path)
    if suffix in AUDIO_SUFFIXES:
        return Audio.load(path)
    if suffix in VIDEO_SUFFIXES or (suffix in MAY_MOVE and _moves(path)):
        return Video.load(path)
    if suffix in IMAGE_SUFFIXES:
        return Image.load(path)
    raise DataError(f"no medium has this suffix; known: {', '.join(MEDIA_SUFFIXES)}", file=path)


def _moves(path: Path | str) -> bool:
    with reading(path, "picture"), PIL.Image.open(path, formats=PILLOW_FORMATS) as picture:
        return frame_count(picture) > 1


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt with, or still without, its medium.

    ``context`` holds what else the generator or scorer is given (source image, transcript, negative prompt);
    ``meta`` holds what is only carried along (seed, file name, annotator).
    """

    prompt: str
    media: Media | None = None
    context: Mapping[str, Media | str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A sample whose medium is still a file: what readers find and scoring loads.

    ``place`` says where it was named ("pairs.csv, row 3, column 'media'"), for errors; ``path`` is None where the
    place is empty; ``modality`` is None where the suffix decides. ``root`` is the folder that the file has to lie in,
    links followed, or else is not opened; None where whoever runs this named the file. In ``context`` paths are media
    that are still files, and under the same root.
    """

    id: str
    path: Path | None
    prompt: str | None
    place: str
    modality: Modality | None = None
    root: Path | None = None
    context: Mapping[str, Path | Media | str] = field(default_factory=dict)

    def gives(self, name: str) -> bool:
        """Whether its context has something of this name."""
        return name in self.context

    def load(self) -> Sample:
        """Read the medium, and those of the context.

        Raises:
            DataError: no file is named, it lies outside ``root``, is missing, or cannot be read.
        """
        if self.path is None:
            raise DataError("no file is named", file=self.place)
        media = self._read(self.path, self.modality)
        context = {
            name: self._read(value, None) if isinstance(value, Path) else value
            for name, value in self.context.items()
        }
        return Sample(self.prompt or "", media, context, meta={"id": self.id, "path": str(self.path)})

    def _read(self, path: Path, modality: Modality | None) -> Media:
        if self.root is not None and not lies_in(path, self.root):
            raise DataError(outside(path, self.root), file=self.place)
        try:
            return load_media(path, modality)
        except DataError as error:
            raise error if self.place == str(path) else DataError(str(error), file=self.place) from None
