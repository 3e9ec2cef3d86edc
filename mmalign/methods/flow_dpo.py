"""Flow-DPO: preference pairs x the denoising surrogate at shared noise and time x the DPO loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.likelihoods import denoising_log_likelihood
from mmalign.losses.preference import dpo_logits, dpo_loss, implicit_accuracy
from mmalign.methods.base import epoch_rows, step_generator
from mmalign.methods.configs import FlowDPOConfig
from mmalign.sampling.schedules import logit_normal


@dataclass(frozen=True, eq=False)
class LatentPairs:
    """Preference pairs as the policy sees them.

    Args:
        chosen: [N, ...], clean latents.
        rejected: as ``chosen``.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning``.
    """

    chosen: Tensor
    rejected: Tensor
    conditioning: Conditioning
    prompt: Tensor

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise ShapeError(f"rejected: expected {list(self.chosen.shape)}, got {list(self.rejected.shape)}")


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs with the noise and noise level that both sides share."""

    pairs: LatentPairs
    rows: Tensor
    noise: Tensor
    row: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "PairBatch":
        """Its rows from ``start`` to ``stop``."""
        return PairBatch(self.pairs, self.rows[start:stop], self.noise[start:stop], self.row[start:stop])


class FlowDPO:
    """Flow-DPO on a set of pairs.

        L = -mean log sigmoid(-(beta / 2) * [(e_c - e_c_ref) - (e_r - e_r_ref)]),   e = mean_e (v_theta - v)^2

    Denoiser passes per pair and step: two forward and backward (policy), two forward (reference).

    Raises:
        ConfigError: the generator is no rectified flow.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, section 4.1 (arXiv:2501.13918).
    """

    def __init__(self, config: FlowDPOConfig, generator: DenoisingGenerator, pairs: LatentPairs) -> None:
        if generator.timesteps.kind != "flow_prediction":
            raise ConfigError(
                f"flow_dpo needs a rectified flow, but this model predicts '{generator.timesteps.kind}'; "
                "use diffusion_dpo"
            )
        self.config, self.generator, self.pairs = config, generator, pairs

    def batch(self, step: int, *, size: int, seed: int) -> PairBatch:
        """One noise and one noise level a pair; its levels are logit-normal over the scheduler's own rows."""
        random = step_generator(seed, step)
        rows = epoch_rows(step, size=size, count=len(self.pairs.chosen), seed=seed)
        noise = torch.randn(size, *self.pairs.chosen.shape[1:], generator=random)
        share = logit_normal(size, self.config.sigma_mean, self.config.sigma_std, generator=random)
        # The table runs from most to least noise: a large share of noise is a small index.
        levels = len(self.generator.timesteps)
        row = ((1 - share) * levels).long().clamp(0, levels - 1)
        return PairBatch(self.pairs, rows, noise, row)

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with implicit accuracy, margin and how far either side's likelihood moved from the reference."""
        device = self.generator.device
        rows = batch.rows
        latents = torch.cat([self.pairs.chosen[rows], self.pairs.rejected[rows]]).to(device)
        noise, row = torch.cat([batch.noise] * 2).to(device), torch.cat([batch.row] * 2)
        conditioning = self.pairs.conditioning.rows(torch.cat([self.pairs.prompt[rows]] * 2))
        log_prob = denoising_log_likelihood(self.generator, latents, conditioning, noise=noise, row=row)
        with torch.no_grad(), self.generator.weights("reference"):
            reference = denoising_log_likelihood(self.generator, latents, conditioning, noise=noise, row=row)
        (chosen, rejected), (ref_chosen, ref_rejected) = log_prob.chunk(2), reference.chunk(2)
        loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=self._beta(batch.row).to(device))
        with torch.no_grad():
            metrics = {
                "accuracy": implicit_accuracy(chosen, rejected, ref_chosen, ref_rejected),
                "margin": dpo_logits(chosen, rejected, ref_chosen, ref_rejected).mean(),
                "chosen_gain": (chosen - ref_chosen).mean(),
                "rejected_gain": (rejected - ref_rejected).mean(),
            }
        return loss, metrics

    def _beta(self, row: Tensor) -> Tensor:
        beta = torch.full(row.shape, self.config.beta)
        if self.config.beta_schedule == "one_minus_sigma_sq":
            beta = beta * self.generator.timesteps.alpha[row] ** 2
        return beta
