"""Four views are enough to find a solid again: its views, its outline from each side, and a closed mesh."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from PIL import ImageDraw
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Camera, Mesh, Scene3D
from mmalign.media.rays import project
from mmalign.rewards.view_consistency import silhouettes
from mmalign.scenes.field import DENSITY_UNIT, VoxelField
from mmalign.scenes.fitting import FitSettings, fit_field, start_from_hull
from mmalign.worlds import views
from mmalign.worlds.views import CAMERAS, Solid

SIDE_PX = 24
SETTINGS = FitSettings(voxels=20)


def drawn(kind: str, colour: str = "red") -> Tensor:
    return views.render([Solid(kind, colour, "large")], torch.Generator().manual_seed(0), view_px=SIDE_PX)[0]


def shadow(mesh: Mesh, camera: Camera) -> Tensor:
    """[H, H], true where a camera sees the mesh, by Pillow."""
    picture = PIL.Image.new("L", (4 * SIDE_PX, 4 * SIDE_PX))
    pen = ImageDraw.Draw(picture)
    corners = (project(mesh.vertices, camera) + 1) * (2 * SIDE_PX)
    for face in mesh.faces.tolist():
        pen.polygon([tuple(corners[i].tolist()) for i in face], fill=255)
    return torch.from_numpy(np.array(picture.resize((SIDE_PX, SIDE_PX), PIL.Image.Resampling.BOX))) > 127


@pytest.fixture(scope="module", params=["sphere", "cube"])
def fitted(request: pytest.FixtureRequest) -> tuple[Tensor, VoxelField]:
    wanted = drawn(request.param)
    return wanted, fit_field(wanted, CAMERAS, settings=SETTINGS)


def test_a_fitted_field_shows_the_views(fitted: tuple[Tensor, VoxelField]) -> None:
    wanted, field = fitted
    seen = field.render(CAMERAS, side_px=SIDE_PX).views
    assert -10 * (seen - wanted).square().mean().log10() > 30  # dB


def test_its_mesh_has_the_outlines_of_the_views_and_their_colour(fitted: tuple[Tensor, VoxelField]) -> None:
    wanted, field = fitted
    mesh = field.to_mesh()
    for outline, camera in zip(silhouettes(wanted), CAMERAS, strict=True):
        seen = shadow(mesh, camera)
        assert (seen & outline).sum() / (seen | outline).sum() > 0.9
    assert mesh.colours is not None
    red, green, blue = mesh.colours.mean(0)
    assert red > 3 * green
    assert red > 3 * blue


def test_its_mesh_opens_in_trimesh_as_one_closed_body(
    fitted: tuple[Tensor, VoxelField], tmp_path: Path
) -> None:
    Scene3D(mesh=fitted[1].to_mesh()).save(tmp_path / "a.glb")
    mesh = trimesh.load_scene(tmp_path / "a.glb").to_mesh()
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert mesh.volume > 0  # its sides face outward
    assert mesh.visual.kind == "vertex"


def test_an_unseen_side_is_seen_on_the_turntable(fitted: tuple[Tensor, VoxelField]) -> None:
    video = fitted[1].turntable(6, side_px=SIDE_PX, elevation_deg=25.0)
    assert video.frames.shape == (6, 3, SIDE_PX, SIDE_PX)
    areas = silhouettes(video.frames).float().mean((1, 2))
    assert areas.min() > 0.75 * areas.max()  # a sphere or a cube is about as large from every side


def test_a_field_of_one_ball_has_its_volume_and_no_crumb_or_cavity() -> None:
    field = VoxelField(40)
    axis = torch.linspace(-1, 1, 40)
    away = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    raw = 60 * (0.6 - away)  # steep at 0.6; within 0.3 it is empty again
    raw = torch.where(away < 0.3, torch.tensor(-9.0), raw)
    raw[1, 1, 1] = 5.0
    field.raw_density.data[0, 0] = raw
    mesh = field.to_mesh(level=DENSITY_UNIT * math.log(2))  # softplus(0)
    body = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert body.body_count == 1
    assert body.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.02)


def test_it_begins_at_the_visual_hull() -> None:
    """Four shadows of a ball are carved from its cube, and nothing of the ball is."""
    field = VoxelField(24, background=torch.full((3,), 0.98))
    start_from_hull(field, drawn("sphere"), CAMERAS)
    axis = torch.linspace(-1, 1, 24)
    away = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    full = field.raw_density[0, 0] > 0
    assert full[away < 0.48].all()  # a large sphere has a radius of 0.58, give or take, and is off the middle
    assert not full[away > 1].any()
    assert field.raw_colour[0, 0, full].sigmoid().mean() > 3 * field.raw_colour[0, 1, full].sigmoid().mean()


@pytest.mark.parametrize("voxels", [20, 40])
def test_a_mesh_is_full_within_at_any_fineness(voxels: int) -> None:
    wanted = drawn("sphere")
    mesh = fit_field(wanted, CAMERAS, settings=FitSettings(voxels=voxels, steps=20)).to_mesh()
    body = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert body.body_count == 1
    assert body.volume > 0.9 * 4 / 3 * np.pi * 0.58**3 * 0.94**3  # the world's spheres vary by 6 %


def test_views_without_their_cameras_are_refused() -> None:
    with pytest.raises(ShapeError, match="V = 3 cameras"):
        fit_field(drawn("cone"), CAMERAS[:3])
