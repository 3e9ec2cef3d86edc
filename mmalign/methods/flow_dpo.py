"""Flow-DPO: DPO on the denoising surrogate of a rectified flow."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.timesteps import NoiseLevel
from mmalign.methods.base import Task
from mmalign.methods.configs import FlowDPOConfig
from mmalign.methods.denoising_dpo import DenoisingDPO
from mmalign.sampling.schedules import logit_normal


class FlowDPO(DenoisingDPO):
    """Flow-DPO on a set of pairs.

        L = -mean log sigmoid(-(beta / 2) * [(e_c - e_c_ref) - (e_r - e_r_ref)]),   e = mean_e (v_theta - v)^2

    Denoiser passes per pair and step: two forward and backward (policy), two forward (reference).

    Raises:
        ConfigError: the generator is no rectified flow, or the data are no pairs.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, section 4.1 (arXiv:2501.13918).
    """

    def __init__(self, config: FlowDPOConfig, task: Task) -> None:
        super().__init__(task)
        self.config = config
        kind = self.generator.timesteps.kind
        if kind != "flow_prediction":
            raise ConfigError(
                f"flow_dpo needs a rectified flow, but this model predicts '{kind}'; use diffusion_dpo"
            )

    def training_rows(self, size: int, *, generator: torch.Generator) -> Tensor:
        """Logit-normal over the scheduler's own levels."""
        share = logit_normal(size, self.config.sigma_mean, self.config.sigma_std, generator=generator)
        # The table runs from most to least noise: a large share of noise is a small index.
        levels = len(self.generator.timesteps)
        return ((1 - share) * levels).long().clamp(0, levels - 1)

    def beta(self, level: NoiseLevel) -> Tensor:
        """Constant, or falling with sigma as (1 - sigma)^2."""
        beta = torch.full_like(level.sigma, self.config.beta)
        return beta * level.alpha**2 if self.config.beta_schedule == "one_minus_sigma_sq" else beta
