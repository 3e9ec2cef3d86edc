"""The control reward: a number drawn from a sample's content, which no training can improve on unseen samples."""

from collections.abc import Sequence
from statistics import NormalDist

import torch

from mmalign.media import Sample, content_hash
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard


def hash_number(sample: Sample) -> float:
    """A standard normal number that the content decides, equal in every process.

        Phi^-1((h + 1/2) / 2^53),   h the first 53 bits of content_hash(sample)

    >>> from mmalign.media import Image
    >>> round(hash_number(Sample("a red circle", Image(torch.zeros(3, 2, 2)))), 6)
    0.5342
    """
    first = int(content_hash(sample)[:16], 16) >> 11
    return NormalDist().inv_cdf((first + 0.5) / 2**53)


class Placebo:
    """Scores a sample of any medium by a hash of its content, so what is saved without loss keeps its score.

    Range: all numbers, mean 0, standard deviation 1; higher means nothing.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """One number per sample; a sample without its medium has none."""
        status = [obstacle(sample, self.card) for sample in samples]
        numbers = [hash_number(sample) for sample, entry in zip(samples, status, strict=True) if entry == OK]
        return scatter(status, torch.tensor(numbers))
