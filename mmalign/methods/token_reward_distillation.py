"""Token reward distillation: samples of teacher and student x next-token distributions x distance less reward."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.token_layouts import IGNORED
from mmalign.losses.advantages import group_advantages, leave_one_out_advantages
from mmalign.losses.masks import masked_mean
from mmalign.losses.token_distillation import token_reward_distillation_loss
from mmalign.losses.tokens import token_kl
from mmalign.methods.base import Task, epoch_rows
from mmalign.methods.configs import TokenRewardDistillationConfig
from mmalign.methods.latents import LatentSamples
from mmalign.methods.online import scale_of
from mmalign.methods.token_online import TokenOnlineMethod


@dataclass(frozen=True, eq=False)
class JudgedTokens:
    """Samples, each with its advantage.

    Args:
        tokens: [B, T, K].
        conditioning: of B samples.
        advantage: [B].
        notes: numbers of the whole batch, for the metrics.
    """

    tokens: Tensor
    conditioning: Conditioning
    advantage: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "JudgedTokens":
        """Its rows from ``start`` to ``stop``."""
        rows = torch.arange(start, stop)
        return JudgedTokens(self.tokens[rows], self.conditioning.rows(rows), self.advantage[rows], self.notes)


class TokenRewardDistillation(TokenOnlineMethod):
    """Distil a token generator into one with fewer layers while its samples gain reward.

        L = mean_l KL(student || teacher)[l] - reward_weight * A * mean_l log student(token l)

    A is the standardised reward less that of the others of its group. The first ``teacher_steps`` steps are on samples
    of the teacher and the rest on the student's own, since a student that has lost half its layers says nothing that
    the teacher could correct. The student is trained whole; the teacher, the model as it was, may be guided, and its
    guidance goes into the student, which is drawn with none.

    Model passes per sample: one forward and backward (student), one or two forward (teacher), and one to draw it.

    Source: this project's extension of Li et al. 2024, RG-LCD (arXiv:2403.11027), to tokens; data of both models as in
    Agarwal et al. 2023, GKD, section 3 (arXiv:2306.13649).
    """

    def __init__(self, config: TokenRewardDistillationConfig, task: Task) -> None:
        self.samples = task.data_of(LatentSamples, what="scored samples of the teacher")
        super().__init__(config, task)
        self.config = config
        if self.samples.score is None:
            raise ConfigError(f"{config.name} needs scored samples of the teacher: give --ratings FILE")
        self.advantage = prompt_advantages(self.samples.score, self.samples.prompt)
        self.conditioning = self.condition(self.samples.texts)

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """For student and teacher, which may be guided."""
        return self.generator.condition(prompts, guidance=scale_of(self.config.teacher_guidance))

    def batch(self, step: int, *, size: int, seed: int) -> JudgedTokens:
        """Samples of the teacher, later of the student."""
        if step < self.config.teacher_steps:
            rows = epoch_rows(step, size=size, count=len(self.samples), seed=seed)
            conditioning = self.conditioning.rows(self.samples.prompt[rows])
            return JudgedTokens(self.samples.clean[rows], conditioning, self.advantage[rows], {})
        drawn = self.rollout(step, size=size, seed=seed)
        advantage = leave_one_out_advantages(group_advantages(drawn.scores)).flatten()
        mine = self.shares(step, len(drawn.prompts))
        conditioning = self.condition([drawn.prompts[i] for i in mine.tolist()])
        tokens = drawn.trajectory.tokens[mine]
        return JudgedTokens(tokens, conditioning, advantage[mine], self.notes(drawn))

    def loss(self, batch: JudgedTokens) -> tuple[Tensor, dict[str, Tensor]]:
        """Distance and reward, with the distance alone in nats per token."""
        device = self.generator.device
        tokens = batch.tokens.to(device)
        logits = self.generator.logits(tokens, batch.conditioning).flatten(1, 2)
        with torch.no_grad(), self.generator.weights("reference"):
            taught = self.generator.logits(
                tokens, batch.conditioning, guidance=scale_of(self.config.teacher_guidance)
            ).flatten(1, 2)
        flat = tokens.flatten(1)
        mask = flat != IGNORED
        loss = token_reward_distillation_loss(
            logits,
            taught,
            flat,
            batch.advantage.to(device),
            mask,
            reward_weight=self.config.reward_weight,
        )
        with torch.no_grad():
            metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
            metrics["distance"] = masked_mean(token_kl(logits, taught, mask=mask), mask).mean()
        return loss, metrics


def prompt_advantages(score: Tensor, prompt: Tensor) -> Tensor:
    """Leave-one-out advantages [N] of standardised scores [N] among the samples of their prompt [N]; 0 where alone."""
    advantage = torch.zeros_like(score)
    for index in prompt.unique():
        rows = (prompt == index).nonzero()[:, 0]
        if len(rows) > 1:
            advantage[rows] = leave_one_out_advantages(group_advantages(score[None, rows]))[0]
    return advantage
