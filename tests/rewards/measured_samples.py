"""Samples for the suite over every card: seven that each measured reward can score."""

from dataclasses import replace
from functools import cache

import torch

from mmalign.media import Image, Sample
from mmalign.rewards.cards import RewardCard


def measured_samples(card: RewardCard) -> tuple[Sample, ...] | None:
    """Seven samples for a card of ours; None where pictures of the shapes world with their captions do."""
    if card.modalities == ("image",) and "reference" in card.needs:
        return pictures_with_references()
    return None


@cache
def pictures_with_references() -> tuple[Sample, ...]:
    """Smooth noise that is nearer and nearer to its reference, at two sizes."""
    random = torch.Generator().manual_seed(0)
    samples = []
    for row, side in enumerate((176, 176, 184, 176, 184, 184, 176)):
        coarse = torch.rand(2, 3, 16, 16, generator=random)
        whole, other = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        share = 0.1 + 0.1 * row
        picture = Image(share * other + (1 - share) * whole)
        samples.append(Sample(f"picture {row}", picture, {"reference": Image(whole)}))
    return tuple(replace(sample, meta={"row": row}) for row, sample in enumerate(samples))
