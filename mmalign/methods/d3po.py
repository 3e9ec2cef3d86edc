"""D3PO: pairs of online samples x random steps of their trajectories x a clamped DPO at every step."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.rollout import Trajectory, scored_step
from mmalign.losses.step_preference import d3po_loss
from mmalign.methods.base import Task
from mmalign.methods.configs import D3POConfig
from mmalign.methods.trajectories import TrajectoryMethod


@dataclass(frozen=True, eq=False)
class PairSteps:
    """The same steps of the two sides of pairs.

    Args:
        trajectory: of all samples.
        chosen: [N], index of the better sample.
        rejected: [N], of the other.
        step: [N], index of a step of the window.
        notes: numbers of the whole rollout, for the metrics.
    """

    trajectory: Trajectory
    chosen: Tensor
    rejected: Tensor
    step: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.step)

    def part(self, start: int, stop: int) -> "PairSteps":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return PairSteps(self.trajectory, self.chosen[rows], self.rejected[rows], self.step[rows], self.notes)


class D3PO(TrajectoryMethod):
    """D3PO on any denoiser: the preference over final samples is handed down to every random step that made them.

        q = log clamp(exp(log_prob - ref_log_prob), 1 - clamp, 1 + clamp)
        L = mean over pairs and steps of -log sigmoid(beta * (q_chosen - q_rejected))

    The samples of a prompt begin at one noise. Denoiser passes per pair: 2 x ``rollout_steps`` forward, and for each
    trained step two forward and backward (policy) and two forward (reference).

    Source: Yang et al. 2023, Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model, section 4
    (arXiv:2311.13231).
    """

    def __init__(self, config: D3POConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> PairSteps:
        """All trained steps of all pairs among ``size`` samples with different scores; ties would dilute the mean."""
        drawn = self.rollout(step, size=size, seed=seed)
        G, scores = self.config.group_size, drawn.scores.flatten()
        pairs = []
        for first in self.shares(step, len(drawn.prompts))[::G].tolist():
            for i, j in itertools.combinations(range(first, first + G), 2):
                if scores[i] != scores[j]:
                    pairs.append((i, j) if scores[i] > scores[j] else (j, i))
        if not pairs:
            raise ConfigError("all samples of a step have equal scores; there is nothing to prefer")
        chosen, rejected = torch.tensor(pairs).unbind(1)
        steps = torch.tensor(list(drawn.trajectory.window))
        return PairSteps(
            drawn.trajectory,
            chosen.repeat_interleave(len(steps)),
            rejected.repeat_interleave(len(steps)),
            steps.repeat(len(chosen)),
            drawn.notes(),
        )

    def loss(self, batch: PairSteps) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some steps, with how often the policy prefers as the scorer, and the share of clamped ratios."""
        sample, step = torch.cat([batch.chosen, batch.rejected]), batch.step.repeat(2)
        log_prob = scored_step(self.generator, batch.trajectory, sample, step).log_prob
        with torch.no_grad(), self.generator.weights("reference"):
            reference = scored_step(self.generator, batch.trajectory, sample, step).log_prob
        loss = d3po_loss(
            *log_prob.chunk(2), *reference.chunk(2), beta=self.config.beta, clamp=self.config.clamp
        )
        with torch.no_grad():
            log_ratio = log_prob - reference
            chosen, rejected = log_ratio.chunk(2)
            ratio = log_ratio.exp()
            clamped = (ratio < 1 - self.config.clamp) | (ratio > 1 + self.config.clamp)
            metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
            metrics |= {
                "accuracy": (chosen > rejected).float().mean() + 0.5 * (chosen == rejected).float().mean(),
                "margin": (chosen - rejected).mean(),
                "clip_fraction": clamped.float().mean(),
            }
        return loss, metrics

    def check_start(self, *, size: int, seed: int) -> None:
        """On the first pass every ratio is 1."""
        self.check_first_ratio(self.rollout(0, size=size, seed=seed).trajectory, clip=self.config.clamp)
