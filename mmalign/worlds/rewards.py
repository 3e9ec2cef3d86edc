"""The true rewards of the worlds, as rewards that any recipe can name: computed from the medium, never learned."""

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from mmalign.media import Image, Sample
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.worlds import shapes

SIDE_PX = 64
"""Pictures are judged at this size, the world's own."""
ASPECTS = ("presence", *shapes.ATTRIBUTES)


class ShapesTruth:
    """How much of a caption of the shapes world a picture shows, measured from pixels.

    Value: ``overall`` of :func:`mmalign.worlds.shapes.measure`, in [0, 1], higher is better; aspects: ``presence`` and
    the four attributes, each in [0, 1]. A prompt that the world cannot read, or a picture that is not square, gets a
    status and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each picture against its own prompt."""
        status: list[str] = []
        pictures, scenes = [], []
        for sample in samples:
            entry = obstacle(sample, self.card)
            scene = shapes.parse(sample.prompt)
            if entry == OK and isinstance(sample.media, Image):
                height, width = sample.media.pixels.shape[-2:]
                if scene is None:
                    entry = "the prompt names no shape of this world"
                elif height != width:
                    entry = f"the picture is {width}x{height}, not square"
                else:
                    pictures.append(_resized(sample.media))
                    scenes.append(scene)
            status.append(entry)
        if not scenes:
            return scatter(status, torch.zeros(0), dict.fromkeys(ASPECTS, torch.zeros(0)))
        measured = shapes.measure(torch.stack(pictures), scenes)
        return scatter(status, measured.pop("overall"), measured)


def _resized(picture: Image) -> torch.Tensor:
    """[3, 64, 64], on the CPU."""
    pixels = picture.pixels.detach().float().cpu()
    if pixels.shape[-1] == SIDE_PX:
        return pixels
    return interpolate(pixels[None], size=(SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)[0].clamp(0, 1)
