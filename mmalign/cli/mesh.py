"""``mmalign mesh``: views of an object as a mesh, and as a film of one turn around it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, POSITIVE, Range, check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshCommand:
    """Fit a field of density and colour to the views of an object, and write its surface."""

    views: Positional[Path]
    """A .views.png, as `mmalign generate` writes it: a picture of views with their cameras in it."""
    out: Path
    """The mesh: .glb, .obj, .ply or .stl."""
    turntable: Path | None = None
    """Also one turn around the field: .mp4, .webm, .gif or .webp."""
    steps: Annotated[int, COUNT] = 100
    """Of the fit."""
    voxels: Annotated[int, Range(least=2, most=512)] = 32
    """Along each side of the cube."""
    half_extent: Annotated[float, POSITIVE] = 1.0
    """Of the cube, in the unit of the cameras' distance."""
    turntable_px: Annotated[int, Range(least=2, most=8_192)] = 128
    """Side of the film."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign mesh``; the mesh's path is the last line of standard output."""
    command = parse(MeshCommand, arguments, prog="mmalign mesh")
    from mmalign.media import Scene3D
    from mmalign.scenes.fitting import FitSettings, fit_field

    scene = Scene3D.load(command.views)
    if scene.views is None or not scene.cameras:
        raise ConfigError(f"{command.views}: views with their cameras are needed to find a mesh")
    settings = FitSettings(steps=command.steps, voxels=command.voxels, half_extent=command.half_extent)
    field = fit_field(scene.views, scene.cameras, settings=settings)
    Scene3D(mesh=field.to_mesh()).save(command.out)
    if command.turntable is not None:
        field.turntable(side_px=command.turntable_px).save(command.turntable)
    print(command.out, file=sys.stdout)
    return 0
