"""A 3D object: views of it from known places, its mesh, or both."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import PIL.Image
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError, ShapeError
from mmalign.files import whole_file
from mmalign.media.checks import MAX_MESH_FACES, MAX_PICTURE_PIXELS, Modality, check_values
from mmalign.media.image import Image
from mmalign.media.mesh import MESH_SUFFIXES, Mesh
from mmalign.media.reading import reading
from mmalign.suffixes import VIEWS_SUFFIX as VIEWS_SUFFIX

TEXT_FIELD = "mmalign:views"
MOST_VIEWS = 4096


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that looks at the origin; z is up.

        place = distance (cos e cos a, cos e sin a, sin e),   a = azimuth, e = elevation

    Args:
        azimuth_deg: around z, 0 on the x axis, 90 on the y axis.
        elevation_deg: above the xy plane, -90 to 90.
        distance: from the origin, in scene units.
        fov_deg: full vertical angle of view; 0 for an orthographic camera, which sees ``distance`` from top to bottom.

    Raises:
        NonFiniteError: a number is NaN or infinite.
        ConfigError: a number is out of its range.
    """

    azimuth_deg: float = 0.0
    elevation_deg: float = 0.0
    distance: float = 2.0
    fov_deg: float = 40.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in asdict(self).values()):
            raise NonFiniteError(f"camera: expected finite numbers, got {self}")
        if abs(self.elevation_deg) > 90 or self.distance <= 0 or not 0 <= self.fov_deg < 180:
            raise ConfigError(
                f"camera: expected elevation in [-90, 90], distance above 0 and field of view in [0, 180), got {self}"
            )

    def world_to_camera(self) -> Tensor:
        """[4, 4], from points of the scene to the camera's axes: x right, y down, z away from it.

        >>> Camera(azimuth_deg=0, distance=2).world_to_camera() @ torch.tensor([0.0, 0.0, 1.0, 1.0])
        tensor([ 0., -1.,  2.,  1.])
        """
        a, e = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        right = [-math.sin(a), math.cos(a), 0.0, 0.0]
        down = [math.sin(e) * math.cos(a), math.sin(e) * math.sin(a), -math.cos(e), 0.0]
        away = [-math.cos(e) * math.cos(a), -math.cos(e) * math.sin(a), -math.sin(e), self.distance]
        return torch.tensor([right, down, away, [0.0, 0.0, 0.0, 1.0]])


def turntable(
    count: int, *, elevation_deg: float = 0.0, distance: float = 2.0, fov_deg: float = 40.0
) -> tuple[Camera, ...]:
    """Cameras evenly around the object, the first on the x axis.

    >>> [camera.azimuth_deg for camera in turntable(4)]
    [0.0, 90.0, 180.0, 270.0]
    """
    return tuple(Camera(360 * i / count, elevation_deg, distance, fov_deg) for i in range(count))


@dataclass(frozen=True, eq=False)
class Scene3D:
    """A 3D object as a generator gives it: views, a mesh, or both.

    Args:
        views: [V, 3, H, W] in [0, 1]; None where there is only a mesh.
        cameras: one for each view, or none where they are not known.
        mesh: None where there are only views.

    Raises:
        ShapeError: neither views nor mesh, views that are not [V, 3, H, W], or another number of cameras.
        NonFiniteError: a pixel is NaN or infinite.
    """

    modality: ClassVar[Modality] = "scene3d"

    views: Tensor | None = None
    cameras: tuple[Camera, ...] = ()
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if self.views is None and self.mesh is None:
            raise ShapeError("a scene has views, a mesh or both; got neither")
        if self.views is not None:
            check_values("views", self.views, "V, 3, H, W")
        count = 0 if self.views is None else len(self.views)
        if len(self.cameras) not in (0, count):
            raise ShapeError(
                f"cameras: expected one for each of {count} views, or none, got {len(self.cameras)}"
            )

    def save(self, path: Path | str) -> None:
        """Write the views (.views.png) or the mesh (.glb, .obj, .ply, .stl), whole or not at all.

        Each file holds one of the two; a scene that has both is saved by two calls.

        Raises:
            ConfigError: another suffix, the scene has not what the suffix names, or the extra ``mesh`` is missing.
        """
        path = Path(path)
        if path.name.lower().endswith(VIEWS_SUFFIX):
            if self.views is None:
                raise ConfigError(f"{path}: this scene has a mesh and no views; save it as .glb")
            _save_views(path, self.views, self.cameras)
        elif path.suffix.lower() in MESH_SUFFIXES:
            if self.mesh is None:
                raise ConfigError(f"{path}: this scene has views and no mesh; save it as {VIEWS_SUFFIX}")
            self.mesh.save(path)
        else:
            raise ConfigError(f"{path}: a scene is saved as {VIEWS_SUFFIX} or {', '.join(MESH_SUFFIXES)}")

    @classmethod
    def load(
        cls, path: Path | str, *, max_pixels: int = MAX_PICTURE_PIXELS, max_faces: int = MAX_MESH_FACES
    ) -> "Scene3D":
        """Read views with their cameras, or a mesh.

        Args:
            path: a picture with cameras in it, as :meth:`save` writes it, or a mesh file by its suffix.
            max_pixels: pixels of all views above which a file is refused.
            max_faces: triangles, or vertices, above which a file is refused.

        Raises:
            DataError: the file is missing, is neither, is damaged or too large, or the extra ``mesh`` is missing.
        """
        if Path(path).suffix.lower() in MESH_SUFFIXES:
            return cls(mesh=Mesh.load(path, max_faces=max_faces))
        grid = Image.load(path, max_pixels=max_pixels).pixels
        with reading(path, "set of views"), PIL.Image.open(path, formats=("PNG",)) as picture:
            text = getattr(picture, "text", {}).get(TEXT_FIELD)
            if text is None:
                raise ConfigError("is a picture without the cameras of views in it; it is no scene")
            return cls(*_from_grid(grid, json.loads(text)))


def _save_views(path: Path, views: Tensor, cameras: Sequence[Camera]) -> None:
    count, _, height, width = views.shape
    columns = math.ceil(math.sqrt(count))
    grid = torch.zeros(3, math.ceil(count / columns) * height, columns * width)
    for index, view in enumerate(views.detach()):
        row, column = divmod(index, columns)
        grid[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = view
    info = PngInfo()
    said = {"views": count, "columns": columns, "cameras": [asdict(camera) for camera in cameras]}
    info.add_itxt(TEXT_FIELD, json.dumps(said))
    with whole_file(path) as unfinished:
        Image(grid).to_pil().save(unfinished, "PNG", pnginfo=info)


def _from_grid(grid: Tensor, said: Any) -> tuple[Tensor, tuple[Camera, ...]]:
    """Views [V, 3, H, W] and cameras of a grid [3, rows H, columns W].

    Raises:
        ShapeError: ``said`` does not describe such a grid.
    """
    try:
        count, columns = int(said["views"]), int(said["columns"])
        names = [field.name for field in fields(Camera)]
        cameras = tuple(Camera(**{name: float(entry[name]) for name in names}) for entry in said["cameras"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ShapeError(f"its field '{TEXT_FIELD}' does not describe views and cameras") from None
    rows = math.ceil(count / columns) if 0 < columns <= count <= MOST_VIEWS else 0
    if rows == 0 or grid.shape[1] % rows or grid.shape[2] % columns:
        raise ShapeError(
            f"{count} views in {columns} columns do not fill {grid.shape[2]}x{grid.shape[1]} pixels"
        )
    height, width = grid.shape[1] // rows, grid.shape[2] // columns
    cells = grid.reshape(3, rows, height, columns, width)
    return cells.permute(1, 3, 0, 2, 4).flatten(0, 1)[:count].contiguous(), cameras
