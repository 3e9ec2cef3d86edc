"""MaxMin raises the least of the groups' means, which the mean of each sample's least is not."""

import pytest
import torch

from mmalign.errors import ConfigError
from mmalign.rewards.learned_heads import HeadOptions, Heads
from mmalign.rewards.maxmin import GroupWeights

# What two groups say of three samples. The least of each sample is highest for the third; the policy that mixes the
# first two gives both groups 5 on average.
SAID = torch.tensor([[10.0, 0.0, 1.0], [0.0, 10.0, 1.0]])


def best_policy(rewards: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(rewards.argmax(), rewards.numel()).float()


def test_the_policy_that_plays_against_the_weights_reaches_the_best_worst_mean() -> None:
    groups, played = GroupWeights(2, rate=0.1), torch.zeros(3)
    for _ in range(400):
        policy = best_policy((groups.weights[:, None] * SAID).sum(0))
        groups.update((SAID @ policy)[:, None])
        played += policy / 400
    assert float((SAID @ played).min()) == pytest.approx(5.0, abs=0.2)
    per_sample = best_policy(SAID.amin(0))
    assert float((SAID @ per_sample).min()) == 1.0  # what the mean of minima leads to


def test_a_large_step_is_the_papers_and_a_group_that_says_nothing_moves_none() -> None:
    groups = GroupWeights(3, rate=1e4)
    groups.update(torch.tensor([[1.0], [0.5], [2.0]]))
    assert groups.weights.tolist() == [0.0, 1.0, 0.0]
    groups = GroupWeights(2)
    groups.update(torch.tensor([[1.0, 2.0], [float("nan"), float("nan")]]))
    assert groups.weights.tolist() == [0.5, 0.5]


def test_the_value_of_heads_is_the_mean_by_weights() -> None:
    heads = Heads(4, HeadOptions(aspects=("group-1", "group-2"), maxmin=True))
    members = torch.tensor([[[1.0, 5.0]]])
    assert heads.overall(members, torch.tensor([0.75, 0.25])).item() == 2.0
    with pytest.raises(ConfigError, match="nothing else decides"):
        HeadOptions(aspects=("group-1", "group-2"), maxmin=True, worst_aspect=True)
    with pytest.raises(ConfigError, match="nothing else decides"):
        HeadOptions(aspects=("group-1", "group-2"), maxmin=True, personal=True)
