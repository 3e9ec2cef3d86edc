"""Settings of the methods that draw new samples while they learn."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mmalign.errors import ConfigError
from mmalign.methods.configs.base import MethodConfig, OwnDemonstrations, Source, StepPasses
from mmalign.ranges import COUNT, GUIDANCE, NOT_NEGATIVE, POSITIVE, Range

GROUP = Range(least=2, why="one sample has no baseline and nothing to be compared with")


@dataclass(frozen=True, kw_only=True)
class GroupConfig(MethodConfig):
    """Groups of samples that are drawn while a method learns, of any family of generators."""

    source: ClassVar[Source] = "prompts"
    draws: ClassVar[bool] = True

    group_size: Annotated[int, GROUP] = 8
    """G, samples of one prompt in a rollout."""
    updates_per_rollout: Annotated[int, COUNT] = 1
    """Optimiser steps on the samples of one rollout, each on its own share of them."""
    guidance: Annotated[float, GUIDANCE] = 1.0
    """Of training samples; 1 is none, at half the passes."""

    def branches(self, guided: bool) -> int:
        """Passes of one prediction under this guidance."""
        return 2 if guided and self.guidance != 1 else 1


@dataclass(frozen=True, kw_only=True)
class OnlineConfig(GroupConfig):
    """How a denoiser's samples are drawn for training."""

    rollout_steps: Annotated[int, Range(least=2)] = 10
    """Denoising steps of a training sample; Flow-GRPO: 10 where evaluation takes 40."""

    def rollout_passes(self, batch_size: int, *, guided: bool) -> int:
        """Of drawing the samples of one optimiser step."""
        return batch_size * self.rollout_steps * self.branches(guided)


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(OnlineConfig):
    """How random steps are taken, and which of them are trained."""

    noise_level: Annotated[float, POSITIVE] = 0.7
    """How random: Flow-GRPO's a (0.7 for images) on a flow; DDIM's eta, 1 in DDPO, on a diffusion."""
    flow_step: Literal["flow-sde", "dance-sde", "cps"] = "flow-sde"
    """The random step of a flow: Flow-GRPO's, DanceGRPO's, or coefficients-preserving."""
    ratio_guidance: Literal["inside", "outside"] = "inside"
    """Likelihood of the guided step, as in the papers; or of the conditional branch alone, at half the passes."""
    window: Annotated[int, NOT_NEGATIVE] = 0
    """Random and trained steps of a rollout, at a random place in its first half, as in Flow-GRPO-Fast; 0 is all steps
    but the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window >= self.rollout_steps:
            raise ConfigError(
                f"method.window = {self.window}: expected 0 (all) to rollout_steps - 1 = {self.rollout_steps - 1}"
            )

    def trained_passes(self, guided: bool) -> int:
        """Of scoring the trained steps of one sample once."""
        branches = self.branches(guided) if self.ratio_guidance == "inside" else 1
        return (self.window or self.rollout_steps - 1) * branches


@dataclass(frozen=True, kw_only=True)
class FlowGRPOConfig(TrajectoryConfig):
    """Flow-GRPO, and DDPO or DanceGRPO by its options: ``mmalign align image/flow_grpo``. arXiv:2505.05470."""

    name: ClassVar[str] = "flow_grpo"

    clip: Annotated[float, POSITIVE] = 1e-4
    """On the ratio. Small because log_prob is a mean over latent dimensions; Flow-GRPO's config: 1e-4."""
    kl_weight: Annotated[float, NOT_NEGATIVE] = 0.01
    """Pull to the reference, on the KL of each step. Flow-GRPO, appendix B.3: 0.01 for PickScore, 0.04 for GenEval."""
    advantages: Literal["flow_grpo", "group", "dance_grpo"] = "flow_grpo"
    """Divided by the std of all rewards (Flow-GRPO's default), of the group, or of the group with G - 1."""
    advantage_clip: Annotated[float, POSITIVE] = 5.0
    """DDPO, Flow-GRPO and DanceGRPO all take 5."""
    same_noise: bool = False
    """The samples of a prompt begin at one noise: DanceGRPO does, Flow-GRPO found that it hurts."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout, the policy's trained steps and, with a KL, the reference's."""
        trained = batch_size * self.trained_passes(guided)
        rollout = self.rollout_passes(batch_size, guided=guided)
        return StepPasses(rollout + (trained if self.kl_weight > 0 else 0), trained)


@dataclass(frozen=True, kw_only=True)
class D3POConfig(TrajectoryConfig):
    """D3PO, any denoiser: ``mmalign align image/d3po``. Yang et al. 2023, arXiv:2311.13231."""

    name: ClassVar[str] = "d3po"
    passes_per_row: ClassVar[int] = 2

    group_size: Annotated[int, GROUP] = 2
    """K, samples of a prompt from one initial noise; all their pairs are compared. The paper: 7 with human labels, 2
    with a scorer."""
    noise_level: Annotated[float, POSITIVE] = 1.0
    """The paper's eta: 1."""
    beta: Annotated[float, POSITIVE] = 0.1
    """Strength of the pull to the reference; the paper's config: 0.1."""
    clamp: Annotated[float, POSITIVE] = 0.1
    """Half the width of what a step's ratio may be; the paper's config: 0.1."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout, and both sides of every pair at every trained step, by policy and reference."""
        pairs = batch_size // self.group_size * math.comb(self.group_size, 2)
        trained = 2 * pairs * self.trained_passes(guided)
        return StepPasses(self.rollout_passes(batch_size, guided=guided) + trained, trained)


@dataclass(frozen=True, kw_only=True)
class NFTConfig(OnlineConfig):
    """DiffusionNFT, any denoiser: ``mmalign align image/nft``. Zheng et al. 2025, arXiv:2509.16117."""

    name: ClassVar[str] = "nft"

    strength: Annotated[float, POSITIVE] = 1.0
    """The paper's beta: how far the implicit good and bad policies lie from the old one. Config: 1, 0.1 for OCR."""
    advantage_clip: Annotated[float, POSITIVE] = 5.0
    """A_max; config: 5."""
    kl_weight: Annotated[float, NOT_NEGATIVE] = 1e-4
    """On the squared distance of velocities to the reference; config: 1e-4."""
    times_per_sample: Annotated[int, COUNT] = 4
    """Noise levels that each sample is trained at; the repository takes nearly all of its 10."""
    old_decay: Literal["rising", "none", "late"] = "rising"
    """How slowly the sampling policy follows: min(0.001 k, 0.5) after k steps, at once, or the OCR schedule."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The rollout; policy, old policy and reference at every level."""
        trained = batch_size * self.times_per_sample
        return StepPasses(self.rollout_passes(batch_size, guided=guided) + 2 * trained, trained)


@dataclass(frozen=True, kw_only=True)
class DROConfig(OnlineConfig):
    """Diffusion-DRO: good samples against one's own: ``mmalign align image/dro``. Basiclab 2025, Diffusion-DRO."""

    name: ClassVar[str] = "dro"
    source: ClassVar[Source] = "demonstrations"
    passes_per_row: ClassVar[int] = 2

    group_size: Annotated[int, COUNT] = 1
    """Negatives of a prompt in a rollout."""
    updates_per_rollout: Annotated[int, COUNT] = 4
    """Optimiser steps between rollouts of the behaviour policy; the repository: one per 16 micro-steps."""
    margin: Annotated[float, NOT_NEGATIVE] = 0.001
    """Of the ranking hinge; the repository: 0.001."""
    own: OwnDemonstrations = dataclasses.field(default_factory=OwnDemonstrations)
    """How good samples are made where no ``demonstrations`` file is given."""

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """The snapshot's rollout; demonstration and own sample, by policy and reference."""
        return StepPasses(self.rollout_passes(batch_size, guided=guided) + 2 * batch_size, 2 * batch_size)
