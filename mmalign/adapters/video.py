"""A generator of videos: what notebooks import."""

import inspect
from typing import Any, ClassVar

from torch import Tensor

from mmalign.adapters.denoising import DenoisingAdapter
from mmalign.errors import ConfigError
from mmalign.media import Modality, Video

FPS = {
    "CogVideoXPipeline": 8.0,
    "HunyuanVideoPipeline": 15.0,
    "MochiPipeline": 30.0,
    "WanPipeline": 16.0,
}
"""Frames per second of pipelines that have no option for it: what diffusers' documentation exports videos with."""
OTHER_FPS = 16.0


class VideoAdapter(DenoisingAdapter[Video]):
    """A text-to-video pipeline of diffusers.

    Args:
        pipeline: it stays live as ``adapter.generator.pipeline``.
        fps: frames per second; by default the pipeline's own.
        options: the pipeline's own options; ``frames`` is the number of them.
    """

    modality: ClassVar[Modality] = "video"

    def __init__(self, pipeline: Any, *, fps: float | None = None, **options: Any) -> None:
        rate = inspect.signature(type(pipeline).__call__).parameters.get("frame_rate")
        if fps is not None and rate is not None:
            options["frame_rate"] = fps
        own = FPS.get(type(pipeline).__name__, OTHER_FPS) if rate is None else float(rate.default)
        self.fps = own if fps is None else float(fps)
        super().__init__(pipeline, **options)

    def medium(self, values: Tensor) -> Video:
        """A video of frames [T, 3, H, W] in [0, 1]."""
        return Video(values, self.fps)

    def values(self, medium: Video) -> Tensor:
        """Frames [T, 3, H, W] in [0, 1].

        Raises:
            ConfigError: it has another rate.
        """
        if abs(medium.fps - self.fps) > 1e-3 * self.fps:
            raise ConfigError(
                f"fps = {medium.fps:g}, but this generator makes {self.fps:g} frames per second; "
                f"video.at({self.fps:g}, resample=True) converts it"
            )
        return medium.frames
