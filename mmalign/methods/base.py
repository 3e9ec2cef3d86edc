"""What a training loop asks of a method: batches that depend on the step alone, and a loss."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Batch(Protocol):
    """Everything random of one optimiser step, drawn before it is cut into micro-batches."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> "Batch":
        """Its rows from ``start`` to ``stop``."""
        ...


class Method(Protocol):
    """A source x a likelihood x a loss."""

    def batch(self, step: int, *, size: int, seed: int) -> Batch:
        """The data of one step, a function of ``step`` and ``seed`` alone: so a resumed run equals an unbroken one."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the batch's rows, and what is worth plotting, each a mean over them."""
        ...


def mixed_generator(*numbers: int) -> torch.Generator:
    """Random numbers that depend on every one of several numbers, such as a seed and a step.

    Mixed into 32 bits, since torch's CPU generator ignores the upper half of a 64-bit seed.
    """
    return torch.Generator("cpu").manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


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
