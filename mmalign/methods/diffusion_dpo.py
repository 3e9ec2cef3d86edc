"""Diffusion-DPO: DPO on the denoising surrogate of a variance-preserving diffusion."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.timesteps import NoiseLevel
from mmalign.methods.base import Task
from mmalign.methods.configs import DiffusionDPOConfig
from mmalign.methods.denoising_dpo import DenoisingDPO


class DiffusionDPO(DenoisingDPO):
    """Diffusion-DPO on a set of pairs, in the network's own parametrisation (epsilon, v or x0).

        L = -mean log sigmoid(-(beta / 2) * [(e_c - e_c_ref) - (e_r - e_r_ref)]),   e = mean_e (network - target)^2

    Denoiser passes per pair and step: two forward and backward (policy), two forward (reference).

    Raises:
        ConfigError: the generator is a rectified flow, or the data are no pairs.

    Source: Wallace et al. 2023, Diffusion-DPO, section 4, equation 14 (arXiv:2311.12908), times drawn evenly.
    """

    def __init__(self, config: DiffusionDPOConfig, task: Task) -> None:
        super().__init__(task)
        self.config = config
        if self.generator.timesteps.kind == "flow_prediction":
            raise ConfigError(
                "diffusion_dpo needs a variance-preserving diffusion, but this model is a flow; use flow_dpo"
            )

    def training_rows(self, size: int, *, generator: torch.Generator) -> Tensor:
        """Every training time is as likely."""
        return torch.randint(len(self.generator.timesteps), (size,), generator=generator)

    def beta(self, level: NoiseLevel) -> Tensor:
        """Constant: the weight of each noise level is dropped, as in the paper."""
        return torch.full_like(level.sigma, self.config.beta)
