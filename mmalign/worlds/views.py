"""The views world: captions of one coloured solid, four views around it, and how much of a caption they show.

The four views are seen by orthographic cameras a quarter turn apart, a little above the solid; a generator of images
paints them as one 2 x 2 grid. The truth is measured from the views alone, in closed form: nothing is fitted.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mmalign.media import Camera, Scene3D
from mmalign.worlds import silhouettes
from mmalign.worlds.shapes import COLOURS, Split
from mmalign.worlds.silhouettes import ramp
from mmalign.worlds.solids import KINDS, trace
from mmalign.worlds.words import draw, named_once, redraw

SIZES = {"small": 0.36, "large": 0.58}
"""Radius of the sphere of the same volume, in units of half the side of a view."""
ATTRIBUTES = ("kind", "colour", "size")
CAMERAS = tuple(Camera(azimuth, 25.0, 2.0, 0.0) for azimuth in (0.0, 90.0, 180.0, 270.0))
"""In the grid: top left, top right, bottom left, bottom right."""
VIEW_PX = 32

TEMPLATES = (
    "a {size} {colour} {kind}",
    "four views of a {size} {colour} {kind}",
    "a {colour} {kind}, {size}, seen from four sides",
    "one {kind} that is {size} and {colour}",
    "a {size} {kind} painted {colour}",
)

STENCIL_PX, STENCIL_RADIUS = 48, 0.5
DEPTHS = 32
"""Points along a ray at which the hull of the silhouettes is looked up."""


@dataclass(frozen=True, slots=True)
class Solid:
    """One described solid; every field is a key of the table of its name."""

    kind: str
    colour: str
    size: str

    @property
    def split(self) -> Split:
        """The fixed side of this combination: about one in four is held out, each value on both sides.

        >>> [Solid("cube", colour, "small").split for colour in COLOURS].count("heldout")
        2
        """
        checksum = (
            KINDS.index(self.kind) + list(COLOURS).index(self.colour) + 2 * list(SIZES).index(self.size)
        )
        return "heldout" if checksum % 4 == 0 else "train"


def all_solids(split: Split | None = None) -> list[Solid]:
    """Every combination of attributes, of one split or of both, in a fixed order.

    >>> len(all_solids()), len(all_solids("heldout"))
    (60, 15)
    """
    solids = [Solid(*values) for values in itertools.product(KINDS, COLOURS, SIZES)]
    return [solid for solid in solids if split in (None, solid.split)]


def caption(solid: Solid, template: int = 0) -> str:
    """Describe a solid in words; ``template`` picks the paraphrase.

    >>> caption(Solid("cone", "red", "small"), 4)
    'a small cone painted red'
    """
    return TEMPLATES[template].format(kind=solid.kind, colour=solid.colour, size=solid.size)


def captions(split: Split) -> list[str]:
    """Every paraphrase of every combination of a split: 75 held-out and 225 training captions."""
    return [caption(solid, t) for solid in all_solids(split) for t in range(len(TEMPLATES))]


def random_solid(generator: torch.Generator, *, split: Split | None = "train") -> Solid:
    """Draw one combination of a split."""
    solids = all_solids(split)
    return solids[draw(len(solids), generator)]


def parse(text: str) -> Solid | None:
    """Read a solid back from a caption of this world; None where an attribute is missing or named twice.

    >>> parse("a small cone painted red")
    Solid(kind='cone', colour='red', size='small')
    >>> parse("a red cone") is None
    True
    """
    kind, colour, size = (named_once(text, words) for words in (KINDS, COLOURS, SIZES))
    return None if kind is None or colour is None or size is None else Solid(kind, colour, size)


def noisy_captions(solids: Sequence[Solid], generator: torch.Generator, *, noise: float) -> Iterator[str]:
    """Captions in which each attribute, with probability ``noise``, is drawn anew at random."""
    for solid in solids:
        said = Solid(
            redraw(KINDS, solid.kind, generator, noise=noise),
            redraw(list(COLOURS), solid.colour, generator, noise=noise),
            redraw(list(SIZES), solid.size, generator, noise=noise),
        )
        yield caption(said, draw(len(TEMPLATES), generator))


# --- views ------------------------------------------------------------------------------------------------------------


def render(solids: Sequence[Solid], generator: torch.Generator, *, view_px: int = VIEW_PX) -> Tensor:
    """Draw solids with small random variation of place, size, colour, light and background; edges are smoothed 2 x 2.

    Returns:
        [B, V, 3, H, W] in [0, 1], V = 4 views of ``CAMERAS``.
    """
    count = len(solids)

    def uniform(*shape: int, spread: float) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1) * spread

    kinds = torch.tensor([KINDS.index(s.kind) for s in solids])
    scales = torch.tensor([SIZES[s.size] for s in solids]) * (1 + uniform(count, spread=0.06))
    places = uniform(count, 3, spread=0.04)
    colours = torch.tensor([COLOURS[s.colour] for s in solids]) + uniform(count, 3, spread=0.03)
    background = 0.93 + uniform(count, 1, 1, 1, 1, spread=0.07)
    dim = 0.25 + uniform(count, 1, 1, 1, spread=0.08)
    inside, lit = trace(kinds, scales, places, CAMERAS, side_px=2 * view_px)
    paint = colours.clamp(0, 1)[:, None, :, None, None] * (1 - dim * (1 - lit))[:, :, None]
    views = torch.where(inside[:, :, None], paint, background)
    return torch.nn.functional.avg_pool2d(views.flatten(0, 1), 2).unflatten(0, (count, len(CAMERAS)))


def scenes(solids: Sequence[Solid], generator: torch.Generator, *, view_px: int = VIEW_PX) -> list[Scene3D]:
    """The same as media, with their cameras."""
    return [Scene3D(views, CAMERAS) for views in render(solids, generator, view_px=view_px)]


def to_grid(views: Tensor) -> Tensor:
    """Views [..., 4, 3, H, W] as one picture [..., 3, 2 H, 2 W], row by row."""
    top, bottom = (torch.cat([views[..., i, :, :, :], views[..., i + 1, :, :, :]], -1) for i in (0, 2))
    return torch.cat([top, bottom], -2)


def from_grid(grid: Tensor) -> Tensor:
    """One picture [..., 3, 2 H, 2 W] as views [..., 4, 3, H, W]; undoes :func:`to_grid`.

    >>> grid = torch.rand(3, 8, 8)
    >>> torch.equal(to_grid(from_grid(grid)), grid)
    True
    """
    cells = [cell for row in grid.chunk(2, -2) for cell in row.chunk(2, -1)]
    return torch.stack(cells, -4)


# --- the true reward --------------------------------------------------------------------------------------------------


@cache
def _stencils() -> tuple[Tensor, Tensor]:
    """[V, K, h, h], each kind's silhouette in each view around its centroid, and [V, K], its radius, at scale 1."""
    kinds = torch.arange(len(KINDS))
    scales, fine = torch.full((len(KINDS),), STENCIL_RADIUS), 2 * STENCIL_PX
    inside, _ = trace(kinds, scales, torch.zeros(len(KINDS), 3), CAMERAS, side_px=fine)
    drawn = torch.nn.functional.avg_pool2d(inside.float(), 2).transpose(0, 1)
    area = drawn.sum((-2, -1))
    axis = silhouettes.pixel_axis(STENCIL_PX)
    x, y = (drawn * axis).sum((-2, -1)) / area, (drawn * axis[:, None]).sum((-2, -1)) / area
    count = drawn.shape[0] * drawn.shape[1]
    # Put by their own centroid, so that a measured one finds them.
    shifted = silhouettes.put(
        drawn.reshape(count, 1, STENCIL_PX, STENCIL_PX),
        -torch.stack([x, y], -1).reshape(count, 2),
        torch.ones(count),
        side_px=STENCIL_PX,
    )
    radii = (area / math.pi).sqrt() * (2 / STENCIL_PX) / STENCIL_RADIUS
    return shifted.reshape(drawn.shape), radii


def measure(views: Tensor, solids: Sequence[Solid]) -> dict[str, Tensor]:
    """How much of each described solid its four views show, from pixels.

        overall = presence * (kind + colour + size + consistency + hull) / 5

    One scale for all views comes from the four areas together. ``presence`` and ``kind`` compare the silhouettes with
    those of each kind at that scale (and ask for a border that is clear), ``size`` the scale itself, ``colour`` the hue
    of what is painted, whatever its shade. ``consistency`` asks that the views agree on hue and height and that
    opposite views are mirrored about the axis. ``hull`` is the silhouettes' overlap with their own visual hull, the
    largest body that fits into all of them, seen again from each side: 1 where one body can have cast all four.

    Args:
        views: [B, 4, 3, H, H] in [0, 1], seen by ``CAMERAS``.
        solids: B of them.

    Returns:
        ``overall``, ``presence``, the three attributes, ``consistency`` and ``hull``, each [B] in [0, 1], higher is
        better.
    """
    count, turns = views.shape[:2]
    pictures = views.flatten(0, 1).float()
    found = silhouettes.find(pictures)
    stencils, radii = _stencils()

    def by_view(values: Tensor) -> Tensor:
        return values.unflatten(0, (count, turns))

    # The scale that each kind would have: the areas of all views together, so that a brick has broad and narrow sides.
    scales = (by_view(found.radii).square().sum(1)[:, None] / radii.square().sum(0)).sqrt()  # [B, K]
    overlaps = torch.stack(
        [
            silhouettes.overlap(
                found.mask[:, None],
                silhouettes.put(
                    stencils[:, k : k + 1].repeat(count, 1, 1, 1),
                    found.centres,
                    scales[:, k].repeat_interleave(turns) / STENCIL_RADIUS,
                    side_px=pictures.shape[-1],
                ),
            )[:, 0]
            for k in range(len(KINDS))
        ],
        -1,
    )
    overlaps = by_view(overlaps).mean(1)
    rows, named = torch.arange(count), [KINDS.index(s.kind) for s in solids]
    wanted = torch.tensor([SIZES[s.size] for s in solids])
    scale = scales[rows, overlaps.argmax(-1)]
    mask = found.mask
    edge = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], -1).mean(-1)
    clear = ramp(found.paint, full=0.30, zero=0.10) * ramp(edge, full=0.10, zero=0.30)
    presence = ramp(overlaps.amax(-1), full=0.85, zero=0.60) * by_view(clear).amin(1)

    colour, hue = _colours(pictures, mask, [s.colour for s in solids for _ in range(turns)])
    hues, centres = by_view(hue), by_view(found.centres)
    spread = (hues - hues.mean(1, keepdim=True)).norm(dim=-1).amax(-1)
    height = (centres[..., 1] - centres[..., 1].mean(1, keepdim=True)).abs().amax(-1)
    mirrored = (centres[:, :2, 0] + centres[:, 2:, 0]).abs().amax(-1)
    measured = {
        "presence": presence,
        "kind": (overlaps / 0.015).softmax(-1)[rows, named],
        "colour": by_view(colour).mean(1),
        "size": ramp((scale.clamp_min(1e-6) / wanted).log2().abs(), full=0.15, zero=0.50),
        "consistency": ramp(spread, full=0.06, zero=0.20)
        * ramp(height, full=0.06, zero=0.20)
        * ramp(mirrored, full=0.12, zero=0.40),
        "hull": ramp(_hull_overlap(by_view(mask)), full=0.93, zero=0.60),
    }
    mean = torch.stack([values for name, values in measured.items() if name != "presence"]).mean(0)
    return {"overall": presence * mean, **measured}


def _colours(pictures: Tensor, mask: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Share of each silhouette [N] that is the named colour in light or shade, and its mean hue [N, 3]."""
    colours = torch.tensor([COLOURS[name] for name in names])[:, :, None, None]
    shade = (pictures * colours).sum(1) / colours.square().sum(1)
    hue = torch.nn.functional.normalize(pictures, dim=1)
    away = (hue - torch.nn.functional.normalize(colours, dim=1)).square().sum(1).sqrt()
    painted = ramp(away, full=0.10, zero=0.18) * ramp((shade - 0.8).abs(), full=0.35, zero=0.55)
    inside = (mask >= 1).float() + 1e-6
    area = inside.sum((1, 2))
    return (painted * inside).sum((1, 2)) / area, (hue * inside[:, None]).sum((2, 3)) / area[:, None]


@cache
def _hull_lookup(side_px: int) -> Tensor:
    """[V, H W, D, V]: where in each view's pixels the points along each pixel's ray are seen."""
    axis = silhouettes.pixel_axis(side_px)
    depth = torch.linspace(-1, 1, DEPTHS)
    y, x, z = torch.meshgrid(axis, axis, depth, indexing="ij")
    seen = torch.stack([x, y, z], -1).flatten(0, 1)  # [H W, D, 3] in the axes of the ray's own camera
    turns = torch.stack([camera.world_to_camera()[:3, :3] for camera in CAMERAS])
    projected = torch.einsum("uij,vkj,pdk->vpdui", turns, turns, seen)
    column, row = ((projected[..., i] + 1).mul(side_px / 2).long().clamp(0, side_px - 1) for i in (0, 1))
    return row * side_px + column


def _hull_overlap(masks: Tensor) -> Tensor:
    """Mean over views of |silhouette and hull| / |silhouette| for masks [B, V, H, H]; the hull lies inside each."""
    side = masks.shape[-1]
    flat, lookup = masks.flatten(2), _hull_lookup(side)
    shares = []
    for view in range(len(CAMERAS)):
        # A view's own rays need no look-up: the hull is inside its silhouette by definition.
        others = [u for u in range(len(CAMERAS)) if u != view]
        filled = torch.stack([flat[:, u, lookup[view, :, :, u]] for u in others]).amin(0)  # [B, H W, D]
        seen = torch.minimum(filled.amax(-1), flat[:, view])
        shares.append(seen.sum(-1) / flat[:, view].sum(-1).clamp_min(1e-6))
    return torch.stack(shares, -1).mean(-1)
