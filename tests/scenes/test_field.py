"""A field is looked at as rays and absorption say, and its derivative is its derivative."""

import math

import pytest
import torch

from mmalign.errors import ConfigError
from mmalign.media import Camera, turntable
from mmalign.scenes.field import DENSITY_UNIT, VoxelField

FRONT = Camera(0.0, 0.0, 4.0, 0.0)
"""Sees from -2 to 2."""


def even(density: float, *, voxels: int = 9) -> VoxelField:
    """The cube filled with one density per scene unit, in one colour, before black."""
    field = VoxelField(voxels, background=torch.zeros(3))
    field.raw_density.data.fill_(math.log(math.expm1(density / DENSITY_UNIT)))
    field.raw_colour.data[0] = torch.tensor([0.2, 0.6, 0.9]).logit()[:, None, None, None]
    return field


def test_an_even_cube_stops_light_as_beer_lambert_says() -> None:
    seen = even(0.7).render([FRONT], side_px=8, depths=400)
    expected = 1 - math.exp(-0.7 * 2)  # the cube is 2 deep
    assert seen.opacity[0, 3, 3].item() == pytest.approx(expected, abs=0.005)
    assert seen.opacity[0, 0, 0] == 0  # beside the cube
    wanted = expected * torch.tensor([0.2, 0.6, 0.9]) + (1 - expected) * 0.02
    torch.testing.assert_close(seen.views[0, :, 4, 4], wanted, atol=0.005, rtol=0)


def test_what_is_in_front_hides_what_is_behind() -> None:
    field = even(200.0)
    field.raw_colour.data[0, 0, 5:] = 9.0  # red, where x is positive: in front of the camera on the x axis
    front, back = field.render([FRONT, Camera(180.0, 0.0, 4.0, 0.0)], side_px=8).views[:, 0, 4, 4]
    assert front > 0.95
    assert back < 0.25


def test_a_point_is_where_the_mesh_says() -> None:
    """Density in the corner x > 0, y < 0, z > 0 alone: the axes are not swapped, in the picture or in the mesh."""
    field = VoxelField(21)
    field.raw_density.data.fill_(-9.0)
    field.raw_density.data[0, 0, 13:17, 4:7, 16:20] = 5.0
    low, high = field.to_mesh().vertices.aminmax(dim=0)
    torch.testing.assert_close((low + high) / 2, torch.tensor([0.45, -0.5, 0.75]), atol=0.06, rtol=0)
    seen = field.render([FRONT], side_px=32).opacity[0]  # from +x: y to the right, z up
    row, column = (seen > 0.5).nonzero().float().mean(0)
    assert (column + 0.5) / 16 - 1 == pytest.approx(-0.5 / 2, abs=0.05)
    assert (row + 0.5) / 16 - 1 == pytest.approx(-0.75 / 2, abs=0.05)


def test_the_gradient_of_a_rendering_is_its_derivative() -> None:
    field = VoxelField(5).double()
    generator = torch.Generator().manual_seed(0)
    for values in (field.raw_density, field.raw_colour):
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64) - 1
    cameras = turntable(2, elevation_deg=30.0, distance=3.0)
    weights = torch.rand(2, 3, 6, 6, generator=generator, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (field.render(cameras, side_px=6).views * weights).sum()

    value().backward()
    parameters = list(field.parameters())
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True) if p.grad is not None)
    ends = []
    for step in (1e-5, -2e-5):
        for p, d in zip(parameters, directions, strict=True):
            p.data += step * d
        ends.append(value().item())
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)
    assert abs(float(slope)) > 0.1


def test_an_empty_field_has_no_mesh() -> None:
    with pytest.raises(ConfigError, match="there is no surface"):
        VoxelField(4).to_mesh()
