import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.losses import crpo_loss, denoising_error, dpo_loss, slic_loss
from tests.losses.drawing import EXACT, gaussian

B = 3


def four() -> list[Tensor]:
    return list(gaussian(4, B))


# CRPO


def test_it_is_dpo_plus_the_chosen_sides_squared_error() -> None:
    # Errors of a policy and its reference as the denoising surrogate has them: -1/2 of the squared error.
    errors = [denoising_error(gaussian(B, 4, seed=seed), gaussian(B, 4, seed=9)) for seed in range(4)]
    pairs = [-error / 2 for error in errors]
    assert_close(crpo_loss(*pairs, beta=20.0), dpo_loss(*pairs, beta=20.0) + errors[0].mean(), **EXACT)


def test_at_the_reference_its_value_and_gradients_on_errors() -> None:
    beta = 20.0
    e_chosen, e_rejected = (gaussian(B, seed=seed).square().requires_grad_() for seed in (0, 1))
    pairs = [-e_chosen / 2, -e_rejected / 2, -e_chosen.detach() / 2, -e_rejected.detach() / 2]
    loss = crpo_loss(*pairs, beta=beta)
    loss.backward()
    assert_close(loss.detach(), math.log(2) + e_chosen.detach().mean(), **EXACT)
    assert_close(e_chosen.grad, torch.full((B,), (1 + beta / 4) / B, dtype=torch.float64))
    assert_close(e_rejected.grad, torch.full((B,), -beta / 4 / B, dtype=torch.float64))


def test_its_weight_on_the_chosen_side_is_a_setting() -> None:
    pairs = four()
    plain = dpo_loss(*pairs, beta=0.5)
    for weight in (0.0, 1.0, 3.0):
        loss = crpo_loss(*pairs, beta=0.5, chosen_weight=weight)
        assert_close(loss, plain - weight * pairs[0].mean(), **EXACT)


def test_a_beta_per_pair_is_dpos() -> None:
    pairs, beta = four(), torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    loss = crpo_loss(*pairs, beta=beta, chosen_weight=0.0)
    assert_close(loss, dpo_loss(*pairs, beta=beta), **EXACT)


# SLiC


def test_slic_worked_by_hand() -> None:
    # Margins 1 + 2.5 - 2 = 1.5 left to win, and 1 + 1 - 4 < 0; targets -3 and -1 at half weight.
    loss = slic_loss(torch.tensor([-2.5, -1.0]), torch.tensor([-2.0, -4.0]), torch.tensor([-3.0, -1.0]))
    assert_close(loss.item(), ((1.5 + 1.5) + (0.0 + 0.5)) / 2)
    loss = slic_loss(
        torch.tensor([-2.5]), torch.tensor([-2.0]), torch.tensor([-3.0]), margin=2.0, weight=0.25
    )
    assert_close(loss.item(), 2.5 + 0.75)


def test_a_pair_within_the_margin_pulls_at_both_sides_and_beyond_it_at_neither() -> None:
    for rejected, slope in ((-2.0, 1.0), (-9.0, 0.0)):
        sides = [torch.tensor([value], requires_grad=True) for value in (-2.5, rejected, -3.0)]
        slic_loss(*sides, weight=0.3).backward()
        gradients = [side.grad.item() for side in sides if side.grad is not None]
        assert gradients == pytest.approx([-slope, slope, -0.3])


def test_the_chosen_side_may_be_its_own_target() -> None:
    chosen = torch.tensor([-2.5], requires_grad=True)
    slic_loss(chosen, torch.tensor([-2.0]), chosen, weight=0.3).backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-1.3)


@pytest.mark.parametrize("place", range(3))
def test_shapes_that_would_broadcast_are_refused(place: int) -> None:
    sides = list(gaussian(3, B))
    sides[place] = gaussian(B, 1)
    with pytest.raises(ShapeError, match=r"_log_prob: expected \[B\] = \[3\], got"):
        slic_loss(*sides)


def test_the_order_of_the_pairs_does_not_count() -> None:
    order, sides = torch.tensor([2, 0, 1]), list(gaussian(3, B))
    assert_close(slic_loss(*[x[order] for x in sides]), slic_loss(*sides), **EXACT)
    assert_close(crpo_loss(*[x[order] for x in four()], beta=0.7), crpo_loss(*four(), beta=0.7), **EXACT)
