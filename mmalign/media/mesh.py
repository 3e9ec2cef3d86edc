"""A surface of triangles, and the mesh files that trimesh knows (the extra ``mesh``)."""

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError, ShapeError
from mmalign.files import whole_file
from mmalign.media.checks import MAX_MESH_BYTES, MAX_MESH_FACES, check_size, check_values, to_8_bits
from mmalign.media.reading import check_suffix, reading
from mmalign.suffixes import MESH_SUFFIXES as MESH_SUFFIXES


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in space, z up.

    Args:
        vertices: [V, 3], x, y, z in scene units.
        faces: [F, 3] int64, the three vertices of each triangle, counter-clockwise as seen from outside.
        colours: [V, 3] in [0, 1], RGB; None where the surface has none.

    Raises:
        ShapeError: another shape, no triangle, or one whose vertex does not exist.
        NonFiniteError: a coordinate or colour is NaN or infinite.
    """

    vertices: Tensor
    faces: Tensor
    colours: Tensor | None = None

    def __post_init__(self) -> None:
        for name, values, axes in (("vertices", self.vertices, "V, 3"), ("faces", self.faces, "F, 3")):
            if values.ndim != 2 or values.shape[1] != 3 or len(values) == 0:
                raise ShapeError(f"{name}: expected [{axes}], not empty, got {list(values.shape)}")
        if not self.vertices.detach().isfinite().all():
            raise NonFiniteError("vertices: some coordinates are NaN or infinite")
        if self.faces.dtype != torch.int64:
            raise ShapeError(f"faces: expected int64, got {self.faces.dtype}")
        low, high = (int(end) for end in torch.aminmax(self.faces))
        if low < 0 or high >= len(self.vertices):
            raise ShapeError(f"faces: expected vertices 0 to {len(self.vertices) - 1}, got {low} to {high}")
        if self.colours is not None:
            check_values("colours", self.colours, f"{len(self.vertices)}, 3")

    def save(self, path: Path | str) -> None:
        """Write the mesh, whole or not at all; .glb, .obj and .ply keep colours with 8 bits, .stl keeps none.

        Raises:
            ConfigError: no mesh format has this suffix, or the extra ``mesh`` is not installed.
        """
        suffix = check_suffix(path, MESH_SUFFIXES, "mesh")
        vertices = self.vertices.detach().double().cpu().numpy()
        mesh = _trimesh().Trimesh(_y_up(vertices, suffix), self.faces.cpu().numpy(), process=False)
        if self.colours is not None:
            mesh.visual.vertex_colors = to_8_bits(self.colours).numpy()
        with whole_file(path) as unfinished:
            mesh.export(str(unfinished))

    @classmethod
    def load(
        cls, path: Path | str, *, max_faces: int = MAX_MESH_FACES, max_bytes: int = MAX_MESH_BYTES
    ) -> "Mesh":
        """Read a mesh; the objects of a scene are joined, and textures become the colours of vertices.

        Nothing but the file itself is read: an .obj that names materials elsewhere has no colours from them.

        Args:
            path: its suffix names the format, which mesh files themselves do not all do.
            max_faces: triangles, or vertices, above which a file is refused.
            max_bytes: size of a file above which it is refused.

        Raises:
            DataError: the file is missing, is no mesh, is damaged or too large, or the extra ``mesh`` is not installed.
        """
        with reading(path, "mesh"):
            suffix = check_suffix(path, MESH_SUFFIXES, "mesh")
            trimesh = _trimesh()
            check_size(Path(path).stat().st_size, max_bytes, "bytes", "max_bytes")
            data = Path(path).read_bytes()
            if suffix == ".glb":
                _check_counts(data, max_faces)
            scene = trimesh.load_scene(
                io.BytesIO(data), file_type=suffix.removeprefix("."), process=False, maintain_order=True
            )
            mesh = scene.to_mesh()
            check_size(
                max(len(mesh.faces), len(mesh.vertices)), max_faces, "triangles or vertices", "max_faces"
            )
            vertices = torch.from_numpy(_z_up(np.asarray(mesh.vertices), suffix).astype(np.float32))
            return cls(vertices, torch.from_numpy(np.array(mesh.faces, dtype=np.int64)), _colours(mesh))


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise ConfigError("mesh files need an extra: pip install 'mmalign[mesh]'") from None
    return trimesh


def _y_up(vertices: np.ndarray, suffix: str) -> np.ndarray:
    """GlTF says that y points up; the other formats leave it open, and keep our z."""
    return vertices[:, [0, 2, 1]] * [1, 1, -1] if suffix == ".glb" else vertices


def _z_up(vertices: np.ndarray, suffix: str) -> np.ndarray:
    """The way back from ``_y_up``."""
    return vertices[:, [0, 2, 1]] * [1, -1, 1] if suffix == ".glb" else vertices


def _colours(mesh: Any) -> Tensor | None:
    """[V, 3] in [0, 1], or None where the file has none; a texture is looked up at each vertex."""
    if not mesh.visual.defined:
        return None
    visual = mesh.visual.to_color() if mesh.visual.kind == "texture" else mesh.visual
    colours = np.array(visual.vertex_colors, dtype=np.float32)[:, :3] / 255
    return torch.from_numpy(colours) if len(colours) == len(mesh.vertices) else None


def _check_counts(data: bytes, limit: int) -> None:
    """Refuse a .glb whose header asks for more numbers than it could need, before memory is set aside for them."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise ShapeError("the header is not that of a .glb file")
    (length,) = struct.unpack("<I", data[12:16])
    for accessor in json.loads(data[20 : 20 + length]).get("accessors", []):
        check_size(int(accessor.get("count", 0)), 3 * limit, "numbers in one array", "max_faces")
