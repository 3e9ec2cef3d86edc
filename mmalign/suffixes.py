"""Which endings the files of each medium have; imports no torch, so that a wrong file is told before it is opened."""

from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".m4v", ".mkv", ".avi")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
VIEWS_SUFFIX = ".views.png"
"""Of a picture of views with their cameras in it."""
MAY_MOVE = (".gif", ".webp")
"""Pictures that may be videos; the file itself says which."""


def can_hold(path: Path, modality: str) -> bool:
    """Whether a file of this name can hold a medium.

    >>> can_hold(Path("a.wav"), "image"), can_hold(Path("a.gif"), "video"), can_hold(Path("a.wav"), "speech")
    (False, True, True)
    """
    name = path.name.lower()
    endings = {
        "image": IMAGE_SUFFIXES,
        "video": (*VIDEO_SUFFIXES, *MAY_MOVE),
        "scene3d": (VIEWS_SUFFIX, *MESH_SUFFIXES),
        "audio": AUDIO_SUFFIXES,
        "speech": AUDIO_SUFFIXES,
    }
    return name.endswith(endings[modality])
