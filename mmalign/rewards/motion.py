"""How much moves in a video, and how steadily, from optical flow by Lucas and Kanade at several scales."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from mmalign.errors import ShapeError
from mmalign.media import Sample, Video
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable
from mmalign.rewards.sharpness import luma

SIDE_PX = 128
"""Flow is found in frames whose shorter side is at most this."""
SMALLEST_PX = 16
WINDOW_PX = 9
STEPS = 3
"""Improvements of the flow at each scale, of at most a pixel each."""
LEAST_TEXTURE = 1e-4
"""Squared gradient under which a place says nothing of its motion: 8-bit rounding has 1.5e-5."""
STILL_PX = 0.05
"""Mean speed, in pixels per frame, under which nothing moves."""


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Where each place of one picture has gone in the next.

    At each scale, from the coarsest whose sides have at least 16 pixels, the flow v takes three steps

        v <- v - (sum g g^T + e)^-1 sum g (second(p + v) - first(p)),   g the gradient, sums over 9 x 9 pixels

    Args:
        first: [B, H, W] in [0, 1], H and W at least 16.
        second: the same shape.

    Returns:
        [B, 2, H, W], pixels to the right and down; 0 where nothing but flat colour is seen. Motion of up to about a
        fifth of the shorter side is found.

    Raises:
        ShapeError: another shape, or too small.

    Source: Lucas and Kanade 1981, An iterative image registration technique; from coarse to fine as Bouguet 2000.
    """
    if first.ndim != 3 or first.shape != second.shape or min(first.shape[1:]) < SMALLEST_PX:
        raise ShapeError(
            f"pictures: expected two of [B, H, W] with H and W of at least {SMALLEST_PX}, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    scales = [(first[:, None], second[:, None])]
    while min(scales[-1][0].shape[2:]) >= 2 * SMALLEST_PX:
        scales.append((avg_pool2d(scales[-1][0], 2), avg_pool2d(scales[-1][1], 2)))
    flow = first.new_zeros(len(first), 2, *scales[-1][0].shape[2:])
    for one, two in reversed(scales):
        if flow.shape[2:] != one.shape[2:]:
            flow = 2 * interpolate(flow, size=one.shape[2:], mode="bilinear", align_corners=False)
        for _ in range(STEPS):
            flow = flow + _step(one, _moved(two, flow))
    return flow


def _gradient(picture: Tensor) -> tuple[Tensor, Tensor]:
    down, right = torch.gradient(picture, dim=(2, 3))
    return right, down


def _window_mean(values: Tensor) -> Tensor:
    return avg_pool2d(values, WINDOW_PX, stride=1, padding=WINDOW_PX // 2, count_include_pad=False)


def _step(first: Tensor, moved: Tensor) -> Tensor:
    right, down = (0.5 * (a + b) for a, b in zip(_gradient(first), _gradient(moved), strict=True))
    change = moved - first
    xx, xy, yy = _window_mean(right * right), _window_mean(right * down), _window_mean(down * down)
    xt, yt = _window_mean(right * change), _window_mean(down * change)
    xx, yy = xx + LEAST_TEXTURE, yy + LEAST_TEXTURE
    determinant = xx * yy - xy * xy
    step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / determinant
    return step.clamp(-1, 1)


def _moved(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture [B, 1, H, W] as seen at p + flow(p); beyond the border, the border."""
    height, width = picture.shape[2:]
    down, right = torch.meshgrid(
        torch.arange(height, dtype=picture.dtype, device=picture.device),
        torch.arange(width, dtype=picture.dtype, device=picture.device),
        indexing="ij",
    )
    x = (right + flow[:, 0]) * (2 / (width - 1)) - 1
    y = (down + flow[:, 1]) * (2 / (height - 1)) - 1
    grid = torch.stack([x, y], dim=-1)
    return grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def flow_and_texture(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The flow of a video from each frame to the next, and where it can be known.

    Args:
        frames: [T, 3, H, W] in [0, 1]; made smaller until the shorter side is at most 128.

    Returns:
        Flow [T - 1, 2, h, w] in pixels of the smaller frames, and weights [T - 1, h, w] of mean 1: squared gradients.
        All weights are 0 in flat pictures.
    """
    scale = SIDE_PX / min(frames.shape[2:])
    if scale < 1:
        frames = interpolate(frames, scale_factor=scale, mode="area", recompute_scale_factor=True)
    grey = luma(frames)
    flow = optical_flow(grey[:-1], grey[1:])
    right, down = _gradient(grey[:-1, None])
    texture = _window_mean(right.square() + down.square())[:, 0]
    texture = texture.where(texture > LEAST_TEXTURE, 0.0)
    return flow, texture / texture.mean().clamp_min(torch.finfo(texture.dtype).tiny)


def motion_amount(flow: Tensor, weight: Tensor) -> float:
    """Mean speed in pixels per frame, textured places counting by their texture."""
    return float((weight * flow.norm(dim=1)).mean())


def motion_smoothness(flow: Tensor, weight: Tensor) -> float:
    """How steady motion is, seen from fixed places.

        1 - sum w |v[t + 1] - v[t]| / sum w (|v[t + 1]| + |v[t]|)

    Args:
        flow: [T - 1, 2, H, W], T at least 3.
        weight: [T - 1, H, W].

    Returns:
        In [0, 1]: 1 where all goes on as it went, 0 where all turns round at each frame; NaN where nothing moves.
    """
    speed = flow.norm(dim=1)
    change = (weight[:-1] * (flow[1:] - flow[:-1]).norm(dim=1)).sum()
    total = (weight[:-1] * (speed[1:] + speed[:-1])).sum()
    return float(1 - change / total)


class _MotionReward(MeasuredReward):
    least_frames = 2

    def measure(self, sample: Sample) -> Measurement:
        """The motion of one video."""
        video = sample.media
        assert isinstance(video, Video)
        count, _, height, width = video.frames.shape
        if count < self.least_frames:
            raise Unmeasurable(f"the video has {count} frames; {self.least_frames} are needed")
        if min(height, width) < SMALLEST_PX:
            raise Unmeasurable(
                f"the video is {width}x{height}; motion is found from {SMALLEST_PX}x{SMALLEST_PX} on"
            )
        with torch.no_grad():
            flow, weight = flow_and_texture(video.frames.float().to(self.device))
            return Measurement(self.of_flow(flow, weight, video.fps))

    @abstractmethod
    def of_flow(self, flow: Tensor, weight: Tensor, fps: float) -> float:
        """The value that belongs to the flow of a video."""


class MotionAmount(_MotionReward):
    """Mean speed of what is seen in a video; see :func:`optical_flow`.

    Unit: picture heights per second, so that neither size nor frame rate counts. Range: [0, inf), higher is better;
    flicker and noise count as motion too, so it is half of a sum and no goal by itself. A still video has 0.
    """

    def of_flow(self, flow: Tensor, weight: Tensor, fps: float) -> float:
        """Heights per second."""
        return motion_amount(flow, weight) * fps / flow.shape[2]


class MotionSmoothness(_MotionReward):
    """How steady the motion of a video is; see :func:`motion_smoothness`.

    Range: [0, 1], higher is better. Where nothing moves there is no score, so a still video cannot win.
    """

    least_frames = 3

    def of_flow(self, flow: Tensor, weight: Tensor, fps: float) -> float:
        """The share of motion that goes on."""
        if motion_amount(flow, weight) < STILL_PX:
            raise Unmeasurable("nothing moves")
        return motion_smoothness(flow, weight)
