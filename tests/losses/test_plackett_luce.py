import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    bradley_terry_loss,
    pairwise_ranking_loss,
    plackett_luce_log_prob,
    plackett_luce_loss,
)
from tests.losses.drawing import EXACT, gaussian

B, K = 3, 4


def plain(reward: list[float], order: list[int], top: int) -> float:
    left, total = list(order), 0.0
    for place in order[:top]:
        total += reward[place] - math.log(sum(math.exp(reward[j]) for j in left))
        left.remove(place)
    return total


def ranked(*ranks: list[int]) -> Tensor:
    return torch.tensor(ranks)


def test_worked_by_hand() -> None:
    reward = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    # 2 - log(e^2 + e + 1), and 1 - log(e + 1)
    assert plackett_luce_log_prob(reward, ranked([0, 1, 2])).item() == pytest.approx(-0.720868, abs=1e-6)
    assert pairwise_ranking_loss(reward, ranked([0, 1, 2])).item() == pytest.approx(0.251150, abs=2e-6)


def test_it_is_the_plain_loop_with_places_left_open() -> None:
    reward = gaussian(B, K)
    ranks = ranked([2, 0, 3, 1], [10, 20, 30, 40], [3, 2, 1, 0])
    for top in (1, 2, K):
        by_hand = [
            plain(r, list(np), top) for r, np in zip(reward.tolist(), ranks.argsort(1).tolist(), strict=True)
        ]
        found = plackett_luce_log_prob(reward, ranks, top=top)
        assert_close(found, torch.tensor(by_hand, dtype=torch.float64), **EXACT)


def test_all_orders_add_up_to_one() -> None:
    orders = ranked(*[list(order) for order in itertools.permutations(range(K))])
    reward = gaussian(1, K).expand(len(orders), K)
    assert_close(plackett_luce_log_prob(reward, orders).exp().sum().item(), 1.0)


def test_a_pair_is_bradley_terry_and_equal_rewards_are_one_of_all_orders() -> None:
    reward = gaussian(B, 2)
    ranks = ranked([0, 1], [0, 1], [0, 1])
    gap = reward[:, 0] - reward[:, 1]
    assert_close(plackett_luce_loss(reward, ranks), bradley_terry_loss(gap), **EXACT)
    assert_close(pairwise_ranking_loss(reward, ranks), bradley_terry_loss(gap), **EXACT)
    flat = plackett_luce_log_prob(torch.full((1, 5), 7.0), ranked([4, 2, 0, 1, 3]))
    assert flat.item() == pytest.approx(-math.log(120))


def test_a_tie_is_the_mean_over_its_orders() -> None:
    reward = gaussian(1, 5)
    ranks = ranked([1, 0, 1, 2, 1])
    orders = [[1, *middle, 3] for middle in itertools.permutations([0, 2, 4])]
    mean = sum(math.exp(plain(reward[0].tolist(), order, 5)) for order in orders) / 6
    assert_close(plackett_luce_log_prob(reward, ranks).item(), math.log(mean))
    top = sum(math.exp(plain(reward[0].tolist(), order, 1)) for order in orders) / 6
    assert_close(plackett_luce_log_prob(reward, ranks, top=1).item(), math.log(top))


def test_padding_may_be_anything_and_changes_nothing() -> None:
    nan = float("nan")
    for ranks in (ranked([1, 2, 0]), ranked([0, 0, 1])):
        reward = gaussian(1, 3)
        wide = F.pad(reward, (0, 2), value=nan).requires_grad_()
        wide_ranks = F.pad(ranks, (1, 1), value=-5).roll(-1, 1)
        mask = torch.tensor([[True, True, True, False, False]])
        loss = plackett_luce_loss(wide, wide_ranks, mask=mask)
        assert_close(loss, plackett_luce_loss(reward, ranks), **EXACT)
        (gradient,) = torch.autograd.grad(loss, wide)
        assert gradient[0, :3].isfinite().all()
        assert gradient[0, 3:].tolist() == [0, 0]
        assert_close(
            pairwise_ranking_loss(wide, wide_ranks, mask=mask), pairwise_ranking_loss(reward, ranks), **EXACT
        )


def test_a_constant_and_the_order_of_samples_change_nothing() -> None:
    reward, ranks = gaussian(B, K), ranked([2, 0, 3, 1], [1, 0, 1, 3], [0, 0, 2, 2])
    turn = torch.tensor([3, 1, 0, 2])
    for function in (plackett_luce_loss, pairwise_ranking_loss):
        value = function(reward, ranks)
        assert_close(function(reward + 5, ranks), value, **EXACT)
        assert_close(function(reward[:, turn], ranks[:, turn]), value, **EXACT)


def test_gradients_agree_with_finite_differences() -> None:
    reward, ranks = gaussian(B, K).requires_grad_(), ranked([2, 0, 3, 1], [1, 0, 1, 3], [0, 0, 2, 2])
    assert torch.autograd.gradcheck(lambda r: plackett_luce_loss(r, ranks), [reward])
    assert torch.autograd.gradcheck(lambda r: pairwise_ranking_loss(r, ranks), [reward])


def test_what_cannot_be_meant_is_refused() -> None:
    reward = gaussian(1, 5)
    with pytest.raises(ConfigError, match="use pairs"):
        plackett_luce_loss(reward, ranked([0, 0, 0, 0, 0]))
    with pytest.raises(ConfigError, match="last ranked place, 1"):
        plackett_luce_loss(reward, ranked([0, 0, 1, 2, 3]), top=1)
    with pytest.raises(ConfigError, match="at least the best"):
        plackett_luce_loss(reward, ranked([0, 1, 2, 3, 4]), top=0)
    with pytest.raises(ConfigError, match="integers"):
        plackett_luce_loss(reward, reward)
    with pytest.raises(ConfigError, match="ranks nothing"):
        pairwise_ranking_loss(reward, ranked([0, 0, 0, 0, 0]))
    with pytest.raises(ShapeError, match=r"\[B, K\]"):
        plackett_luce_loss(reward[0], ranked([0]))
