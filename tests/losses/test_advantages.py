from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    PromptTracker,
    clamp_advantages,
    dance_grpo_advantages,
    flow_grpo_advantages,
    group_advantages,
    leave_one_out_advantages,
    token_group_advantages,
    win_rate_rewards,
)
from tests.losses.drawing import EXACT, gaussian

P, G = 4, 6
standardised = pytest.mark.parametrize(
    "advantages", [group_advantages, flow_grpo_advantages, dance_grpo_advantages]
)
centred = pytest.mark.parametrize(
    "advantages", [group_advantages, flow_grpo_advantages, dance_grpo_advantages, leave_one_out_advantages]
)


@centred
def test_advantages_of_a_group_sum_to_zero(advantages: Any) -> None:
    assert_close(advantages(gaussian(P, G)).sum(1), torch.zeros(P, dtype=torch.float64), **EXACT)


@standardised
@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.0, -7.0), (0.1, 30.0)])
def test_advantages_ignore_the_scorers_scale_and_zero(advantages: Any, scale: float, shift: float) -> None:
    rewards = gaussian(P, G)
    assert_close(advantages(scale * rewards + shift, eps=0.0), advantages(rewards, eps=0.0))


@pytest.mark.parametrize("advantages", [group_advantages, flow_grpo_advantages])
def test_advantages_divide_by_the_number_of_samples(advantages: Any) -> None:
    # Population std of 0, 0, 1, 1 is 1/2; dividing by G - 1 would give 0.866.
    rewards = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    assert_close(advantages(rewards, eps=0.0), torch.tensor([[-1.0, -1.0, 1.0, 1.0]], dtype=torch.float64))


def test_dance_grpo_divides_by_one_less() -> None:
    rewards = gaussian(P, G)
    expected = group_advantages(rewards, eps=0.0) * ((G - 1) / G) ** 0.5
    assert_close(dance_grpo_advantages(rewards, eps=0.0), expected, **EXACT)
    quarters = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    assert_close(dance_grpo_advantages(quarters, eps=0.0)[0, 3].item(), 0.8660254037844386)


@pytest.mark.parametrize(
    ("advantages", "std", "eps"),
    [
        (group_advantages, 0.01, 1e-6),
        (flow_grpo_advantages, 0.01, 1e-4),
        (dance_grpo_advantages, 0.01 * 2**0.5, 1e-8),
    ],
)
def test_eps_is_added_to_the_std(advantages: Any, std: float, eps: float) -> None:
    # Half a distance of 0.02 over its std and eps, the default first.
    rewards = torch.tensor([[0.0, 0.02]], dtype=torch.float64)
    assert_close(advantages(rewards)[0, 1].item(), 0.01 / (std + eps), rtol=1e-10, atol=0)
    assert_close(advantages(rewards, eps=0.03)[0, 1].item(), 0.01 / (std + 0.03), rtol=1e-10, atol=0)


@centred
@given(reward=st.floats(-100, 100, width=32), group=st.integers(2, 17))
def test_equal_rewards_give_exact_zeros(advantages: Any, reward: float, group: int) -> None:
    # In float32 the mean of equal rewards is often off by an ulp, and an ulp of 21.3 is larger than eps.
    rewards = torch.tensor([[reward] * group, [0.0] * (group - 1) + [1.0]])
    assert torch.equal(advantages(rewards)[0], torch.zeros(group))


def test_a_group_alone_sets_its_own_scale_and_in_flow_grpo_that_of_all() -> None:
    rewards = gaussian(P, G)
    wider = rewards * torch.tensor([[10.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    for own in (group_advantages, dance_grpo_advantages, leave_one_out_advantages):
        assert torch.equal(own(wider)[1:], own(rewards)[1:])
    assert (flow_grpo_advantages(wider)[1:].abs() < flow_grpo_advantages(rewards)[1:].abs()).all()


def test_flow_grpo_divides_by_the_spread_of_all_rewards_not_of_the_centred_ones() -> None:
    # 0, 2, 10, 12: mean 6, variance (36 + 16 + 16 + 36) / 4 = 26
    rewards = torch.tensor([[0.0, 2.0], [10.0, 12.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 26**0.5
    assert_close(flow_grpo_advantages(rewards, eps=0.0), expected)


def test_leaving_one_out_subtracts_the_mean_of_the_others() -> None:
    rewards = gaussian(P, G)
    for g in range(G):
        others = torch.cat([rewards[:, :g], rewards[:, g + 1 :]], 1)
        assert_close(leave_one_out_advantages(rewards)[:, g], rewards[:, g] - others.mean(1), **EXACT)


@centred
def test_a_constant_on_all_rewards_of_a_prompt_and_their_order_do_not_count(advantages: Any) -> None:
    rewards, order = gaussian(P, G), torch.tensor([3, 1, 0, 5, 4, 2])
    assert_close(advantages(rewards[:, order]), advantages(rewards)[:, order], **EXACT)
    if advantages is not flow_grpo_advantages:  # there the spread between prompts counts
        assert_close(advantages(rewards + gaussian(P, 1, seed=1)), advantages(rewards), rtol=1e-9, atol=1e-9)


@centred
@pytest.mark.parametrize("shape", [(G,), (P, 1), (P, G, 1)])
def test_a_reward_without_a_group_has_no_advantage(advantages: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"rewards: expected \[P, G\] with G >= 2, got"):
        advantages(torch.ones(shape))


@centred
def test_two_samples_are_a_group(advantages: Any) -> None:
    assert (advantages(torch.tensor([[1.0, 2.0]]))[0].sign() == torch.tensor([-1.0, 1.0])).all()


def test_a_clamp_bounds_both_sides() -> None:
    advantages = torch.tensor([-9.0, -5.0, 0.5, 5.0, 6.0]).requires_grad_()
    clamped = clamp_advantages(advantages)
    assert clamped.tolist() == [-5.0, -5.0, 0.5, 5.0, 5.0]
    assert not clamped.requires_grad
    assert clamp_advantages(advantages, most=0.25).tolist() == [-0.25, -0.25, 0.25, 0.25, 0.25]
    for most in (0.0, -1.0):
        with pytest.raises(ConfigError, match=r"most = .* must be positive"):
            clamp_advantages(advantages, most=most)


# Win rates


def beats(scores: Tensor) -> Tensor:
    """[P, K, K], 1 where i has the higher score, 1/2 where they are equal."""
    return ((scores[:, :, None] - scores[:, None, :]).sign() + 1) / 2


@given(seed=st.integers(0, 50), K=st.integers(2, 6))
def test_win_rates_of_any_judge_add_up_to_half_the_samples(seed: int, K: int) -> None:
    p = torch.sigmoid(gaussian(P, K, K, seed=seed))
    p = (p + 1 - p.mT) / 2
    assert_close(win_rate_rewards(p).sum(1), torch.full((P,), K / 2, dtype=torch.float64), **EXACT)


def test_win_rates_worked_by_hand() -> None:
    # The first beats the second by 0.8 and the third by 0.6; the second beats the third by 0.5.
    p = torch.tensor([[[9.0, 0.8, 0.6], [0.2, 9.0, 0.5], [0.4, 0.5, float("nan")]]], dtype=torch.float64)
    assert_close(win_rate_rewards(p), torch.tensor([[0.7, 0.35, 0.45]], dtype=torch.float64), **EXACT)


def test_a_judge_that_runs_in_circles_prefers_nobody() -> None:
    rock_paper_scissors = torch.tensor([[[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]])
    rewards = win_rate_rewards(rock_paper_scissors)
    assert torch.equal(rewards, torch.full((1, 3), 0.5))
    assert torch.equal(group_advantages(rewards), torch.zeros(1, 3))


def test_who_beats_everybody_gets_one_and_only_ranks_count() -> None:
    scores = gaussian(P, G)
    rewards = win_rate_rewards(beats(scores))
    assert torch.equal(rewards.amax(1), torch.ones(P, dtype=torch.float64))
    assert torch.equal(rewards.argmax(1), scores.argmax(1))
    assert torch.equal(win_rate_rewards(beats(scores.exp() - 3)), rewards)


def test_a_judge_of_one_order_only_is_refused() -> None:
    p = torch.full((P, 3, 3), 0.5)
    p[2, 0, 1] = 0.7
    with pytest.raises(ConfigError, match=r"should add up to 1, got 1.2; judge both orders"):
        win_rate_rewards(p)
    p[2, 1, 0] = 0.1
    with pytest.raises(ConfigError, match=r"should add up to 1, got 0\.8; judge both orders"):
        win_rate_rewards(p)
    p[2, 1, 0] = 0.30005  # a judge's rounding passes
    assert_close(win_rate_rewards(p)[2], torch.tensor([0.6, 0.4, 0.5]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 3), (P, 3, 2), (P, 1, 1), (P, 3, 3, 3)])
def test_win_rates_need_every_pair(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"win_probability: expected \[P, K, K\] with K >= 2, got"):
        win_rate_rewards(torch.full(shape, 0.5))


def test_win_rates_are_computed_on_the_judges_device_whatever_the_default_is() -> None:
    p = torch.full((P, 3, 3), 0.5)
    with torch.device("meta"):
        rewards = win_rate_rewards(p)
    assert torch.equal(rewards, torch.full((P, 3), 0.5))


# Against the prompt's own past


def test_a_tracked_prompt_is_judged_by_its_own_past() -> None:
    tracker = PromptTracker(buffer_size=4, min_count=2, eps=0.5)
    tracker.advantages(["a", "b"], torch.tensor([1.0, 100.0]))
    # a: 1, 3 with mean 2 and std 1; b: 100, 104 with mean 102 and std 2
    assert_close(tracker.advantages(["a", "b"], torch.tensor([3.0, 104.0])), torch.tensor([1 / 1.5, 2 / 2.5]))


def test_a_prompt_seen_too_seldom_is_judged_by_the_whole_rollout() -> None:
    tracker = PromptTracker(buffer_size=4, min_count=3, eps=0.0)
    rewards = torch.tensor([1.0, 3.0, 8.0], dtype=torch.float64)
    expected = (rewards - 4) / (26 / 3) ** 0.5
    assert_close(tracker.advantages(["a", "a", "b"], rewards), expected, **EXACT)


def test_the_third_reward_of_three_counts_already() -> None:
    # Updated before use: with it a has three rewards, 0, 0, 3, of mean 1 and variance 2.
    tracker = PromptTracker(buffer_size=4, min_count=3, eps=0.0)
    tracker.advantages(["a", "a"], torch.tensor([0.0, 0.0]))
    advantage = tracker.advantages(["a", "b"], torch.tensor([3.0, 100.0], dtype=torch.float64))
    assert_close(advantage[0].item(), 2**0.5)


def test_a_tracker_forgets_all_but_the_last_rewards() -> None:
    tracker = PromptTracker(buffer_size=3, min_count=1)
    tracker.advantages(["a"] * 4 + ["b"], torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]))
    assert tracker.history == {"a": [2.0, 3.0, 4.0], "b": [9.0]}


def test_equal_rewards_of_a_prompt_give_exact_zeros_whatever_the_others_are() -> None:
    tracker = PromptTracker(buffer_size=4, min_count=2)
    advantages = tracker.advantages(["a", "b", "a", "b", "a"], torch.tensor([0.1, 5.0, 0.1, 7.0, 0.1]))
    assert torch.equal(advantages[[0, 2, 4]], torch.zeros(3))
    assert_close(advantages[[1, 3]], torch.tensor([-1.0, 1.0]))


def test_a_trackers_plain_history_continues_where_it_stopped() -> None:
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 7.0])
    one = PromptTracker(buffer_size=4, min_count=2)
    one.advantages(["a", "b"], first)
    resumed = PromptTracker(buffer_size=4, min_count=2, history={k: list(v) for k, v in one.history.items()})
    assert torch.equal(one.advantages(["a", "b"], second), resumed.advantages(["a", "b"], second))


def test_the_published_buffer_holds_sixteen_and_uses_it_when_full() -> None:
    tracker = PromptTracker()
    rewards = gaussian(17)
    tracker.advantages(["a"] * 17, rewards)
    assert tracker.history["a"] == rewards[1:].tolist()
    assert (tracker.min_count, tracker.eps) == (16, 1e-6)


def test_a_tracker_that_would_never_track_is_refused() -> None:
    for count in (0, 5):
        with pytest.raises(ConfigError, match=f"min_count = {count}, but it is from 1 to buffer_size = 4"):
            PromptTracker(buffer_size=4, min_count=count)
    PromptTracker(buffer_size=4, min_count=4)
    PromptTracker(buffer_size=4, min_count=1)


def test_a_tracker_wants_one_reward_for_each_prompt() -> None:
    with pytest.raises(ShapeError, match=r"rewards: expected \[B\] = \[2\], got \[3\]"):
        PromptTracker().advantages(["a", "b"], torch.ones(3))
    with pytest.raises(ShapeError, match=r"rewards: expected \[B\] with B >= 1, got \[0\]"):
        PromptTracker().advantages([], torch.ones(0))


def test_a_trackers_advantages_are_constants_in_the_rewards_dtype() -> None:
    advantages = PromptTracker().advantages(["a", "b"], torch.tensor([1.0, 2.0], requires_grad=True))
    assert not advantages.requires_grad
    assert advantages.dtype == torch.float32


def test_token_advantages_of_a_reward_at_the_end_are_those_of_the_group() -> None:
    rewards = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sparse = torch.zeros(2, 3, 5, dtype=torch.float64)
    sparse[..., -1] = rewards
    everywhere = torch.ones(2, 3, 5, dtype=torch.bool)
    found = token_group_advantages(sparse, rewards, everywhere)
    assert_close(found, group_advantages(rewards)[..., None].expand(2, 3, 5))
    # The first token answers for all that followed, however it is taken apart.
    spread = (rewards / 5)[..., None].expand(2, 3, 5)
    assert_close(token_group_advantages(spread, rewards, everywhere)[..., 0], group_advantages(rewards))


def test_token_advantages_credit_nobody_with_the_past_and_refuse_another_sum() -> None:
    token_rewards = torch.tensor([[[3.0, 1.0, 0.0], [1.0, 1.0, 2.0]]])
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    rewards = torch.tensor([[4.0, 4.0 + 1e-9]])
    moved = torch.tensor([[[9.0, -5.0, 0.0], [1.0, 1.0, 2.0]]])
    first, second = (
        token_group_advantages(values, rewards, mask, eps=1.0) for values in (token_rewards, moved)
    )
    # To go: (4, 1, 0) and (4, 3, 2), less their means.
    assert_close(first, torch.tensor([[[0.0, -1.0, 0.0], [0.0, 1.0, 1.0]]]))
    assert_close(second[..., 0], first[..., 0])
    assert not torch.allclose(second[..., 1], first[..., 1])
    with pytest.raises(ConfigError, match="keeps the sum"):
        token_group_advantages(token_rewards, rewards + torch.tensor([[0.0, 1e-3]]), mask)
    with pytest.raises(ShapeError, match="token_rewards"):
        token_group_advantages(token_rewards[0], rewards, mask[0])
