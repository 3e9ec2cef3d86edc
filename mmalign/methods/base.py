"""What every method shares: what it is given, and what a training loop asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.media import Sample
from mmalign.methods.latents import LatentPairs, LatentSamples
from mmalign.processes import Processes
from mmalign.rewards.base import DifferentiableReward, Reward, Score
from mmalign.rewards.direction import turned
from mmalign.rewards.groups import compares, rows_by_prompt
from mmalign.rewards.learning import after_rollout, gathered
from mmalign.rewards.rows import join_scores, without_score

D = TypeVar("D")


class Batch(Protocol):
    """Everything random of one optimiser step, drawn before it is cut into micro-batches."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> "Batch":
        """Its rows from ``start`` to ``stop``."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """What a method works with, beside its own settings.

    Args:
        adapter: the generator with its medium.
        data: what an offline method learns from.
        prompts: what an online method draws samples of.
        reward: scores samples; None where the data says all.
        sampling: the pipeline's own options for drawing samples, with ``steps`` and ``guidance``.
        draw_batch: samples drawn at once.
    """

    adapter: Any
    data: LatentPairs | LatentSamples | None = None
    prompts: Sequence[str] = ()
    reward: Reward | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    draw_batch: int = 32

    @property
    def generator(self) -> DenoisingGenerator:
        """The policy, its reference and its kept copies."""
        generator: DenoisingGenerator = self.adapter.generator
        return generator

    def data_of(self, kind: type[D], *, what: str) -> D:
        """The data, which has to be of a kind.

        Raises:
            ConfigError: it is not there, or of another kind.
        """
        if not isinstance(self.data, kind):
            raise ConfigError(f"this method learns from {what}, and was given {type(self.data).__name__}")
        return self.data

    def score(self, latents: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of clean latents, turned so that higher is better, on the CPU; NaN where the reward has none.

        A reward that compares the samples of a prompt sees all of them at once, whatever ``draw_batch`` is and however
        many processes there are: each process has the whole groups of its prompts.

        Raises:
            ConfigError: no reward was given.
        """
        judged = self.judged(latents, prompts)
        assert self.reward is not None  # else it was refused
        return turned(judged, self.reward)

    @torch.no_grad()
    def judged(self, latents: Tensor, prompts: Sequence[str]) -> Score:
        """What the reward says of B clean latents, on the CPU; of several processes the values of all.

        Raises:
            ConfigError: no reward was given.
        """
        if self.reward is None:
            raise ConfigError("this method needs a reward; add --reward NAME")
        processes, groups = Processes(), rows_by_prompt(prompts)
        if compares(self.reward):
            parts = [groups[number] for number in processes.share(len(groups))]
        else:
            mine = processes.share(len(latents))
            parts = [list(mine[i : i + self.draw_batch]) for i in range(0, len(mine), self.draw_batch)]
        scores = [self.reward.score(self._decoded(latents, prompts, rows)) for rows in parts]
        return gathered(
            self.reward,
            join_scores([without_score([]), *scores]),
            rows=[row for rows in parts for row in rows],
            total=len(latents),
        )

    def after_rollout(self, prompts: Sequence[str], scores: Score) -> None:
        """Let what learns in the reward take the step that belongs to a rollout of an online method."""
        if self.reward is not None:
            after_rollout(self.reward, [Sample(prompt) for prompt in prompts], scores)

    def _decoded(self, latents: Tensor, prompts: Sequence[str], rows: Sequence[int]) -> list[Sample]:
        """The samples of some rows, decoded ``draw_batch`` at a time."""
        samples = []
        for start in range(0, len(rows), self.draw_batch):
            part = list(rows[start : start + self.draw_batch])
            media = self.adapter.decode(latents[part])
            samples += [Sample(prompts[row], medium) for row, medium in zip(part, media, strict=True)]
        return samples

    def score_with_grad(self, latents: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B], turned so that higher is better; their gradient reaches the clean latents through the decoder.

        Raises:
            ConfigError: the reward has no gradient.
        """
        if not isinstance(self.reward, DifferentiableReward) or not self.reward.card.differentiable:
            name = "none" if self.reward is None else f"'{self.reward.card.name}'"
            raise ConfigError(
                f"this method follows the reward's gradient, and the reward {name} has none; take a differentiable "
                "one (`mmalign rewards`), or a method for black boxes such as flow_grpo"
            )
        decoded = self.adapter.decode_with_grad(latents)
        scores = self.reward.score_with_grad(decoded, [Sample(prompt) for prompt in prompts])
        return self.reward.card.sign * scores


class Method(ABC):
    """A source x a likelihood x a loss."""

    steps_per_rollout: int = 1
    """Optimiser steps on the data of one rollout. A checkpoint falls between rollouts, so that none is lost."""

    @abstractmethod
    def batch(self, step: int, *, size: int, seed: int) -> Batch:
        """The data of one step, a function of ``step``, ``seed`` and the weights: a resumed run equals an unbroken one.

        Args:
            step: from 0; where it is a multiple of ``steps_per_rollout``, an online method draws new samples.
            size: rows of an offline method; samples of an online one.
            seed: of the run.
        """

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the batch's rows, and what is worth plotting, each a mean over them."""

    def check_start(self, *, size: int, seed: int) -> None:
        """Refuse to start where a fresh policy does not give the value that the loss has by definition.

        Raises:
            ConfigError: it does not, with the numbers.
        """
        del size, seed

    def after_step(self, step: int) -> None:
        """What follows an optimiser step, such as moving an average of the weights; ``step`` steps are done."""
        del step

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep beside weights and optimiser."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        if state:
            raise ConfigError(f"the checkpoint is of another method: it holds {sorted(state)[:3]}")


def mixed_generator(*numbers: int) -> torch.Generator:
    """Random numbers that depend on every one of several numbers, such as a seed and a step.

    Mixed into 32 bits, since torch's CPU generator ignores the upper half of a 64-bit seed.
    """
    return torch.Generator("cpu").manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def mixed_seeds(count: int, *numbers: int) -> list[int]:
    """``count`` seeds that depend on every one of several numbers."""
    return [int(word) for word in np.random.SeedSequence(numbers).generate_state(count)]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    return mixed_generator(seed, 0, step)


def epoch_rows(step: int, *, size: int, count: int, seed: int) -> Tensor:
    """Rows of step ``step`` when ``count`` rows are walked in a new random order each epoch.

    >>> first, second = (epoch_rows(k, size=2, count=4, seed=0) for k in (0, 1))
    >>> sorted([*first.tolist(), *second.tolist()])
    [0, 1, 2, 3]
    """
    positions = torch.arange(step * size, (step + 1) * size)
    rows = torch.empty(size, dtype=torch.long)
    for epoch in (positions // count).unique().tolist():
        order = torch.randperm(count, generator=mixed_generator(seed, 1, epoch))
        inside = positions // count == epoch
        rows[inside] = order[positions[inside] % count]
    return rows
