"""Rays start where their pixel sees, and points on them are seen there."""

import pytest
import torch

from mmalign.media import Camera
from mmalign.media.rays import pixel_rays, project


@pytest.mark.parametrize("camera", [Camera(30, 20, 2.5, 40), Camera(200, -60, 2.2, 0)])
def test_a_point_on_a_ray_is_seen_in_its_pixel(camera: Camera) -> None:
    start, direction = pixel_rays(camera, 4)
    seen = project(start + 2.1 * direction, camera)
    torch.testing.assert_close(seen[1, 3], torch.tensor([0.75, -0.25]), atol=1e-5, rtol=0)


def test_a_point_behind_the_camera_is_not_seen() -> None:
    assert project(torch.tensor([3.0, 0.0, 0.0]), Camera(0, 0, 2.0, 40)).abs().min() > 1
