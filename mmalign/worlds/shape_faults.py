"""Faults of the shapes world: captions that are wrong about a shape of their picture, and where that shape is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmalign.worlds import shapes

VALUES = {"kind": shapes.KINDS, "colour": tuple(shapes.COLOURS), "size": tuple(shapes.SIZES)}
"""What a caption may say wrongly of one of two shapes; their places make the scene and stay."""
WORD_GROUPS = (shapes.KINDS, tuple(shapes.COLOURS), tuple(shapes.SIZES), tuple(shapes.PLACES))
"""Words of captions of which one may stand for another."""


@dataclass(frozen=True, eq=False)
class Faults:
    """N pictures with captions, some of which are wrong about one shape.

    Args:
        scenes: what the pictures show.
        captions: what is said of them.
        marked: the same, with ``_0`` behind each wrong word.
        pictures: [N, 3, H, W] in [0, 1].
        regions: [N, H, W] in [0, 1], the silhouette of the shape that the caption is wrong about; 0 for right captions.
    """

    scenes: list[shapes.Scene]
    captions: list[str]
    marked: list[str]
    pictures: Tensor
    regions: Tensor


def draw_faults(
    count: int,
    generator: torch.Generator,
    *,
    split: shapes.Split | None = "train",
    two_shapes: float = 1.0,
    wrong: float = 0.5,
    side_px: int = 64,
) -> Faults:
    """Scenes with captions, of which a share is wrong in the kind, the colour or the size of one shape.

    Args:
        count: N.
        generator: of everything.
        split: of the shapes that are shown; a caption may name one of the other.
        two_shapes: share of scenes of two.
        wrong: share of captions that are wrong.
        side_px: H = W.
    """

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    scenes = [shapes.random_scene(generator, split=split, two_shapes=two_shapes) for _ in range(count)]
    captions, marked = [], []
    faulty = torch.full((count,), -1)
    for i, scene in enumerate(scenes):
        template, order = draw(len(shapes.TEMPLATES)), list(range(len(scene)))
        if draw(2):
            order.reverse()
        said = list(scene)
        if float(torch.rand((), generator=generator)) < wrong:
            position = draw(len(scene))
            name = tuple(VALUES)[draw(len(VALUES))]
            others = [value for value in VALUES[name] if value != getattr(scene[position], name)]
            word = others[draw(len(others))]
            said[position] = replace(scene[position], **{name: f"{word}_0"})
            faulty[i] = position
        marked.append(shapes.caption(tuple(said[k] for k in order), template))
        captions.append(marked[-1].replace("_0", ""))
    pictures, regions = _drawn(scenes, faulty, generator, side_px=side_px)
    return Faults(scenes, captions, marked, pictures, regions)


def _drawn(
    scenes: Sequence[shapes.Scene], faulty: Tensor, generator: torch.Generator, *, side_px: int
) -> tuple[Tensor, Tensor]:
    """Pictures, and the silhouettes of their faulty shapes."""
    pictures, covers = shapes.render_covers(scenes, generator, side_px=side_px)
    rows = torch.arange(len(scenes))
    regions = covers[rows, faulty.clamp(min=0)] * (faulty >= 0)[:, None, None]
    return pictures, regions
