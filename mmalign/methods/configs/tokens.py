"""Settings of the methods on media tokens."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmalign.errors import ConfigError
from mmalign.methods.configs.base import OwnDemonstrations, OwnSamples, Source, StepPasses, positive
from mmalign.methods.configs.offline import PairConfig, RWRConfig
from mmalign.methods.configs.online import GroupConfig, compared


@dataclass(frozen=True, kw_only=True)
class TokenDPOConfig(PairConfig):
    """DPO, any generator of media tokens. Rafailov et al. 2023, arXiv:2305.18290."""

    name: ClassVar[str] = "token_dpo"
    on_tokens: ClassVar[bool] = True

    beta: float = 0.1
    """Strength of the pull to the reference, on log-probabilities summed over a sample; the paper: 0.1."""
    length_power: float = 0.0
    """How far a sample's length is divided out; the paper: 0, the sum. At 1 it is a mean, and wants a larger beta."""

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        positive(self, "beta")


@dataclass(frozen=True, kw_only=True)
class TokenRWRConfig(RWRConfig):
    """Reward-weighted regression, any generator of media tokens. Lee et al. 2023, arXiv:2302.12192."""

    name: ClassVar[str] = "token_rwr"
    on_tokens: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TokenOnlineConfig(GroupConfig):
    """How samples are drawn for training: of all tokens, since a filter would make old samples impossible later."""

    on_tokens: ClassVar[bool] = True

    frames: int | None = None
    """T at most of a training sample; the model's own number if not given."""
    sampling_temperature: float = 1.0
    """Of training samples, and of the log-probabilities that are trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "sampling_temperature")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"method.frames = {self.frames}: expected at least 1")


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
    credit: Literal["sequence", "prefix"] = "sequence"
    """One advantage for all tokens of a sample, as in the paper; or to each part of it what it added to the reward,
    which scores every sample at ``credit_parts`` places. The sum stays the reward of the whole."""
    credit_parts: int = 4
    """With ``credit`` prefix: parts of equal length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "clip", "advantage_clip")
        if self.credit_parts < 2:
            raise ConfigError(f"method.credit_parts = {self.credit_parts}: expected at least 2")
        if self.credit == "sequence" and self.credit_parts != 4:
            raise ConfigError("method.credit_parts is for method.credit prefix, and this is sequence")
        if self.clip_high is not None:
            positive(self, "clip_high")
        if self.kl_weight < 0:
            raise ConfigError(f"method.kl_weight = {self.kl_weight}: expected at least 0")
        compared(self)

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
        compared(self)

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


@dataclass(frozen=True, kw_only=True)
class TokenRewardDistillationConfig(TokenOnlineConfig):
    """Distillation into fewer layers with a reward; this project's extension of arXiv:2403.11027 to tokens."""

    name: ClassVar[str] = "token_reward_distillation"
    source: ClassVar[Source] = "ratings"

    student_share: float = 0.5
    """Of the layers, these stay, with the model's own weights at first; all that is left is trained."""
    teacher_steps: int = 100
    """First steps, on samples of the teacher; from then on the student's own."""
    teacher_guidance: float = 1.0
    """Of the teacher; the student learns it and is drawn with none."""
    reward_weight: float = 0.1
    """lambda, nats per token for a standardised reward."""
    own: OwnSamples = dataclasses.field(default_factory=OwnSamples)
    """How the teacher's samples are made where no ``ratings`` file is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        compared(self)
        if not 0 < self.student_share < 1:
            raise ConfigError(f"method.student_share = {self.student_share}: expected a share in (0, 1)")
        if self.teacher_steps < 0 or self.reward_weight < 0:
            raise ConfigError("method.teacher_steps and reward_weight: expected at least 0")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The student's rollout and the teacher; the student."""
        taught = 2 if guided and self.teacher_guidance != 1 else 1
        return StepPasses(batch_size * (1 + taught), batch_size)
