"""Meshes of known faults, and agreement with trimesh."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.media import Mesh, Sample, Scene3D
from mmalign.rewards.cards import load_reward
from mmalign.rewards.mesh_soundness import check_mesh

trimesh = pytest.importorskip("trimesh")


def of_trimesh(mesh: object) -> Mesh:
    vertices = torch.tensor(mesh.vertices.tolist())  # type: ignore[attr-defined]
    return Mesh(vertices, torch.tensor(mesh.faces.tolist()))  # type: ignore[attr-defined]


def box() -> Mesh:
    """1 x 2 x 3, at some distance from the origin."""
    mesh = of_trimesh(trimesh.creation.box((1, 2, 3)))
    return Mesh(mesh.vertices + torch.tensor([5.0, -4.0, 3.0]), mesh.faces)


def soup(mesh: Mesh) -> Mesh:
    """The same surface, each face with its own three vertices, as .stl holds it."""
    corners = mesh.vertices[mesh.faces].flatten(0, 1)
    return Mesh(corners, torch.arange(len(corners)).reshape(-1, 3))


def with_faces(mesh: Mesh, faces: Tensor) -> Mesh:
    return Mesh(mesh.vertices, faces)


def test_a_box_is_sound_and_has_its_volume_however_it_is_stored() -> None:
    for mesh in (box(), soup(box())):
        found = check_mesh(mesh)
        assert (found.closed, found.manifold, found.degenerate, found.watertight) == (1.0, True, 0.0, True)
        assert found.volume == pytest.approx(6.0, rel=1e-5)


@pytest.mark.parametrize(
    "make", [trimesh.creation.icosphere, trimesh.creation.annulus, trimesh.creation.capsule]
)
def test_volume_and_watertightness_are_those_of_trimesh(make: Callable[..., Any]) -> None:
    theirs = make(r_min=0.5, r_max=1.0, height=1.0) if make is trimesh.creation.annulus else make()
    found = check_mesh(of_trimesh(theirs))
    assert found.watertight == theirs.is_watertight
    assert found.volume == pytest.approx(theirs.volume, rel=1e-4)


def test_a_missing_face_opens_three_of_its_eighteen_edges() -> None:
    found = check_mesh(with_faces(box(), box().faces[1:]))
    assert found.closed == pytest.approx(15 / 18)
    assert found.manifold
    assert math.isnan(found.volume)


def test_a_face_turned_round_opens_its_edges_and_all_turned_round_make_the_volume_negative() -> None:
    faces = box().faces.clone()
    faces[0] = faces[0].flip(0)
    assert check_mesh(with_faces(box(), faces)).closed == pytest.approx(15 / 18)
    assert check_mesh(with_faces(box(), box().faces.flip(1))).volume == pytest.approx(-6.0, rel=1e-5)


def test_a_third_face_on_an_edge_is_not_manifold() -> None:
    mesh = box()
    fin = Mesh(
        torch.cat([mesh.vertices, torch.zeros(1, 3)]), torch.cat([mesh.faces, torch.tensor([[0, 1, 8]])])
    )
    found = check_mesh(fin)
    assert not found.manifold
    assert not found.watertight


def test_degenerate_faces_are_counted_and_otherwise_ignored() -> None:
    mesh = box()
    middle = mesh.vertices[mesh.faces[0, :2]].mean(0, keepdim=True)
    needles = torch.tensor([[0, 0, 1], [mesh.faces[0, 0], mesh.faces[0, 1], len(mesh.vertices)]])
    found = check_mesh(Mesh(torch.cat([mesh.vertices, middle]), torch.cat([mesh.faces, needles])))
    assert found.degenerate == pytest.approx(2 / 14)
    assert found.watertight
    assert check_mesh(Mesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]]))).degenerate == 1.0


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_size_does_not_count(scale: float) -> None:
    found = check_mesh(Mesh(scale * box().vertices, box().faces))
    assert found.watertight
    assert found.volume == pytest.approx(6.0 * scale**3, rel=1e-4)


def test_the_reward_is_the_product_and_needs_a_mesh() -> None:
    open_box = with_faces(box(), box().faces[1:])
    views = Scene3D(torch.zeros(2, 3, 4, 4))
    scenes = [Scene3D(mesh=box()), Scene3D(mesh=open_box), views]
    score = load_reward("mesh-soundness").score([Sample("", scene) for scene in scenes])
    assert score.status == ["ok", "ok", "views have no mesh"]
    assert score.value[:2].tolist() == pytest.approx([1.0, 15 / 18])
    assert score.aspects["watertight"][:2].tolist() == [1.0, 0.0]
    assert score.aspects["volume"].isnan().tolist() == [False, True, True]
