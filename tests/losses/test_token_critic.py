from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import clipped_value_loss, gae, whiten
from tests.losses.drawing import EXACT, gaussian

B, L = 3, 6
MASK = torch.tensor(
    [[True] * 6, [True, True, True, False, False, False], [False, True, False, True, True, False]]
)
FULL = torch.ones(B, L, dtype=torch.bool)


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# GAE


def test_the_golden_value() -> None:
    everything = torch.ones(1, 3, dtype=torch.bool)
    advantages = gae(double([0, 0, 1]), torch.zeros(1, 3), everything)
    assert_close(advantages, double([0.9025, 0.95, 1.0]), **EXACT)


def test_advantages_worked_by_hand_with_values_and_both_discounts() -> None:
    # gamma 0.5, decay 0.4: delta = 2 + 0.5 * 3 - 1 = 2.5 and 4 - 3 = 1; the first adds 0.2 * 1.
    everything = torch.ones(1, 2, dtype=torch.bool)
    advantages = gae(double([2, 4]), double([1, 3]), everything, gamma=0.5, decay=0.4)
    assert_close(advantages, double([2.7, 1.0]), **EXACT)


def test_without_decay_it_is_the_return_less_the_value() -> None:
    rewards, values = gaussian(B, L), gaussian(B, L, seed=1)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert_close(gae(rewards, values, FULL, gamma=1.0, decay=1.0), to_go - values, **EXACT)


def test_at_decay_zero_it_is_one_step_of_the_critic() -> None:
    rewards, values = gaussian(B, L), gaussian(B, L, seed=1)
    following = torch.cat([values[:, 1:], torch.zeros(B, 1, dtype=torch.float64)], 1)
    advantages = gae(rewards, values, FULL, gamma=0.9, decay=0.0)
    assert_close(advantages, rewards + 0.9 * following - values, **EXACT)


def test_differences_of_a_prefix_score_leave_the_end_less_the_prefix() -> None:
    # A reward redistributed by R(y_<=l) - R(y_<l): what is left of R at each token, as with a potential.
    prefix = gaussian(B, L + 1)
    advantages = gae(prefix.diff(dim=1), torch.zeros(B, L), FULL, gamma=1.0, decay=1.0)
    assert_close(advantages, prefix[:, -1:] - prefix[:, :-1], **EXACT)


def test_the_mask_closes_up_rows() -> None:
    rewards, values = gaussian(B, L), gaussian(B, L, seed=1)
    advantages = gae(
        rewards.masked_fill(~MASK, float("nan")), values.masked_fill(~MASK, 9.0), MASK, gamma=0.9, decay=0.8
    )
    assert (advantages[~MASK] == 0).all()
    for b in range(B):
        kept = [t[b][MASK[b]][None] for t in (rewards, values)]
        alone = gae(kept[0], kept[1], torch.ones_like(kept[0], dtype=torch.bool), gamma=0.9, decay=0.8)
        assert_close(advantages[b][MASK[b]], alone[0], **EXACT)


def test_a_response_of_one_token_has_its_reward_less_its_value() -> None:
    assert gae(double([3]), double([1]), torch.tensor([[True]])).tolist() == [[2.0]]


def test_advantages_of_tokens_are_constants() -> None:
    rewards, values = gaussian(B, L).requires_grad_(), gaussian(B, L).requires_grad_()
    assert not gae(rewards, values, MASK).requires_grad


@pytest.mark.parametrize("options", [{"gamma": -0.1}, {"gamma": 1.1}, {"decay": -0.1}, {"decay": 1.1}])
def test_a_discount_outside_its_range_is_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"{name} = .*, but it is from 0 to 1"):
        gae(gaussian(B, L), gaussian(B, L), MASK, **options)


# Whitening


def test_whitened_advantages_have_mean_zero_and_variance_one() -> None:
    advantages = 3 * gaussian(B, L) + 5
    kept = whiten(advantages, MASK)[MASK]
    assert_close(kept.mean().item(), 0.0, rtol=0, atol=1e-12)
    assert_close(kept.var(correction=0).item(), 1.0, rtol=1e-7, atol=0)
    assert (whiten(advantages, MASK)[~MASK] == 0).all()
    assert_close(whiten(2 * advantages - 9, MASK), whiten(advantages, MASK), rtol=1e-7, atol=1e-7)


def test_eps_is_added_to_the_variance() -> None:
    advantages, everything = double([-1, 1]), torch.ones(1, 2, dtype=torch.bool)
    assert_close(whiten(advantages, everything, eps=3.0), double([-0.5, 0.5]), **EXACT)
    tiny = whiten(1e-4 * advantages, everything)  # variance 1e-8, as the default eps
    assert_close(tiny, double([-(0.5**0.5), 0.5**0.5]), rtol=1e-9, atol=0)


def test_equal_advantages_give_exact_zeros() -> None:
    assert torch.equal(whiten(torch.full((B, L), 0.1), MASK), torch.zeros(B, L))


def test_a_single_token_is_its_own_mean() -> None:
    assert whiten(double([3, 7]), torch.tensor([[False, True]])).tolist() == [[0.0, 0.0]]


def test_nothing_to_standardise_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask: it is empty, so there is nothing to standardise"):
        whiten(gaussian(B, L), ~FULL)


# The critic


def test_the_critics_loss_worked_by_hand() -> None:
    # Old value 0, returns 1. At 0.1 nothing is clipped: 0.9^2. At 0.5 the clipped 0.2 is further off: 0.8^2.
    # At 3 the value itself is further off: 2^2.
    value, zero, one = double([0.1, 0.5, 3.0]), torch.zeros(1, 3), torch.ones(1, 3)
    loss = clipped_value_loss(value, zero, one, one.bool())
    assert_close(loss.item(), (0.81 + 0.64 + 4.0) / 3 / 2)


def test_a_value_that_moved_too_far_towards_its_return_stays() -> None:
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    for value, gradient in ((0.1, -0.9), (0.5, 0.0), (3.0, 2.0), (-0.5, -1.5)):
        for sign in (1, -1):  # a return of 1, and the mirror image
            fitted = torch.tensor([[sign * value]], requires_grad=True)
            clipped_value_loss(fitted, zero, sign * one, one.bool()).backward()
            assert fitted.grad is not None
            assert_close(fitted.grad.item(), sign * gradient)


def test_inside_the_clip_it_is_half_the_squared_error_under_the_mask() -> None:
    old = gaussian(B, L)
    value, returns = old + 0.3 * torch.tanh(gaussian(B, L, seed=1)), gaussian(B, L, seed=2)
    expected = ((value - returns)[MASK] ** 2).mean() / 2
    assert_close(clipped_value_loss(value, old, returns, MASK, clip=0.31), expected, **EXACT)
    value, old, returns = (t.masked_fill(~MASK, float("nan")) for t in (value, old, returns))
    assert torch.equal(clipped_value_loss(value, old, returns, MASK, clip=0.31), expected)


def test_mistakes_are_refused() -> None:
    ones = torch.ones(B, L)
    functions: dict[str, Any] = {
        "values": lambda t: gae(ones, t, MASK),
        "old_value": lambda t: clipped_value_loss(ones, t, ones, MASK),
        "returns": lambda t: clipped_value_loss(ones, ones, t, MASK),
    }
    for name, function in functions.items():
        with pytest.raises(ShapeError, match=rf"^{name}: expected \[B, L\] = \[3, 6\], got \[3, 1\]"):
            function(torch.ones(B, 1))
    for function in (whiten, lambda t, m: gae(t, t, m), lambda t, m: clipped_value_loss(t, t, t, m)):
        with pytest.raises(ConfigError, match="mask: expected booleans"):
            function(ones, MASK.long())
    for clip in (0.0, -0.1):
        with pytest.raises(ConfigError, match=r"clip = .* must be positive"):
            clipped_value_loss(ones, ones, ones, MASK, clip=clip)
    with pytest.raises(ConfigError, match="mask: it is empty, so there is nothing to average"):
        clipped_value_loss(ones, ones, ones, ~FULL)
