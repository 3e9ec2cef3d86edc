"""D3PO on pairs that somebody has judged: their kept trajectories x every random step x a clamped DPO."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.rollout import Trajectory
from mmalign.generators.timesteps import NoiseLevel
from mmalign.methods.base import Task, epoch_rows
from mmalign.methods.configs import D3POConfig
from mmalign.methods.d3po import D3PO, PairSteps


@dataclass(frozen=True, eq=False)
class TrajectoryPairs:
    """Judged pairs, with what the sampler went through on the way to either side.

    Args:
        chosen: [N, T + 1, ...], latents from noise to the clean result.
        rejected: as ``chosen``.
        steps: [N, W], the random steps of each pair, which are what is trained.
        levels: T + 1 noise levels, shared by all.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning``.
    """

    chosen: Tensor
    rejected: Tensor
    steps: Tensor
    levels: NoiseLevel
    conditioning: Conditioning
    prompt: Tensor

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape or len(self.levels) != self.chosen.shape[1]:
            raise ShapeError(
                f"rejected and levels: expected {list(self.chosen.shape)} and {self.chosen.shape[1]}, got "
                f"{list(self.rejected.shape)} and {len(self.levels)}"
            )

    def __len__(self) -> int:
        return len(self.chosen)


class LabelledD3PO(D3PO):
    """D3PO off-line, on judged pairs of any number of rounds; the loss is ``D3PO``'s.

    Denoiser passes per pair and trained step: two forward and backward (policy) and two forward (reference). The
    reference stays the base in every round, as in algorithm 1 of the paper; its repository's script for human labels
    copies the policy that a round begins with.

    Source: Yang et al. 2023, Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model, section 4
    and algorithm 1 (arXiv:2311.13231).
    """

    def __init__(self, config: D3POConfig, task: Task, pairs: TrajectoryPairs) -> None:
        super().__init__(config, task)
        self.pairs = pairs

    def batch(self, step: int, *, size: int, seed: int) -> PairSteps:
        """All trained steps of ``size // 2`` pairs, for ``size`` counts samples as it does on-line."""
        pairs = self.pairs
        rows = epoch_rows(step, size=max(1, size // 2), count=len(pairs), seed=seed)
        both = torch.arange(len(rows))
        trajectory = Trajectory(
            torch.cat([pairs.chosen[rows], pairs.rejected[rows]]),
            pairs.levels,
            pairs.conditioning.rows(pairs.prompt[rows].repeat(2)),
            self.sampler(),
            range(len(pairs.levels) - 1),
            torch.zeros(2 * len(rows), 0),
        )
        chosen = both.repeat_interleave(pairs.steps.shape[1])
        return PairSteps(trajectory, chosen, chosen + len(rows), pairs.steps[rows].flatten(), {})

    @torch.no_grad()
    def check_start(self, *, size: int, seed: int) -> None:
        """With a fresh LoRA the policy is the reference, and no step of either side is likelier under one of them.

        Raises:
            ConfigError: it is not, so dropout is on, or policy and reference do not share their weights.
        """
        _, metrics = self.loss(self.batch(0, size=size, seed=seed))
        if float(metrics["margin"]) != 0:
            raise ConfigError(
                f"before the first step policy and reference differ: the margin is {float(metrics['margin']):.6f}, "
                "not 0"
            )
