import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    bradley_terry_fit,
    bradley_terry_loss,
    comparison_covariance,
    pessimism_bound,
    pessimistic_value,
)
from tests.losses.drawing import EXACT, gaussian

N, K, D = 5, 3, 4


def test_the_covariance_is_the_plain_loop_and_ignores_copies() -> None:
    f = gaussian(N, K, D)
    plain = sum(
        torch.outer(f[i, j] - f[i, k], f[i, j] - f[i, k])
        for i in range(N)
        for j in range(K)
        for k in range(j + 1, K)
    )
    assert isinstance(plain, torch.Tensor)
    found = comparison_covariance(f)
    assert_close(found, plain * 2 / (N * K * (K - 1)), **EXACT)
    assert_close(comparison_covariance(torch.cat([f, f])), found, **EXACT)
    assert_close(comparison_covariance(f + 3), found, **EXACT)
    x = f[:, 0] - f[:, 1]
    assert_close(comparison_covariance(f[:, :2]), x.mT @ x / N, **EXACT)


def test_the_fit_has_no_gradient_left_and_finds_the_planted_reward() -> None:
    truth = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    x = gaussian(4000, D)
    agrees = torch.sigmoid(x @ truth) > torch.rand(
        4000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    x = torch.where(agrees[:, None], x, -x)
    theta = bradley_terry_fit(x, ridge=1e-9).requires_grad_()
    (gradient,) = torch.autograd.grad(bradley_terry_loss(x @ theta), theta)
    assert gradient.abs().max() < 1e-8
    assert_close(theta.detach(), truth, rtol=0, atol=0.2)


def test_separable_data_have_an_answer_and_weights_are_copies() -> None:
    x = gaussian(30, D)
    x = x * x[:, :1].sign()
    theta = bradley_terry_fit(x, ridge=1e-3)
    assert theta.isfinite().all()
    assert ((x @ theta) > 0).all()
    y = gaussian(6, D)
    twice = bradley_terry_fit(y, weight=torch.tensor([2.0, 1, 1, 1, 1, 0]), ridge=1e-2)
    # The mean is over all six rows, whatever they weigh.
    assert_close(twice, bradley_terry_fit(torch.cat([y[:1], y[:5]]), ridge=1e-2), rtol=1e-8, atol=1e-8)


def test_pessimism_worked_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    covariance = comparison_covariance(torch.stack([x, torch.zeros_like(x)], 1))
    eye, theta = torch.eye(2, dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    value = pessimistic_value(eye, theta, covariance, ridge=0.0)
    assert value.tolist() == pytest.approx([0.5 - math.sqrt(3 / 2), 2 - math.sqrt(3)])
    centre = torch.tensor([0.0, 1.0], dtype=torch.float64)
    centred = pessimistic_value(eye, theta, covariance, centre=centre, ridge=0.0)
    # (1, -1): 0.5 - 2 - sqrt(3 / 2 + 3); and the centre itself is certain.
    assert centred.tolist() == pytest.approx([-1.5 - math.sqrt(4.5), 0.0])


def test_limits_of_pessimism() -> None:
    f, theta, covariance = (
        gaussian(N, D),
        gaussian(D, seed=1),
        comparison_covariance(gaussian(20, K, D, seed=2)),
    )
    assert_close(pessimistic_value(f, theta, covariance, pessimism=0.0), f @ theta, **EXACT)
    # a direction that was never compared
    flat = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    unseen = torch.eye(D, dtype=torch.float64)[3:]
    assert pessimistic_value(unseen, theta, flat, ridge=1e-12).item() < -1e5
    with pytest.raises(ConfigError, match="never compared"):
        pessimistic_value(unseen, theta, flat, ridge=0.0)
    assert torch.autograd.gradcheck(
        lambda x, t: pessimistic_value(x, t, covariance, ridge=0.1),
        [f.requires_grad_(), theta.requires_grad_()],
    )


def test_the_bound_by_hand_and_its_rate() -> None:
    gamma = 1 / (2 + math.exp(-2) + math.exp(2))
    by_hand = 3 * math.sqrt((4 + math.log(10)) / (gamma**2 * 100) + 0.5 * 4)
    found = pessimism_bound(
        dimension=4, comparisons=100, ridge=0.5, theta_bound=2, feature_bound=1, failure=0.1, constant=3
    )
    assert found == pytest.approx(by_hand)
    one, four = (pessimism_bound(dimension=4, comparisons=n, ridge=0.0) for n in (100, 400))
    assert one == pytest.approx(2 * four)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="ridge"):
        bradley_terry_fit(gaussian(N, D), ridge=0.0)
    with pytest.raises(ShapeError, match="K >= 2"):
        comparison_covariance(gaussian(N, 1, D))
    with pytest.raises(ConfigError, match="failure"):
        pessimism_bound(dimension=1, comparisons=1, ridge=0.0, failure=1.0)
