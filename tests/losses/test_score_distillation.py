import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    dream_fl_loss,
    matched_weight,
    sds_gradient,
    sds_loss,
    straight_through,
)
from tests.losses.drawing import EXACT, gaussian

B = 3


def test_the_denoisers_wish_is_a_weighted_difference() -> None:
    guided, noise, weight = (
        gaussian(B, 4, 5),
        gaussian(B, 4, 5, seed=1),
        torch.tensor([0.1, 0.5, 0.9]).double(),
    )
    gradient = sds_gradient(guided.requires_grad_(), noise, weight)
    assert not gradient.requires_grad
    for b in range(B):
        assert_close(gradient[b], (weight[b] * (guided[b] - noise[b])).detach(), **EXACT)


def test_the_loss_has_the_gradient_that_it_was_given() -> None:
    rendering, gradient = gaussian(B, 4, 5).requires_grad_(), gaussian(B, 4, 5, seed=1).requires_grad_()
    loss = sds_loss(rendering, gradient)
    loss.backward()
    assert_close(rendering.grad, gradient.detach() / B, **EXACT)
    assert gradient.grad is None
    assert_close(loss.item(), (gradient**2).sum().item() / 2 / B)


def test_towards_the_clean_estimate_it_is_half_a_squared_error() -> None:
    rendering, clean = gaussian(B, 4), gaussian(B, 4, seed=1)
    assert_close(sds_loss(rendering, rendering - clean), ((rendering - clean) ** 2).sum() / 2 / B, **EXACT)


# DreamFL


def test_without_weight_it_is_score_distillation() -> None:
    loss, reward = torch.tensor(1.5), torch.tensor([3.0, 5.0, 1.0])
    assert dream_fl_loss(loss, reward, weight=0.0) == loss
    assert_close(dream_fl_loss(loss, reward, weight=0.3).item(), 1.5 + 0.3 * (1 + 0 + 3) / 3)
    assert_close(dream_fl_loss(loss, reward, weight=0.3, target=6.0).item(), 1.5 + 0.3 * (3 + 1 + 5) / 3)


def test_a_scene_that_is_good_enough_is_left_to_the_denoiser() -> None:
    for value, slope in ((3.9, -0.5), (4.0, 0.0), (4.1, 0.0)):
        reward = torch.tensor([value], requires_grad=True)
        dream_fl_loss(torch.tensor(0.0), reward, weight=0.5).backward()
        assert reward.grad is not None
        assert reward.grad.item() == slope


def test_the_matched_weight_gives_the_reward_its_share_of_the_force() -> None:
    of_denoiser, of_reward = gaussian(B, 4, 5), 100 * gaussian(B, 4, 5, seed=1)
    weight = matched_weight(of_denoiser, of_reward, share=0.6)
    assert_close((weight * of_reward).norm(), 0.6 * of_denoiser.norm(), **EXACT)
    assert_close(matched_weight(of_denoiser, of_reward), weight / 2)
    assert_close(matched_weight(of_denoiser, 1e-6 * of_reward), 1e6 * weight / 2)
    assert matched_weight(of_denoiser, torch.zeros(B, 4, 5)) == 0
    assert matched_weight(of_denoiser, of_reward, share=0.0) == 0
    with pytest.raises(ConfigError, match=r"share = -0\.1, but it is at least 0"):
        matched_weight(of_denoiser, of_reward, share=-0.1)


def test_the_numbers_of_one_and_the_gradient_of_the_other() -> None:
    value, carrier = gaussian(B, 4).requires_grad_(), gaussian(B, 4, seed=1).requires_grad_()

    def reward(image: Tensor) -> Tensor:
        return -((image - 1) ** 2).sum()

    mixed = straight_through(value, carrier)
    assert_close(mixed, value, **EXACT)
    reward(mixed).backward()
    assert_close(carrier.grad, -2 * (value.detach() - 1), **EXACT)
    assert value.grad is None


def test_mistakes_are_refused() -> None:
    one, wide = torch.ones(B, 4), torch.ones(B, 1)
    with pytest.raises(ShapeError, match=r"noise: expected \[B, ...\] = \[3, 4\], got \[3, 1\]"):
        sds_gradient(one, wide, torch.ones(B))
    with pytest.raises(ShapeError, match=r"weight: expected \[B\] = \[3\], got \[3, 1\]"):
        sds_gradient(one, one, wide)
    with pytest.raises(ShapeError, match=r"rendering: expected \[B, ...\], got \[3\]"):
        sds_loss(torch.ones(B), torch.ones(B))
    with pytest.raises(ShapeError, match=r"gradient: expected \[B, ...\] = \[3, 4\], got \[3, 1\]"):
        sds_loss(one, wide)
    with pytest.raises(ShapeError, match=r"distillation_loss: expected a scalar = \[\], got \[3\]"):
        dream_fl_loss(torch.ones(B), torch.ones(B), weight=1.0)
    with pytest.raises(ShapeError, match=r"reward: expected \[B\] = \[3\], got \[3, 1\]"):
        dream_fl_loss(torch.tensor(0.0), wide, weight=1.0)
    with pytest.raises(ShapeError, match=r"reward_gradient: expected the other's = \[3, 4\], got \[3, 1\]"):
        matched_weight(one, wide)
    with pytest.raises(ShapeError, match=r"carrier: expected value's = \[3, 4\], got \[3, 1\]"):
        straight_through(one, wide)
