"""What travels between packages: media with their units, and samples, a prompt with its medium."""

from mmalign.media.audio import AUDIO_SUFFIXES, Audio, Speech
from mmalign.media.checks import Modality
from mmalign.media.hashing import content_hash
from mmalign.media.image import IMAGE_SUFFIXES, Image
from mmalign.media.mesh import MESH_SUFFIXES, Mesh
from mmalign.media.sample import (
    CONTEXT_MEDIA,
    MEDIA,
    MEDIA_SUFFIXES,
    WRITTEN_SUFFIX,
    Media,
    Sample,
    SampleFile,
    load_media,
)
from mmalign.media.scene3d import VIEWS_SUFFIX, Camera, Scene3D, turntable
from mmalign.media.video import VIDEO_SUFFIXES, Video

__all__ = [
    "Image",
    "Video",
    "Audio",
    "Speech",
    "Scene3D",
    "Camera",
    "Mesh",
    "turntable",
    "Media",
    "Modality",
    "MEDIA",
    "CONTEXT_MEDIA",
    "load_media",
    "Sample",
    "SampleFile",
    "content_hash",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "AUDIO_SUFFIXES",
    "MESH_SUFFIXES",
    "VIEWS_SUFFIX",
    "MEDIA_SUFFIXES",
    "WRITTEN_SUFFIX",
]
