import math
from collections.abc import Callable
from functools import partial

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    denoising_log_prob,
    dpo_logits,
    dpo_loss,
    hinge_dpo_loss,
    implicit_accuracy,
    ipo_loss,
    sppo_loss,
)
from tests.losses.drawing import EXACT, gaussian

B = 3


def four(seed: int = 0) -> list[Tensor]:
    """Log-probabilities: chosen, rejected, reference of chosen, reference of rejected."""
    return list(gaussian(4, B, seed=seed))


def swapped(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> list[Tensor]:
    return [rejected, chosen, ref_rejected, ref_chosen]


def at_init(seed: int = 0) -> list[Tensor]:
    """Numbers of a policy that still is the reference, the policy's own with gradient."""
    chosen, rejected = gaussian(2, B, seed=seed) ** 2
    return [chosen.clone().requires_grad_(), rejected.clone().requires_grad_(), chosen, rejected]


def from_errors(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> list[Tensor]:
    """Mean squared errors as log-probabilities, as ``denoising_log_prob`` fixes them."""
    return [-error / 2 for error in (chosen, rejected, ref_chosen, ref_rejected)]


def test_a_loss_worked_by_hand() -> None:
    # Logit (-1 + 1.5) - (-2 + 1) = 1.5, beta 2: log(1 + e^-3)
    pair = [torch.tensor([x], dtype=torch.float64) for x in (-1.0, -2.0, -1.5, -1.0)]
    assert_close(dpo_logits(*pair), torch.tensor([1.5], dtype=torch.float64))
    assert_close(dpo_loss(*pair, beta=2.0).item(), math.log(1 + math.exp(-3)))


@pytest.mark.parametrize("beta", [0.1, 500.0, 5000.0])
def test_at_the_reference_the_loss_is_log_two_and_every_pair_a_tie(beta: float) -> None:
    pairs = from_errors(*at_init())
    assert_close(dpo_loss(*pairs, beta=beta).item(), math.log(2))
    assert implicit_accuracy(*pairs) == 0.5


def test_at_the_reference_an_errors_gradient_is_a_quarter_of_beta() -> None:
    beta, errors = 100.0, at_init()
    dpo_loss(*from_errors(*errors), beta=beta).backward()
    expected = torch.full((B,), beta / 4 / B, dtype=torch.float64)
    assert_close(errors[0].grad, expected)
    assert_close(errors[1].grad, -expected)


@given(beta=st.floats(0.1, 10))
def test_the_loss_on_errors_has_half_of_beta(beta: float) -> None:
    errors = [x**2 for x in four()]
    e_w, e_l, ref_w, ref_l = errors
    written_out = F.softplus(beta / 2 * ((e_w - e_l) - (ref_w - ref_l))).mean()
    assert_close(dpo_loss(*from_errors(*errors), beta=beta), written_out, **EXACT)


def test_swapping_the_sides_flips_the_logit_and_its_place_under_softplus() -> None:
    pairs = four()
    logits = dpo_logits(*pairs)
    assert torch.equal(dpo_logits(*swapped(*pairs)), -logits)
    assert_close(dpo_loss(*pairs, beta=2.0), F.softplus(-2 * logits).mean())
    assert_close(dpo_loss(*swapped(*pairs), beta=2.0), F.softplus(2 * logits).mean())
    assert_close(implicit_accuracy(*swapped(*pairs)), 1 - implicit_accuracy(*pairs))


def test_at_the_reference_swapping_the_sides_negates_the_gradient() -> None:
    pairs, other_way = at_init(), at_init()
    dpo_loss(*pairs, beta=2.0).backward()
    dpo_loss(*swapped(*other_way), beta=2.0).backward()
    for one, other in zip(pairs[:2], other_way[:2], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, -other.grad)
        assert (one.grad != 0).all()


def test_two_copies_of_one_sample_have_logit_zero_under_any_policy() -> None:
    clean, noise, sigma = (
        gaussian(B, 4),
        gaussian(B, 4, seed=1),
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
    )
    noisy = (1 - sigma[:, None]) * clean + sigma[:, None] * noise

    def log_prob(seed: int) -> Tensor:
        return denoising_log_prob(torch.tanh(noisy @ gaussian(4, 4, seed=seed)), noise - clean)

    assert torch.equal(
        dpo_logits(log_prob(2), log_prob(2), log_prob(3), log_prob(3)), torch.zeros_like(sigma)
    )


def test_only_differences_count() -> None:
    # To both sides of one model, or to one side of both models.
    chosen, rejected, ref_chosen, ref_rejected = pairs = four()
    constant = gaussian(B, seed=1)
    loss = dpo_loss(*pairs, beta=2.0)
    assert_close(
        dpo_loss(chosen + constant, rejected + constant, ref_chosen, ref_rejected, beta=2.0), loss, **EXACT
    )
    assert_close(
        dpo_loss(chosen + constant, rejected, ref_chosen + constant, ref_rejected, beta=2.0), loss, **EXACT
    )


def test_a_beta_that_falls_with_sigma_is_diffusion_dpo_on_the_noise() -> None:
    beta, sigma = 20.0, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    kept = 1 - sigma[:, None]
    noise = gaussian(B, 4)
    velocity_pairs, noise_pairs = [], []
    for policy in (1, 3):
        for side in (0, 1):
            clean = gaussian(B, 4, seed=10 + side)
            noisy = kept * clean + sigma[:, None] * noise
            velocity = torch.tanh(noisy @ gaussian(4, 4, seed=policy))
            velocity_pairs.append(denoising_log_prob(velocity, noise - clean))
            noise_pairs.append(denoising_log_prob(noisy + kept * velocity, noise))
    assert_close(
        dpo_loss(*velocity_pairs, beta=beta * (1 - sigma) ** 2), dpo_loss(*noise_pairs, beta=beta), **EXACT
    )


def test_a_beta_per_pair_multiplies_its_own_logit() -> None:
    beta, pairs = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64), four()
    assert_close(dpo_loss(*pairs, beta=beta), F.softplus(-beta * dpo_logits(*pairs)).mean(), **EXACT)
    assert_close(dpo_loss(*pairs, beta=torch.full_like(beta, 3.0)), dpo_loss(*pairs, beta=3.0), **EXACT)


def test_the_order_of_the_pairs_does_not_count() -> None:
    order = torch.tensor([2, 0, 1])
    pairs, shuffled = four(), [x[order] for x in four()]
    assert_close(dpo_loss(*shuffled, beta=2.0), dpo_loss(*pairs, beta=2.0), **EXACT)
    assert torch.equal(dpo_logits(*shuffled), dpo_logits(*pairs)[order])


def test_a_hopeless_pair_keeps_a_finite_loss_and_its_gradient() -> None:
    # In float32 sigmoid(-5000) is 0 and its log is not; the loss is 5000 and its slope beta.
    chosen = torch.tensor([-1.0], requires_grad=True)
    loss = dpo_loss(chosen, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=5000.0)
    loss.backward()
    assert_close(loss.item(), 5000.0)
    assert_close(chosen.grad, torch.tensor([-5000.0]))


def test_accuracy_counts_hits_and_half_of_the_ties() -> None:
    zero = torch.zeros(4)
    assert implicit_accuracy(torch.tensor([1.0, 2.0, 0.0, -1.0]), zero, zero, zero) == (1 + 1 + 0.5) / 4


@pytest.mark.parametrize("shape", [(), (B, 1), (1,)])
@pytest.mark.parametrize("place", range(4))
def test_shapes_that_would_broadcast_are_refused(place: int, shape: tuple[int, ...]) -> None:
    pairs = four()
    pairs[place] = torch.zeros(shape, dtype=torch.float64)
    with_beta = [partial(loss, beta=1.0) for loss in (dpo_loss, ipo_loss, hinge_dpo_loss, sppo_loss)]
    functions: list[Callable[..., Tensor]] = [dpo_logits, implicit_accuracy, *with_beta]
    for function in functions:
        with pytest.raises(ShapeError, match=r"_log_prob: expected \[B\] = "):
            function(*pairs)


def test_log_probs_of_single_tokens_are_refused_even_if_all_agree() -> None:
    with pytest.raises(ShapeError, match=r"chosen_log_prob: expected \[B\] = \[3\], got \[3, 2\]"):
        dpo_logits(*[torch.zeros(B, 2)] * 4)


def test_a_beta_that_would_broadcast_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"beta: expected \[B\] = \[3\], got \[3, 1\]"):
        dpo_loss(*four(), beta=torch.ones(B, 1))


# IPO, the hinge and SPPO


def test_the_other_losses_worked_by_hand() -> None:
    # Logits 1.5 and -0.5; at beta 0.5 IPO's target is 1 and the hinge's margin 2.
    pairs = list(torch.tensor([[-1.0, -1.0], [-2.0, -0.5], [-1.5, -0.5], [-1.0, -0.5]], dtype=torch.float64))
    assert_close(dpo_logits(*pairs), torch.tensor([1.5, -0.5], dtype=torch.float64))
    assert_close(ipo_loss(*pairs, beta=0.5).item(), (0.5**2 + 1.5**2) / 2)
    assert_close(hinge_dpo_loss(*pairs, beta=0.5).item(), (0.25 + 1.25) / 2)
    # Chosen rose by 0.5 and fell by 0.5, rejected fell by 1 and stayed; the targets are 1 and -1.
    assert_close(sppo_loss(*pairs, beta=0.5).item(), ((0.25 + 0.0) + (2.25 + 1.0)) / 2)


def test_ipo_stops_at_its_target_and_calls_back_what_passed_it() -> None:
    zero = torch.zeros(1)
    for chosen, sign in ((4.0, -1), (5.0, 0), (6.0, 1)):  # 1 / (2 beta) = 5
        log_prob = torch.tensor([chosen], requires_grad=True)
        ipo_loss(log_prob, zero, zero, zero, beta=0.1).backward()
        assert log_prob.grad is not None
        assert log_prob.grad.sign().item() == sign


def test_the_hinge_is_off_once_the_margin_is_reached() -> None:
    zero = torch.zeros(1)
    for chosen, gradient in ((1.9, -0.5), (2.1, 0.0)):  # 1 / beta = 2
        log_prob = torch.tensor([chosen], requires_grad=True)
        hinge_dpo_loss(log_prob, zero, zero, zero, beta=0.5).backward()
        assert log_prob.grad is not None
        assert log_prob.grad.item() == gradient


def test_sppo_sees_more_than_the_difference() -> None:
    pairs = four()
    fallen = [pairs[0] - 1, pairs[1] - 1, *pairs[2:]]
    assert_close(ipo_loss(*fallen, beta=2.0), ipo_loss(*pairs, beta=2.0), **EXACT)
    assert (sppo_loss(*fallen, beta=2.0) - sppo_loss(*pairs, beta=2.0)).abs() > 0.01


@pytest.mark.parametrize("loss", [ipo_loss, hinge_dpo_loss])
def test_swapping_the_sides_negates_the_logit_inside(loss: Callable[..., Tensor]) -> None:
    zero, pairs = torch.zeros(B, dtype=torch.float64), four()
    logits = dpo_logits(*pairs)
    assert_close(loss(*swapped(*pairs), beta=2.0), loss(-logits, zero, zero, zero, beta=2.0), **EXACT)


@pytest.mark.parametrize("loss", [ipo_loss, hinge_dpo_loss, sppo_loss])
@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_a_beta_that_is_not_positive_is_refused(loss: Callable[..., Tensor], beta: float) -> None:
    with pytest.raises(ConfigError, match=r"beta = .* must be positive"):
        loss(*four(), beta=beta)


@pytest.mark.parametrize("loss", [ipo_loss, hinge_dpo_loss, sppo_loss])
def test_the_order_of_the_pairs_does_not_count_in_any(loss: Callable[..., Tensor]) -> None:
    order = torch.tensor([2, 0, 1])
    assert_close(loss(*[x[order] for x in four()], beta=0.7), loss(*four(), beta=0.7), **EXACT)
