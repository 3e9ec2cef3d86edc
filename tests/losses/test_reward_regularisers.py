"""Prior margins, GRM, ODIN and the product of experts: what a reward model should not learn."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    bradley_terry_loss,
    grm_loss,
    grm_sft_loss,
    head_overlap,
    margin_cap_penalty,
    odin_loss,
    odin_rewards,
    pcrm_loss,
    pcrm_similarity,
    pearson,
    prior_distance,
    product_of_experts_loss,
)
from tests.losses.drawing import EXACT, gaussian

B, H = 6, 4


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# prior margins


def test_a_cap_begins_at_its_base_for_twins_and_grows_with_the_distance() -> None:
    assert margin_cap_penalty(double(1.0, -1.0), double(0.0, 0.0)) == 0
    assert_close(margin_cap_penalty(double(-3.0), double(0.25)).item(), (3 - 2) ** 2 / 2)


def test_a_cap_pushes_a_gap_down_even_where_the_label_agrees() -> None:
    gap = double(6.0, -6.0, 0.5).requires_grad_()
    margin_cap_penalty(gap, double(0.1, 0.1, 0.1)).backward()
    assert gap.grad is not None
    assert gap.grad.sign().tolist() == [1, -1, 0]
    assert torch.autograd.gradcheck(lambda g: margin_cap_penalty(g, double(0.1, 0.2, 0.3)), [gap])


def test_the_prior_worked_by_hand() -> None:
    # 0.25 * (1 - 0.2) + 0.75 * (1 - 0.4)
    assert_close(prior_distance(double(0.2), double(0.4), share=0.25).item(), 0.65)
    assert prior_distance(double(1.0, -3.0)).tolist() == [0, 1]
    assert prior_distance(double(1.0), double(1.0)).item() == 0
    with pytest.raises(ConfigError, match="length_ratio"):
        prior_distance(double(0.0), double(1.5))


def test_pcrm_is_its_authors_formula() -> None:
    """Against the terms written out: most = 6 / (0.5 + 0.001) and 6 / (1 + 0.001)."""
    gap, alike = double(2.0, -1.0), double(0.5, 1.0)
    terms = [
        math.log1p(math.exp(-g)) + math.log1p(math.exp(g - 6 / (s + 0.001)))
        for g, s in zip(gap.tolist(), alike.tolist(), strict=True)
    ]
    assert_close(pcrm_loss(gap, alike).item(), sum(terms) / 2)
    # cos 60 degrees: 1 - (pi / 3) / pi; a negative cosine counts as a right angle
    assert_close(pcrm_similarity(double(0.5, -1.0, 1.0)), double(2 / 3, 0.5, 1.0))


def test_pcrm_holds_the_gap_at_half_its_margin_and_lower_for_twins() -> None:
    for alike in (0.25, 1.0):
        gap = double(3.0 / (alike + 0.001)).requires_grad_()
        pcrm_loss(gap, double(alike)).backward()
        assert gap.grad is not None
        assert_close(gap.grad, double(0.0), atol=1e-12, rtol=0)
    wide = double(1e6)
    assert_close(pcrm_loss(double(1.0), wide * 0, least=1e-9), -double(1.0).sigmoid().log().squeeze())
    with pytest.raises(ConfigError, match="similarity"):
        pcrm_loss(double(1.0), double(1.5))
    with pytest.raises(ConfigError, match="least"):
        pcrm_loss(double(1.0), double(0.5), least=0.0)


# GRM


def test_grm_worked_by_hand() -> None:
    assert_close(grm_sft_loss(double(0.0)).item(), math.log(2))
    assert grm_sft_loss(double(-100.0)).item() == pytest.approx(10.0000454, abs=1e-7)
    loss, other = double(0.3)[0], double(5.0)[0]
    assert grm_loss(loss, other, share=0.0) == loss
    assert_close(grm_loss(loss, other).item(), 0.99 * 0.3 + 0.01 * 5)
    assert torch.autograd.gradcheck(grm_sft_loss, [gaussian(B).requires_grad_()])
    with pytest.raises(ShapeError, match="two scalars"):
        grm_loss(loss, double(1.0))


# ODIN


def test_shifting_or_scaling_a_head_changes_nothing() -> None:
    features, heads = gaussian(B, H), gaussian(2, H, seed=1)
    changed = heads * double(3.0, 0.1)[:, None] + double(2.0, -5.0)[:, None]
    for before, after in zip(odin_rewards(features, heads), odin_rewards(features, changed), strict=True):
        assert_close(before, after, **EXACT)
    assert_close(head_overlap(heads), head_overlap(changed), **EXACT)
    assert_close(head_overlap(heads[:1].expand(2, H)).item(), 1.0)


def test_pearson_is_numpys_and_constant_numbers_have_none() -> None:
    x, y = gaussian(B), gaussian(B, seed=1)
    assert_close(pearson(x, y), torch.corrcoef(torch.stack([x, y]))[0, 1], **EXACT)
    assert_close(pearson(x, -3 * x + 2).item(), -1.0)
    assert pearson(x, torch.full((B,), 0.1, dtype=torch.float64)) == 0
    assert torch.autograd.gradcheck(pearson, [x.requires_grad_(), y.requires_grad_()])


def test_odin_is_the_sum_of_its_parts() -> None:
    features, heads, length = gaussian(2 * B, H), gaussian(2, H, seed=1), gaussian(2 * B, seed=2).exp()
    quality, nuisance = odin_rewards(features, heads)
    total = quality + nuisance
    cosine = torch.corrcoef(heads)[0, 1].abs()  # of centred rows

    def rho(reward: Tensor) -> Tensor:
        return torch.corrcoef(torch.stack([length, reward]))[0, 1]

    parts = bradley_terry_loss(total[:B] - total[B:]) + 0.5 * cosine
    pulls = 1 - rho(nuisance) + rho(quality).abs()
    weighed = partial(odin_loss, overlap_weight=0.5, correlation_weight=2.0)
    assert_close(weighed(features, heads, length), parts + 2 * (pulls + rho(total).abs()), **EXACT)
    assert_close(weighed(features, heads, length, sum_term=False), parts + 2 * pulls, **EXACT)
    assert torch.autograd.gradcheck(
        lambda x, w: odin_loss(x, w, length), [features.requires_grad_(), heads.requires_grad_()]
    )


def test_equal_lengths_leave_the_correlations_out() -> None:
    features, heads = gaussian(2 * B, H), gaussian(2, H, seed=1)
    flat = odin_loss(features, heads, torch.full((2 * B,), 0.1, dtype=torch.float64))
    total = sum(odin_rewards(features, heads))
    assert isinstance(total, Tensor)
    assert_close(flat, bradley_terry_loss(total[:B] - total[B:]) + head_overlap(heads), **EXACT)


# product of experts


def test_log_odds_add_up_in_the_product_of_two_bernoullis() -> None:
    a, b = torch.sigmoid(double(0.7, -0.3)).tolist()
    product = a * b / (a * b + (1 - a) * (1 - b))
    assert product == pytest.approx(0.598688, abs=1e-6)
    loss = product_of_experts_loss(double(0.7), double(-0.3), bias_weight=2.0)
    assert_close(loss.item(), -math.log(product) - 2 * math.log(b))


def test_a_bias_that_explains_the_label_leaves_nothing_to_learn() -> None:
    gap, bias = gaussian(B).requires_grad_(), torch.full((B,), 50.0, dtype=torch.float64)
    product_of_experts_loss(gap, bias).backward()
    assert gap.grad is not None
    assert gap.grad.abs().max() < 1e-20
    silent = torch.zeros(B, dtype=torch.float64)
    assert_close(product_of_experts_loss(gap, silent, bias_weight=0), bradley_terry_loss(gap), **EXACT)
