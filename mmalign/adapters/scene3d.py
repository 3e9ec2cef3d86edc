"""A generator of 3D objects as a grid of views, which an image pipeline draws in one picture: what notebooks import."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmalign.adapters.denoising import DenoisingAdapter
from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.media import Camera, Modality, Scene3D

SETTINGS_NAME = "scene3d.json"
"""Beside ``model_index.json`` of a folder whose pictures are grids of views."""


class Scene3DAdapter(DenoisingAdapter[Scene3D]):
    """A text-to-image pipeline of diffusers whose pictures are views of one object, in rows and columns.

    Args:
        pipeline: it stays live as ``adapter.generator.pipeline``.
        rows: of the grid.
        columns: of the grid; the first row comes first, from left to right.
        cameras: of the rows x columns views, or none where they are not known.
        options: the pipeline's own options; ``height`` and ``width`` are those of the whole grid.

    Raises:
        ConfigError: the pipeline's pictures cannot be cut so, or there is another number of cameras.
    """

    modality: ClassVar[Modality] = "scene3d"

    def __init__(
        self, pipeline: Any, *, rows: int, columns: int, cameras: Sequence[Camera] = (), **options: Any
    ) -> None:
        if rows < 1 or columns < 1:
            raise ConfigError(f"a grid of {rows} x {columns} views: expected at least one of each")
        if len(cameras) not in (0, rows * columns):
            raise ConfigError(
                f"cameras: expected one for each of {rows} x {columns} views, or none, got {len(cameras)}"
            )
        self.rows, self.columns, self.cameras = rows, columns, tuple(cameras)
        super().__init__(pipeline, **options)
        height, width = self.generator.media_shape[-2:]
        if height % rows or width % columns:
            raise ConfigError(
                f"pictures of {width}x{height} pixels do not divide into {rows} x {columns} views"
            )

    def medium(self, values: Tensor) -> Scene3D:
        """The views of a grid [3, rows H, columns W]."""
        return Scene3D(split_views(values, rows=self.rows, columns=self.columns), self.cameras)

    def values(self, medium: Scene3D) -> Tensor:
        """The grid [3, rows H, columns W] of an object's views.

        Raises:
            ConfigError: it has no views, another number of them, or views from elsewhere.
        """
        if medium.views is None or len(medium.views) != self.rows * self.columns:
            got = "a mesh alone" if medium.views is None else f"{len(medium.views)} views"
            raise ConfigError(
                f"this generator makes {self.rows} x {self.columns} views, and one to learn from has {got}"
            )
        if self.cameras and medium.cameras and not _alike(self.cameras, medium.cameras):
            raise ConfigError("this generator's views are seen from other places than those to learn from")
        return join_views(medium.views, rows=self.rows, columns=self.columns)

    def decode_with_grad(self, latents: Tensor) -> Tensor:
        """Views [B, V, 3, H, W] in [0, 1] of latents [B, ...], with gradient."""
        return split_views(self.generator.decode(latents), rows=self.rows, columns=self.columns)


def split_views(grid: Tensor, *, rows: int, columns: int) -> Tensor:
    """A picture [..., 3, rows H, columns W] as views [..., rows columns, 3, H, W], row by row.

    >>> split_views(torch.arange(8.0).reshape(1, 2, 4), rows=1, columns=2).shape
    torch.Size([2, 1, 2, 2])
    """
    cells = grid.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))  # [..., 3, rows, H, columns, W]
    return cells.movedim((-4, -2), (-5, -4)).flatten(-5, -4)


def join_views(views: Tensor, *, rows: int, columns: int) -> Tensor:
    """Views [..., rows columns, 3, H, W] as one picture [..., 3, rows H, columns W]; undoes :func:`split_views`.

    >>> grid = torch.rand(2, 3, 4, 6)
    >>> torch.equal(join_views(split_views(grid, rows=2, columns=3), rows=2, columns=3), grid)
    True
    """
    cells = views.unflatten(-4, (rows, columns))  # [..., rows, columns, 3, H, W]
    return cells.movedim((-5, -4), (-4, -2)).flatten(-2, -1).flatten(-3, -2)


def write_settings(folder: Path, *, rows: int, columns: int, cameras: Sequence[Camera]) -> None:
    """Mark a pipeline's folder as one whose pictures are grids of views."""
    said = {
        "class": Scene3DAdapter.__name__,
        "rows": rows,
        "columns": columns,
        "cameras": [asdict(camera) for camera in cameras],
    }
    with whole_file(folder / SETTINGS_NAME) as unfinished:
        unfinished.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """The adapter's arguments, as ``write_settings`` wrote them.

    Raises:
        ConfigError: the file says something else.
    """
    try:
        said = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        cameras = tuple(Camera(**camera) for camera in said["cameras"])
        return {"rows": int(said["rows"]), "columns": int(said["columns"]), "cameras": cameras}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{folder / SETTINGS_NAME}: not the settings of a grid of views ({error})"
        ) from None


def _alike(first: Sequence[Camera], second: Sequence[Camera]) -> bool:
    ours, theirs = (torch.stack([camera.world_to_camera() for camera in side]) for side in (first, second))
    angles = [[camera.fov_deg for camera in side] for side in (first, second)]
    return torch.allclose(ours, theirs, atol=1e-4) and angles[0] == angles[1]
