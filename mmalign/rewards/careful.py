"""A reward that counts for less where it is unsure, by name: ``NAME@worst-case``, ``NAME@uncertainty-weighted=0.5``.

Optimised hard enough, a reward is highest where it is most wrong. These take from a sample what its reward is not sure
of, and stand wherever a reward does: in ``--reward`` of any command and recipe, as a summand (``NAME@worst-case:2``),
and for best of n.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mmalign.errors import ConfigError, UnknownNameError
from mmalign.media import Sample
from mmalign.rewards.base import EnsembleReward, Reward, Score
from mmalign.rewards.cards import RewardCard, load_reward
from mmalign.rewards.compose import combined
from mmalign.rewards.direction import check_direction, turned
from mmalign.rewards.groups import compares
from mmalign.rewards.uncertainty import worst_case

STRENGTHS = {"mean-less-std": 1.0, "uncertainty-weighted": 0.5, "worst-case": None}
"""How to be careful, with the strength where none is given; ``worst-case`` has none."""


def careful_value(value: Tensor, std: Tensor, *, how: str, strength: float) -> Tensor:
    """A lower bound from a value and its std.

        mean-less-std:         value - strength * std
        uncertainty-weighted:  value - strength * std^2

    Args:
        value: [B], higher is better.
        std: [B], same unit; the variance grows with the square of that unit, so the strength is the unit's own.
        how: which.
        strength: at least 0.

    Returns:
        [B].

    Raises:
        UnknownNameError: ``how`` is another word.

    Source: UWO of Coste et al. 2023, section 3 (arXiv:2310.02743), of a std that may hold more than an ensemble's.

    >>> import torch
    >>> careful_value(torch.tensor([1.0]), torch.tensor([2.0]), how="uncertainty-weighted", strength=0.5)
    tensor([-1.])
    """
    if how not in ("mean-less-std", "uncertainty-weighted"):
        raise UnknownNameError("lower bound", how, ("mean-less-std", "uncertainty-weighted"))
    return value - strength * (std if how == "mean-less-std" else std**2)


class Careful:
    """A reward less what it is unsure of.

        mean-less-std:         score - strength * std
        uncertainty-weighted:  score - strength * std^2
        worst-case:            min_k score_k, over the members of an ensemble

    Where lower is better the sign turns, so that doubt never helps. The unit is the reward's; its own score is an
    aspect, and its std stays.

    Args:
        card: of the careful reward.
        reward: with a std, or for worst-case with members.
        how: a key of ``STRENGTHS``.
        strength: at least 0; None for the usual one.

    Raises:
        ConfigError: a strength that cannot be, or no members for worst-case.
        UnknownNameError: ``how`` is none of the three.
    """

    def __init__(
        self, card: RewardCard, reward: Reward, *, how: str = "worst-case", strength: float | None = None
    ) -> None:
        if how not in STRENGTHS:
            raise UnknownNameError("way to be careful", how, STRENGTHS)
        if how == "worst-case" and strength is not None:
            raise ConfigError(f"'{card.name}': worst-case has no strength")
        if how == "worst-case" and not isinstance(reward, EnsembleReward):
            raise ConfigError(
                f"'{card.name}': '{reward.card.name}' has no members of which one could be the worst; train one with "
                "`mmalign reward train --members 5`"
            )
        usual = STRENGTHS[how] if strength is None else strength
        if usual is not None and not 0 <= usual < float("inf"):
            raise ConfigError(f"'{card.name}': strength = {usual}, but it is at least 0")
        check_direction(card, reward.card)
        self.card, self.reward, self.how, self.strength = card, reward, how, usual
        self.whole_groups = compares(reward)

    def score(self, samples: Sequence[Sample]) -> Score:
        """One bound per sample.

        Raises:
            ConfigError: the reward says nothing of how sure it is.
        """
        sign = self.reward.card.sign
        if self.how == "worst-case":
            assert isinstance(self.reward, EnsembleReward)
            members, score = self.reward.score_members(samples)
            value = worst_case(sign * members.float().cpu())
        else:
            score = self.reward.score(samples)
            if score.std is None:
                raise ConfigError(
                    f"'{self.card.name}': '{self.reward.card.name}' says nothing of how sure it is (one member)"
                )
            value = self._bound(turned(score, self.reward), score.std.float().cpu())
        found = combined(sign * value, [self.reward], [score])
        return replace(found, std=score.std, aspects={**found.aspects, **score.aspects})

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Bounds [B] of batched media, whose gradient reaches them; also through the doubt.

        Raises:
            ConfigError: the reward has no members with gradient.
        """
        if not isinstance(self.reward, EnsembleReward):
            raise ConfigError(f"reward '{self.reward.card.name}' has no members with gradient")
        sign = self.reward.card.sign
        members, std = self.reward.members_with_grad(media, samples)
        if self.how == "worst-case":
            return sign * worst_case(sign * members)
        if std is None:
            raise ConfigError(
                f"'{self.card.name}': '{self.reward.card.name}' says nothing of how sure it is (one member)"
            )
        return sign * self._bound(sign * members.mean(0), std)

    def _bound(self, value: Tensor, std: Tensor) -> Tensor:
        assert self.strength is not None
        return careful_value(value, std, how=self.how, strength=self.strength)


def careful(
    card: RewardCard, *, device: str = "cpu", of: str, how: str, strength: float | None = None
) -> Careful:
    """The target of the cards that ``NAME@HOW`` stands for: ``options: {of: NAME, how: HOW, strength: NUMBER}``."""
    inner = load_reward(of, device=device, weights=card.weights)
    return Careful(card, inner, how=how, strength=strength)
