"""How far a sample is from all that a trained reward has seen, and the doubt that goes with it."""

import math

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError

MOST = 20_000
"""Training vectors that are kept of media, and of prompts; of more a random part."""


def unfamiliar_share(
    media_distance: Tensor, prompt_distance: Tensor, *, media_length: float, prompt_length: float
) -> Tensor:
    """Which share of its prior variance a reward keeps after the nearest thing that it was trained on.

        1 - k(d_media, media_length)^2 * k(d_prompt, prompt_length)^2,   k(d, l) = exp(-d^2 / (2 l^2))

    With one observation at a kernel distance k, a Gaussian process of unit variance keeps 1 - k^2; this is the nearest
    medium's and the nearest prompt's, as if each had been seen with the other.

    Args:
        media_distance: [B], to the nearest vector of training.
        prompt_distance: [B].
        media_length: above 0, where k^2 has fallen to 1 / e.
        prompt_length: as it, for prompts.

    Returns:
        [B], in [0, 1); 0 for what was seen.

    Raises:
        ShapeError: not twice [B].
        ConfigError: a length is not positive.

    Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, section 2.2, of one observation
    without noise. That a distance has to tell what is new is the argument of Liu et al. 2020, SNGP (arXiv:2006.10108);
    the nearest neighbour as the measure is of Sun et al. 2022 (arXiv:2204.06507).

    >>> unfamiliar_share(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]), media_length=1.0, prompt_length=1.0)
    tensor([0.0000, 0.6321])
    """
    if media_distance.ndim != 1 or media_distance.shape != prompt_distance.shape:
        raise ShapeError(
            f"expected two distances [B], got {list(media_distance.shape)} and {list(prompt_distance.shape)}"
        )
    if not (media_length > 0 and prompt_length > 0):
        raise ConfigError(f"lengths = {media_length} and {prompt_length}, but both are above 0")
    return -torch.expm1(-((media_distance / media_length) ** 2) - (prompt_distance / prompt_length) ** 2)


class Familiarity(nn.Module):
    """The vectors that a reward was trained on, and the variance of a reward of others.

        variance = prior_std^2 * unfamiliar_share(nearest of media, nearest of prompts)

    Args:
        media: how many vectors of media are kept.
        prompts: how many of prompts.
        width: D.
    """

    media: Tensor
    prompts: Tensor
    lengths: Tensor
    prior_std: Tensor

    def __init__(self, *, media: int, prompts: int, width: int) -> None:
        super().__init__()
        # 16 bits: a fifth of a thousandth of a vector of length 1, and half the file.
        self.register_buffer("media", torch.zeros(media, width, dtype=torch.float16))
        self.register_buffer("prompts", torch.zeros(prompts, width, dtype=torch.float16))
        self.register_buffer("lengths", torch.ones(2))
        self.register_buffer("prior_std", torch.ones(()))

    @classmethod
    def fit(
        cls,
        seen: tuple[Tensor, Tensor],
        other: tuple[Tensor, Tensor],
        *,
        prior_std: float,
        generator: torch.Generator,
        most: int = MOST,
    ) -> "Familiarity":
        """Keep what was trained on, with lengths from samples of other prompts.

        A length is such that half of the variance is left at the distance that nine in ten of the other samples do
        not exceed: these are as new as held-out prompts are, and most of them should not be doubted.

        Args:
            seen: vectors of training media [N, D] and prompts [P, D].
            other: of media and prompts beside them, at least one each.
            prior_std: of the reward over its training samples, in its unit: what is known of one that is like none.
            generator: which vectors are kept where there are more than ``most``.
            most: of media, and of prompts.
        """
        kept = [v[torch.randperm(len(v), generator=generator)[:most]] if len(v) > most else v for v in seen]
        found = cls(media=len(kept[0]), prompts=len(kept[1]), width=kept[0].shape[1])
        found.media.copy_(kept[0])
        found.prompts.copy_(kept[1])
        found.prior_std.fill_(prior_std)
        for place, (new, known) in enumerate(zip(other, (found.media, found.prompts), strict=True)):
            far = float(_nearest(new, known).quantile(0.9)) / math.sqrt(math.log(2))
            # Vectors that are all alike have no distances; any that differs at all is then new.
            found.lengths[place] = max(far, 1e-3)
        return found

    def variance(self, media: Tensor, prompts: Tensor) -> Tensor:
        """[B], squared unit of the reward.

        Args:
            media: [B, D], whose gradient goes through the nearest one.
            prompts: [B, D].
        """
        share = unfamiliar_share(
            _nearest(media, self.media),
            _nearest(prompts, self.prompts),
            media_length=float(self.lengths[0]),
            prompt_length=float(self.lengths[1]),
        )
        return self.prior_std**2 * share


def _nearest(vectors: Tensor, known: Tensor) -> Tensor:
    """[B], the distance to the nearest; that of a difference, so that no gradient is taken of a root at 0."""
    known = known.to(vectors)
    with torch.no_grad():
        place = torch.cat([torch.cdist(part, known).argmin(1) for part in vectors.split(1024)])
    squared = (vectors - known[place]).square().sum(1)
    return squared.clamp(min=1e-20).sqrt()
