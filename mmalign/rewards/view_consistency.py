"""Whether views of one object fit together: can one solid have all these outlines?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, max_pool2d

from mmalign.media import Camera, Sample, Scene3D
from mmalign.media.rays import pixel_rays, project
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable

SIDE_PX = 64
"""Outlines are compared at this size."""
DEPTHS = 64
"""Points along each ray, from one side of the unit ball around the origin to the other."""
DIFFERENT = 0.1
"""Largest difference of a channel from the background at which a pixel is still background."""


def silhouettes(views: Tensor) -> Tensor:
    """Where an object stands before a plain background: pixels unlike the median of their view's border.

    Args:
        views: [V, 3, H, W] in [0, 1].

    Returns:
        [V, H, W], true on the object.
    """
    border = torch.cat([views[:, :, 0], views[:, :, -1], views[:, :, :, 0], views[:, :, :, -1]], dim=2)
    background = border.median(dim=2).values[:, :, None, None]
    return ((views - background).abs() > DIFFERENT).any(1)


def silhouette_coherence(masks: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """The share of each outline that some solid with all the other outlines fills.

        C[v] = |{pixels p of S[v]: a point on the ray of p lies in S[u] for all other u}| / |S[v]|

    The solid that counts is the visual hull. Outlines are widened by a pixel where they are looked up, so that
    rounding to pixels costs nothing.

    Args:
        masks: [V, N, N], true on the object, V at least 2.
        cameras: one per view; the object lies in the unit ball around the origin.

    Returns:
        [V] in [0, 1]; NaN for an empty outline. All 1 for views of one solid; the converse does not hold: some solid
        with these outlines may exist though the colours contradict each other.

    Source: Hernandez, Schmitt and Cipolla 2007, Silhouette coherence for camera calibration under circular motion,
    section 3, by rays instead of contours.
    """
    side = masks.shape[-1]
    wide = max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)
    found = []
    for view, camera in enumerate(cameras):
        start, direction = (values[masks[view]] for values in pixel_rays(camera, side))
        nearest = -(start * direction).sum(-1, keepdim=True)  # along the ray, to the point next to the origin
        depths = torch.linspace(-1, 1, DEPTHS)[None, :, None]
        points = start[:, None] + (nearest[..., None] + depths) * direction[:, None]  # [pixels, DEPTHS, 3]
        inside = torch.ones(points.shape[:2], dtype=torch.bool)
        for other, camera_of_other in enumerate(cameras):
            if other != view:
                grid = project(points, camera_of_other)[None]
                inside &= (
                    grid_sample(wide[other][None], grid, mode="nearest", align_corners=False)[0, 0] > 0.5
                )
        found.append(inside.any(1).float().mean())  # the mean of no pixel is NaN
    return torch.stack(found)


class ViewConsistency(MeasuredReward):
    """How well the outlines of an object's views fit together; see :func:`silhouette_coherence`.

    The value is the mean over views; the aspect ``worst`` is the least. Range: [0, 1], higher is better. It needs
    two or more square views with their cameras and a plain background. Views of a ball are consistent whatever they
    show within: mix it with a reward of what is seen.
    """

    aspects = ("worst",)

    def measure(self, sample: Sample) -> Measurement:
        """The views of one object."""
        scene = sample.media
        assert isinstance(scene, Scene3D)
        if scene.views is None:
            raise Unmeasurable("a mesh has no views")
        count, _, height, width = scene.views.shape
        if count < 2 or height != width:
            raise Unmeasurable(f"{count} views of {width}x{height}; two or more square ones are needed")
        if not scene.cameras:
            raise Unmeasurable("no cameras")
        views = scene.views.detach().float().cpu()
        if height > SIDE_PX:
            views = interpolate(views, size=(SIDE_PX, SIDE_PX), mode="area")
        masks = silhouettes(views)
        share = masks.float().mean((1, 2))
        for view in range(count):
            if not 0 < share[view] < 0.95:
                raise Unmeasurable(f"view {view + 1} shows no object on a plain background")
        coherence = silhouette_coherence(masks, scene.cameras)
        return Measurement(float(coherence.mean()), {"worst": float(coherence.min())})
