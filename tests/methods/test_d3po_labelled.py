"""D3PO on judged pairs is D3PO: the same loss and gradient as on-line, and every pair once before any comes again."""

import pytest
import torch
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError, ShapeError
from mmalign.generators.rollout import begin, rollout
from mmalign.methods.base import Task
from mmalign.methods.configs import D3POConfig
from mmalign.methods.d3po import D3PO, PairSteps
from mmalign.methods.d3po_labelled import LabelledD3PO, TrajectoryPairs
from mmalign.methods.trajectories import random_sampler
from tests.methods.conftest import PROMPTS, SIZE, gradients, moved

CONFIG = D3POConfig(rollout_steps=3, noise_level=0.7, clamp=0.5)
STEPS = CONFIG.rollout_steps - 1  # the last one is not random


def judged(adapter: ImageAdapter) -> TrajectoryPairs:
    """Three pairs, of which the first sample is the better one."""
    start = begin(
        adapter.generator, [p for p in PROMPTS for _ in range(2)], seeds=[0, 0, 1, 1, 2, 2], steps=3, **SIZE
    )
    drawn = rollout(adapter.generator, start, random_sampler(CONFIG), step_seeds=range(6))
    texts = begin(adapter.generator, PROMPTS, seeds=[0] * 3, steps=3, **SIZE).conditioning
    steps = torch.tensor([list(drawn.window)] * 3)
    return TrajectoryPairs(
        drawn.latents[::2], drawn.latents[1::2], steps, drawn.levels, texts, torch.arange(3)
    )


def test_the_loss_is_that_of_the_online_method_on_the_same_steps(adapter: ImageAdapter, task: Task) -> None:
    pairs = judged(adapter)
    moved(adapter)
    method = LabelledD3PO(CONFIG, task, pairs)
    batch = method.batch(0, size=6, seed=0)  # six samples are three pairs
    assert len(batch) == 3 * STEPS
    ours, metrics = method.loss(batch)
    found = gradients(adapter, ours)
    # The same steps in another order, as the on-line method would hold them.
    trajectory = batch.trajectory
    order = torch.arange(2, -1, -1).repeat_interleave(STEPS)
    online = PairSteps(trajectory, order, order + 3, torch.tensor([0, 1]).repeat(3), {})
    theirs, _ = D3PO(CONFIG, task).loss(online)
    assert_close(ours, theirs)
    for name, gradient in gradients(adapter, theirs).items():
        assert_close(found[name], gradient, rtol=1e-3, atol=1e-7)
    assert 0 <= float(metrics["accuracy"]) <= 1


def test_every_pair_comes_once_before_any_comes_again(adapter: ImageAdapter, task: Task) -> None:
    pairs = judged(adapter)
    method = LabelledD3PO(CONFIG, task, pairs)
    ends = {float(clean.sum()): row for row, clean in enumerate(pairs.chosen[:, -1])}
    seen = [ends[float(method.batch(step, size=2, seed=5).trajectory.clean[0].sum())] for step in range(3)]
    assert sorted(seen) == [0, 1, 2]


def test_a_policy_that_is_not_its_reference_does_not_start(adapter: ImageAdapter, task: Task) -> None:
    method = LabelledD3PO(CONFIG, task, judged(adapter))
    method.check_start(size=4, seed=0)
    moved(adapter)
    with pytest.raises(ConfigError, match="policy and reference differ: the margin is"):
        method.check_start(size=4, seed=0)


def test_sides_of_different_lengths_are_refused(adapter: ImageAdapter) -> None:
    pairs = judged(adapter)
    with pytest.raises(ShapeError, match="rejected and levels"):
        TrajectoryPairs(
            pairs.chosen, pairs.rejected[:, 1:], pairs.steps, pairs.levels, pairs.conditioning, pairs.prompt
        )
