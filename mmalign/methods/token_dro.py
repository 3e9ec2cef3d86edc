"""Token DRO: demonstrations and a snapshot's own samples x next-token distributions x a ranking hinge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenTrajectory
from mmalign.losses.masks import masked_mean
from mmalign.losses.ranking import token_dro_loss
from mmalign.losses.tokens import token_kl, token_log_probs
from mmalign.methods.base import Task, epoch_rows, mixed_seeds
from mmalign.methods.configs import TokenDROConfig
from mmalign.methods.latents import LatentSamples
from mmalign.methods.online import STEPS
from mmalign.methods.token_online import TokenOnlineMethod


@dataclass(frozen=True, eq=False)
class TokensAndOwn:
    """Demonstrations beside samples of the snapshot for the same prompts.

    Args:
        rows: [B], which demonstrations.
        trajectory: of all own samples.
        sample: [B], which of them.
    """

    rows: Tensor
    trajectory: TokenTrajectory
    sample: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "TokensAndOwn":
        """Its rows from ``start`` to ``stop``."""
        return TokensAndOwn(self.rows[start:stop], self.trajectory, self.sample[start:stop])


class TokenDRO(TokenOnlineMethod):
    """Rank demonstrations above the samples of a snapshot of the policy.

        d = [NLL(y_e) - NLL_ref(y_e)] - mean_l [KL(snapshot || policy) - KL(snapshot || reference)](y_p, l)
        L = mean max(0, d + margin)

    The KL runs over the vocabulary at every token of the snapshot's own sample y_p, so that the policy has no gradient
    there while it is the snapshot. The snapshot is the policy at the last rollout, kept as "old".

    Model passes per demonstration: one to draw the snapshot's sample, one forward for what the snapshot says of it, two
    forward and backward (policy), two forward (reference).

    Source: this project's extension of Wu et al. 2025, Diffusion-DRO, section 4 (arXiv:2510.18353), to tokens.
    """

    def __init__(self, config: TokenDROConfig, task: Task) -> None:
        self.experts = task.data_of(LatentSamples, what="demonstrations as tokens")
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> TokensAndOwn:
        """Each demonstration with a sample of its own prompt."""
        index, k = divmod(step, self.steps_per_rollout)
        count = size * self.steps_per_rollout
        rows = epoch_rows(index, size=count, count=len(self.experts), seed=seed)
        key = (index, count, seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = None
            self.generator.kept.keep("old")
            seeds = mixed_seeds(count, seed, STEPS, index)
            self._drawn = key, self.unroll(self.experts.texts_of(rows), seeds=seeds)
        mine = torch.arange(k * size, (k + 1) * size)
        return TokensAndOwn(rows[mine], self._drawn[1], mine)

    def loss(self, batch: TokensAndOwn) -> tuple[Tensor, dict[str, Tensor]]:
        """The ranking hinge, with both of its sides."""
        expert = self.experts.clean[batch.rows]
        own = batch.trajectory.tokens[batch.sample].to(expert.device)
        expert_conditioning = self.experts.conditioning.rows(self.experts.prompt[batch.rows])
        own_conditioning = batch.trajectory.conditioning.rows(batch.sample)
        sampler, device = batch.trajectory.sampler, self.generator.device

        def expert_log_prob() -> Tensor:
            scores = sampler.log_probs(self.generator.logits(expert, expert_conditioning, guidance=None))
            flat = expert.flatten(1).to(device)
            return token_log_probs(scores.flatten(1, 2), flat, mask=flat != IGNORED)

        def own_logits() -> Tensor:
            logits = self.generator.logits(own, own_conditioning, guidance=sampler.guidance)
            return sampler.log_probs(logits).flatten(1, 2)

        log_prob, logits = expert_log_prob(), own_logits()
        with torch.no_grad():
            with self.generator.weights("reference"):
                ref_log_prob, ref_logits = expert_log_prob(), own_logits()
            with self.generator.weights("old"):
                snapshot = own_logits()
        expert_mask, own_mask = ((t != IGNORED).flatten(1).to(device) for t in (expert, own))
        loss = token_dro_loss(
            log_prob,
            ref_log_prob,
            logits,
            ref_logits,
            snapshot,
            expert_mask=expert_mask,
            negative_mask=own_mask,
            margin=self.config.margin,
        )
        with torch.no_grad():
            metrics = {
                "expert_error": masked_mean(-log_prob, expert_mask).mean(),
                "own_drift": masked_mean(token_kl(snapshot, logits, mask=own_mask), own_mask).mean(),
            }
        return loss, metrics
