"""Scenes keep their views, cameras and surfaces, in files that other programs read and write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from PIL.PngImagePlugin import PngInfo

from mmalign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from mmalign.files import whole_file
from mmalign.media import Camera, Mesh, Scene3D, turntable

V, H, W = 5, 6, 8
VIEWS = (torch.arange(V * 3 * H * W) % 256).reshape(V, 3, H, W) / 255
SCENE = Scene3D(VIEWS, turntable(V, elevation_deg=15.5, distance=2.7, fov_deg=49.1))


def cone(*, colours: bool = True) -> Mesh:
    """Eight sides, its point up the z axis."""
    angles = torch.arange(8) * torch.pi / 4
    ring = torch.stack([angles.cos(), angles.sin(), torch.full((8,), -0.5)], 1)
    vertices = torch.cat([ring, torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -0.5]])])
    sides = torch.tensor([[i, (i + 1) % 8, 8] for i in range(8)])
    floor = torch.tensor([[(i + 1) % 8, i, 9] for i in range(8)])
    paint = (torch.arange(30) * 8).reshape(10, 3) / 255 if colours else None
    return Mesh(vertices, torch.cat([sides, floor]), paint)


def test_views_and_cameras_come_back_to_the_bit(tmp_path: Path) -> None:
    SCENE.save(tmp_path / "a.views.png")
    scene = Scene3D.load(tmp_path / "a.views.png")
    assert scene.views is not None
    assert torch.equal(scene.views, VIEWS)
    assert scene.cameras == SCENE.cameras
    assert scene.mesh is None


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_views_without_cameras_come_back(tmp_path: Path, count: int) -> None:
    Scene3D(VIEWS[:count]).save(tmp_path / "a.views.png")
    scene = Scene3D.load(tmp_path / "a.views.png")
    assert scene.views is not None
    assert torch.equal(scene.views, VIEWS[:count])
    assert scene.cameras == ()


def test_another_program_sees_a_grid_of_views_and_their_cameras(tmp_path: Path) -> None:
    SCENE.save(tmp_path / "a.views.png")
    with PIL.Image.open(tmp_path / "a.views.png") as picture:
        picture.load()
        assert picture.size == (3 * W, 2 * H)
        lower_middle = np.array(picture)[H : 2 * H, W : 2 * W]
        said = json.loads(picture.text["mmalign:views"])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(lower_middle, (VIEWS[4] * 255).round().permute(1, 2, 0).numpy())
    assert (said["views"], said["columns"]) == (5, 3)
    assert said["cameras"][1] == {
        "azimuth_deg": 72.0,
        "elevation_deg": 15.5,
        "distance": 2.7,
        "fov_deg": 49.1,
    }


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "{",
        '{"views": 20, "columns": 3, "cameras": []}',
        '{"views": -1, "columns": 1, "cameras": []}',
        '{"views": 5, "columns": 3, "cameras": [{}]}',
        '{"views": 1e999, "columns": 3, "cameras": []}',
        '{"views": 5, "columns": 3, "cameras": ['
        '{"azimuth_deg": NaN, "elevation_deg": 0, "distance": 1, "fov_deg": 1}]}',
    ],
)
def test_a_grid_that_is_described_wrongly_is_refused(tmp_path: Path, said: str) -> None:
    SCENE.save(tmp_path / "a.views.png")
    info = PngInfo()
    info.add_itxt("mmalign:views", said)
    with PIL.Image.open(tmp_path / "a.views.png") as picture:
        picture.save(tmp_path / "b.views.png", pnginfo=info)
    with pytest.raises(DataError, match=r"b\.views\.png: "):
        Scene3D.load(tmp_path / "b.views.png")


def test_a_picture_is_no_scene(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.views.png")
    with pytest.raises(DataError, match="is a picture without the cameras of views in it"):
        Scene3D.load(tmp_path / "a.views.png")


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl"])
def test_another_reader_sees_the_same_surface(tmp_path: Path, suffix: str) -> None:
    mesh = cone()
    mesh.save(tmp_path / f"a.{suffix}")
    seen: Any = trimesh.load_mesh(tmp_path / f"a.{suffix}", process=False, maintain_order=True)
    triangles = np.asarray(seen.vertices)[np.asarray(seen.faces)]
    expected = mesh.vertices[mesh.faces].numpy()
    if suffix == "glb":  # glTF: y is up, so z looks out of the screen where our -y did
        expected = np.stack([expected[..., 0], expected[..., 2], -expected[..., 1]], -1)
    np.testing.assert_allclose(triangles, expected, atol=1e-6)
    assert seen.area_faces.sum() > 0
    if suffix != "stl":
        np.testing.assert_array_equal(seen.visual.vertex_colors[:, :3], np.arange(30).reshape(10, 3) * 8)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl"])
@pytest.mark.parametrize("colours", [True, False])
def test_a_mesh_comes_back(tmp_path: Path, suffix: str, colours: bool) -> None:
    mesh = cone(colours=colours)
    Scene3D(mesh=mesh).save(tmp_path / f"a.{suffix}")
    loaded = Scene3D.load(tmp_path / f"a.{suffix}").mesh
    assert loaded is not None
    torch.testing.assert_close(loaded.vertices[loaded.faces], mesh.vertices[mesh.faces], atol=1e-6, rtol=0)
    assert (loaded.colours is not None) == (colours and suffix != "stl")
    if loaded.colours is not None:
        assert mesh.colours is not None
        torch.testing.assert_close(loaded.colours, mesh.colours, atol=1e-6, rtol=0)


def test_the_objects_of_a_scene_are_joined_where_they_stand(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    scene = trimesh.Scene()
    scene.add_geometry(box)
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([0, 5, 0]))
    scene.export(tmp_path / "a.glb")
    mesh = Mesh.load(tmp_path / "a.glb")
    assert len(mesh.faces) == 24
    assert mesh.vertices.amax(0).tolist() == [0.5, 0.5, 5.5], "up is y in the file and z here"


def test_a_mesh_file_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "colours.mtl").write_text("newmtl red\nKd 1 0 0\n")
    (tmp_path / "a.obj").write_text("mtllib colours.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert Mesh.load(tmp_path / "a.obj").colours is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.glb", b"glTF and nothing else that fits", "not a readable mesh"),
        ("a.glb", b"something else", "not that of a .glb file"),
        ("a.obj", b"no mesh at all", r"expected \[V, 3\]|not a readable mesh"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "NaN or infinite|not a readable mesh"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "not a readable mesh"),
        ("a.stl", b"\0" * 300, r"expected \[V, 3\]|not a readable mesh"),
        ("a.fbx", b"Kaydara", "a mesh is saved as|no such file"),
        ("a.ply", b"", "the file is empty"),
    ],
)
def test_what_is_no_mesh_is_one_sentence_with_its_file(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Mesh.load(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_meshes_too_large_for_memory_are_refused_with_the_limit(tmp_path: Path) -> None:
    cone().save(tmp_path / "a.glb")
    cone().save(tmp_path / "a.ply")
    with pytest.raises(
        DataError, match=r"holds at least 16 triangles or vertices, the limit is 15; .*max_faces="
    ):
        Mesh.load(tmp_path / "a.ply", max_faces=15)
    with pytest.raises(DataError, match=r"bytes, the limit is 100; .*max_bytes="):
        Mesh.load(tmp_path / "a.glb", max_bytes=100)
    data = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "b.glb").write_bytes(data.replace(b'"count":10', b'"count":9' + b"9" * 12, 1))
    with pytest.raises(DataError, match=r"numbers in one array|not a readable mesh"):
        Mesh.load(tmp_path / "b.glb")


def test_without_the_extra_a_mesh_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    cone().save(tmp_path / "a.glb")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(DataError, match=r"a\.glb: mesh files need an extra: pip install 'mmalign\[mesh\]'"):
        Mesh.load(tmp_path / "a.glb")
    with pytest.raises(ConfigError, match=r"pip install 'mmalign\[mesh\]'"):
        cone().save(tmp_path / "b.glb")


@pytest.mark.parametrize("azimuth", [0.0, 30.0, 250.0])
@pytest.mark.parametrize("elevation", [-90.0, 0.0, 40.0, 90.0])
def test_a_camera_looks_at_the_origin_from_its_place(azimuth: float, elevation: float) -> None:
    matrix = Camera(azimuth, elevation, 3.0).world_to_camera()
    a, e = np.radians(azimuth), np.radians(elevation)
    place = 3 * torch.tensor([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]).float()
    one = torch.ones(1)
    torch.testing.assert_close(
        matrix @ torch.cat([place, one]), torch.tensor([0.0, 0, 0, 1]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        matrix @ torch.tensor([0.0, 0, 0, 1]), torch.tensor([0.0, 0, 3, 1]), atol=1e-5, rtol=0
    )
    rotation = matrix[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) > 0, "no mirror"
    assert rotation[1, 2] <= 1e-6, "up in the scene is up in the picture"


def test_what_is_no_scene_is_refused() -> None:
    with pytest.raises(ShapeError, match="views, a mesh or both; got neither"):
        Scene3D()
    with pytest.raises(ShapeError, match=r"views: expected \[V, 3, H, W\]"):
        Scene3D(VIEWS[0])
    with pytest.raises(ShapeError, match="cameras: expected one for each of 5 views, or none, got 4"):
        Scene3D(VIEWS, turntable(4))
    with pytest.raises(ConfigError, match="distance above 0"):
        Camera(distance=0)
    with pytest.raises(NonFiniteError, match="camera: expected finite numbers"):
        Camera(azimuth_deg=float("nan"))


def test_what_is_no_mesh_is_refused() -> None:
    mesh = cone()
    with pytest.raises(ShapeError, match="faces: expected vertices 0 to 9, got 0 to 10"):
        Mesh(mesh.vertices, mesh.faces + (mesh.faces == 9))
    with pytest.raises(ShapeError, match="faces: expected int64"):
        Mesh(mesh.vertices, mesh.faces.float())
    with pytest.raises(ShapeError, match=r"colours: expected \[10, 3\], none of them 0, got \[9, 3\]"):
        Mesh(mesh.vertices, mesh.faces, torch.zeros(9, 3))
    with pytest.raises(NonFiniteError, match="vertices"):
        Mesh(mesh.vertices.clone().fill_(torch.nan), mesh.faces)
    with pytest.raises(ShapeError, match=r"faces: expected \[F, 3\], not empty"):
        Mesh(mesh.vertices, mesh.faces[:0])


def test_a_caller_may_write_whole_files_of_its_own(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.views.png") as unfinished:
        SCENE.save(unfinished)
    assert Scene3D.load(tmp_path / "a.views.png").cameras == SCENE.cameras
    assert [path.name for path in tmp_path.iterdir()] == ["a.views.png"]


def test_a_scene_is_saved_as_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"views and no mesh; save it as \.views\.png"):
        SCENE.save(tmp_path / "a.glb")
    with pytest.raises(ConfigError, match=r"a mesh and no views; save it as \.glb"):
        Scene3D(mesh=cone()).save(tmp_path / "a.views.png")
    with pytest.raises(ConfigError, match=r"a scene is saved as \.views\.png or \.glb, "):
        SCENE.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
