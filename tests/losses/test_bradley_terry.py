import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    bradley_terry_loss,
    centring_penalty,
    dpo_logits,
    dpo_loss,
    gaussian_bradley_terry_loss,
    smoothed_probability,
    soft_bradley_terry_loss,
    strength_weights,
)
from tests.losses.drawing import EXACT, gaussian

B, D = 5, 3
NAN = float("nan")


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_worked_by_hand() -> None:
    # log(1 + e^-1) and log(1 + e^-0.5)
    assert_close(bradley_terry_loss(double(1.0)).item(), math.log1p(math.exp(-1)))
    assert_close(bradley_terry_loss(double(1.0), margin=0.5).item(), 0.4740769841801067)


def test_gradient_at_a_gap_of_zero_is_minus_one_half() -> None:
    gap = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(gap).backward()
    assert_close(gap.grad, double(-0.5))


def test_gradients_agree_with_finite_differences() -> None:
    gap = gaussian(B, D).requires_grad_()
    p, w, m = gaussian(B, D, seed=1).sigmoid(), gaussian(B, D, seed=2).exp(), gaussian(B, D, seed=3)
    valid = gaussian(B, D, seed=4) > 0
    assert torch.autograd.gradcheck(lambda g: bradley_terry_loss(g, margin=m, weight=w, valid=valid), [gap])
    assert torch.autograd.gradcheck(lambda g: soft_bradley_terry_loss(g, p, weight=w, valid=valid), [gap])


def test_huge_gaps_are_finite() -> None:
    gap = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bradley_terry_loss(gap)
    loss.backward()
    assert loss.item() == pytest.approx(5e3)
    assert gap.grad is not None
    assert gap.grad.tolist() == [-0.5, 0.0]


def test_what_is_not_valid_reaches_neither_loss_nor_gradient() -> None:
    gap = double(1.0, NAN, -2.0).requires_grad_()
    valid = torch.tensor([True, False, True])
    loss = bradley_terry_loss(gap, margin=double(0.0, NAN, 0.0), weight=double(1.0, NAN, 2.0), valid=valid)
    loss.backward()
    by_hand = (math.log1p(math.exp(-1)) + 2 * math.log1p(math.exp(2))) / 2
    assert_close(loss.item(), by_hand)
    assert gap.grad is not None
    assert gap.grad[1] == 0
    assert gap.grad.isfinite().all()


def test_the_mean_is_over_what_is_valid_and_nothing_valid_is_zero() -> None:
    gap = gaussian(B, D).requires_grad_()
    assert_close(
        bradley_terry_loss(gap, valid=torch.ones(B, D, dtype=torch.bool)), bradley_terry_loss(gap), **EXACT
    )
    nothing = bradley_terry_loss(gap, valid=torch.zeros(B, D, dtype=torch.bool))
    nothing.backward()
    assert nothing == 0
    assert gap.grad is not None
    assert (gap.grad == 0).all()


def test_sides_and_labels_swap_together() -> None:
    gap, p = gaussian(B), gaussian(B, seed=1).sigmoid()
    assert_close(soft_bradley_terry_loss(gap, p), soft_bradley_terry_loss(-gap, 1 - p), **EXACT)
    assert_close(
        soft_bradley_terry_loss(gap, torch.ones(B, dtype=torch.float64)), bradley_terry_loss(gap), **EXACT
    )


def test_soft_labels_teach_the_gap() -> None:
    p = double(0.2, 0.5, 0.9)
    gap = gaussian(3).requires_grad_()
    soft_bradley_terry_loss(gap, p).backward()
    assert_close(gap.grad, (gap.detach().sigmoid() - p) / 3)
    assert_close(soft_bradley_terry_loss(double(0.0), double(0.5)).item(), math.log(2))


def test_smoothing_is_a_price_on_the_gap() -> None:
    p = smoothed_probability(torch.tensor([True]), smoothing=0.1).double()
    assert_close(soft_bradley_terry_loss(double(1.0), p).item(), 0.3632616875, rtol=1e-6, atol=1e-6)
    gap = double(1.7)
    assert_close(
        soft_bradley_terry_loss(gap, p), bradley_terry_loss(gap) + 0.05 * gap[0], rtol=1e-6, atol=1e-6
    )
    best = double(math.log(0.95 / 0.05)).requires_grad_()
    soft_bradley_terry_loss(best, p).backward()
    assert best.grad is not None
    assert abs(best.grad.item()) < 1e-7  # 2.944439


def test_dpo_is_bradley_terry_on_its_logits() -> None:
    pairs = [gaussian(B, seed=s) for s in range(4)]
    assert_close(dpo_loss(*pairs, beta=0.3), bradley_terry_loss(0.3 * dpo_logits(*pairs)), **EXACT)


def test_strength_weights_have_mean_one_and_ignore_their_scale() -> None:
    s = gaussian(B).abs()
    assert_close(strength_weights(s).mean().item(), 1.0)
    assert_close(strength_weights(s), strength_weights(7 * s), **EXACT)


def test_centring_sees_a_shift_that_bradley_terry_does_not() -> None:
    chosen, rejected = gaussian(B), gaussian(B, seed=1)
    assert_close(
        bradley_terry_loss(chosen - rejected), bradley_terry_loss((chosen + 3) - (rejected + 3)), **EXACT
    )
    by_hand = sum((c + r) ** 2 for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True)) / B
    assert_close(centring_penalty(chosen, rejected).item(), by_hand)
    assert centring_penalty(chosen + 3, rejected + 3) != centring_penalty(chosen, rejected)


@pytest.mark.parametrize(
    ("gap", "variance", "value"), [(1.0, 0.0, 0.31326), (1.0, 2.0, 0.49180), (0.0, 2.0, 0.90266)]
)
def test_a_normal_gap_against_published_values(gap: float, variance: float, value: float) -> None:
    assert gaussian_bradley_terry_loss(double(gap), double(variance)).item() == pytest.approx(value, abs=1e-5)


def test_a_normal_gap_is_the_mean_of_draws() -> None:
    drawn = 0.7 + 1.3 * gaussian(400_000)
    fast = gaussian_bradley_terry_loss(double(0.7), double(1.3**2))
    assert_close(fast, bradley_terry_loss(drawn), rtol=0, atol=4e-3)
    gap, variance = gaussian(B).requires_grad_(), gaussian(B, seed=1).exp().requires_grad_()
    assert torch.autograd.gradcheck(gaussian_bradley_terry_loss, [gap, variance])


def test_what_cannot_be_meant_is_refused() -> None:
    gap = gaussian(B)
    with pytest.raises(ShapeError, match="margin"):
        bradley_terry_loss(gap, margin=gap[:, None])
    with pytest.raises(ConfigError, match="swap the sides"):
        bradley_terry_loss(gap, weight=-gap.abs())
    with pytest.raises(ConfigError, match="weight"):
        bradley_terry_loss(gap, weight=gap * NAN)
    with pytest.raises(ConfigError, match=r"valid\.bool"):
        bradley_terry_loss(gap, valid=gap)
    with pytest.raises(ConfigError, match="0 to 1"):
        soft_bradley_terry_loss(gap, gap.abs() + 1)
    with pytest.raises(ConfigError, match="0 to 1"):
        soft_bradley_terry_loss(gap, gap * NAN)
    with pytest.raises(ConfigError, match="labels say nothing"):
        smoothed_probability(gap > 0, smoothing=1.0)
    with pytest.raises(ConfigError, match="strength"):
        strength_weights(torch.zeros(2))
    with pytest.raises(ConfigError, match="variance"):
        gaussian_bradley_terry_loss(gap, -gap.abs())
    with pytest.raises(ShapeError, match=r"\[B\] or \[B, D\]"):
        bradley_terry_loss(gap[:, None, None])
