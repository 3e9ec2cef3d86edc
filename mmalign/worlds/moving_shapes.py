"""The moving shapes world: captions of one plain shape that moves, their videos, and how much of a caption one shows.

Each frame is a picture of the shapes world; the shape has a kind and a colour, and moves at one of two speeds in one of
four directions. The truth is measured from pixels: what each frame shows, and where its centroid goes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mmalign.media import Video
from mmalign.worlds import shapes, silhouettes
from mmalign.worlds.shapes import COLOURS, KINDS, Split
from mmalign.worlds.silhouettes import ramp
from mmalign.worlds.words import draw, named_once, redraw

DIRECTIONS: dict[str, tuple[float, float]] = {
    "to the left": (-1.0, 0.0),
    "to the right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
"""x to the right and y down."""
SPEEDS = {"slowly": 0.3, "quickly": 0.6}
"""Way of the centroid from the first to the last frame, in units of half the side; the frame rate changes nothing."""
ATTRIBUTES = ("kind", "colour", "direction", "speed")
FRAMES, FPS = 9, 8.0
RADIUS = 0.38
"""Radius of the circle of the same area, in units of half the side: large enough to tell kinds apart at 32 pixels."""

TEMPLATES = (
    "a {colour} {kind} moving {direction} {speed}",
    "a video of a {colour} {kind} that moves {speed} {direction}",
    "{speed}, a {colour} {kind} moves {direction}",
    "a {kind} that is {colour} goes {direction} {speed}",
    "one {colour} {kind}, {speed} moving {direction}",
)

STENCIL_PX, STENCIL_RADIUS = 56, 0.5


@dataclass(frozen=True, slots=True)
class MovingShape:
    """One described shape and its motion; every field is a key of the table of its name."""

    kind: str
    colour: str
    direction: str
    speed: str

    @property
    def split(self) -> Split:
        """The fixed side of this combination: one in four is held out, each value on both sides.

        >>> [MovingShape("star", "red", d, "slowly").split for d in DIRECTIONS].count("heldout")
        1
        """
        # As in the shapes world: changing any one attribute by one step moves a held-out combination to the other side.
        checksum = (
            KINDS.index(self.kind)
            + list(COLOURS).index(self.colour)
            + list(DIRECTIONS).index(self.direction)
            + 2 * list(SPEEDS).index(self.speed)
        )
        return "heldout" if checksum % 4 == 0 else "train"


def all_scenes(split: Split | None = None) -> list[MovingShape]:
    """Every combination of attributes, of one split or of both, in a fixed order.

    >>> len(all_scenes()), len(all_scenes("heldout"))
    (192, 48)
    """
    scenes = [MovingShape(*values) for values in itertools.product(KINDS, COLOURS, DIRECTIONS, SPEEDS)]
    return [scene for scene in scenes if split in (None, scene.split)]


def caption(scene: MovingShape, template: int = 0) -> str:
    """Describe a scene in words; ``template`` picks the paraphrase.

    >>> caption(MovingShape("star", "red", "up", "slowly"), 1)
    'a video of a red star that moves slowly up'
    """
    return TEMPLATES[template].format(
        kind=scene.kind, colour=scene.colour, direction=scene.direction, speed=scene.speed
    )


def captions(split: Split) -> list[str]:
    """Every paraphrase of every combination of a split: 240 held-out and 720 training captions."""
    return [caption(scene, t) for scene in all_scenes(split) for t in range(len(TEMPLATES))]


def random_scene(generator: torch.Generator, *, split: Split | None = "train") -> MovingShape:
    """Draw one combination of a split."""
    scenes = all_scenes(split)
    return scenes[draw(len(scenes), generator)]


def parse(text: str) -> MovingShape | None:
    """Read a scene back from a caption of this world; None where an attribute is missing or named twice.

    >>> parse("slowly, a red star moves up")
    MovingShape(kind='star', colour='red', direction='up', speed='slowly')
    >>> parse("a red star") is None
    True
    """
    kind, colour = named_once(text, KINDS), named_once(text, COLOURS)
    direction, speed = named_once(text, DIRECTIONS), named_once(text, SPEEDS)
    if kind is None or colour is None or direction is None or speed is None:
        return None
    return MovingShape(kind, colour, direction, speed)


def noisy_captions(
    scenes: Sequence[MovingShape], generator: torch.Generator, *, noise: float
) -> Iterator[str]:
    """Captions in which each attribute, with probability ``noise``, is drawn anew at random."""
    for scene in scenes:
        said = MovingShape(
            redraw(KINDS, scene.kind, generator, noise=noise),
            redraw(list(COLOURS), scene.colour, generator, noise=noise),
            redraw(list(DIRECTIONS), scene.direction, generator, noise=noise),
            redraw(list(SPEEDS), scene.speed, generator, noise=noise),
        )
        yield caption(said, draw(len(TEMPLATES), generator))


# --- videos -----------------------------------------------------------------------------------------------------------


@cache
def _stencils() -> Tensor:
    """[K, h, h], the outline of each kind."""
    count = len(KINDS)
    return shapes.outlines(
        KINDS, torch.zeros(count, 2), torch.full((count,), STENCIL_RADIUS), side_px=STENCIL_PX
    )


def render(
    scenes: Sequence[MovingShape], generator: torch.Generator, *, frames: int = FRAMES, side_px: int = 64
) -> Tensor:
    """Draw scenes with small random variation of path, speed, size, colour and background.

    Returns:
        [B, T, 3, H, W] in [0, 1].
    """
    count = len(scenes)

    def uniform(*shape: int, spread: float) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1) * spread

    along = torch.tensor([DIRECTIONS[s.direction] for s in scenes])
    way = torch.tensor([SPEEDS[s.speed] for s in scenes]) * (1 + uniform(count, spread=0.08))
    # The middle of the path: anywhere across it, and along it as far as both ends leave the shape inside the picture.
    across = uniform(count, spread=0.3)[:, None] * along.flip(-1).abs()
    middle = across + uniform(count, spread=1.0)[:, None] * (0.33 - way / 2).clamp_min(0)[:, None] * along
    centres = middle[:, None] + torch.linspace(-0.5, 0.5, frames)[:, None] * (way[:, None] * along)[:, None]
    radii = RADIUS * (1 + uniform(count, spread=0.06))
    colours = torch.tensor([COLOURS[s.colour] for s in scenes]) + uniform(count, 3, spread=0.03)
    background = 0.93 + uniform(count, 1, 1, 1, 1, spread=0.07)
    kinds = torch.tensor([KINDS.index(s.kind) for s in scenes])
    cover = silhouettes.put(
        _stencils()[kinds].repeat_interleave(frames, 0)[:, None],
        centres.flatten(0, 1),
        radii.repeat_interleave(frames) / STENCIL_RADIUS,
        side_px=side_px,
    ).unflatten(0, (count, frames))
    return background * (1 - cover) + colours.clamp(0, 1)[:, None, :, None, None] * cover


def videos(scenes: Sequence[MovingShape], generator: torch.Generator, *, side_px: int = 64) -> list[Video]:
    """The same as media, at the world's own length and rate."""
    return [Video(frames, FPS) for frames in render(scenes, generator, side_px=side_px)]


# --- the true reward --------------------------------------------------------------------------------------------------


def measure(frames: Tensor, scenes: Sequence[MovingShape]) -> dict[str, Tensor]:
    """How much of each described scene its video shows, from pixels.

        overall = presence * steadiness * (kind + colour + direction + speed) / 4

    ``presence``, ``kind`` and ``colour`` are means over frames of what the shapes world asks of a picture. A straight
    line through the centroids, fitted over time, gives the way from the first to the last frame: ``direction`` asks for
    its angle (and that there is a way at all), ``speed`` for its length. ``steadiness`` is 1 where the centroids keep
    to that line and the area stays the same.

    Args:
        frames: [B, T, 3, H, H] in [0, 1]; one frame does not move.
        scenes: B scenes.

    Returns:
        ``overall``, ``presence``, ``steadiness`` and the four attributes, each [B] in [0, 1], higher is better.
    """
    count, length = frames.shape[:2]
    # A few videos at a time: the silhouettes of all kinds in all frames would fill memory.
    parts = [_measure_frames(part.flatten(0, 1).float()) for part in frames.split(max(1, 256 // length))]
    paint, radii, centres, overlaps, colours = (
        torch.cat(values).unflatten(0, (count, length)) for values in zip(*parts, strict=True)
    )
    presence = ramp(overlaps.max(-1).values, full=0.80, zero=0.50) * ramp(paint, full=0.30, zero=0.10)
    kind = (overlaps / 0.03).softmax(-1)
    rows = torch.arange(count)

    time = torch.linspace(-0.5, 0.5, length) if length > 1 else torch.zeros(1)
    way = torch.einsum("t,btc->bc", time, centres) / time.square().sum().clamp_min(1e-6)
    line = centres.mean(1, keepdim=True) + time[:, None] * way[:, None]
    astray = (centres - line).norm(dim=-1).amax(-1)
    swelling = (radii.log2() - radii.log2().mean(-1, keepdim=True)).abs().amax(-1)
    distance = way.norm(dim=-1)
    named = torch.tensor([DIRECTIONS[s.direction] for s in scenes])
    cosine = (way * named).sum(-1) / distance.clamp_min(1e-6)
    wanted = torch.tensor([SPEEDS[s.speed] for s in scenes])
    measured = {
        "presence": presence.mean(-1),
        "steadiness": ramp(astray, full=0.05, zero=0.20) * ramp(swelling, full=0.15, zero=0.45),
        "kind": kind.mean(1)[rows, [KINDS.index(s.kind) for s in scenes]],
        "colour": colours.mean(1)[rows, [list(COLOURS).index(s.colour) for s in scenes]],
        "direction": ramp(cosine, full=0.95, zero=0.60) * ramp(distance, full=0.20, zero=0.05),
        "speed": ramp((distance.clamp_min(1e-6) / wanted).log2().abs(), full=0.25, zero=0.75),
    }
    mean = torch.stack([measured[name] for name in ATTRIBUTES]).mean(0)
    return {"overall": measured["presence"] * measured["steadiness"] * mean, **measured}


def _measure_frames(pictures: Tensor) -> tuple[Tensor, ...]:
    """Paint [N], radii [N], centres [N, 2], overlap with each kind [N, K] and share of each colour [N, 6]."""
    found = silhouettes.find(pictures)
    drawn = silhouettes.put(
        _stencils().expand(len(pictures), -1, -1, -1),
        found.centres,
        found.radii / STENCIL_RADIUS,
        side_px=pictures.shape[-1],
    )
    inside = (found.mask >= 1).float() + 1e-6
    shares = [
        (ramp((pictures - colour).square().sum(1).sqrt(), full=0.15, zero=0.27) * inside).sum((1, 2))
        for colour in torch.tensor(list(COLOURS.values()))[:, :, None, None]
    ]
    colours = torch.stack(shares, -1) / inside.sum((1, 2))[:, None]
    return found.paint, found.radii, found.centres, silhouettes.overlap(found.mask[:, None], drawn), colours
