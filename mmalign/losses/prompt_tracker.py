"""Advantages against what each prompt's own samples scored lately, for rollouts with few samples a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


@dataclass(kw_only=True)
class PromptTracker:
    """The last rewards of every prompt, kept from one rollout to the next.

        A[b] = (r[b] - mean h) / (std h + eps)

    where h are the last ``buffer_size`` rewards of sample b's prompt, this rollout's included, or, while there are
    fewer than ``min_count`` of them, all rewards of this rollout.

    Args:
        buffer_size: rewards to remember of a prompt.
        min_count: below this many, the rollout's own statistics serve.
        eps: same unit as the rewards, added to the population std.
        history: prompt id to its rewards, oldest first; plain numbers, which a checkpoint keeps as they are.

    Raises:
        ConfigError: ``min_count`` is not from 1 to ``buffer_size``, so that no prompt would ever be tracked.

    Source: the code of Black et al. 2023, DDPO (arXiv:2305.13301); section 5 of the paper, with its 16 and 16.

    >>> tracker = PromptTracker(buffer_size=4, min_count=2)
    >>> tracker.advantages(["a", "a", "b"], torch.tensor([1.0, 3.0, 2.0])).round(decimals=3)  # a's own; b's of all
    tensor([-1.,  1.,  0.])
    """

    buffer_size: int = 16
    min_count: int = 16
    eps: float = 1e-6
    history: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.min_count <= self.buffer_size:
            raise ConfigError(
                f"min_count = {self.min_count}, but it is from 1 to buffer_size = {self.buffer_size}; "
                "above it no prompt would ever be tracked"
            )

    def advantages(self, prompt_ids: Sequence[str], rewards: Tensor) -> Tensor:
        """Remember a rollout's rewards, then centre and scale them.

        Args:
            prompt_ids: of each sample; ids and not texts, so that equal texts of two data rows stay two prompts.
            rewards: [B], of all devices together.

        Returns:
            [B], unitless, detached; in the dtype of ``rewards``, from statistics in float64.

        Raises:
            ShapeError: ``rewards`` is not [B], one for each prompt id.
        """
        check_shape(rewards, [len(prompt_ids)], name="rewards", letters="[B]")
        if not prompt_ids:
            raise ShapeError("rewards: expected [B] with B >= 1, got [0]")
        values = rewards.detach().double().cpu()
        for prompt, value in zip(prompt_ids, values.tolist(), strict=True):
            self.history.setdefault(prompt, []).append(value)
        advantages = torch.empty_like(values)
        for prompt in set(prompt_ids):
            past = self.history[prompt] = self.history[prompt][-self.buffer_size :]
            rows = torch.tensor([other == prompt for other in prompt_ids])
            of = values if len(past) < self.min_count else values.new_tensor(past)
            # From the first reward, so that equal rewards give exact zeros.
            centre = of[0] + (of - of[0]).mean()
            advantages[rows] = (values[rows] - centre) / (of.std(correction=0) + self.eps)
        return advantages.to(rewards)
