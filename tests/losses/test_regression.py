import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    baton_loss,
    best_weights,
    denoising_error,
    denoising_log_prob,
    exp_weights,
    group_advantages,
    raw_weights,
    softmax_weights,
    weighted_likelihood_loss,
)
from mmalign.sampling import Prediction, alpha_sigma, velocity_target
from tests.losses.drawing import EXACT, gaussian

B, P, G = 3, 4, 6


# The loss


def test_the_loss_worked_by_hand() -> None:
    loss = weighted_likelihood_loss(torch.tensor([-1.0, -3.0, -5.0]), torch.tensor([0.5, 1.0, 0.0]))
    assert_close(loss.item(), (0.5 + 3.0) / 3)


def test_on_denoising_it_is_half_the_weighted_squared_error() -> None:
    prediction, target, weight = gaussian(B, 4), gaussian(B, 4, seed=1), gaussian(B, seed=2).exp()
    loss = weighted_likelihood_loss(denoising_log_prob(prediction, target), weight)
    assert_close(loss, (weight * denoising_error(prediction, target)).mean() / 2, **EXACT)


def test_lifts_weighted_clean_error_is_this_loss_on_velocities() -> None:
    # The published form is the squared error of the clean data over 1 - abar.
    abar, weight = (
        torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64),
        torch.tensor([0.9, 0.38, 0.05]).double(),
    )
    (alpha, sigma), clean, noise = alpha_sigma(abar), gaussian(B, 4), gaussian(B, 4, seed=1)
    noisy = alpha[:, None] * clean + sigma[:, None] * noise
    wrong = Prediction(noisy, gaussian(B, 4, seed=2), alpha, sigma, "v_prediction")
    published = (weight * (((wrong.clean - clean) ** 2).mean(1) / (1 - abar))).mean()
    target = velocity_target(clean, noise, alpha, sigma, "v_prediction")
    loss = weighted_likelihood_loss(denoising_log_prob(wrong.velocity, target), weight)
    assert_close(2 * loss, published, rtol=1e-9, atol=0)


def test_equal_weights_scale_the_plain_gradient() -> None:
    gradients = []
    for weight in (1.0, 0.2):
        log_prob = gaussian(B).requires_grad_()
        weighted_likelihood_loss(log_prob, torch.full((B,), weight, dtype=torch.float64)).backward()
        assert log_prob.grad is not None
        gradients.append(log_prob.grad)
    assert_close(gradients[0], torch.full((B,), -1 / B, dtype=torch.float64))
    assert_close(gradients[1], 0.2 * gradients[0], **EXACT)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight: expected at least 0, got -0\.2; .* pushes a sample away"):
        weighted_likelihood_loss(gaussian(B), torch.tensor([0.5, -0.2, 0.1]))
    assert weighted_likelihood_loss(gaussian(B), torch.zeros(B)) == 0


def test_the_order_of_samples_does_not_count() -> None:
    order, log_prob, weight = torch.tensor([2, 0, 1]), gaussian(B), gaussian(B, seed=1).exp()
    shuffled = weighted_likelihood_loss(log_prob[order], weight[order])
    assert_close(shuffled, weighted_likelihood_loss(log_prob, weight), **EXACT)


# BATON


def test_baton_worked_by_hand() -> None:
    log_prob, reward = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 0.5])
    loss = baton_loss(log_prob, reward, torch.tensor([-2.0, -4.0, -6.0]), pretraining_weight=0.25)
    assert_close(loss.item(), 2.5 / 2 + 4 / 4)


def test_baton_without_rewards_is_pretraining_and_without_pretraining_fine_tuning() -> None:
    log_prob, before = gaussian(B).requires_grad_(), gaussian(5).requires_grad_()
    baton_loss(log_prob, torch.zeros(B), before, pretraining_weight=0.5).backward()
    assert log_prob.grad is not None
    assert (log_prob.grad == 0).all()
    assert_close(before.grad, torch.full((5,), -0.5 / 5, dtype=torch.float64))
    assert_close(
        baton_loss(log_prob, torch.ones(B), before, pretraining_weight=0.0), -log_prob.mean(), **EXACT
    )


def test_baton_is_linear_in_the_reward() -> None:
    log_prob, before, r = gaussian(B), gaussian(5, seed=1), torch.tensor([0.2, 0.4, 0.5]).double()
    whole = baton_loss(log_prob, 2 * r, before, pretraining_weight=0.0)
    assert_close(whole, 2 * baton_loss(log_prob, r, before, pretraining_weight=0.0), **EXACT)


def test_baton_refuses_what_is_no_probability_and_a_weight_below_zero() -> None:
    arguments = gaussian(B), torch.tensor([0.1, 1.0, 0.0]), gaussian(5)
    baton_loss(*arguments, pretraining_weight=0.0)
    with pytest.raises(ConfigError, match=r"pretraining_weight = -0\.1, but it is at least 0"):
        baton_loss(*arguments, pretraining_weight=-0.1)
    with pytest.raises(ConfigError, match=r"reward: expected 0 to 1, got 1\.1"):
        baton_loss(gaussian(B), torch.tensor([0.1, 1.1, 0.0]), gaussian(5), pretraining_weight=1.0)
    with pytest.raises(ConfigError, match="expected at least 0"):
        baton_loss(gaussian(B), torch.tensor([0.1, -0.1, 0.0]), gaussian(5), pretraining_weight=1.0)
    with pytest.raises(ShapeError, match=r"pretraining_log_prob: expected \[N\] = \[5\], got \[5, 1\]"):
        baton_loss(gaussian(B), torch.zeros(B), gaussian(5, 1), pretraining_weight=1.0)


# Weights


def test_weights_worked_by_hand() -> None:
    rewards = torch.tensor([[0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    e = math.e
    half = torch.tensor([[1 / (1 + e), e / (1 + e)], [0.5, 0.5]], dtype=torch.float64)
    assert_close(softmax_weights(rewards, temperature=2.0), half)
    assert_close(
        exp_weights(rewards, temperature=2.0), torch.tensor([[1, e], [e**0.5, e**0.5]], dtype=torch.float64)
    )
    assert_close(best_weights(rewards), torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64))
    assert torch.equal(raw_weights(rewards), rewards)


def test_the_published_temperature_is_one() -> None:
    rewards = gaussian(P, G)
    assert torch.equal(exp_weights(rewards), exp_weights(rewards, temperature=1.0))
    assert torch.equal(softmax_weights(rewards), softmax_weights(rewards, temperature=1.0))


@pytest.mark.parametrize("weights", [softmax_weights, best_weights])
def test_shares_add_up_to_one_and_ignore_a_prompts_constant(weights: Callable[[Tensor], Tensor]) -> None:
    rewards = gaussian(P, G)
    assert_close(weights(rewards).sum(1), torch.ones(P, dtype=torch.float64), **EXACT)
    assert_close(weights(rewards + gaussian(P, 1, seed=1)), weights(rewards), **EXACT)


def test_equal_rewards_leave_plain_imitation() -> None:
    log_prob, equal = gaussian(P, G), torch.full((P, G), 0.3, dtype=torch.float64)
    plain = -log_prob.mean()
    for weight in (G * softmax_weights(equal), exp_weights(group_advantages(equal)), G * best_weights(equal)):
        assert_close(weighted_likelihood_loss(log_prob.flatten(), weight.flatten()), plain, **EXACT)


def test_a_temperature_towards_zero_leaves_the_best() -> None:
    rewards = gaussian(P, G)
    rewards[0, 3] = rewards[0].max()  # two that are equal, and the best
    rewards[1, 2] = rewards[1].max()
    assert_close(softmax_weights(rewards, temperature=1e-4), best_weights(rewards), rtol=0, atol=1e-9)


def test_rewards_that_overflow_or_push_away_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"reward: exp\(100 / 1\) overflows; standardise rewards"):
        exp_weights(torch.tensor([0.0, 100.0]))
    assert exp_weights(torch.tensor([0.0, 100.0]), temperature=2.0).isfinite().all()
    with pytest.raises(ConfigError, match=r"reward: expected at least 0, got -0\.1"):
        raw_weights(torch.tensor([0.5, -0.1]))
    assert raw_weights(torch.tensor([0.0])).item() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    for weights in (exp_weights, softmax_weights):
        with pytest.raises(
            ConfigError, match=r"temperature = .* must be positive; best_weights is its limit"
        ):
            weights(gaussian(P, G), temperature=temperature)


def test_shapes_that_would_broadcast_are_refused() -> None:
    for weights in (softmax_weights, best_weights):
        with pytest.raises(ShapeError, match=r"rewards: expected \[P, G\], got \[6\]"):
            weights(gaussian(G))
    with pytest.raises(ShapeError, match=r"weight: expected \[B\] = \[3\], got \[3, 1\]"):
        weighted_likelihood_loss(gaussian(B), torch.ones(B, 1))
    with pytest.raises(ShapeError, match=r"log_prob: expected \[B\] = \[3\], got \[3, 1\]"):
        weighted_likelihood_loss(gaussian(B, 1), torch.ones(B, 1))
