"""Settings of the methods on media tokens."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmalign.errors import ConfigError
from mmalign.methods.configs.base import (
    MethodConfig,
    OwnDemonstrations,
    OwnPairs,
    OwnSamples,
    Source,
    StepPasses,
    positive,
)


@dataclass(frozen=True, kw_only=True)
class TokenDPOConfig(MethodConfig):
    """DPO, any generator of media tokens. Rafailov et al. 2023, arXiv:2305.18290."""

    name: ClassVar[str] = "token_dpo"
    source: ClassVar[Source] = "pairs"
    passes_per_row: ClassVar[int] = 2

    beta: float = 0.1
    """Strength of the pull to the reference, on log-probabilities summed over a sample; the paper: 0.1."""
    length_power: float = 0.0
    """How far a sample's length is divided out; the paper: 0, the sum. At 1 it is a mean, and wants a larger beta."""
    own: OwnPairs = dataclasses.field(default_factory=OwnPairs)
    """How pairs are made where no ``preferences`` file is given."""

    def __post_init__(self) -> None:
        positive(self, "beta")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """Both sides, by policy and reference."""
        return StepPasses(2 * batch_size, 2 * batch_size)


@dataclass(frozen=True, kw_only=True)
class TokenRWRConfig(MethodConfig):
    """Reward-weighted regression, any generator of media tokens. Lee et al. 2023, arXiv:2302.12192."""

    name: ClassVar[str] = "token_rwr"
    source: ClassVar[Source] = "ratings"

    weighting: Literal["softmax", "exp", "best"] = "softmax"
    """As in ``rwr``: softmax or exp of the standardised scores of a prompt's samples, or only the best of them."""
    temperature: float = 1.0
    """Of the weights, in standard deviations of the scores within a prompt."""
    own: OwnSamples = dataclasses.field(default_factory=OwnSamples)
    """How samples are made where no ``ratings`` file is given."""

    def __post_init__(self) -> None:
        positive(self, "temperature")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The policy alone."""
        return StepPasses(0, batch_size)


@dataclass(frozen=True, kw_only=True)
class TokenOnlineConfig(MethodConfig):
    """How samples are drawn for training: of all tokens, since a filter would make old samples impossible later."""

    source: ClassVar[Source] = "prompts"
    draws: ClassVar[bool] = True

    group_size: int = 8
    """G, samples of one prompt in a rollout."""
    updates_per_rollout: int = 1
    """Optimiser steps on the samples of one rollout, each on its own share of them."""
    frames: int | None = None
    """T at most of a training sample; a class with a fixed number draws that many if not given."""
    sampling_temperature: float = 1.0
    """Of training samples, and of the log-probabilities that are trained."""
    guidance: float = 1.0
    """Of training samples; 1 is none, at half the passes."""

    def __post_init__(self) -> None:
        positive(self, "sampling_temperature")
        for name in ("group_size", "updates_per_rollout", "frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"method.{name} = {value}: expected at least 1")

    def branches(self, guided: bool) -> int:
        """Passes of one prediction under this guidance."""
        return 2 if guided and self.guidance != 1 else 1


@dataclass(frozen=True, kw_only=True)
class TokenGRPOConfig(TokenOnlineConfig):
    """GRPO, any generator of media tokens. Shao et al. 2024, arXiv:2402.03300."""

    name: ClassVar[str] = "token_grpo"

    clip: float = 0.2
    """On the ratio of a token; TRL: 0.2."""
    clip_high: float | None = None
    """How far the ratio may rise; as ``clip`` if not given. DAPO: 0.28."""
    kl_weight: float = 0.04
    """Pull to the reference, on an estimate of each token's KL; the paper: 0.04, TRL: 0."""
    token_mean: Literal["grpo", "dr_grpo"] = "grpo"
    """Each sample's own mean, as in the paper, or its sum by the longest length, which does not favour short ones."""
    advantage_clip: float = 5.0
    """Of standardised rewards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "clip", "advantage_clip")
        if self.clip_high is not None:
            positive(self, "clip_high")
        if self.kl_weight < 0:
            raise ConfigError(f"method.kl_weight = {self.kl_weight}: expected at least 0")
        if self.group_size < 2:
            raise ConfigError("method.group_size = 1: one sample has no baseline; expected at least 2")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout, the policy and, with a KL, the reference."""
        one = batch_size * self.branches(guided)
        return StepPasses(one * (2 if self.kl_weight > 0 else 1), one)


@dataclass(frozen=True, kw_only=True)
class TokenD3POConfig(TokenOnlineConfig):
    """D3PO on tokens, any generator of media tokens; this project's extension of arXiv:2311.13231."""

    name: ClassVar[str] = "token_d3po"
    passes_per_row: ClassVar[int] = 2

    group_size: int = 2
    """K, samples of a prompt; all their pairs are compared."""
    beta: float = 0.1
    """Strength of the pull to the reference; as D3PO's config."""
    clamp: float = 0.1
    """Half the width of what a token's ratio may be; as D3PO's config."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "beta", "clamp")
        if self.group_size < 2:
            raise ConfigError(
                "method.group_size = 1: one sample has nothing to be compared with; expected at least 2"
            )

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout, and both sides of every pair by policy and reference."""
        one = self.branches(guided)
        pairs = batch_size // self.group_size * math.comb(self.group_size, 2)
        return StepPasses((batch_size + 2 * pairs) * one, 2 * pairs * one)


@dataclass(frozen=True, kw_only=True)
class TokenDROConfig(TokenOnlineConfig):
    """DRO on tokens, any generator of media tokens; this project's extension of arXiv:2510.18353."""

    name: ClassVar[str] = "token_dro"
    source: ClassVar[Source] = "demonstrations"
    passes_per_row: ClassVar[int] = 2

    group_size: int = 1
    """Negatives of a prompt in a rollout."""
    updates_per_rollout: int = 4
    """Optimiser steps between rollouts of the behaviour policy."""
    margin: float = 0.001
    """Of the ranking hinge, in nats per token; as Diffusion-DRO's repository."""
    own: OwnDemonstrations = dataclasses.field(default_factory=OwnDemonstrations)
    """How good samples are made where no ``demonstrations`` file is given."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The snapshot's rollout and what it says of it; both sides by policy and reference."""
        one = batch_size * self.branches(guided)
        return StepPasses(4 * one, 2 * one)
