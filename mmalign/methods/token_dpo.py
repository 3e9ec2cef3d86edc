"""Token DPO: pairs x the log-probability of whole token sequences x the DPO loss."""

import torch
from torch import Tensor

from mmalign.generators.token_layouts import IGNORED
from mmalign.likelihoods import token_log_prob
from mmalign.losses.preference import dpo_loss
from mmalign.losses.tokens import sequence_log_prob
from mmalign.methods.base import Task, epoch_rows
from mmalign.methods.configs import TokenDPOConfig
from mmalign.methods.latents import LatentPairs
from mmalign.methods.pairs import PairMethod
from mmalign.methods.token_data import RowBatch
from mmalign.methods.token_online import token_generator


class TokenDPO(PairMethod):
    """DPO on a set of pairs of token sequences: Flow-DPO's sibling for speech, music and image tokens.

        L = -mean weight * log sigmoid(beta * [(l_c - l_c_ref) - (l_r - l_r_ref)] - margin)
        l = sum over tokens of log policy(token)

    with weight 1 and margin 0 where the file says no strength and no margin, or ``margin_scale`` is 0.

    Model passes per pair and step: two forward and backward (policy), two forward (reference).

    Raises:
        ConfigError: the generator makes no tokens, or the data are no pairs of them.

    Source: Rafailov et al. 2023, Direct Preference Optimization, section 4 (arXiv:2305.18290).
    """

    def __init__(self, config: TokenDPOConfig, task: Task) -> None:
        self.config, self.generator = config, token_generator(task)
        self.pairs = task.data_of(LatentPairs, what="preference pairs of tokens")

    def batch(self, step: int, *, size: int, seed: int) -> RowBatch:
        """Rows of the pairs."""
        rows = epoch_rows(step, size=size, count=len(self.pairs), seed=seed)
        return RowBatch(rows, self.pairs.columns.rows(rows))

    def pair_loss(
        self,
        chosen: Tensor,
        rejected: Tensor,
        ref_chosen: Tensor,
        ref_rejected: Tensor,
        *,
        margin: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of log-likelihoods [B]; a method with another loss of pairs overrides this alone.

        It is given the terms of the file's columns that it names: ``margin`` [B], ``weight`` [B].
        """
        return dpo_loss(
            chosen, rejected, ref_chosen, ref_rejected, beta=self.config.beta, margin=margin, weight=weight
        )

    def log_prob(self, batch: RowBatch) -> Tensor:
        """Of whole sequences."""
        rows = batch.rows
        tokens = torch.cat([self.pairs.chosen[rows], self.pairs.rejected[rows]])
        conditioning = self.pairs.conditioning.rows(self.pairs.prompt[rows].repeat(2))
        mask = (tokens != IGNORED).flatten(1).to(self.generator.device)
        log_prob = token_log_prob(self.generator, tokens, conditioning).flatten(1)
        return sequence_log_prob(log_prob, mask, length_power=self.config.length_power)

    def loss_of(self, batch: RowBatch, sides: tuple[Tensor, ...]) -> Tensor:
        """``pair_loss``."""
        return self.pair_loss(*sides, **self.terms(batch, sides[0].device))
