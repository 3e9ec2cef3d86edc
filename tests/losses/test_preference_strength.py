import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import dpo_logits, dpo_loss, gapo_loss, gapo_weights, osp_loss, robust_dpo_loss
from tests.losses.drawing import EXACT, gaussian

B = 3


def four(seed: int = 0) -> list[Tensor]:
    return list(gaussian(4, B, seed=seed))


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# GAPO


def test_a_gap_worked_by_hand() -> None:
    assert_close(gapo_weights(double(90.0), double(60.0)).item(), 0.3503494163338)
    assert_close(gapo_weights(double(100.0), double(0.0)).item(), 1.0)
    assert_close(gapo_weights(double(1.0), double(0.5), base=3.0, scale=1.0).item(), 3 - 3**0.5)


def test_at_the_reference_the_loss_is_the_weight_times_log_two() -> None:
    log_prob, weight = gaussian(2, B), gapo_weights(double(90, 80, 70), double(60, 80, 10))
    loss = gapo_loss(*log_prob, *log_prob, weight=weight, beta=5000.0)
    assert_close(loss, weight.mean() * math.log(2), **EXACT)


def test_a_tie_has_no_loss_and_no_gradient() -> None:
    chosen = gaussian(B).requires_grad_()
    weight = gapo_weights(double(50, 70, 0), double(50, 70, 0))
    loss = gapo_loss(chosen, *four()[1:], weight=weight, beta=1.0)
    loss.backward()
    assert loss == 0
    assert chosen.grad is not None
    assert (chosen.grad == 0).all()


def test_twice_the_weight_is_twice_the_gradient() -> None:
    gradients = []
    for scale in (1.0, 2.0):
        chosen = gaussian(B).requires_grad_()
        gapo_loss(chosen, *four()[1:], weight=scale * double(0.2, 0.5, 0.1), beta=1.0).backward()
        assert chosen.grad is not None
        gradients.append(chosen.grad)
    assert_close(gradients[1], 2 * gradients[0], **EXACT)


def test_each_pair_has_its_own_weight() -> None:
    pairs, weight = four(), double(0.1, 0.6, 0.2)
    losses = F.softplus(-1.5 * dpo_logits(*pairs))
    assert_close(gapo_loss(*pairs, weight=weight, beta=1.5), (weight * losses).mean(), **EXACT)
    assert ((weight * losses).mean() - weight.mean() * losses.mean()).abs() > 0.01
    assert_close(
        gapo_loss(*pairs, weight=torch.ones_like(weight), beta=1.5), dpo_loss(*pairs, beta=1.5), **EXACT
    )


def test_a_mislabelled_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="chosen_score: pair 1 has 40 against 60; swap its sides"):
        gapo_weights(double(50, 40), double(50, 60))
    with pytest.raises(ConfigError, match=r"weight: expected at least 0, got -0.1"):
        gapo_loss(*four(), weight=double(0.5, -0.1, 0.5), beta=1.0)
    assert gapo_loss(*four(), weight=double(0, 0, 0), beta=1.0) == 0


def test_scores_of_another_scale_are_refused() -> None:
    with pytest.raises(ConfigError, match="scores are from 3 to 101, but scale = 100 says 0 to 100"):
        gapo_weights(double(101), double(3))
    with pytest.raises(ConfigError, match="scores are from -1 to 5, but scale = 100"):
        gapo_weights(double(5), double(-1))
    for options in ({"base": 1.0}, {"base": 0.5}, {"scale": 0.0}, {"scale": -1.0}):
        with pytest.raises(ConfigError, match="base is above 1 and scale above 0"):
            gapo_weights(double(0), double(0), **options)


# OSP


def test_a_certain_label_is_dpo() -> None:
    pairs, one = four(), torch.ones(B, dtype=torch.float64)
    assert_close(osp_loss(*pairs, probability=one, beta=0.7), dpo_loss(*pairs, beta=0.7), **EXACT)
    other_way = [pairs[1], pairs[0], pairs[3], pairs[2]]
    assert_close(osp_loss(*pairs, probability=0 * one, beta=0.7), dpo_loss(*other_way, beta=0.7), **EXACT)


@given(p=st.floats(0.05, 0.95), off=st.floats(-2, 2))
def test_the_gradient_is_zero_only_where_the_policy_agrees_with_the_judge(p: float, off: float) -> None:
    # dL/dz = sigmoid(z) - p, over one pair and beta 2.
    z = math.log(p / (1 - p)) + off
    first, zero = double(z / 2).requires_grad_(), double(0.0)
    osp_loss(first, zero, zero, zero, probability=double(p), beta=2.0).backward()
    assert_close(first.grad, double(2 * (1 / (1 + math.exp(-z)) - p)), rtol=1e-9, atol=1e-12)
    assert first.grad is not None
    if off == 0:
        assert abs(first.grad.item()) < 1e-12
    elif abs(off) > 1e-3:
        assert first.grad.sign().item() == math.copysign(1, off)


def test_an_even_label_is_least_at_the_reference() -> None:
    zero, half = double(0.0), double(0.5)
    losses = [
        osp_loss(double(z), zero, zero, zero, probability=half, beta=1.0).item() for z in (-1.0, 0.0, 1.0)
    ]
    assert_close(losses[1], math.log(2))
    assert losses[0] > losses[1] < losses[2]


def test_swapping_the_sides_and_the_label_changes_nothing() -> None:
    (a, b, ref_a, ref_b), p = four(), double(0.2, 0.5, 0.9)
    swapped = osp_loss(b, a, ref_b, ref_a, probability=1 - p, beta=3.0)
    assert_close(swapped, osp_loss(a, b, ref_a, ref_b, probability=p, beta=3.0), **EXACT)


@pytest.mark.parametrize("p", [-0.01, 1.01])
def test_a_label_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match="probability: expected 0 to 1, got"):
        osp_loss(*four(), probability=double(0.5, p, 0.5), beta=1.0)
    osp_loss(*four(), probability=double(0, 0.5, 1), beta=1.0)


# Robust DPO


def test_flipped_labels_average_to_the_loss_on_true_ones() -> None:
    (chosen, rejected, ref_chosen, ref_rejected), rate = four(), 0.2
    right = robust_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=1.3, flip_rate=rate)
    flipped = robust_dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta=1.3, flip_rate=rate)
    expected = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=1.3)
    assert_close((1 - rate) * right + rate * flipped, expected, **EXACT)
    assert_close(robust_dpo_loss(*four(), beta=1.3, flip_rate=0.0), expected, **EXACT)


@pytest.mark.parametrize("rate", [-0.1, 0.5, 0.7])
def test_labels_that_say_nothing_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"flip_rate = .*, but it is in \[0, 1/2\)"):
        robust_dpo_loss(*four(), beta=1.0, flip_rate=rate)


# All of them


def test_shapes_that_would_broadcast_are_refused() -> None:
    wide = torch.full((B, 1), 0.5, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"weight: expected \[B\] = \[3\], got \[3, 1\]"):
        gapo_loss(*four(), weight=wide, beta=1.0)
    with pytest.raises(ShapeError, match=r"probability: expected \[B\] = \[3\], got \[3, 1\]"):
        osp_loss(*four(), probability=wide, beta=1.0)
    with pytest.raises(ShapeError, match=r"rejected_log_prob: expected \[B\] = \[3\], got \[3, 1\]"):
        robust_dpo_loss(four()[0], wide, *four()[2:], beta=1.0, flip_rate=0.1)
    with pytest.raises(ShapeError, match=r"rejected_score: expected \[B\] = \[3\], got \[3, 1\]"):
        gapo_weights(four()[0], wide)
    with pytest.raises(ShapeError, match=r"chosen_score: expected \[B\] = \[3\], got \[3, 1\]"):
        gapo_weights(wide, wide)


def test_the_order_of_the_pairs_does_not_count() -> None:
    order, p = torch.tensor([2, 0, 1]), double(0.2, 0.5, 0.9)
    shuffled = [x[order] for x in four()]
    assert_close(
        gapo_loss(*shuffled, weight=p[order], beta=2.0), gapo_loss(*four(), weight=p, beta=2.0), **EXACT
    )
    soft = osp_loss(*shuffled, probability=p[order], beta=2.0)
    assert_close(soft, osp_loss(*four(), probability=p, beta=2.0), **EXACT)
    robust = robust_dpo_loss(*shuffled, beta=2.0, flip_rate=0.1)
    assert_close(robust, robust_dpo_loss(*four(), beta=2.0, flip_rate=0.1), **EXACT)
