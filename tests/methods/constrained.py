"""A short real training with a constrained reward: its multipliers move, and a stopped run ends as the unbroken one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmalign.generators import lora
from mmalign.methods.base import Method
from mmalign.rewards.compose import WeightedSum, load_weighted
from mmalign.training.folder import RunFolder
from mmalign.training.loop import train
from mmalign.training.recipe import TrainConfig

CARD = """
target: mmalign.rewards.relative:constrained
modalities: [image, audio]
unit: z
higher_is_better: true
differentiable: false
source: a test
options: {of: placebo, constraints: {placebo: 10.0}, rate: 0.1}
"""
SETTINGS = TrainConfig(steps=6, batch_size=4, micro_batch_size=4, learning_rate=1e-2, checkpoint_every=2)


def constrained(folder: Path) -> WeightedSum:
    """A constrained reward of a user's own card, inside a weighted sum as ``align`` has it; the mean is never 10."""
    (folder / "constrained.yaml").write_text(CARD)
    return load_weighted([f"{folder / 'constrained.yaml'}:0.5"])


def check(method: Callable[[WeightedSum], Method], generator: Any, folder: Path) -> None:
    """Train unbroken, and again with a stop; ``method`` makes one of a fresh reward."""
    start = [p.detach().clone() for p in lora.trainable(generator.policy)]

    def trained(name: str, until: tuple[int, ...]) -> tuple[list[dict[str, float]], list[float]]:
        reward = constrained(folder)
        for last in until:
            for parameter, value in zip(lora.trainable(generator.policy), start, strict=True):
                parameter.data.copy_(value)
                parameter.grad = None
            reward = constrained(folder)
            train(method(reward), generator, SETTINGS, RunFolder(folder / name), until=last)
        (part,) = reward.parts
        rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        return rows, part.u.tolist()  # type: ignore[attr-defined]

    rows, u = trained("unbroken", (6,))
    found = [row["multiplier/placebo"] for row in rows]
    assert found[0] == 0.5  # the sigmoid of 0, with which the first rollout was judged
    assert found[-1] > found[0]
    assert torch.sigmoid(torch.tensor(u[0])) > found[-1]
    assert trained("stopped", (2, 6)) == (rows, u)
