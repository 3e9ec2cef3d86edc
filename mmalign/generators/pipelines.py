"""What a diffusers pipeline takes, under which names, and which of its parts is the denoiser."""

import inspect
from typing import Any

from torch import nn

from mmalign.errors import UnsupportedPipelineError

DENOISERS = ("prior", "transformer", "unet")
OTHER_NAMES = {
    "duration_s": ("audio_end_in_s", "audio_length_in_s"),
    "fps": ("frame_rate",),
    "frames": ("num_frames", "video_length"),
}
"""What options of ours are called by pipelines."""


def pipeline_name(name: str, pipeline: Any) -> str:
    """What a pipeline calls one of our options; the same name where it has no other."""
    known = call_options(pipeline)
    return next((other for other in OTHER_NAMES.get(name, ()) if other in known), name)


def call_options(pipeline: Any) -> list[str]:
    """Names of all that a pipeline's call takes."""
    return [name for name in inspect.signature(type(pipeline).__call__).parameters if name != "self"]


def denoiser_component(pipeline: Any) -> str:
    """The name of the denoiser.

    Raises:
        UnsupportedPipelineError: there is none, there are two, or the pipeline takes no prompt.
    """
    if "prompt" not in call_options(pipeline):
        raise UnsupportedPipelineError(f"{type(pipeline).__name__} takes no prompt")
    found = [name for name in pipeline.components if name.split("_")[0] in DENOISERS]
    found = [name for name in found if isinstance(getattr(pipeline, name), nn.Module)]
    if len(found) != 1:
        what = (
            f"several denoisers ({', '.join(found)})"
            if found
            else f"no denoiser among {sorted(pipeline.components)}"
        )
        raise UnsupportedPipelineError(f"{type(pipeline).__name__} has {what}; exactly one can be aligned")
    if getattr(pipeline, "scheduler", None) is None:
        raise UnsupportedPipelineError(f"{type(pipeline).__name__} has no scheduler to listen to")
    return found[0]
