"""The shapes world: captions of plain shapes, their pictures, and how much of a caption a picture satisfies.

A scene is one shape (kind, colour, size, place) on a light background, or two shapes on opposite sides. The truth is
measured from pixels alone, so it can judge any picture, and it is exact where a learned reward can be fooled.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmalign.worlds import silhouettes
from mmalign.worlds.silhouettes import ramp

KINDS = ("circle", "square", "triangle", "star")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.16),
    "green": (0.13, 0.62, 0.24),
    "blue": (0.15, 0.30, 0.85),
    "yellow": (0.96, 0.82, 0.12),
    "purple": (0.56, 0.18, 0.74),
    "orange": (0.96, 0.50, 0.10),
}
SIZES = {"small": 0.25, "large": 0.38}
"""Radius of the circle of the same area, as a share of half the picture's side."""
PLACES: dict[str, tuple[float, float]] = {
    "in the center": (0.0, 0.0),
    "on the left": (-0.42, 0.0),
    "on the right": (0.42, 0.0),
    "at the top": (0.0, -0.42),
    "at the bottom": (0.0, 0.42),
    "in the top left corner": (-0.42, -0.42),
    "in the top right corner": (0.42, -0.42),
    "in the bottom left corner": (-0.42, 0.42),
    "in the bottom right corner": (0.42, 0.42),
}
"""Centroid of the shape, x to the right and y down, in units of half the picture's side."""
ATTRIBUTES = ("kind", "colour", "size", "place")
OPPOSITES = (("on the left", "on the right"), ("at the top", "at the bottom"))

TEMPLATES = (
    "a {size} {colour} {kind} {place}",
    "a picture of a {size} {colour} {kind} {place}",
    "{place}, a {size} {kind} that is {colour}",
    "one {colour} {kind}, {size}, {place}",
    "a {kind} {place}, {size} and {colour}",
)
TWO_SHAPES_TEMPLATE = "{first} and {second}"

# Corners of the outline: (corners, inner radius over outer radius, angle of the first corner). A regular polygon is a
# star whose inner radius is its apothem, so one formula draws all of them.
_OUTLINES = {
    "square": (4, math.cos(math.pi / 4), math.pi / 4),
    "triangle": (3, math.cos(math.pi / 3), -math.pi / 2),
    "star": (5, 0.5, -math.pi / 2),
}

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One described shape; every field is a key of the table of its name."""

    kind: str
    colour: str
    size: str
    place: str

    @property
    def split(self) -> Split:
        """The fixed side of this combination: one in four is held out, each value on both sides.

        >>> [Shape("circle", c, "small", "on the left").split for c in COLOURS].count("heldout")
        2
        """
        # A checksum of the four indices: changing any one attribute by one step moves it to the other side, so
        # every value, and nearly every pair of values, is seen in training.
        checksum = (
            KINDS.index(self.kind)
            + list(COLOURS).index(self.colour)
            + 2 * list(SIZES).index(self.size)
            + 3 * list(PLACES).index(self.place)
        )
        return "heldout" if checksum % 4 == 0 else "train"


Scene = tuple[Shape, ...]
"""One shape, or two on opposite sides."""


def all_shapes(split: Split | None = None) -> list[Shape]:
    """Every combination of attributes, of one split or of both, in a fixed order.

    >>> len(all_shapes()), len(all_shapes("heldout"))
    (432, 108)
    """
    shapes = [Shape(*values) for values in itertools.product(KINDS, COLOURS, SIZES, PLACES)]
    return [shape for shape in shapes if split in (None, shape.split)]


def caption(scene: Scene, template: int = 0) -> str:
    """Describe a scene in words; ``template`` picks the paraphrase of each shape.

    >>> caption((Shape("star", "red", "large", "on the left"),), 2)
    'on the left, a large star that is red'
    """
    texts = [
        TEMPLATES[template].format(kind=s.kind, colour=s.colour, size=s.size, place=s.place) for s in scene
    ]
    return texts[0] if len(texts) == 1 else TWO_SHAPES_TEMPLATE.format(first=texts[0], second=texts[1])


def captions(split: Split) -> list[str]:
    """Every paraphrase of every single-shape combination of a split: 540 held-out and 1,620 training captions."""
    return [caption((shape,), t) for shape in all_shapes(split) for t in range(len(TEMPLATES))]


def random_scene(
    generator: torch.Generator, *, split: Split | None = "train", two_shapes: float = 0.0
) -> Scene:
    """Draw one shape of a split or, with probability ``two_shapes``, two of them on opposite sides."""

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    if float(torch.rand((), generator=generator)) >= two_shapes:
        shapes = all_shapes(split)
        return (shapes[draw(len(shapes))],)
    places = OPPOSITES[draw(2)]
    choices = [[s for s in all_shapes(split) if s.place == place] for place in places]
    first, second = (options[draw(len(options))] for options in choices)
    return (first, second)


def parse(text: str) -> Scene | None:
    """Read a scene back from a caption of this world; None where an attribute is missing or named twice.

    >>> parse("a small red circle on the left and a large blue star on the right")[1].kind
    'star'
    >>> parse("a horse") is None
    True
    """
    # A paraphrase may hold an "and" of its own, so each is tried as the one between two shapes.
    for word in re.finditer(r"\band\b", text.lower()):
        first, second = _parse_shape(text[: word.start()]), _parse_shape(text[word.end() :])
        if first is not None and second is not None:
            return (first, second)
    only = _parse_shape(text)
    return None if only is None else (only,)


def _parse_shape(text: str) -> Shape | None:
    """The shape whose attributes are each named once, or None."""
    values = []
    for words in (KINDS, COLOURS, SIZES, PLACES):
        found = [word for word in words if re.search(rf"\b{word}\b", text.lower())]
        if len(found) != 1:
            return None
        values += found
    return Shape(*values)


# --- pictures ---------------------------------------------------------------------------------------------------------


def outlines(kinds: Sequence[str], centres: Tensor, radii: Tensor, *, side_px: int) -> Tensor:
    """Draw anti-aliased silhouettes, the coverage of each pixel from 3 x 3 points inside it.

    Args:
        kinds: B names.
        centres: [B, 2], (x, y) in units of half the side, 0 is the middle.
        radii: [B], radius of the circle of equal area, same unit.
        side_px: H = W of the result.

    Returns:
        [B, H, W] in [0, 1].
    """
    fine = 3 * side_px
    axis = (torch.arange(fine, dtype=torch.float32) + 0.5) * (2 / fine) - 1
    x = axis[None, None, :] - centres[:, 0, None, None]
    y = axis[None, :, None] - centres[:, 1, None, None]
    distance, angle = torch.hypot(x, y), torch.atan2(y, x)
    corners, inner, first, is_circle, outer = (
        torch.tensor(values)[:, None, None] for values in zip(*map(_outline, kinds), strict=True)
    )
    half = math.pi / corners
    folded = torch.remainder(angle - first, 2 * half)
    folded = torch.minimum(folded, 2 * half - folded)
    # The straight edge from (1, angle 0) to (inner, angle half), in polar form.
    edge = torch.sin(half) / (torch.sin(half - folded) + torch.sin(folded) / inner)
    boundary = torch.where(is_circle, torch.ones_like(edge), edge) * outer * radii[:, None, None]
    inside = (distance <= boundary).float()
    return torch.nn.functional.avg_pool2d(inside[:, None], 3)[:, 0]


def _outline(kind: str) -> tuple[float, float, float, bool, float]:
    """Corners, inner radius, first angle, whether it is a circle, and the outer radius that gives area pi."""
    if kind == "circle":
        return 4.0, 0.5, 0.0, True, 1.0
    corners, inner, first = _OUTLINES[kind]
    area = corners * inner * math.sin(math.pi / corners)
    return float(corners), inner, first, False, math.sqrt(math.pi / area)


def render(scenes: Sequence[Scene], generator: torch.Generator, *, side_px: int = 64) -> Tensor:
    """Draw scenes with small random variation of place, size, colour and background.

    Returns:
        [B, 3, H, W] in [0, 1].
    """
    return render_covers(scenes, generator, side_px=side_px)[0]


def render_covers(
    scenes: Sequence[Scene], generator: torch.Generator, *, side_px: int = 64
) -> tuple[Tensor, Tensor]:
    """As ``render``, with where each shape is.

    Returns:
        Pictures [B, 3, H, W] and coverages [B, S, H, W] in [0, 1], S the most shapes of a scene; 0 for a shape that is
        not there.
    """
    count = len(scenes)

    def uniform(*shape: int, spread: float) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1) * spread

    pictures = (0.93 + uniform(count, 1, 1, 1, spread=0.07)).expand(count, 3, side_px, side_px)
    covers = []
    for position in range(max(map(len, scenes))):
        rows = [i for i, scene in enumerate(scenes) if len(scene) > position]
        shapes = [scenes[i][position] for i in rows]
        # Two shapes stand a little further apart, so that each stays on its own side.
        spread = torch.tensor([1.0 if len(scenes[i]) == 1 else 1.2 for i in rows])[:, None]
        centres = torch.tensor([PLACES[s.place] for s in shapes]) * spread + uniform(
            len(rows), 2, spread=0.05
        )
        radii = torch.tensor([SIZES[s.size] for s in shapes]) * (1 + uniform(len(rows), spread=0.06))
        colours = torch.tensor([COLOURS[s.colour] for s in shapes]) + uniform(len(rows), 3, spread=0.03)
        cover = torch.zeros(count, 1, side_px, side_px)
        cover[rows, 0] = outlines([s.kind for s in shapes], centres, radii, side_px=side_px)
        paint = torch.zeros(count, 3, 1, 1)
        paint[rows, :, 0, 0] = colours.clamp(0, 1)
        pictures = pictures * (1 - cover) + paint * cover
        covers.append(cover)
    return pictures, torch.cat(covers, 1)


# --- the true reward --------------------------------------------------------------------------------------------------


def measure(pictures: Tensor, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """How much of each described scene its picture shows, from pixels.

        overall = presence * (kind + colour + size + place) / 4,   the mean of both shapes where there are two

    ``presence`` asks for one clean silhouette: the best intersection over union with any kind of shape at the measured
    centroid and area. ``kind`` compares those intersections. ``colour`` is the share of the silhouette painted in the
    named colour. ``size`` and ``place`` are full inside the world's own variation and zero before the next value.

    Args:
        pictures: [B, 3, H, H] in [0, 1].
        scenes: B scenes.

    Returns:
        ``overall``, ``presence`` and the four attributes, each [B] in [0, 1], higher is better.
    """
    doubled = torch.tensor([len(scene) == 2 for scene in scenes])
    first = _measure_shapes(pictures, [scene[0] for scene in scenes], doubled)
    if not bool(doubled.any()):
        return first
    both = [scene[1] for scene in scenes if len(scene) == 2]
    second = _measure_shapes(pictures[doubled], both, doubled[doubled])
    for name, values in first.items():
        values[doubled] = (values[doubled] + second[name]) / 2
    return first


def _measure_shapes(pictures: Tensor, shapes: Sequence[Shape], half_only: Tensor) -> dict[str, Tensor]:
    pictures = pictures.float()
    side = pictures.shape[-1]
    axis = silhouettes.pixel_axis(side)
    targets = torch.tensor([PLACES[s.place] for s in shapes])
    # One of two shapes is judged on its own half of the picture.
    along = targets[:, 0, None, None] * axis[None, None, :] + targets[:, 1, None, None] * axis[None, :, None]
    found = silhouettes.find(pictures, ignored=half_only[:, None, None] & (along < 0))
    mask, centres, radii = found.mask, found.centres, found.radii

    overlaps = torch.stack([_overlap(mask, kind, centres, radii) for kind in KINDS], -1)
    presence = ramp(overlaps.max(-1).values, full=0.80, zero=0.50) * ramp(found.paint, full=0.30, zero=0.10)
    kind_index = torch.tensor([KINDS.index(s.kind) for s in shapes])
    # 0.03: the silhouettes closest to each other (circle and square) differ by 0.15 in overlap.
    kind = (overlaps / 0.03).softmax(-1).gather(1, kind_index[:, None])[:, 0]
    colours = torch.tensor([COLOURS[s.colour] for s in shapes])[:, :, None, None]
    painted = ramp((pictures - colours).square().sum(1).sqrt(), full=0.15, zero=0.27)
    inside = (mask >= 1).float() + 1e-6
    colour = (painted * inside).sum((1, 2)) / inside.sum((1, 2))
    wanted = torch.tensor([SIZES[s.size] for s in shapes])
    size = ramp((radii / wanted).log2().abs(), full=0.15, zero=0.45)
    place = ramp((centres - targets).abs().max(-1).values, full=0.16, zero=0.30)
    overall = presence * (kind + colour + size + place) / 4
    return {
        "overall": overall,
        "presence": presence,
        "kind": kind,
        "colour": colour,
        "size": size,
        "place": place,
    }


def _overlap(mask: Tensor, kind: str, centres: Tensor, radii: Tensor) -> Tensor:
    """Intersection over union of measured masks with a kind's silhouette of the same centroid and area."""
    drawn = outlines([kind] * len(mask), centres, radii, side_px=mask.shape[-1])
    return silhouettes.overlap(mask, drawn)


def noisy_captions(scenes: Sequence[Scene], generator: torch.Generator, *, noise: float) -> Iterator[str]:
    """Captions in which each attribute, with probability ``noise``, is drawn anew at random.

    This is how the embedded generators are left imperfect: a random, unbiased fault that no constant shift undoes.
    Places of two-shape scenes are kept, since opposite sides are what makes the scene.
    """

    def draw(values: Sequence[str], kept: str) -> str:
        if float(torch.rand((), generator=generator)) >= noise:
            return kept
        return values[int(torch.randint(len(values), (), generator=generator))]

    for scene in scenes:
        places = list(PLACES) if len(scene) == 1 else None
        said = tuple(
            Shape(
                draw(KINDS, s.kind),
                draw(list(COLOURS), s.colour),
                draw(list(SIZES), s.size),
                draw(places, s.place) if places else s.place,
            )
            for s in scene
        )
        yield caption(said, int(torch.randint(len(TEMPLATES), (), generator=generator)))
