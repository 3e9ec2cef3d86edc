"""The control reward: a number drawn from a sample's content, which no training can improve on unseen samples."""

import hashlib
from collections.abc import Sequence
from statistics import NormalDist

import torch

from mmalign.media import Media, Sample
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard


def hash_number(prompt: str, media: Media) -> float:
    """A standard normal number that the content decides, equal in every process.

        Phi^-1((h + 1/2) / 2^53),   h the first 53 bits of SHA-256(prompt, shape, pixels in 8 bits)

    >>> from mmalign.media import Image
    >>> round(hash_number("a red circle", Image(torch.zeros(3, 2, 2))), 6)
    1.559067
    """
    pixels = (media.pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    digest = hashlib.sha256(f"{prompt}\0{tuple(pixels.shape)}\0".encode())
    digest.update(pixels.numpy().tobytes())
    first = int.from_bytes(digest.digest()[:8], "big") >> 11
    return NormalDist().inv_cdf((first + 0.5) / 2**53)


class Placebo:
    """Scores a sample by a hash of its prompt and its picture in 8 bits, so a saved picture keeps its score.

    Range: all numbers, mean 0, standard deviation 1; higher means nothing.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """One number per sample; a sample without its medium has none."""
        status = [obstacle(sample, self.card) for sample in samples]
        numbers = [
            hash_number(sample.prompt, sample.media)
            for sample, entry in zip(samples, status, strict=True)
            if entry == OK and sample.media is not None
        ]
        return scatter(status, torch.tensor(numbers))
