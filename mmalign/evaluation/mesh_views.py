"""Draws a mesh for people to look at: flat shaded triangles, the near ones over the far ones."""

import PIL.Image
import torch
from PIL import ImageDraw
from torch import Tensor

from mmalign.media import Camera, Mesh

SIDE_PX = 192
FINER = 2
"""Drawn this many times larger, then reduced, which smooths the edges."""
MOST_FACES = 50_000
"""Of a larger mesh every second, third, … triangle is drawn: enough to see what it is."""
PAPER, GREY = (255, 255, 255), 0.72


def draw_mesh(mesh: Mesh, camera: Camera, *, side_px: int = SIDE_PX) -> PIL.Image.Image:
    """One view of a mesh, moved and scaled to fill the picture, lit from the camera.

        shade = colour (0.35 + 0.65 |cos|),   cos between the triangle's normal and the direction to the camera

    Only the camera's direction is used; the view is orthographic, so a mesh looks equally large from all sides.

    Args:
        mesh: triangles that hide each other are sorted by their middle, which fails where they cut through each other.
        camera: where from.
        side_px: of the square picture.
    """
    vertices = mesh.vertices.detach().cpu().double()
    low, high = vertices.aminmax(dim=0)
    radius = (vertices - (low + high) / 2).norm(dim=1).max().clamp_min(1e-12)
    turned = ((vertices - (low + high) / 2) / radius) @ camera.world_to_camera()[:3, :3].double().T
    faces = mesh.faces.cpu()[:: 1 + (len(mesh.faces) - 1) // MOST_FACES]
    corners = turned[faces]  # [F, 3, 3]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = (normal[:, 2] / normal.norm(dim=1).clamp_min(1e-12)).abs()
    colours = (_colours(mesh)[faces].mean(1) * (0.35 + 0.65 * facing[:, None]) * 255).round().int()
    side = FINER * side_px
    places = (corners[..., :2] * 0.96 + 1) * (side / 2)
    picture = PIL.Image.new("RGB", (side, side), PAPER)
    pen = ImageDraw.Draw(picture)
    for face in corners[..., 2].mean(1).argsort(descending=True).tolist():
        pen.polygon([tuple(place) for place in places[face].tolist()], fill=tuple(colours[face].tolist()))
    return picture.resize((side_px, side_px), PIL.Image.Resampling.BOX)


def _colours(mesh: Mesh) -> Tensor:
    """[V, 3] in [0, 1], grey where the mesh has none."""
    if mesh.colours is None:
        return torch.full((len(mesh.vertices), 3), GREY, dtype=torch.float64)
    return mesh.colours.detach().cpu().double().clamp(0, 1)
