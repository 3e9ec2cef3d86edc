"""Align image, video, 3D, audio and speech generators with what people prefer.

The names below are the doors for notebooks; each brings what it needs when it is first used, so that
``import mmalign`` costs nothing.
"""

import importlib
import importlib.metadata
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmalign.adapters.loading import load_adapter
    from mmalign.evaluation.notebook import show
    from mmalign.media import Audio, Image, Sample, Scene3D, Speech, Video, load_media
    from mmalign.rewards.cards import load_reward

    __version__: str

__all__ = [
    "Audio",
    "Image",
    "Sample",
    "Scene3D",
    "Speech",
    "Video",
    "__version__",
    "load_adapter",
    "load_media",
    "load_reward",
    "show",
]

_HOMES = {
    **dict.fromkeys(
        ("Audio", "Image", "Sample", "Scene3D", "Speech", "Video", "load_media"), "mmalign.media"
    ),
    "load_adapter": "mmalign.adapters.loading",
    "load_reward": "mmalign.rewards.cards",
    "show": "mmalign.evaluation.notebook",
}

if not TYPE_CHECKING:  # a type checker that saw this would take any misspelt name for a real one

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = importlib.metadata.version("mmalign")
        elif name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            # With its name and object, Python's own message adds "Did you mean".
            message = f"module 'mmalign' has no attribute '{name}'"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
