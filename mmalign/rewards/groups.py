"""When the samples of a prompt must stay together: a reward that compares them has to see all of them in one call."""

from collections.abc import Sequence

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.pairwise import PairReward
from mmalign.rewards.rows import join_scores


def compares(reward: Reward | PairReward) -> bool:
    """Whether a reward's number depends on the other samples of the prompt: it says ``whole_groups = True``."""
    return bool(getattr(reward, "whole_groups", False))


def refuse_comparing(reward: Reward | PairReward, why: str) -> None:
    """Refuse a reward that compares samples where a prompt's samples may be parted.

    Args:
        reward: any.
        why: what parts them, and what to do instead.

    Raises:
        ConfigError: it compares them.
    """
    if compares(reward):
        raise ConfigError(
            f"reward '{reward.card.name}' compares all samples of a prompt with each other; {why}"
        )


def rows_by_prompt(prompts: Sequence[str]) -> list[list[int]]:
    """The rows of each prompt, in the order of their first.

    >>> rows_by_prompt(["a", "b", "a"])
    [[0, 2], [1]]
    """
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    return list(groups.values())


def score_in_batches(reward: Reward, samples: Sequence[Sample], *, batch_size: int = 64) -> Score:
    """One reward's whole score of any number of samples; the groups of one that compares them stay together."""
    if compares(reward):
        return reward.score(samples)
    return join_scores(
        [reward.score(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
    )
