"""Token DPO: pairs x the log-probability of whole token sequences x the DPO loss."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.token_layouts import IGNORED
from mmalign.likelihoods import token_log_prob
from mmalign.losses.preference import dpo_logits, dpo_loss, implicit_accuracy
from mmalign.losses.tokens import sequence_log_prob
from mmalign.methods.base import Method, Task, epoch_rows
from mmalign.methods.configs import TokenDPOConfig
from mmalign.methods.token_data import RowBatch, TokenPairs
from mmalign.methods.token_online import token_generator


class TokenDPO(Method):
    """DPO on a set of pairs of token sequences: Flow-DPO's sibling for speech, music and image tokens.

        L = -mean log sigmoid(beta * [(l_c - l_c_ref) - (l_r - l_r_ref)]),   l = sum over tokens of log policy(token)

    Model passes per pair and step: two forward and backward (policy), two forward (reference).

    Raises:
        ConfigError: the generator makes no tokens, or the data are no pairs of them.

    Source: Rafailov et al. 2023, Direct Preference Optimization, section 4 (arXiv:2305.18290).
    """

    def __init__(self, config: TokenDPOConfig, task: Task) -> None:
        self.config, self.generator = config, token_generator(task)
        self.pairs = task.data_of(TokenPairs, what="preference pairs of tokens")

    def batch(self, step: int, *, size: int, seed: int) -> RowBatch:
        """Rows of the pairs."""
        return RowBatch(epoch_rows(step, size=size, count=len(self.pairs), seed=seed))

    def pair_loss(self, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
        """The loss of log-likelihoods [B]; a method with another loss of pairs overrides this alone."""
        return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=self.config.beta)

    def loss(self, batch: RowBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with implicit accuracy, margin and how far either side's likelihood moved from the reference."""
        rows = batch.rows
        tokens = torch.cat([self.pairs.chosen[rows], self.pairs.rejected[rows]])
        conditioning = self.pairs.conditioning.rows(self.pairs.prompt[rows].repeat(2))
        mask = (tokens != IGNORED).flatten(1).to(self.generator.device)

        def likelihood() -> Tensor:
            log_prob = token_log_prob(self.generator, tokens, conditioning).flatten(1)
            return sequence_log_prob(log_prob, mask, length_power=self.config.length_power)

        log_prob = likelihood()
        with torch.no_grad(), self.generator.weights("reference"):
            reference = likelihood()
        sides = (*log_prob.chunk(2), *reference.chunk(2))
        loss = self.pair_loss(*sides)
        with torch.no_grad():
            chosen, rejected, ref_chosen, ref_rejected = sides
            metrics = {
                "accuracy": implicit_accuracy(*sides),
                "margin": dpo_logits(*sides).mean(),
                "chosen_gain": (chosen - ref_chosen).mean(),
                "rejected_gain": (rejected - ref_rejected).mean(),
            }
        return loss, metrics

    @torch.no_grad()
    def check_start(self, *, size: int, seed: int) -> None:
        """With a fresh LoRA the policy is the reference, so DPO's loss is log 2 to the last digits.

        Raises:
            ConfigError: it is not, so dropout is on, or policy and reference do not share their weights.
        """
        loss, metrics = self.loss(self.batch(0, size=size, seed=seed))
        equal = torch.zeros(size, device=loss.device)
        expected = float(self.pair_loss(*[equal] * 4))
        if abs(float(loss) - expected) > 1e-6 * max(1, abs(expected)) or float(metrics["margin"]) != 0:
            raise ConfigError(
                "before the first step policy and reference differ: "
                f"the loss is {float(loss):.6f}, not {expected:.6f}"
            )
