import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.losses import pro_loss, rrhf_loss
from tests.losses.drawing import EXACT, gaussian

B, K = 3, 5


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# RRHF


def test_rrhf_worked_by_hand() -> None:
    # Only the third is out of order: 0.5 above the best, 1.5 above the second. The best has -1.
    log_prob, reward = double([-1.0, -2.0, -0.5]), double([3.0, 2.0, 1.0])
    assert_close(rrhf_loss(log_prob, reward).item(), 0.5 + 1.5 + 1.0)
    assert_close(rrhf_loss(log_prob, reward, ranking_weight=100.0).item(), 200.0 + 1.0)


def test_responses_in_order_leave_the_best_to_be_imitated() -> None:
    log_prob = gaussian(B, K).sort(1).values.requires_grad_()
    loss = rrhf_loss(log_prob, torch.arange(float(K)).expand(B, K), ranking_weight=7.0)
    loss.backward()
    assert_close(loss.detach(), -log_prob[:, -1].detach().mean(), **EXACT)
    expected = torch.zeros(B, K, dtype=torch.float64)
    expected[:, -1] = -1 / B
    assert_close(log_prob.grad, expected, **EXACT)


def test_rrhf_raises_the_better_response_and_lowers_the_worse() -> None:
    log_prob = double([-3.0, -2.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(rrhf_loss(log_prob, double([2.0, 1.0])), log_prob)
    assert gradient.tolist() == [[-2.0, 1.0]]  # out of order, and the best besides
    (gradient,) = torch.autograd.grad(rrhf_loss(log_prob, double([1.0, 1.0])), log_prob)
    assert gradient.tolist() == [[-1.0, 0.0]]  # equal rewards are not ranked


def test_rrhf_is_the_plain_double_loop() -> None:
    log_prob, reward = gaussian(B, K), gaussian(B, K, seed=1)
    rows = []
    for p, r in zip(log_prob.tolist(), reward.tolist(), strict=True):
        ranking = sum(max(0, p[i] - p[j]) for i in range(K) for j in range(K) if r[i] < r[j])
        rows.append(2.0 * ranking - p[r.index(max(r))])
    assert_close(rrhf_loss(log_prob, reward, ranking_weight=2.0).item(), sum(rows) / B)


def test_only_ranks_count_in_rrhf() -> None:
    log_prob, reward = gaussian(B, K), gaussian(B, K, seed=1)
    assert torch.equal(rrhf_loss(log_prob, (3 * reward).exp()), rrhf_loss(log_prob, reward))


# PRO


def test_pro_of_two_is_a_softplus_of_their_gap() -> None:
    s, r = gaussian(B, 2), gaussian(B, 2, seed=1)
    gap = r[:, 0] - r[:, 1]
    better, worse = torch.where(gap > 0, s[:, 0], s[:, 1]), torch.where(gap > 0, s[:, 1], s[:, 0])
    expected = F.softplus(-gap.abs() * (better - worse)).mean()
    assert_close(pro_loss(s, r, gaussian(B), target_weight=0.0), expected, **EXACT)


def test_pro_is_the_plain_double_loop() -> None:
    s, r, target = gaussian(B, K), gaussian(B, K, seed=1), gaussian(B, seed=2)
    rows = []
    for scores, rewards, sft in zip(s.tolist(), r.tolist(), target.tolist(), strict=True):
        ranked = sorted(zip(rewards, scores, strict=True), reverse=True)
        row = -0.05 * (K - 1) ** 2 * sft
        for k in range(K - 1):
            gaps = [ranked[k][0] - ranked[i][0] for i in range(k + 1, K)]
            own = max(gaps) * ranked[k][1]
            others = [math.exp(g * ranked[i][1]) for g, i in zip(gaps, range(k + 1, K), strict=True)]
            row += math.log(math.exp(own) + sum(others)) - own
        rows.append(row)
    assert_close(pro_loss(s, r, target).item(), sum(rows) / B)


def test_a_constant_on_all_rewards_changes_nothing_in_pro_and_their_scale_does() -> None:
    s, r, target = gaussian(B, K), gaussian(B, K, seed=1), gaussian(B, seed=2)
    loss = pro_loss(s, r, target)
    assert_close(pro_loss(s, r + gaussian(B, 1, seed=3), target), loss, **EXACT)
    assert (pro_loss(s, 2 * r, target) - loss).abs() > 0.01


def test_equal_rewards_leave_pro_a_constant() -> None:
    # Each of the first K - 1 competes with those below it and itself: log K + ... + log 2.
    s = gaussian(B, K).requires_grad_()
    loss = pro_loss(s, torch.full((B, K), 0.3), gaussian(B), target_weight=0.0)
    loss.backward()
    assert_close(loss.item(), math.log(math.factorial(K)))
    assert_close(s.grad, torch.zeros(B, K, dtype=torch.float64), rtol=0, atol=0)


def test_of_many_equal_rewards_pro_takes_the_first_as_the_better() -> None:
    # The last reward is the least, so that each tied response is weighed by its place.
    reward = torch.ones(1, 32, dtype=torch.float64)
    reward[0, -1] = 0.0
    log_prob = gaussian(1, 32)
    broken = reward - 1e-12 * torch.arange(32, dtype=torch.float64)  # the ties broken by place
    broken[0, -1] = 0.0
    zero = torch.zeros(1, dtype=torch.float64)
    assert_close(pro_loss(log_prob, reward, zero), pro_loss(log_prob, broken, zero), rtol=1e-8, atol=1e-8)


def test_a_likelier_best_response_lowers_pro_and_a_likelier_worst_raises_it() -> None:
    s, r = gaussian(B, K).requires_grad_(), gaussian(B, K, seed=1)
    (gradient,) = torch.autograd.grad(pro_loss(s, r, gaussian(B)), s)
    assert (gradient.gather(1, r.argmax(1, keepdim=True)) < 0).all()
    assert (gradient.gather(1, r.argmin(1, keepdim=True)) > 0).all()


def test_the_demonstration_weighs_by_the_square_of_the_comparisons() -> None:
    target = gaussian(B).requires_grad_()
    for K_, weight in ((2, 0.05), (5, 0.05 * 16)):
        (gradient,) = torch.autograd.grad(pro_loss(gaussian(B, K_), gaussian(B, K_, seed=1), target), target)
        assert_close(gradient, torch.full((B,), -weight / B, dtype=torch.float64))


# Both


BOTH: list[Callable[[Tensor, Tensor], Tensor]] = [
    rrhf_loss,
    partial(pro_loss, target_log_prob=torch.zeros(B)),
]


@pytest.mark.parametrize("loss", BOTH, ids=["rrhf", "pro"])
def test_the_order_of_responses_and_of_prompts_does_not_count(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    log_prob, reward = gaussian(B, K), gaussian(B, K, seed=1)
    expected = loss(log_prob, reward)
    responses, prompts = torch.tensor([3, 1, 0, 4, 2]), torch.tensor([2, 0, 1])
    assert_close(loss(log_prob[:, responses], reward[:, responses]), expected, **EXACT)
    assert_close(loss(log_prob[prompts], reward[prompts]), expected, **EXACT)


@pytest.mark.parametrize("loss", BOTH, ids=["rrhf", "pro"])
def test_one_response_is_no_list(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    for shape in ((B,), (B, 1), (B, K, 1)):
        with pytest.raises(ShapeError, match=r"log_prob: expected \[B, K\] with K >= 2, got"):
            loss(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ShapeError, match=r"reward: expected \[B, K\] = \[3, 5\], got \[3, 1\]"):
        loss(torch.zeros(B, K), torch.zeros(B, 1))


def test_pro_wants_one_demonstration_a_prompt() -> None:
    with pytest.raises(ShapeError, match=r"target_log_prob: expected \[B\] = \[3\], got \[3, 1\]"):
        pro_loss(torch.zeros(B, K), torch.zeros(B, K), torch.zeros(B, 1))
