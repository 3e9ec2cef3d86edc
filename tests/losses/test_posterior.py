import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import brain_loss, brain_weights, dpo_logits, effective_sample_size, osp_loss
from tests.losses.drawing import EXACT, gaussian

P, G = 3, 5


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_weights_worked_by_hand() -> None:
    # exp(prior + reward / 2 - old) = 2 * e / 1, 1 * 1 / 2, up to their sum.
    weights = brain_weights(
        double([2.0, 1.0]).log(), double([1.0, 2.0]).log(), double([2.0, 0.0]), temperature=2.0
    )
    e = 2.718281828459045
    assert_close(weights, double([2 * e / (2 * e + 0.5), 0.5 / (2 * e + 0.5)]))


def test_weights_do_not_know_a_prompts_constant() -> None:
    prior, old, reward = (gaussian(P, G, seed=seed) for seed in range(3))
    weights = brain_weights(prior, old, reward, temperature=0.7)
    assert_close(weights.sum(1), torch.ones(P, dtype=torch.float64), **EXACT)
    constant = gaussian(P, 1, seed=3)
    for moved in (
        brain_weights(prior + constant, old, reward, temperature=0.7),
        brain_weights(prior, old + constant, reward, temperature=0.7),
        brain_weights(prior, old, reward + constant, temperature=0.7),
    ):
        assert_close(moved, weights, **EXACT)


def test_samples_of_the_prior_are_weighted_by_their_reward_alone() -> None:
    prior, reward = gaussian(P, G), gaussian(P, G, seed=1)
    assert_close(brain_weights(prior, prior, reward, temperature=0.5), (2 * reward).softmax(1), **EXACT)


def test_the_loss_is_a_cross_entropy() -> None:
    log_prob, old = gaussian(P, G), gaussian(P, G, seed=1)
    weight = gaussian(P, G, seed=2).softmax(1)
    expected = F.cross_entropy(log_prob - old, weight)
    assert_close(brain_loss(log_prob, old, weight), expected, **EXACT)


def test_its_gradient_is_the_published_one_and_adds_up_to_zero() -> None:
    log_prob, old = gaussian(P, G).requires_grad_(), gaussian(P, G, seed=1)
    weight = brain_weights(gaussian(P, G, seed=2), old, gaussian(P, G, seed=3), temperature=1.0)
    brain_loss(log_prob, old, weight).backward()
    share = (log_prob - old).detach().softmax(1)
    assert_close(log_prob.grad, -(weight - share) / P, **EXACT)
    assert log_prob.grad is not None
    assert_close(log_prob.grad.sum(1), torch.zeros(P, dtype=torch.float64), **EXACT)


def test_at_the_posterior_there_is_no_gradient() -> None:
    prior, old, reward = (gaussian(P, G, seed=seed) for seed in range(3))
    weight = brain_weights(prior, old, reward, temperature=0.7)
    log_prob = (prior + reward / 0.7).requires_grad_()
    brain_loss(log_prob, old, weight).backward()
    assert_close(log_prob.grad, torch.zeros(P, G, dtype=torch.float64), **EXACT)


def test_with_two_samples_of_prior_and_reference_it_is_dpo_with_a_soft_label() -> None:
    log_prob, ref, reward = (gaussian(P, 2, seed=seed) for seed in range(3))
    weight = brain_weights(ref, ref, reward, temperature=0.7)
    sides = [log_prob[:, 0], log_prob[:, 1], ref[:, 0], ref[:, 1]]
    p = torch.sigmoid((reward[:, 0] - reward[:, 1]) / 0.7)
    assert_close(brain_loss(log_prob, ref, weight), osp_loss(*sides, probability=p, beta=1.0), **EXACT)
    assert_close((log_prob - ref).diff(dim=1)[:, 0], -dpo_logits(*sides), **EXACT)


@given(seed=st.integers(0, 50))
def test_the_effective_size_lies_between_one_and_all(seed: int) -> None:
    weight = (3 * gaussian(P, G, seed=seed)).softmax(1)
    size = effective_sample_size(weight)
    assert ((size >= 1) & (size <= G)).all()
    assert_close(effective_sample_size(7 * weight), size, **EXACT)


def test_effective_sizes_worked_by_hand() -> None:
    weight = double([0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0])
    assert_close(effective_sample_size(weight), torch.tensor([4.0, 1.0, 1 / 0.375], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"temperature = .* must be positive"):
        brain_weights(gaussian(P, G), gaussian(P, G), gaussian(P, G), temperature=temperature)


@pytest.mark.parametrize("place", range(3))
def test_shapes_that_would_broadcast_are_refused(place: int) -> None:
    for wrong in ((P,), (P, 1)):
        arguments = [gaussian(P, G)] * 3
        arguments[place] = gaussian(*wrong)
        message = r": expected \[P, G\](, got \[3\]| = )"
        with pytest.raises(ShapeError, match=message):
            brain_weights(*arguments, temperature=1.0)
        with pytest.raises(ShapeError, match=message):
            brain_loss(*arguments)
    with pytest.raises(ShapeError, match=r"weight: expected \[P, G\], got \[3\]"):
        effective_sample_size(gaussian(P))


def test_the_error_names_the_tensor() -> None:
    with pytest.raises(ShapeError, match=r"^old_log_prob: expected \[P, G\] = \[3, 5\], got \[3, 1\]"):
        brain_weights(gaussian(P, G), gaussian(P, 1), gaussian(P, G), temperature=1.0)
