"""Numbers from a judge's log-probabilities, against sums worked by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.rewards.vlm_scores import debias_pair, mass, ordinal_expectation, settle, yes_probability

N, K = 4, 6
DIGITS = torch.arange(K, dtype=torch.float64)


def random_log_prob(*shape: int, seed: int = 0) -> torch.Tensor:
    """Of the first answers among ten words, so that they hold less than everything."""
    logits = torch.randn(*shape[:-1], 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1)[..., : shape[-1]]


def test_the_expectation_is_that_of_a_softmax_over_the_digits_alone() -> None:
    log_prob = torch.tensor([0.1, 0.2, 0.4]).log()  # the other 0.3 are words that are no digit
    mean, variance, held = ordinal_expectation(log_prob, torch.tensor([1.0, 2.0, 3.0]))
    # p = (1/7, 2/7, 4/7); mean = (1 + 4 + 12) / 7 = 17/7; variance = (1 + 8 + 36) / 7 - (17/7)^2 = 26/49
    assert_close(mean, torch.tensor(17 / 7))
    assert_close(variance, torch.tensor(26 / 49))
    assert_close(held, torch.tensor(0.7))


def test_equal_digits_give_the_middle_and_one_digit_itself() -> None:
    assert_close(ordinal_expectation(torch.zeros(K, dtype=torch.float64), DIGITS)[0].item(), 2.5)
    sure = torch.full((K,), -math.inf, dtype=torch.float64)
    sure[4] = 0.0
    mean, variance, held = ordinal_expectation(sure, DIGITS)
    assert (mean.item(), variance.item(), held.item()) == (4.0, 0.0, 1.0)


@pytest.mark.parametrize("shift", [-30.0, 0.7, 12.0])
def test_a_constant_on_all_logits_changes_nothing(shift: float) -> None:
    log_prob = random_log_prob(N, K)
    assert_close(ordinal_expectation(log_prob + shift, DIGITS)[:2], ordinal_expectation(log_prob, DIGITS)[:2])


def test_digits_and_their_values_may_come_in_any_order() -> None:
    log_prob, order = random_log_prob(N, K), torch.tensor([3, 0, 5, 1, 4, 2])
    assert_close(
        ordinal_expectation(log_prob[:, order], DIGITS[order]), ordinal_expectation(log_prob, DIGITS)
    )


def test_the_gradient_of_the_expectation_is_the_distance_to_it() -> None:
    log_prob = random_log_prob(N, K).requires_grad_()
    mean = ordinal_expectation(log_prob, DIGITS)[0]
    mean.sum().backward()
    p = log_prob.detach().softmax(-1)
    assert_close(log_prob.grad, p * (DIGITS - mean.detach()[:, None]))


def test_another_number_of_values_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"values: expected \[K\] = \[6\], got \[5\]"):
        ordinal_expectation(random_log_prob(N, K), DIGITS[:5])


def test_yes_is_a_sigmoid_of_the_difference_and_no_is_the_rest() -> None:
    log_prob = random_log_prob(N, 2)
    assert_close(yes_probability(log_prob), (log_prob[:, 0] - log_prob[:, 1]).sigmoid())
    assert_close(yes_probability(log_prob.flip(-1)), 1 - yes_probability(log_prob))
    assert_close(mass(log_prob), log_prob.exp().sum(-1))


def test_swapping_the_media_swaps_the_sides() -> None:
    forward, backward = (random_log_prob(N, 3, seed=seed).softmax(-1) for seed in (1, 2))
    p, agreed = debias_pair(forward, backward)
    swapped, also = debias_pair(backward, forward)
    assert_close(swapped, p[:, [1, 0, 2]])
    assert torch.equal(agreed, also)
    assert_close(p.sum(-1), torch.ones(N, dtype=torch.float64))


def test_a_judge_that_always_takes_the_first_prefers_neither() -> None:
    always = torch.tensor([[0.8, 0.1, 0.1]])
    p, agreed = debias_pair(always, always)
    assert_close(p, torch.tensor([[0.45, 0.45, 0.1]]))
    assert not agreed.any()


def test_a_judge_without_position_bias_keeps_its_numbers() -> None:
    fair = torch.tensor([[0.7, 0.2, 0.1]])
    p, agreed = debias_pair(fair, fair[:, [1, 0, 2]])
    assert_close(p, fair)
    assert agreed.all()


def test_disagreeing_verdicts_are_a_tie_and_swap_with_the_media() -> None:
    forward = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    backward = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    settled = settle(forward, backward)
    assert settled.tolist() == [2, 0, 2, 1, 2, 2, 2, 2, 2]
    assert torch.equal(settle(backward, forward), torch.tensor([1, 0, 2])[settled])
