"""Settings of the methods that learn from a fixed set of samples."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mmalign.methods.configs.base import MethodConfig, OwnPairs, OwnSamples, Source, StepPasses
from mmalign.ranges import FINITE, NOT_NEGATIVE, POSITIVE


@dataclass(frozen=True, kw_only=True)
class PairConfig(MethodConfig):
    """What all methods on pairs share."""

    source: ClassVar[Source] = "pairs"
    passes_per_row: ClassVar[int] = 2

    own: OwnPairs = dataclasses.field(default_factory=OwnPairs)
    """How pairs are made where no ``preferences`` file is given."""
    margin_scale: Annotated[float, NOT_NEGATIVE] = 0.0
    """Log odds per unit of the pairs' ``margin``, by which the chosen side has to lead (Amini et al. 2024,
    arXiv:2402.10571); at 0 margins are not used, for their unit is the scorer's own."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """Both sides, by policy and reference."""
        return StepPasses(2 * batch_size, 2 * batch_size)


@dataclass(frozen=True, kw_only=True)
class FlowDPOConfig(PairConfig):
    """Flow-DPO, any rectified-flow generator: ``mmalign align image/flow_dpo``. Liu et al. 2025, arXiv:2501.13918."""

    name: ClassVar[str] = "flow_dpo"

    beta: Annotated[float, POSITIVE] = 100.0
    """Strength of the pull to the reference. Flow-GRPO's repository, config/dpo.py: 100; "too small beta collapses"."""
    beta_schedule: Literal["constant", "one_minus_sigma_sq"] = "constant"
    """Constant, as the paper found better on every dimension; the other is the form derived from Diffusion-DPO."""
    sigma_mean: Annotated[float, FINITE] = 0.0
    """Of the logit-normal density of noise levels. SD3 (Esser et al. 2024, section 3.1): 0."""
    sigma_std: Annotated[float, POSITIVE] = 1.0
    """Of the same density; SD3: 1."""


@dataclass(frozen=True, kw_only=True)
class DiffusionDPOConfig(PairConfig):
    """Diffusion-DPO, any epsilon, v or x0 diffusion: ``mmalign align image/diffusion_dpo``. arXiv:2311.12908."""

    name: ClassVar[str] = "diffusion_dpo"

    beta: Annotated[float, POSITIVE] = 5000.0
    """Strength of the pull to the reference. Wallace et al. 2023, section 5.1: "beta = 5000" for SDXL; SD1.5 2000."""


@dataclass(frozen=True, kw_only=True)
class RWRConfig(MethodConfig):
    """Reward-weighted regression, any denoiser: ``mmalign align image/rwr``. Liu et al. 2025, arXiv:2501.13918."""

    name: ClassVar[str] = "rwr"
    source: ClassVar[Source] = "ratings"

    weighting: Literal["softmax", "exp", "best"] = "softmax"
    """Softmax over the samples of a prompt, as in Flow-GRPO's appendix C.1; exp of standardised scores, as in Flow-RWR;
    or only the best of each prompt."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Of the weights, in standard deviations of the scores within a prompt; Flow-RWR: 1."""
    own: OwnSamples = dataclasses.field(default_factory=OwnSamples)
    """How samples are made where no ``ratings`` file is given."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The policy alone."""
        return StepPasses(0, batch_size)
