"""For the suite over every card: what judges are shown, and which of two they have to prefer."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from mmalign.media import Image, Sample
from mmalign.worlds import shapes

Pair = tuple[Sample, Sample]
SHOWN = shapes.Shape("star", "red", "large", "on the left")
WRONG = {"colour": "blue", "kind": "circle", "place": "on the right", "size": "small"}


@cache
def judged() -> tuple[Sample, ...]:
    """Pictures of one shape under captions that are wrong in none to all of its attributes, and two of others.

    Each has the next one's picture as its reference.
    """
    named = [SHOWN]
    for name, value in WRONG.items():
        named.append(replace(named[-1], **{name: value}))
    seen = [SHOWN, named[4], SHOWN, SHOWN, SHOWN, named[2]]
    asked = [named[0], named[4], named[2], named[3], named[4], named[0]]
    pictures = shapes.render([(shape,) for shape in seen], torch.Generator().manual_seed(0))
    return tuple(
        Sample(
            shapes.caption((asked[i],)),
            Image(pictures[i].clone()),
            {"reference": Image(pictures[(i + 1) % len(seen)].clone())},
        )
        for i in range(len(seen))
    )


def right_and_wrong_caption() -> Pair:
    """A picture under its own caption and under one of which nothing is true, beside the picture of another shape."""
    right, wrong = judged()[0], judged()[4]
    reference = {"reference": judged()[0].context["reference"]}
    return replace(right, context=reference), replace(wrong, context=reference)


EMBEDDED = tuple(
    f"embedded/shapes-vlm-{kind}"
    for kind in ("critique", "digits", "pair", "principles", "vqascore", "yes-no")
)
JUDGE_SAMPLES: dict[str, Callable[[], tuple[Sample, ...]]] = dict.fromkeys(
    [*EMBEDDED, "vqascore-qwen2.5-vl-7b"], judged
)
JUDGE_BETTER: dict[str, Callable[[], Pair]] = dict.fromkeys(
    [*EMBEDDED, "vqascore-qwen2.5-vl-7b"], right_and_wrong_caption
)
