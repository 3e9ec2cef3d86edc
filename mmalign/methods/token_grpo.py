"""Token GRPO: online groups x teacher-forced tokens x the clipped policy gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.tokens import TokenTrajectory
from mmalign.losses.advantages import clamp_advantages, group_advantages, token_group_advantages
from mmalign.losses.drift import kl_k3
from mmalign.losses.masks import masked_mean
from mmalign.losses.policy_gradient import clip_fraction, clipped_ratio_terms
from mmalign.losses.token_means import dr_grpo_mean, grpo_mean
from mmalign.methods.base import Task
from mmalign.methods.configs import TokenGRPOConfig
from mmalign.methods.groups import Rollout
from mmalign.methods.token_credit import prefix_token_rewards
from mmalign.methods.token_online import TokenOnlineMethod
from mmalign.rewards.groups import refuse_comparing


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """Samples of a rollout, each with its advantage.

    Args:
        trajectory: of all samples.
        sample: [N], index of a sample.
        advantage: [N], or [N, L] for each token.
        notes: numbers of the whole rollout, for the metrics.
    """

    trajectory: TokenTrajectory
    sample: Tensor
    advantage: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.sample)

    def part(self, start: int, stop: int) -> "GroupBatch":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return GroupBatch(self.trajectory, self.sample[rows], self.advantage[rows], self.notes)


class TokenGRPO(TokenOnlineMethod):
    """GRPO on any generator of media tokens: Flow-GRPO's sibling, where a step is a token.

        L = mean over samples, mean over tokens of max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip_high))
            + kl_weight * (exp(d) - 1 - d),   d = reference log-probability - policy's

    Model passes per sample: one to draw it, one forward and backward and, with a KL, one forward (twice as many with
    guidance).

    Source: Shao et al. 2024, DeepSeekMath, section 4.1 (arXiv:2402.03300); Liu et al. 2025, Understanding
    R1-Zero-Like Training, section 3.2 (arXiv:2503.20783) with ``token_mean="dr_grpo"``. With ``credit="prefix"`` A is a
    token's own, from what each part of the sample added to the reward: ``token_group_advantages``.
    """

    def __init__(self, config: TokenGRPOConfig, task: Task) -> None:
        super().__init__(config, task)
        if config.credit == "prefix" and task.reward is not None:
            refuse_comparing(
                task.reward, "beginnings of samples have no such group; use method.credit sequence"
            )
        self.config = config
        self._advantages = torch.zeros(0)

    def batch(self, step: int, *, size: int, seed: int) -> GroupBatch:
        """``size`` samples; those of a group with equal scores teach nothing and are left out."""
        drawn = self.rollout(step, size=size, seed=seed)
        advantages = clamp_advantages(self._advantages, most=self.config.advantage_clip)
        samples = self.shares(step, len(drawn.prompts))
        flat = advantages.flatten(0, 1)[samples]
        told = (flat != 0).flatten(1).any(1) if flat.ndim > 1 else flat != 0
        if told.any():
            samples, flat = samples[told], flat[told]
        equal = (advantages == 0).flatten(1).all(1)
        notes = self.notes(drawn) | {"equal_groups": float(equal.float().mean())}
        return GroupBatch(drawn.trajectory, samples, flat, notes)

    def draw(self, index: int, *, count: int, seed: int) -> Rollout:
        """A rollout, with its advantages beside it: those of parts ask the reward again, once."""
        drawn = super().draw(index, count=count, seed=seed)
        self._advantages = self.advantages(drawn)
        return drawn

    def advantages(self, drawn: Rollout) -> Tensor:
        """[P, G], or with credit to parts [P, G, L]."""
        if self.config.credit == "sequence":
            return group_advantages(drawn.scores)
        tokens, groups = drawn.trajectory.tokens, (-1, self.config.group_size)
        rewards = prefix_token_rewards(
            self.task, tokens, drawn.prompts, drawn.scores.flatten(), parts=self.config.credit_parts
        )
        mask = drawn.trajectory.mask.flatten(1).cpu().unflatten(0, groups)
        return token_group_advantages(rewards.unflatten(0, groups), drawn.scores, mask)

    def loss(self, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some samples, with clip fraction, ratio and KL."""
        config, trajectory = self.config, batch.trajectory
        now = self.log_prob(trajectory, batch.sample)
        old = trajectory.log_prob[batch.sample].flatten(1).to(now.device)
        mask = trajectory.mask[batch.sample].flatten(1).to(now.device)
        advantage = batch.advantage.to(now.device)
        terms = clipped_ratio_terms(now, old, advantage, clip=config.clip, clip_high=config.clip_high)
        difference = masked_mean((now - old).detach().abs(), mask)
        metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
        metrics |= {
            "clip_fraction": clip_fraction(
                now, old, advantage, clip=config.clip, clip_high=config.clip_high, mask=mask
            ),
            "log_ratio": difference.mean(),
        }
        if config.kl_weight > 0:
            with torch.no_grad(), self.generator.weights("reference"):
                reference = self.log_prob(trajectory, batch.sample)
            kl = kl_k3(now, reference)
            metrics["kl"] = masked_mean(kl.detach(), mask).mean()
            terms = terms + config.kl_weight * kl
        return self.mean(terms, mask), metrics

    def mean(self, terms: Tensor, mask: Tensor) -> Tensor:
        """Over tokens and samples, as the settings say."""
        if self.config.token_mean == "dr_grpo":
            return dr_grpo_mean(terms, mask, max_tokens=mask.shape[1])
        return grpo_mean(terms, mask)

    def check_start(self, *, size: int, seed: int) -> None:
        """On the first pass every ratio is 1."""
        self.check_first_ratio(self.rollout(0, size=size, seed=seed).trajectory, clip=self.config.clip)
