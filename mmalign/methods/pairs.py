"""What all methods on a set of pairs share: both sides under policy and reference, their loss and what to plot."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.preference import dpo_logits, implicit_accuracy
from mmalign.methods.base import Method
from mmalign.methods.pair_columns import terms_of


class PairMethod(Method):
    """Pairs x some log-likelihood x a loss of pairs; a subclass says which."""

    generator: Any
    config: Any
    """Settings of pairs, ``PairConfig``."""
    pair_loss: Any

    @abstractmethod
    def log_prob(self, batch: Any) -> Tensor:
        """Log-likelihoods [2B] under the active weights, chosen sides before rejected ones; gradient flows."""

    @abstractmethod
    def loss_of(self, batch: Any, sides: tuple[Tensor, ...]) -> Tensor:
        """The loss of log-likelihoods [B]: chosen, rejected, and both of them under the reference."""

    def terms(self, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """What ``pair_loss`` takes of the columns of the batch's pairs."""
        found = terms_of(self.pair_loss, batch.columns, margin_scale=self.config.margin_scale)
        return {name: term.to(device) for name, term in found.items()}

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with implicit accuracy, margin and how far either side's likelihood moved from the reference."""
        log_prob = self.log_prob(batch)
        with torch.no_grad(), self.generator.weights("reference"):
            reference = self.log_prob(batch)
        sides = (*log_prob.chunk(2), *reference.chunk(2))
        loss = self.loss_of(batch, sides)
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
        batch = self.batch(0, size=size, seed=seed)
        loss, metrics = self.loss(batch)
        equal = torch.zeros(size, device=loss.device)
        expected = float(self.loss_of(batch, (equal,) * 4))
        if abs(float(loss) - expected) > 1e-6 * max(1, abs(expected)) or float(metrics["margin"]) != 0:
            raise ConfigError(
                "before the first step policy and reference differ: "
                f"the loss is {float(loss):.6f}, not {expected:.6f}"
            )
