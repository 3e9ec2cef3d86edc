"""Best of N: draw several samples of a prompt and keep the one that a reward likes best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Media, Sample
from mmalign.rewards.base import Reward
from mmalign.rewards.groups import score_in_batches


@dataclass(frozen=True, eq=False)
class Best:
    """The winners of B prompts.

    Args:
        media: B.
        seeds: B, with which plain sampling draws each again.
        scores: [B, N], of all candidates; NaN where the reward has none.
    """

    media: list[Media]
    seeds: list[int]
    scores: Tensor


def best_of_n(
    adapter: Any, reward: Reward, prompts: Sequence[str], *, seeds: Sequence[int], n: int, **options: Any
) -> Best:
    """Draw ``n`` candidates of each prompt and keep the best.

    Args:
        adapter: draws.
        reward: scores; a candidate without a score never wins.
        prompts: B texts.
        seeds: B; candidate k of a prompt has its seed + k.
        n: candidates. The KL to plain sampling is log n - (n - 1) / n (``losses.best_of_n_kl``).
        options: of ``adapter.generate``.

    Raises:
        ConfigError: ``n`` is not positive, or no candidate of a prompt has a score.

    Source: Stiennon et al. 2020, Learning to summarize from human feedback, section 4.3 (arXiv:2009.01325).
    """
    if n < 1:
        raise ConfigError(f"n = {n}: expected at least 1")
    repeated = [prompt for prompt in prompts for _ in range(n)]
    drawn = [seed + k for seed in seeds for k in range(n)]
    media = adapter.generate(repeated, seeds=drawn, **options)
    samples = [Sample(prompt, medium) for prompt, medium in zip(repeated, media, strict=True)]
    scores = score_in_batches(reward, samples).value.unflatten(0, (len(prompts), n))
    unscored = scores.isnan().all(1)
    if unscored.any():
        raise ConfigError(
            f"reward {reward.card.name}: no candidate of '{prompts[int(unscored.nonzero()[0])]}' has a score"
        )
    winner = (reward.card.sign * scores).nan_to_num(-torch.inf).argmax(1).tolist()
    rows = [p * n + k for p, k in enumerate(winner)]
    return Best([media[row] for row in rows], [drawn[row] for row in rows], scores)
