"""An image pipeline whose pictures are views: they are cut and joined at the right places, with their cameras."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.loading import load_adapter
from mmalign.adapters.scene3d import Scene3DAdapter, join_views, split_views, write_settings
from mmalign.errors import ConfigError
from mmalign.media import Mesh, Scene3D, turntable
from mmalign.worlds import views
from tests.generators.small_pipelines import stable_diffusion_3

SIZE: dict[str, Any] = {"height": 16, "width": 12}
CAMERAS = turntable(6, elevation_deg=10.0)


@pytest.fixture(scope="module")
def adapter() -> Scene3DAdapter:
    return Scene3DAdapter(stable_diffusion_3(), rows=2, columns=3, cameras=CAMERAS, **SIZE)


def test_views_are_cut_row_by_row() -> None:
    grid = torch.stack([torch.arange(4.0)[:, None].expand(4, 6), torch.arange(6.0).expand(4, 6)])
    corners = split_views(grid, rows=2, columns=3)[:, :, 0, 0]
    assert corners.tolist() == [[0, 0], [0, 2], [0, 4], [2, 0], [2, 2], [2, 4]]


def test_two_by_two_is_the_grid_of_the_views_world() -> None:
    grid = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    cut = split_views(grid, rows=2, columns=2)
    assert torch.equal(cut, views.from_grid(grid))
    assert torch.equal(join_views(cut, rows=2, columns=2), views.to_grid(cut))


def test_it_draws_scenes_and_encodes_them_as_the_picture_that_they_were(adapter: Scene3DAdapter) -> None:
    (scene,) = adapter.generate(["a cube"], seeds=[3], steps=2, **SIZE)
    assert scene.views is not None
    assert scene.views.shape == (6, 3, 8, 4)
    assert scene.cameras == CAMERAS
    picture = adapter.generator.sample(["a cube"], seeds=[3], steps=2, **SIZE)
    torch.testing.assert_close(scene.views[4], picture[0, :, 8:, 4:8].float().cpu())
    with torch.no_grad():
        expected = adapter.generator.codec.encode(picture)
    torch.testing.assert_close(adapter.encode([scene]), expected)


def test_the_gradient_of_a_view_is_that_of_its_part_of_the_picture(adapter: Scene3DAdapter) -> None:
    scene = Scene3D(torch.rand(6, 3, 8, 4, generator=torch.Generator().manual_seed(0)), CAMERAS)
    latents = adapter.encode([scene]).requires_grad_()
    seen = adapter.decode_with_grad(latents)
    assert seen.shape == (1, 6, 3, 8, 4)
    (slope,) = torch.autograd.grad(seen[0, 5].sum(), latents)
    (expected,) = torch.autograd.grad(adapter.generator.decode(latents)[0, :, 8:, 8:].sum(), latents)
    torch.testing.assert_close(slope, expected)
    assert slope.abs().max() > 0


def test_other_views_than_its_own_are_refused(adapter: Scene3DAdapter) -> None:
    drawn = torch.rand(6, 3, 8, 4)
    with pytest.raises(ConfigError, match="2 x 3 views, and one to learn from has 5 views"):
        adapter.encode([Scene3D(drawn[:5])])
    with pytest.raises(ConfigError, match="seen from other places"):
        adapter.encode([Scene3D(drawn, turntable(6))])
    with pytest.raises(ConfigError, match="a mesh alone"):
        adapter.encode([Scene3D(mesh=Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))])


def test_a_folder_says_that_its_pictures_are_views(tmp_path: Path) -> None:
    stable_diffusion_3().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no scene3d\.json here"):
        load_adapter(str(tmp_path), modality="scene3d", **SIZE)
    given = load_adapter(str(tmp_path), modality="scene3d", rows=1, columns=3, **SIZE)
    assert given.cameras == ()
    write_settings(tmp_path, rows=2, columns=3, cameras=CAMERAS)
    read = load_adapter(str(tmp_path), **SIZE)
    assert (type(read), read.rows, read.columns) == (Scene3DAdapter, 2, 3)
    assert read.cameras == CAMERAS
    with pytest.raises(ConfigError, match="makes scene3d, and modality = 'image'"):
        load_adapter(str(tmp_path), modality="image", **SIZE)
    (tmp_path / "scene3d.json").write_text('{"rows": 2}')
    with pytest.raises(ConfigError, match="not the settings of a grid"):
        load_adapter(str(tmp_path), **SIZE)


def test_a_picture_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not divide into 2 x 5 views"):
        Scene3DAdapter(stable_diffusion_3(), rows=2, columns=5, **SIZE)
