"""Rewards that learn from what a policy draws, such as multipliers, wherever they stand inside another reward."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.processes import Processes
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.rows import without_score


@runtime_checkable
class LearningReward(Reward, Protocol):
    """A reward that takes one step after each rollout of an online method, and whose state a checkpoint keeps."""

    def after_rollout(self, samples: Sequence[Sample], scores: Score) -> None:
        """Learn from the samples of a rollout, which carry their prompts alone, and what ``score`` said of them."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What it has learnt."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        ...

    def report(self) -> dict[str, float]:
        """What is worth plotting of it."""
        ...


def learners(reward: Reward | None, place: str = "reward") -> Iterator[tuple[str, LearningReward]]:
    """Every reward that learns, in one and in what it is made of, with its place."""
    if reward is None:
        return
    if isinstance(reward, LearningReward):
        yield place, reward
    for number, part in enumerate(getattr(reward, "parts", ())):
        yield from learners(part, f"{place}/{number}")


def after_rollout(reward: Reward, samples: Sequence[Sample], scores: Score) -> None:
    """Let everything in a reward that learns take its step; nothing where nothing does."""
    if isinstance(reward, LearningReward):
        reward.after_rollout(samples, scores)
    for part, said in zip(getattr(reward, "parts", ()), scores.parts, strict=True):
        after_rollout(part, samples, said)


def learnt_state(reward: Reward | None) -> dict[str, Tensor]:
    """What a reward has learnt, for a checkpoint: tensors by ``place/name``."""
    return {f"{at}/{name}": t for at, part in learners(reward) for name, t in part.state().items()}


def load_learnt_state(reward: Reward | None, state: Mapping[str, Tensor]) -> None:
    """Take it back.

    Raises:
        ConfigError: it is of a reward that learns elsewhere or something else.
    """
    wanted = learnt_state(reward)
    if {n: t.shape for n, t in wanted.items()} != {n: t.shape for n, t in state.items()}:
        raise ConfigError(f"the checkpoint holds what another reward has learnt: {sorted(state)[:3]}")
    for at, part in learners(reward):
        part.load_state({name: state[f"{at}/{name}"] for name in part.state()})


def reports(reward: Reward | None) -> dict[str, float]:
    """What is worth plotting of all that learns."""
    return {name: value for _, part in learners(reward) for name, value in part.report().items()}


def gathered(reward: Reward, scores: Score, *, rows: Sequence[int], total: int) -> Score:
    """Scores of all processes as one, on each of them: values alone, also of what the reward is made of.

    Args:
        reward: whose.
        scores: of this process's rows.
        rows: which of the ``total`` samples these are, in the order of ``scores``.
        total: of all processes, each sample in one of them.
    """
    processes = Processes()
    if processes.count == 1 and list(rows) == list(range(total)):
        return scores
    parts = getattr(reward, "parts", ())
    said = scores.parts or tuple(without_score(["no score"] * len(scores.status)) for _ in parts)
    whole = torch.zeros(total)
    whole[list(rows)] = scores.value.float().cpu()
    value = processes.sum(whole)
    status = ["no score" if bool(missing) else "ok" for missing in torch.isnan(value)]
    joined = tuple(
        gathered(part, score, rows=rows, total=total) for part, score in zip(parts, said, strict=True)
    )
    return Score(value, status, parts=joined)
