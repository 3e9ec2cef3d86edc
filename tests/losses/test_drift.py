import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import gaussian_kl, kl_k1, kl_k3, velocity_drift
from tests.losses.drawing import EXACT, gaussian

B, T = 3, 5


@pytest.mark.parametrize("shape", [(B, 4), (B, 4, 5), (B, 2, 6, 4, 5)])
def test_gaussian_kl_is_that_of_two_normals(shape: tuple[int, ...]) -> None:
    mean, ref_mean, std = gaussian(*shape), gaussian(*shape, seed=1), torch.tensor([0.1, 1.0, 3.0]).double()
    scale = std.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    policy, reference = torch.distributions.Normal(mean, scale), torch.distributions.Normal(ref_mean, scale)
    expected = torch.distributions.kl_divergence(policy, reference).flatten(1).mean(1)
    assert_close(gaussian_kl(mean, ref_mean, std), expected)
    assert torch.equal(gaussian_kl(mean, mean, std), torch.zeros(B, dtype=torch.float64))


def test_two_deterministic_steps_have_no_kl() -> None:
    with pytest.raises(ConfigError, match="std = 0"):
        gaussian_kl(gaussian(B, 4), gaussian(B, 4), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("ref_mean", "std", "message"),
    [
        ((B, 1), (B,), r"ref_mean: expected \[B, ...\] = \[3, 4\]"),
        ((B, 4), (B, 1), r"std: expected \[B\] = \[3\]"),
    ],
)
def test_a_kl_that_would_broadcast_is_refused(
    ref_mean: tuple[int, ...], std: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        gaussian_kl(torch.ones(B, 4), torch.ones(ref_mean), torch.ones(std))


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_a_token_kl_that_would_broadcast_is_refused(estimate: Any) -> None:
    with pytest.raises(ShapeError, match=r"ref_log_prob: expected log_prob's = \[3, 5\], got \[3, 1\]"):
        estimate(torch.ones(B, T), torch.ones(B, 1))


@given(log_prob=st.floats(-20, 0), ref_log_prob=st.floats(-20, 0))
def test_k3_is_never_negative_and_zero_only_in_agreement(log_prob: float, ref_log_prob: float) -> None:
    k3 = kl_k3(torch.tensor([log_prob]).double(), torch.tensor([ref_log_prob]).double()).item()
    assert k3 >= 0
    if abs(log_prob - ref_log_prob) > 1e-6:
        assert k3 > 0
    assert kl_k3(torch.tensor([log_prob]), torch.tensor([log_prob])).item() == 0


def sequence_log_probs(logits: Tensor) -> Tensor:
    """[V^L] log-probabilities of every sequence, from logits of a token given its place: [L, V]."""
    L, V = logits.shape
    token = logits.log_softmax(1)
    return torch.stack([token[range(L), word].sum() for word in itertools.product(range(V), repeat=L)])


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_both_estimates_average_to_the_kl(estimate: Any) -> None:
    log_prob, ref_log_prob = (sequence_log_probs(gaussian(3, 3, seed=seed)) for seed in (0, 1))
    expected = (log_prob.exp() * (log_prob - ref_log_prob)).sum()
    assert_close((log_prob.exp() * estimate(log_prob, ref_log_prob)).sum(), expected, **EXACT)


def test_on_average_k1_has_no_gradient_and_k3_that_of_the_kl_from_the_reference() -> None:
    logits = gaussian(3, 3).requires_grad_()
    log_prob, ref_log_prob = sequence_log_probs(logits), sequence_log_probs(gaussian(3, 3, seed=1))
    p = log_prob.detach().exp()  # where the samples come from is not differentiated

    def gradient(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    assert_close(gradient((p * kl_k1(log_prob, ref_log_prob)).sum()), torch.zeros_like(logits), **EXACT)
    from_reference = (ref_log_prob.exp() * (ref_log_prob - log_prob)).sum()
    assert_close(gradient((p * kl_k3(log_prob, ref_log_prob)).sum()), gradient(from_reference), **EXACT)
    assert gradient(from_reference).abs().max() > 0.01


@pytest.mark.parametrize("shape", [(B, 4), (B, 4, 5), (B, 2, 6, 4, 5)])
def test_velocity_drift_is_the_mean_square_of_each_sample(shape: tuple[int, ...]) -> None:
    # Sample b is off by b everywhere.
    ref_velocity, off = gaussian(*shape), torch.arange(B).double().reshape(-1, *[1] * (len(shape) - 1))
    velocity = (ref_velocity + off).requires_grad_()
    drift = velocity_drift(velocity, ref_velocity)
    assert_close(drift, torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64))
    drift.sum().backward()
    elements = velocity[0].numel()
    assert_close(velocity.grad, (2 * off / elements).expand(shape))


def test_velocity_drift_names_what_would_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"ref_velocity: expected \[B, ...\] = \[3, 4\], got \[3, 1\]"):
        velocity_drift(torch.ones(B, 4), torch.ones(B, 1))


def test_a_kl_worked_by_hand() -> None:
    assert_close(kl_k1(torch.tensor([-1.0]), torch.tensor([-3.0])), torch.tensor([2.0]))
    # exp(-2) - 1 + 2
    assert_close(kl_k3(torch.tensor([-1.0]), torch.tensor([-3.0])), torch.tensor([1.1353353]))
    gaussian_of = gaussian_kl(torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0.5]))
    assert_close(gaussian_of, torch.tensor([10.0]))  # (1 + 9) / 2 / (2 / 4)
