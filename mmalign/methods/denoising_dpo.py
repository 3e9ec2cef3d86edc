"""What Flow-DPO and Diffusion-DPO share: pairs x the denoising surrogate at shared noise and time x the DPO loss."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.timesteps import NoiseLevel
from mmalign.likelihoods import denoising_log_likelihood
from mmalign.losses.preference import dpo_loss
from mmalign.methods.base import Task, epoch_rows, step_generator
from mmalign.methods.latents import LatentPairs
from mmalign.methods.pair_columns import PairColumns
from mmalign.methods.pairs import PairMethod


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs with the noise and noise level that both sides share.

    Args:
        pairs: all of them.
        rows: [B], which ones.
        noise: [B, ...].
        level: B noise levels.
    """

    pairs: LatentPairs
    rows: Tensor
    noise: Tensor
    level: NoiseLevel

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> PairColumns:
        """What the file says of these pairs."""
        return self.pairs.columns.rows(self.rows)

    def part(self, start: int, stop: int) -> "PairBatch":
        """Its rows from ``start`` to ``stop``."""
        level = self.level.rows(torch.arange(start, stop))
        return PairBatch(self.pairs, self.rows[start:stop], self.noise[start:stop], level)


class DenoisingDPO(PairMethod):
    """DPO on the denoising surrogate of a set of pairs.

        L = -mean weight * log sigmoid(beta * [(l_c - l_c_ref) - (l_r - l_r_ref)] - margin)
        l = -1/2 * mean_e (network - target)^2

    with weight 1 and margin 0 where the file says no strength and no margin, or ``margin_scale`` is 0.

    Denoiser passes per pair and step: two forward and backward (policy), two forward (reference).
    """

    def __init__(self, task: Task) -> None:
        self.generator = task.generator
        self.pairs = task.data_of(LatentPairs, what="preference pairs")

    @abstractmethod
    def training_rows(self, size: int, *, generator: torch.Generator) -> Tensor:
        """Random rows [size] of the generator's table of noise levels."""

    @abstractmethod
    def beta(self, level: NoiseLevel) -> Tensor:
        """The pull to the reference [B] at each pair's level."""

    def pair_loss(
        self,
        chosen: Tensor,
        rejected: Tensor,
        ref_chosen: Tensor,
        ref_rejected: Tensor,
        *,
        beta: Tensor,
        margin: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of log-likelihoods [B]; a method with another loss of pairs overrides this alone.

        It is given the terms of the file's columns that it names: ``margin`` [B], ``weight`` [B].
        """
        return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta, margin=margin, weight=weight)

    def batch(self, step: int, *, size: int, seed: int) -> PairBatch:
        """One noise and one noise level a pair."""
        random = step_generator(seed, step)
        rows = epoch_rows(step, size=size, count=len(self.pairs), seed=seed)
        noise = torch.randn(size, *self.pairs.chosen.shape[1:], generator=random)
        level = self.generator.timesteps.at(self.training_rows(size, generator=random))
        return PairBatch(self.pairs, rows, noise, level)

    def log_prob(self, batch: PairBatch) -> Tensor:
        """The surrogate, at each pair's one noise and level."""
        device, rows = self.generator.device, batch.rows
        return denoising_log_likelihood(
            self.generator,
            torch.cat([self.pairs.chosen[rows], self.pairs.rejected[rows]]).to(device),
            self.pairs.conditioning.rows(self.pairs.prompt[rows].repeat(2)),
            noise=torch.cat([batch.noise] * 2).to(device),
            level=batch.level.rows(torch.arange(len(rows)).repeat(2)),
        )

    def loss_of(self, batch: PairBatch, sides: tuple[Tensor, ...]) -> Tensor:
        """``pair_loss`` with each pair's own pull."""
        beta = self.beta(batch.level).to(sides[0].device)
        return self.pair_loss(*sides, beta=beta, **self.terms(batch, sides[0].device))
