"""Whether a mesh is the surface of a solid: closed, without edges of three faces, and without faces of no area."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.media import Sample, Scene3D
from mmalign.media.mesh import Mesh
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable

SAME_PLACE = 1e-6
"""Share of the mesh's size within which two vertices are one: .stl and .glb repeat them for each face."""
NO_AREA = 1e-10
"""Area of a face, over the mesh's size squared, under which it is degenerate."""


@dataclass(frozen=True, slots=True)
class MeshCheck:
    """What is found of a mesh.

    Args:
        closed: the share of edges that two faces meet in opposite directions, as on the surface of any solid.
        manifold: no edge has more than two faces.
        degenerate: the share of faces that have no area, or two corners in one place.
        volume: enclosed, in cubic scene units, negative where the faces look inwards; NaN unless all edges are closed.
    """

    closed: float
    manifold: bool
    degenerate: float
    volume: float

    @property
    def watertight(self) -> bool:
        """All edges are closed."""
        return self.closed == 1.0


def check_mesh(mesh: Mesh) -> MeshCheck:
    """Check a mesh, after vertices of one place are made one and degenerate faces are taken out.

    An edge is closed where exactly two faces have it, once in each direction:

        volume = 1/6 sum over faces of a . (b x c)

    >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> check_mesh(Mesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])))
    MeshCheck(closed=1.0, manifold=True, degenerate=0.0, volume=0.16666666666666666)

    Args:
        mesh: of any size.

    Returns:
        What is found; ``closed`` is 0 where all faces are degenerate.
    """
    vertices = mesh.vertices.detach().double().cpu()
    size = float((vertices.amax(0) - vertices.amin(0)).norm())
    if size == 0:
        return MeshCheck(0.0, True, 1.0, float("nan"))
    places = ((vertices - vertices.amin(0)) / (SAME_PLACE * size)).round().long()
    _, merged = places.unique(dim=0, return_inverse=True)
    corners = vertices[mesh.faces.cpu()]  # [F, 3, 3]
    faces = merged[mesh.faces.cpu()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1) / 2
    sound = (area > NO_AREA * size**2) & (faces != faces.roll(1, 1)).all(1)
    faces, corners = faces[sound], corners[sound]
    degenerate = 1 - float(sound.double().mean())
    if len(faces) == 0:
        return MeshCheck(0.0, True, 1.0, float("nan"))
    closed, most = _edges(faces)
    volume = float("nan")
    if closed == 1.0:
        a, b, c = (corners - vertices.mean(0)).unbind(1)
        volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    return MeshCheck(closed, most <= 2, degenerate, volume)


def _edges(faces: Tensor) -> tuple[float, int]:
    """The share of edges with one face in each direction, and the most faces that one edge has."""
    start, end = faces.flatten(), faces.roll(-1, 1).flatten()
    both = torch.stack([torch.minimum(start, end), torch.maximum(start, end)], dim=1)
    _, edge, count = both.unique(dim=0, return_inverse=True, return_counts=True)
    direction = torch.zeros(len(count), dtype=torch.long).index_add(0, edge, (start < end).long() * 2 - 1)
    closed = (count == 2) & (direction == 0)
    return float(closed.double().mean()), int(count.max())


class MeshSoundness(MeasuredReward):
    """How nearly a mesh is the surface of a solid; see :func:`check_mesh`.

        value = (share of edges that are closed) (1 - share of faces that are degenerate)

    Range: [0, 1], higher is better; 1 for a mesh that can be printed. Aspects: ``watertight`` and ``manifold`` (0 or
    1), ``degenerate`` (a share) and ``volume``, which is NaN where nothing is enclosed. Any closed surface has 1, be
    it the right one or not.
    """

    aspects = ("watertight", "manifold", "degenerate", "volume")

    def measure(self, sample: Sample) -> Measurement:
        """The mesh of one scene."""
        assert isinstance(sample.media, Scene3D)
        if sample.media.mesh is None:
            raise Unmeasurable("views have no mesh")
        found = check_mesh(sample.media.mesh)
        aspects = {
            "watertight": float(found.watertight),
            "manifold": float(found.manifold),
            "degenerate": found.degenerate,
            "volume": found.volume,
        }
        return Measurement(found.closed * (1 - found.degenerate), aspects)
