"""Settings of the methods on media tokens."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mmalign.errors import ConfigError
from mmalign.methods.configs.base import OwnDemonstrations, OwnSamples, Source, StepPasses
from mmalign.methods.configs.offline import PairConfig, RWRConfig
from mmalign.methods.configs.online import GROUP, GroupConfig
from mmalign.ranges import COUNT, GUIDANCE, NOT_NEGATIVE, POSITIVE, SHARE, Range


@dataclass(frozen=True, kw_only=True)
class TokenDPOConfig(PairConfig):
    """DPO, any generator of media tokens. Rafailov et al. 2023, arXiv:2305.18290."""

    name: ClassVar[str] = "token_dpo"
    on_tokens: ClassVar[bool] = True

    beta: Annotated[float, POSITIVE] = 0.1
    """Strength of the pull to the reference, on log-probabilities summed over a sample; the paper: 0.1."""
    length_power: Annotated[float, SHARE] = 0.0
    """How far a sample's length is divided out; the paper: 0, the sum. At 1 it is a mean, and wants a larger beta."""


@dataclass(frozen=True, kw_only=True)
class TokenRWRConfig(RWRConfig):
    """Reward-weighted regression, any generator of media tokens. Lee et al. 2023, arXiv:2302.12192."""

    name: ClassVar[str] = "token_rwr"
    on_tokens: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TokenOnlineConfig(GroupConfig):
    """How samples are drawn for training: of all tokens, since a filter would make old samples impossible later."""

    on_tokens: ClassVar[bool] = True

    frames: Annotated[int | None, COUNT] = None
    """T at most of a training sample; the model's own number if not given."""
    sampling_temperature: Annotated[float, POSITIVE] = 1.0
    """Of training samples, and of the log-probabilities that are trained."""


@dataclass(frozen=True, kw_only=True)
class TokenGRPOConfig(TokenOnlineConfig):
    """GRPO, any generator of media tokens. Shao et al. 2024, arXiv:2402.03300."""

    name: ClassVar[str] = "token_grpo"

    clip: Annotated[float, POSITIVE] = 0.2
    """On the ratio of a token; TRL: 0.2."""
    clip_high: Annotated[float | None, POSITIVE] = None
    """How far the ratio may rise; as ``clip`` if not given. DAPO: 0.28."""
    kl_weight: Annotated[float, NOT_NEGATIVE] = 0.04
    """Pull to the reference, on an estimate of each token's KL; the paper: 0.04, TRL: 0."""
    token_mean: Literal["grpo", "dr_grpo"] = "grpo"
    """Each sample's own mean, as in the paper, or its sum by the longest length, which does not favour short ones."""
    advantage_clip: Annotated[float, POSITIVE] = 5.0
    """Of standardised rewards."""
    credit: Literal["sequence", "prefix"] = "sequence"
    """One advantage for all tokens of a sample, as in the paper; or to each part of it what it added to the reward,
    which scores every sample at ``credit_parts`` places. The sum stays the reward of the whole."""
    credit_parts: Annotated[int, Range(least=2)] = 4
    """With ``credit`` prefix: parts of equal length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.credit == "sequence" and self.credit_parts != 4:
            raise ConfigError("method.credit_parts is for method.credit prefix, and this is sequence")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout, the policy and, with a KL, the reference."""
        one = batch_size * self.branches(guided)
        return StepPasses(one * (2 if self.kl_weight > 0 else 1), one)


@dataclass(frozen=True, kw_only=True)
class TokenD3POConfig(TokenOnlineConfig):
    """D3PO on tokens, any generator of media tokens; this project's extension of arXiv:2311.13231."""

    name: ClassVar[str] = "token_d3po"
    passes_per_row: ClassVar[int] = 2

    group_size: Annotated[int, GROUP] = 2
    """K, samples of a prompt; all their pairs are compared."""
    beta: Annotated[float, POSITIVE] = 0.1
    """Strength of the pull to the reference; as D3PO's config."""
    clamp: Annotated[float, POSITIVE] = 0.1
    """Half the width of what a token's ratio may be; as D3PO's config."""

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

    group_size: Annotated[int, COUNT] = 1
    """Negatives of a prompt in a rollout."""
    updates_per_rollout: Annotated[int, COUNT] = 4
    """Optimiser steps between rollouts of the behaviour policy."""
    margin: Annotated[float, NOT_NEGATIVE] = 0.001
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

    student_share: Annotated[float, Range(above=0, below=1)] = 0.5
    """Of the layers, these stay, with the model's own weights at first; all that is left is trained."""
    teacher_steps: Annotated[int, NOT_NEGATIVE] = 100
    """First steps, on samples of the teacher; from then on the student's own."""
    teacher_guidance: Annotated[float, GUIDANCE] = 1.0
    """Of the teacher; the student learns it and is drawn with none."""
    reward_weight: Annotated[float, NOT_NEGATIVE] = 0.1
    """lambda, nats per token for a standardised reward."""
    own: OwnSamples = dataclasses.field(default_factory=OwnSamples)
    """How the teacher's samples are made where no ``ratings`` file is given."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The student's rollout and the teacher; the student."""
        taught = 2 if guided and self.teacher_guidance != 1 else 1
        return StepPasses(batch_size * (1 + taught), batch_size)
