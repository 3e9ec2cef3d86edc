"""The typed settings of each method: values with their sources, importing no torch so that help is quick."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmalign.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method's settings share: the name under which the method is known."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class OwnPairs:
    """Preference pairs made from the generator's own samples, scored by the reward."""

    prompts: int = 160
    """How many of the training prompts are drawn, in the order of the file."""
    group_size: int = 4
    """G, samples per prompt; the best is chosen against the worst. Flow-GRPO's repository draws 24."""
    pairs_per_prompt: int = 1
    """2 also takes the second best against the second worst, and so on."""

    def __post_init__(self) -> None:
        if self.prompts < 1:
            raise ConfigError(f"method.pairs.prompts = {self.prompts}: expected at least 1")
        if not 1 <= self.pairs_per_prompt <= self.group_size // 2:
            raise ConfigError(
                f"method.pairs.pairs_per_prompt = {self.pairs_per_prompt}: expected 1 to group_size // 2 = "
                f"{self.group_size // 2}, since no sample may stand on both sides"
            )


@dataclass(frozen=True, kw_only=True)
class FlowDPOConfig(MethodConfig):
    """Flow-DPO, any rectified-flow generator: ``mmalign align image/flow_dpo``. Liu et al. 2025, arXiv:2501.13918."""

    name: ClassVar[str] = "flow_dpo"

    beta: float = 100.0
    """Strength of the pull to the reference. Flow-GRPO's repository, config/dpo.py: 100; "too small beta collapses"."""
    beta_schedule: Literal["constant", "one_minus_sigma_sq"] = "constant"
    """Constant, as the paper found better on every dimension; the other is the form derived from Diffusion-DPO."""
    sigma_mean: float = 0.0
    """Of the logit-normal density of noise levels. SD3 (Esser et al. 2024, section 3.1): 0."""
    sigma_std: float = 1.0
    """Of the same density; SD3: 1."""
    pairs: OwnPairs = dataclasses.field(default_factory=OwnPairs)
    """How pairs are made where no ``preferences`` file is given."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ConfigError(f"method.beta = {self.beta}: expected a positive number")
        if not self.sigma_std > 0:
            raise ConfigError(f"method.sigma_std = {self.sigma_std}: expected a positive number")
