import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.rewards.conformal import conformal_interval, conformal_radius
from mmalign.rewards.epinet import epinet_mix, epinet_rewards
from mmalign.rewards.uncertainty import (
    agreement_weight,
    energy,
    mean_less_std,
    reliability,
    soft_worst_case,
    uncertainty_weighted,
    worst_case,
)

K, B, D = 4, 5, 3


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_two_three_worked_by_hand() -> None:
    r = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    assert worst_case(r).item() == 1
    assert uncertainty_weighted(r).item() == pytest.approx(2 - 0.5 * 2 / 3)
    assert uncertainty_weighted(r, correction=1).item() == pytest.approx(1.5)
    assert mean_less_std(r).item() == pytest.approx(2 - math.sqrt(2 / 3))
    by_hand = -math.log((math.exp(-1) + math.exp(-2) + math.exp(-3)) / 3)
    assert soft_worst_case(r).item() == pytest.approx(by_hand)


def test_all_agree_where_the_members_do() -> None:
    one = gaussian(1, B).expand(K, B)
    for found in (worst_case(one), uncertainty_weighted(one), mean_less_std(one), soft_worst_case(one)):
        assert_close(found, one[0])
    assert_close(agreement_weight(one), torch.ones(B, dtype=torch.float64))


def test_the_soft_worst_case_lies_between_the_worst_and_the_mean() -> None:
    r = gaussian(K, B, D)
    soft = soft_worst_case(r, temperature=0.7)
    assert (worst_case(r) <= soft).all()
    assert (soft <= r.mean(0)).all()
    assert_close(soft_worst_case(r, temperature=1e-3), worst_case(r), rtol=0, atol=2e-3)
    assert_close(soft_worst_case(r, temperature=1e6), r.mean(0), rtol=0, atol=1e-5)


def test_no_pessimism_is_the_mean_and_the_order_of_members_is_no_matter() -> None:
    r = gaussian(K, B)
    assert_close(uncertainty_weighted(r, weight=0.0), r.mean(0))
    assert_close(mean_less_std(r, pessimism=0.0), r.mean(0))
    for function in (worst_case, uncertainty_weighted, mean_less_std, soft_worst_case, agreement_weight):
        assert_close(function(r.flip(0)), function(r))


def test_gradients_agree_with_finite_differences() -> None:
    r = gaussian(K, B).requires_grad_()
    for function in (worst_case, uncertainty_weighted, mean_less_std, soft_worst_case, agreement_weight):
        assert torch.autograd.gradcheck(function, [r])


def test_a_missing_member_is_a_missing_result() -> None:
    r = gaussian(K, B)
    r[1, 2] = float("nan")
    for function in (worst_case, uncertainty_weighted, mean_less_std, soft_worst_case):
        assert function(r).isnan().tolist() == [False, False, True, False, False]


def test_unsure_rewards_count_less() -> None:
    # By hand: two noises 4 apart have a population std of 2.
    assert agreement_weight(torch.tensor([[1.0], [5.0]]), scale=0.1).item() == pytest.approx(math.exp(-0.2))
    weight = reliability(torch.tensor([0.0, 1.0, 2.0, 4.0, float("nan")]), typical=2.0)
    assert weight[:4].tolist() == pytest.approx([1.0, 0.8, 0.5, 0.2])
    assert weight[4].isnan()
    std = gaussian(B).abs()
    assert_close(reliability(std), reliability(10 * std))
    assert reliability(torch.zeros(3)).tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="half of the stds"):
        reliability(torch.tensor([0.0, 0.0, 1.0]))


def test_the_energy_of_a_scalar_reward() -> None:
    assert energy(torch.tensor([[2.0, -1.0]])).item() == pytest.approx(-2.048587, abs=1e-6)
    r = gaussian(B)
    pair = torch.stack([torch.zeros_like(r), r], 1)
    assert_close(energy(pair), -torch.nn.functional.softplus(r))
    assert_close(energy(pair, temperature=1e-4), -r.clamp(min=0), rtol=0, atol=1e-4)


def test_settings_that_cannot_work_are_refused() -> None:
    r = gaussian(K, B)
    with pytest.raises(ConfigError, match="correction"):
        uncertainty_weighted(r, correction=2)
    with pytest.raises(ShapeError, match="K > 1"):
        uncertainty_weighted(r[:1], correction=1)
    with pytest.raises(ConfigError, match="at least 0"):
        mean_less_std(r, pessimism=-1.0)
    with pytest.raises(ConfigError, match="worst_case"):
        soft_worst_case(r, temperature=0.0)


# epinet


def test_an_epinet_by_the_plain_loop() -> None:
    n, Z = 6, 3
    mean, learned, prior, index = (
        gaussian(B),
        gaussian(n, B, Z, seed=1),
        gaussian(n, B, Z, seed=2),
        gaussian(n, Z),
    )
    found = epinet_mix(mean, learned, prior, index, prior_scale=0.5)
    for i in range(n):
        for b in range(B):
            small = sum(float((learned[i, b, z] + 0.5 * prior[i, b, z]) * index[i, z]) for z in range(Z))
            assert found[i, b].item() == pytest.approx(mean[b].item() + small)


def test_an_index_of_zero_is_the_mean_and_a_double_one_twice_as_far() -> None:
    mean, learned, prior, index = gaussian(B), gaussian(B, D, seed=1), gaussian(B, D, seed=2), gaussian(K, D)
    assert_close(epinet_mix(mean, learned, prior, 0 * index), mean.expand(K, B))
    one, two = (epinet_mix(mean, learned, prior, c * index) - mean for c in (1, 2))
    assert_close(two, 2 * one)


def test_the_trunk_learns_from_the_base_head_alone_and_the_prior_never() -> None:
    H, Z, n = 4, 3, 2
    features = gaussian(B, H).requires_grad_()
    head = gaussian(H, seed=1)
    small, fixed = (gaussian(H + Z, Z, seed=s).requires_grad_() for s in (2, 3))
    rewards = epinet_rewards(
        features @ head, features, gaussian(n, Z), lambda x: x @ small, lambda x: x @ fixed
    )
    rewards.sum().backward()
    assert_close(features.grad, n * head.expand(B, H))
    assert fixed.grad is None
    assert small.grad is not None
    assert (small.grad != 0).all()


# conformal intervals


def test_the_radius_is_a_rank() -> None:
    residual = torch.tensor([3.0, -1.0, 2.0, -9.0, 4.0, 5.0, -6.0, 7.0, 8.0])
    assert conformal_radius(residual, miss=0.1) == 9  # the ninth of nine
    assert conformal_radius(residual, miss=0.5) == 5  # the fifth
    assert conformal_radius(residual[:8], miss=0.1) == math.inf
    assert conformal_radius(2 * residual, miss=0.5) == 10


def test_the_interval_holds_as_often_as_promised() -> None:
    noise = gaussian(400, 60).exp()  # skewed, on purpose
    held = 0.0
    for row in noise:
        radius = conformal_radius(row[:29], miss=0.2)  # rank 24 of 29
        low, high = conformal_interval(torch.zeros(31, dtype=torch.float64), radius)
        held += float(((low <= row[29:]) & (row[29:] <= high)).double().mean()) / 400
    assert held == pytest.approx(0.8, abs=0.02)


def test_wider_where_less_sure() -> None:
    low, high = conformal_interval(torch.tensor([1.0, 1.0]), 2.0, torch.tensor([0.5, 3.0]))
    assert (low.tolist(), high.tolist()) == ([0, -5], [2, 7])
    with pytest.raises(ConfigError, match="NaN"):
        conformal_radius(torch.tensor([float("nan")]))
    with pytest.raises(ConfigError, match="miss"):
        conformal_radius(torch.ones(3), miss=0.0)
