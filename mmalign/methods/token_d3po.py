"""Token D3PO: pairs of online samples x their tokens x a clamped DPO at every token."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.tokens import TokenTrajectory
from mmalign.losses.masks import masked_mean
from mmalign.losses.step_preference import d3po_loss
from mmalign.methods.base import Task
from mmalign.methods.configs import TokenD3POConfig
from mmalign.methods.token_online import TokenOnlineMethod


@dataclass(frozen=True, eq=False)
class OnlinePairs:
    """The two sides of pairs.

    Args:
        trajectory: of all samples.
        chosen: [N], index of the better sample.
        rejected: [N], of the other.
        notes: numbers of the whole rollout, for the metrics.
    """

    trajectory: TokenTrajectory
    chosen: Tensor
    rejected: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.chosen)

    def part(self, start: int, stop: int) -> "OnlinePairs":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return OnlinePairs(self.trajectory, self.chosen[rows], self.rejected[rows], self.notes)


class TokenD3PO(TokenOnlineMethod):
    """D3PO on any generator of media tokens: the preference over whole samples is handed down to every token.

        q[l] = log clamp(exp(log_prob[l] - ref_log_prob[l]), 1 - clamp, 1 + clamp)
        L = mean over pairs, mean over the places that both sides have, of -log sigmoid(beta * (q_chosen - q_rejected))

    A longer side's tail has no counterpart and is left out. Model passes per pair: two to draw it, two forward and
    backward (policy) and two forward (reference).

    Source: this project's extension of Yang et al. 2023, D3PO, section 4 (arXiv:2311.13231).
    """

    def __init__(self, config: TokenD3POConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> OnlinePairs:
        """All pairs among ``size`` samples with different scores; ties would dilute the mean.

        Raises:
            ConfigError: all samples have equal scores.
        """
        drawn = self.rollout(step, size=size, seed=seed)
        G, scores = self.config.group_size, drawn.scores.flatten()
        pairs = []
        for first in self.shares(step, len(drawn.prompts))[::G].tolist():
            for i, j in itertools.combinations(range(first, first + G), 2):
                if scores[i] != scores[j]:
                    pairs.append((i, j) if scores[i] > scores[j] else (j, i))
        if not pairs:
            raise ConfigError("all samples of a step have equal scores; there is nothing to prefer")
        chosen, rejected = torch.tensor(pairs).unbind(1)
        return OnlinePairs(drawn.trajectory, chosen, rejected, self.notes(drawn))

    def loss(self, batch: OnlinePairs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some pairs, with how often the policy prefers as the scorer, and the share of clamped ratios."""
        sample, clamp = torch.cat([batch.chosen, batch.rejected]), self.config.clamp
        log_prob = self.log_prob(batch.trajectory, sample)
        with torch.no_grad(), self.generator.weights("reference"):
            reference = self.log_prob(batch.trajectory, sample)
        first, second = batch.trajectory.mask[sample].flatten(1).to(log_prob.device).chunk(2)
        both = first & second
        loss = d3po_loss(
            *log_prob.chunk(2), *reference.chunk(2), beta=self.config.beta, clamp=clamp, mask=both
        )
        with torch.no_grad():
            log_ratio = log_prob - reference
            chosen, rejected = (masked_mean(side, both) for side in log_ratio.chunk(2))
            ratio = log_ratio.exp()[torch.cat([both, both])]
            metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
            metrics |= {
                "accuracy": (chosen > rejected).float().mean() + 0.5 * (chosen == rejected).float().mean(),
                "margin": (chosen - rejected).mean(),
                "clip_fraction": ((ratio < 1 - clamp) | (ratio > 1 + clamp)).float().mean(),
            }
        return loss, metrics

    def check_start(self, *, size: int, seed: int) -> None:
        """On the first pass every ratio is 1."""
        self.check_first_ratio(self.rollout(0, size=size, seed=seed).trajectory, clip=self.config.clamp)
