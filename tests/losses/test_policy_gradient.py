import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    clip_fraction,
    clipped_ratio_loss,
    flow_grpo_advantages,
    gaussian_kl,
    group_advantages,
    kl_k1,
    kl_k3,
)

B, T = 3, 5
P, G = 4, 6
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
both_advantages = pytest.mark.parametrize("advantages", [group_advantages, flow_grpo_advantages])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Advantages


@both_advantages
def test_advantages_of_a_group_sum_to_zero(advantages: Any) -> None:
    assert_close(advantages(gaussian(P, G)).sum(1), torch.zeros(P, dtype=torch.float64), **EXACT)


@both_advantages
@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.0, -7.0), (0.1, 30.0)])
def test_advantages_ignore_the_scorers_scale_and_zero(advantages: Any, scale: float, shift: float) -> None:
    rewards = gaussian(P, G)
    assert_close(advantages(scale * rewards + shift, eps=0.0), advantages(rewards, eps=0.0))


@both_advantages
def test_advantages_divide_by_the_number_of_samples(advantages: Any) -> None:
    # Population std of 0, 0, 1, 1 is 1/2; dividing by G - 1 would give 0.866.
    rewards = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    assert_close(advantages(rewards, eps=0.0), torch.tensor([[-1.0, -1.0, 1.0, 1.0]], dtype=torch.float64))


@both_advantages
@given(reward=st.floats(-100, 100, width=32), group=st.integers(2, 17))
def test_equal_rewards_give_exact_zeros(advantages: Any, reward: float, group: int) -> None:
    # In float32 the mean of equal rewards is often off by an ulp, and an ulp of 21.3 is larger than eps.
    rewards = torch.tensor([[reward] * group, [0.0] * (group - 1) + [1.0]])
    assert torch.equal(advantages(rewards)[0], torch.zeros(group))


def test_a_group_alone_sets_its_own_scale_and_in_flow_grpo_that_of_all() -> None:
    rewards = gaussian(P, G)
    wider = rewards * torch.tensor([[10.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    assert torch.equal(group_advantages(wider)[1:], group_advantages(rewards)[1:])
    assert (flow_grpo_advantages(wider)[1:].abs() < flow_grpo_advantages(rewards)[1:].abs()).all()


def test_flow_grpo_divides_by_the_spread_of_all_rewards_not_of_the_centred_ones() -> None:
    # 0, 2, 10, 12: mean 6, variance (36 + 16 + 16 + 36) / 4 = 26
    rewards = torch.tensor([[0.0, 2.0], [10.0, 12.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 26**0.5
    assert_close(flow_grpo_advantages(rewards, eps=0.0), expected)


@both_advantages
@pytest.mark.parametrize("shape", [(G,), (P, 1), (P, G, 1)])
def test_a_reward_without_a_group_has_no_advantage(advantages: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"rewards: expected \[P, G\] with G >= 2, got"):
        advantages(torch.ones(shape))


@both_advantages
def test_advantages_are_constants(advantages: Any) -> None:
    assert not advantages(gaussian(P, G).requires_grad_()).requires_grad


# The clipped ratio


def test_first_step_is_the_policy_gradient() -> None:
    log_prob = gaussian(B, T).requires_grad_()
    advantage = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    loss = clipped_ratio_loss(log_prob, log_prob.detach(), advantage, clip=0.2)
    loss.backward()
    assert_close(loss.detach(), -advantage.mean())
    assert_close(log_prob.grad, (-advantage / (B * T))[:, None].expand(B, T))
    assert clip_fraction(log_prob, log_prob.detach(), advantage, clip=0.2) == 0


@pytest.mark.parametrize("shape", [(B,), (B, T)])
def test_one_step_a_sample_is_the_same_loss_without_the_axis(shape: tuple[int, ...]) -> None:
    log_prob, old, advantage = gaussian(*shape), gaussian(*shape, seed=1), gaussian(B, seed=2)
    ratio = (log_prob - old).exp()
    rows = [
        torch.maximum(-A * r, -A * r.clamp(0.8, 1.2)).mean() for A, r in zip(advantage, ratio, strict=True)
    ]
    assert_close(clipped_ratio_loss(log_prob, old, advantage, clip=0.2), torch.stack(rows).mean(), **EXACT)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "clipped"),
    [
        (1.0, 1.5, -1.2, True),
        (1.0, 0.5, -0.5, False),  # it went the wrong way, and is called back
        (-1.0, 1.5, 1.5, False),
        (-1.0, 0.5, 0.8, True),
        (1.0, 1.1, -1.1, False),
        (-1.0, 0.9, 0.9, False),
        (0.0, 1.5, 0.0, False),  # no gradient either way
    ],
)
def test_the_clip_cuts_only_what_went_too_far_the_right_way(
    advantage: float, ratio: float, loss: float, clipped: bool
) -> None:
    log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    arguments = (torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64))
    value = clipped_ratio_loss(log_prob, *arguments, clip=0.2)
    value.backward()
    assert_close(value.item(), loss)
    assert log_prob.grad is not None
    assert (log_prob.grad.item() == 0) == (clipped or advantage == 0)
    assert clip_fraction(log_prob, *arguments, clip=0.2) == float(clipped)


@given(
    log_ratio=st.lists(st.floats(-1, 1), min_size=B, max_size=B),
    advantage=st.lists(st.floats(-2, 2).filter(bool), min_size=B, max_size=B),
    clip=st.floats(0.01, 0.5),
)
def test_the_clip_fraction_is_the_share_of_entries_without_gradient(
    log_ratio: list[float], advantage: list[float], clip: float
) -> None:
    log_prob = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    old, A = torch.zeros(B, dtype=torch.float64), torch.tensor(advantage, dtype=torch.float64)
    clipped_ratio_loss(log_prob, old, A, clip=clip).backward()
    assert log_prob.grad is not None
    assert_close(clip_fraction(log_prob, old, A, clip=clip), (log_prob.grad == 0).double().mean())


def test_equal_rewards_teach_nothing() -> None:
    log_prob = gaussian(G).requires_grad_()
    advantage = group_advantages(torch.full((1, G), 21.3, dtype=torch.float64))[0]
    clipped_ratio_loss(log_prob, gaussian(G, seed=1), advantage, clip=0.2).backward()
    assert_close(log_prob.grad, torch.zeros(G, dtype=torch.float64), rtol=0, atol=0)


def test_the_order_of_samples_and_of_steps_does_not_count() -> None:
    log_prob, old, advantage = gaussian(B, T), gaussian(B, T, seed=1), gaussian(B, seed=2)
    samples, steps = torch.tensor([2, 0, 1]), torch.tensor([4, 2, 0, 1, 3])
    loss = clipped_ratio_loss(log_prob, old, advantage, clip=0.2)
    shuffled = clipped_ratio_loss(
        log_prob[samples][:, steps], old[samples][:, steps], advantage[samples], clip=0.2
    )
    assert_close(shuffled, loss, **EXACT)


@pytest.mark.parametrize(
    ("log_prob", "old", "advantage", "message"),
    [
        ((B, T), (B, T), (B, 1), r"advantage: expected \[B\] = \[3\], got \[3, 1\]"),
        ((B, T), (B, T), (T,), r"advantage: expected \[B\] = \[3\], got \[5\]"),
        ((B, T), (B,), (B,), r"old_log_prob: expected \[B, T\] = \[3, 5\], got \[3\]"),
        ((B,), (B, 1), (B,), r"old_log_prob: expected \[B\] = \[3\], got \[3, 1\]"),
        ((B, T, 1), (B, T, 1), (B,), r"log_prob: expected \[B\] or \[B, T\], got"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(
    log_prob: tuple[int, ...], old: tuple[int, ...], advantage: tuple[int, ...], message: str
) -> None:
    for function in (clipped_ratio_loss, clip_fraction):
        with pytest.raises(ShapeError, match=message):
            function(torch.ones(log_prob), torch.ones(old), torch.ones(advantage), clip=0.2)


# Distances to the reference


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
