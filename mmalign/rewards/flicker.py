"""How much a video flickers: change from frame to frame, and brightness that goes up and down. Neither warps frames."""

from collections.abc import Sequence

from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Sample, Video
from mmalign.rewards.measured import TensorReward, Unmeasurable
from mmalign.rewards.sharpness import luma


def flicker(frames: Tensor) -> Tensor:
    """Mean change of a pixel from one frame to the next.

        mean over t, channels and places of |x[t + 1] - x[t]|

    Args:
        frames: [B, T, 3, H, W] in [0, 1], T at least 2.

    Returns:
        [B] in [0, 1]; 0 for a still video. Motion counts too, so compare videos that should move equally, or hold
        still.

    Raises:
        ShapeError: another shape, or one frame.

    Source: Huang et al. 2024, VBench, temporal flickering (arXiv:2311.17982), which reports 1 minus this.
    """
    _check(frames, 2)
    return (frames[:, 1:] - frames[:, :-1]).abs().flatten(1).mean(1)


def brightness_flicker(frames: Tensor) -> Tensor:
    """How far the brightness of whole frames is from changing steadily.

        mean over t of |m[t - 1] - 2 m[t] + m[t + 1]|,   m[t] the mean luma of frame t

    Args:
        frames: [B, T, 3, H, W] in [0, 1], T at least 3.

    Returns:
        [B] in [0, 2]; 0 for a still video, a steady fade, and motion that keeps the picture's brightness; 2 for frames
        that are black and white in turn.

    Raises:
        ShapeError: another shape, or less than three frames.
    """
    _check(frames, 3)
    mean = luma(frames.flatten(0, 1)).mean((1, 2)).unflatten(0, frames.shape[:2])
    return (mean[:, :-2] - 2 * mean[:, 1:-1] + mean[:, 2:]).abs().mean(1)


def _check(frames: Tensor, least: int) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3 or frames.shape[1] < least:
        raise ShapeError(
            f"frames: expected [B, T, 3, H, W] with T of at least {least}, got {list(frames.shape)}"
        )


class Flicker(TensorReward):
    """Mean change of a pixel from frame to frame; see :func:`flicker`.

    Range: [0, 1], lower is better. A still video has the best score: mix it with a reward that wants motion.
    """

    least_frames = 2

    def tensor(self, sample: Sample) -> Tensor:
        """[T, 3, H, W]."""
        assert isinstance(sample.media, Video)
        count = len(sample.media.frames)
        if count < self.least_frames:
            raise Unmeasurable(f"the video has {count} frames; {self.least_frames} are needed")
        return sample.media.frames

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Flicker [B] of videos [B, T, 3, H, W]."""
        return flicker(media)


class BrightnessFlicker(Flicker):
    """Unsteadiness of the brightness of frames; see :func:`brightness_flicker`.

    Range: [0, 2], lower is better.
    """

    least_frames = 3

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Flicker of the brightness [B] of videos [B, T, 3, H, W]."""
        return brightness_flicker(media)
