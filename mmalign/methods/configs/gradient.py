"""Settings of the methods that follow the gradient of a differentiable reward."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mmalign.errors import ConfigError
from mmalign.methods.configs.base import MethodConfig, OwnSamples, Source, StepPasses
from mmalign.ranges import COUNT, FINITE, GUIDANCE, NOT_NEGATIVE, POSITIVE, Range


@dataclass(frozen=True, kw_only=True)
class RewardGradientConfig(MethodConfig):
    """What ReFL and DRaFT share."""

    source: ClassVar[Source] = "prompts"
    draws: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    rollout_steps: Annotated[int, COUNT] = 16
    """Denoising steps of a training sample."""
    guidance: Annotated[float, GUIDANCE] = 1.0
    """Of training samples; 1 is none."""
    calibration: Annotated[int, Range(least=2, why="a std needs 2 samples")] = 64
    """Samples of the reference whose mean and std make one unit of the reward, so that any scale trains alike."""

    def branches(self, guided: bool) -> int:
        """Passes of one prediction under this guidance."""
        return 2 if guided and self.guidance != 1 else 1


@dataclass(frozen=True, kw_only=True)
class ReFLConfig(RewardGradientConfig):
    """ReFL, any denoiser: ``mmalign align image/refl``. Xu et al. 2023, ImageReward, algorithm 1 (arXiv:2304.05977)."""

    name: ClassVar[str] = "refl"
    also_takes: ClassVar[tuple[str, ...]] = ("demonstrations",)

    first_share: Annotated[float, Range(least=0, below=1)] = 0.75
    """The rewarded step is drawn from this share of the chain on; the released trainer: steps 30 to 39 of 40."""
    ceiling: Annotated[float, FINITE] = 2.0
    """Rewards above it, in standard deviations above the reference's mean, pull no further; the released trainer: 2."""
    reward_weight: Annotated[float, POSITIVE] = 1e-3
    """The released trainer's grad_scale: 1e-3. It matters beside ``denoising_weight``, and to the gradient's clip."""
    denoising_weight: Annotated[float, NOT_NEGATIVE] = 0.0
    """Of the denoising loss on ``demonstrations``, the paper's second term, which the released trainer leaves out."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The chain up to its last step at most, and that step."""
        one = batch_size * self.branches(guided)
        return StepPasses(
            (self.rollout_steps - 1) * one, one + (batch_size if self.denoising_weight > 0 else 0)
        )


@dataclass(frozen=True, kw_only=True)
class DRaFTConfig(RewardGradientConfig):
    """DRaFT-K, DRaFT-LV and AlignProp, any denoiser: ``mmalign align image/draft``. arXiv:2309.17400, 2310.03739."""

    name: ClassVar[str] = "draft"

    last_steps: Annotated[int, COUNT] = 1
    """K, the steps at the end that carry gradient. Clark et al. 2023, on DRaFT-K: K = 1 is the efficient default."""
    truncation: Literal["fixed", "random"] = "fixed"
    """Always ``last_steps``, or a number of steps drawn evenly from 1 to it; of all steps, as AlignProp does."""
    target: Annotated[float | None, FINITE] = None
    """A reward, in its own unit, that samples are brought to from either side, as AlignProp's code does (10 for the
    aesthetic score); None to raise the reward without end."""
    low_variance: Annotated[int, COUNT] = 1
    """n, times that a result is noised to the last level and denoised anew: DRaFT-LV; the paper takes 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last_steps > self.rollout_steps:
            raise ConfigError(
                f"method.last_steps = {self.last_steps}: expected 1 to rollout_steps = {self.rollout_steps}"
            )
        if self.low_variance > 1 and self.last_steps > 1:
            raise ConfigError("method.low_variance: DRaFT-LV is defined for last_steps = 1")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The chain, its last steps with gradient; for DRaFT-LV the whole chain, and the copies."""
        one = batch_size * self.branches(guided)
        if self.low_variance > 1:
            return StepPasses(self.rollout_steps * one, self.low_variance * one)
        return StepPasses((self.rollout_steps - self.last_steps) * one, self.last_steps * one)


@dataclass(frozen=True, kw_only=True)
class RewardDistillationConfig(RewardGradientConfig):
    """Reward-guided distillation to few steps: ``mmalign align image/reward_distillation``. arXiv:2403.11027."""

    name: ClassVar[str] = "reward_distillation"
    source: ClassVar[Source] = "ratings"

    rollout_steps: Annotated[int, COUNT] = 16
    """Of the teacher's grid, on which the student learns; the paper: 50."""
    student_steps: Annotated[int, COUNT] = 4
    """Steps of the student when it is judged and used."""
    reward_weight: Annotated[float, NOT_NEGATIVE] = 1.0
    """lambda of the reward of the student's one-step result; the paper: 1."""
    target_decay: Annotated[float, Range(least=0, below=1)] = 0.95
    """Of the target network, an average of the student; the paper: 0.95."""
    huber: Annotated[float, POSITIVE] = 0.001
    """c of the pseudo-Huber distance; the paper: 0.001."""
    own: OwnSamples = dataclasses.field(default_factory=OwnSamples)
    """How the clean samples are made: the teacher's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_steps > self.rollout_steps:
            raise ConfigError(
                f"method.student_steps = {self.student_steps}: expected 1 to rollout_steps = {self.rollout_steps}"
            )

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The student; its target and the teacher."""
        return StepPasses(batch_size * (1 + self.branches(guided)), batch_size)
