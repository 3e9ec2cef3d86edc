"""Outlines of solids seen from all around fit together; with one view exchanged they do not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmalign.media import Camera, Mesh, Sample, Scene3D, turntable
from mmalign.media.rays import pixel_rays
from mmalign.rewards.cards import load_reward
from mmalign.rewards.view_consistency import silhouette_coherence, silhouettes

AXES = torch.tensor([0.7, 0.25, 0.45])
CAMERAS = (*turntable(3, elevation_deg=20), Camera(40, -30))


def ellipsoid(cameras: tuple[Camera, ...], *, axes: Tensor = AXES, side_px: int = 48) -> Tensor:
    """[V, 3, side, side]: a red solid (x/a)^2 + (y/b)^2 + (z/c)^2 < 1 on white, where rays meet it."""
    views = torch.ones(len(cameras), 3, side_px, side_px)
    for view, camera in zip(views, cameras, strict=True):
        start, direction = (values / axes for values in pixel_rays(camera, side_px))
        a, b = (direction**2).sum(-1), (start * direction).sum(-1)
        hit = b**2 - a * ((start**2).sum(-1) - 1) > 0
        view[1:, hit] = 0.1
    return views


def coherence(views: Tensor, cameras: tuple[Camera, ...]) -> Tensor:
    return silhouette_coherence(silhouettes(views), cameras)


@pytest.mark.parametrize("fov_deg", [0.0, 50.0])
def test_views_of_one_solid_fit_together(fov_deg: float) -> None:
    cameras = tuple(replace(camera, fov_deg=fov_deg) for camera in CAMERAS)
    assert coherence(ellipsoid(cameras), cameras).min() > 0.99


def test_a_view_from_elsewhere_or_of_another_size_does_not_fit() -> None:
    views = ellipsoid(CAMERAS)
    turned = torch.cat([views[:3], views[3:].rot90(1, (2, 3))])
    small = torch.cat([views[:3], ellipsoid(CAMERAS[3:], axes=0.5 * AXES)])
    shifted = torch.cat([views[:3], views[3:].roll(14, 2)])
    for wrong in (turned, small, shifted):
        assert coherence(wrong, CAMERAS).mean() < 0.93


def test_order_of_views_does_not_count() -> None:
    views = ellipsoid(CAMERAS).roll(3, 2)
    order = [2, 0, 3, 1]
    forth = coherence(views, CAMERAS)
    back = coherence(views[order], tuple(CAMERAS[i] for i in order))
    torch.testing.assert_close(back, forth[order])


def test_the_reward_says_how_well_and_which_is_worst_at_any_size() -> None:
    good = Scene3D(ellipsoid(CAMERAS), CAMERAS)
    bad = Scene3D(torch.cat([ellipsoid(CAMERAS)[:3], ellipsoid(CAMERAS)[3:].roll(14, 2)]), CAMERAS)
    large = Scene3D(ellipsoid(CAMERAS, side_px=128), CAMERAS)
    score = load_reward("view-consistency").score([Sample("", scene) for scene in (good, bad, large)])
    assert score.value[0] > 0.99
    assert score.value[2] > 0.99
    assert score.value[1] < 0.93
    assert score.aspects["worst"][1] < score.value[1]


def test_what_cannot_be_compared_is_a_status() -> None:
    views = ellipsoid(CAMERAS)
    empty = torch.cat([views[:2], torch.ones(2, 3, 48, 48)])
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    scenes = [
        Scene3D(views),
        Scene3D(empty, CAMERAS),
        Scene3D(views[:1], CAMERAS[:1]),
        Scene3D(views[..., :40], CAMERAS),
        Scene3D(mesh=triangle),
    ]
    score = load_reward("view-consistency").score([Sample("", scene) for scene in scenes])
    assert score.status == [
        "no cameras",
        "view 3 shows no object on a plain background",
        "1 views of 48x48; two or more square ones are needed",
        "4 views of 40x48; two or more square ones are needed",
        "a mesh has no views",
    ]
