import itertools
import math
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses import (
    boundary_scalings,
    consistency_output,
    latent_reward_loss,
    lcm_guidance,
    pseudo_huber,
    reward_distillation_loss,
)
from mmalign.losses.distillation import RealLabel
from mmalign.sampling import Prediction
from tests.losses.drawing import EXACT, gaussian

B, D, K = 3, 4, 3


# A consistency model is the identity on data


def test_at_time_zero_it_is_the_identity_whatever_the_network_says() -> None:
    c_skip, c_out = boundary_scalings(torch.zeros(B, dtype=torch.float64))
    assert c_skip.tolist() == [1] * B
    assert c_out.tolist() == [0] * B
    noisy = gaussian(B, D)
    assert torch.equal(consistency_output(noisy, gaussian(B, D, seed=1), c_skip, c_out), noisy)


@given(time=st.floats(0, 1000))
def test_the_scalings_are_the_published_ones(time: float) -> None:
    c_skip, c_out = boundary_scalings(torch.tensor([time], dtype=torch.float64))
    power = (10 * time) ** 2 + 0.25
    assert_close(c_skip.item(), 0.25 / power)
    assert_close(c_out.item(), 10 * time / math.sqrt(power))
    # sigma_data at unit power: c_skip = s^2 / (s^2 + t^2), c_out^2 = t^2 / (s^2 + t^2)
    assert_close((c_skip + c_out**2).item(), 1.0)


def test_the_scalings_have_settings() -> None:
    # (2 * 3)^2 = 36 and 8^2 = 64
    c_skip, c_out = boundary_scalings(torch.tensor([3.0]), sigma_data=8.0, time_scale=2.0)
    assert_close(c_skip.item(), 0.64)
    assert_close(c_out.item(), 0.6)
    assert_close(boundary_scalings(torch.tensor([3.0]), sigma_data=1.0, time_scale=1.0)[0].item(), 0.1)
    for options in ({"sigma_data": 0.0}, {"sigma_data": -1.0}, {"time_scale": 0.0}, {"time_scale": -1.0}):
        with pytest.raises(
            ConfigError, match=r"sigma_data = .* and time_scale = .*, but both must be positive"
        ):
            boundary_scalings(torch.tensor([3.0]), **options)


def test_the_output_mixes_each_sample_with_its_own_shares() -> None:
    noisy, clean = gaussian(B, 2, D), gaussian(B, 2, D, seed=1)
    c_skip, c_out = torch.tensor([[0.1, 0.5, 1.0], [0.9, 0.2, 0.0]], dtype=torch.float64)
    mixed = consistency_output(noisy, clean, c_skip, c_out)
    for b in range(B):
        assert_close(mixed[b], c_skip[b] * noisy[b] + c_out[b] * clean[b], **EXACT)


def test_a_flows_clean_estimate_is_a_consistency_model_already() -> None:
    # c_skip = 1 and c_out = -sigma on the velocity.
    noisy, velocity, sigma = gaussian(B, D), gaussian(B, D, seed=1), torch.tensor([0.0, 0.4, 1.0]).double()
    clean = Prediction(noisy, velocity, 1 - sigma, sigma, "flow_prediction").clean
    assert torch.equal(consistency_output(noisy, velocity, torch.ones_like(sigma), -sigma), clean)
    assert torch.equal(clean[0], noisy[0])


def test_guidance_counts_from_zero() -> None:
    conditional, unconditional = gaussian(B, D), gaussian(B, D, seed=1)
    w = torch.tensor([0.0, 1.0, 7.5], dtype=torch.float64)
    guided = lcm_guidance(conditional, unconditional, guidance=w)
    assert torch.equal(guided[0], conditional[0])
    usual = unconditional + (1 + w[:, None]) * (conditional - unconditional)
    assert_close(guided, usual, **EXACT)
    assert not lcm_guidance(conditional.requires_grad_(), unconditional, guidance=w).requires_grad


# The distance


def test_the_distance_worked_by_hand() -> None:
    output = torch.tensor([[3.0, 0.0], [-3.0, 4.0]], dtype=torch.float64)
    distance = pseudo_huber(output, torch.zeros(2, 2), c=4.0)
    assert_close(distance, torch.tensor([0.5, (1 + math.sqrt(32) - 4) / 2], dtype=torch.float64))


@given(error=st.floats(-3, 3))
def test_it_is_a_square_near_zero_and_an_absolute_value_far_away(error: float) -> None:
    output, zero = torch.tensor([[error]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    near, far = pseudo_huber(output, zero, c=1e4).item(), pseudo_huber(output, zero, c=1e-9).item()
    assert_close(near, error**2 / 2e4, rtol=1e-4, atol=1e-11)
    assert_close(far, abs(error), rtol=1e-6, atol=1e-9)
    assert_close(pseudo_huber(output, zero).item(), math.sqrt(error**2 + 1e-6) - 1e-3, rtol=1e-9, atol=1e-12)


def test_only_the_student_is_pulled_and_half_precision_is_computed_in_float32() -> None:
    output, target = gaussian(B, D).requires_grad_(), gaussian(B, D, seed=1).requires_grad_()
    pseudo_huber(output, target, c=0.5).sum().backward()
    error = (output - target).detach()
    assert_close(output.grad, error / (error**2 + 0.25).sqrt() / D, **EXACT)
    assert target.grad is None
    half = pseudo_huber(torch.full((1, 5000), 3.0, dtype=torch.bfloat16), torch.full((1, 5000), 3.1), c=1e-6)
    assert half.dtype == torch.float32
    assert_close(half.item(), 0.1, rtol=1e-4, atol=0)
    both = torch.ones(1, 2, dtype=torch.bfloat16)
    assert pseudo_huber(both, both).dtype == torch.float32


def test_a_target_in_double_precision_leaves_the_students_dtype() -> None:
    assert pseudo_huber(torch.ones(B, D), torch.ones(B, D, dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize("c", [0.0, -0.1])
def test_a_width_that_is_not_positive_is_refused(c: float) -> None:
    with pytest.raises(ConfigError, match=r"c = .* must be positive"):
        pseudo_huber(gaussian(B, D), gaussian(B, D), c=c)


# Distillation towards a reward


def test_without_a_reward_it_is_plain_distillation() -> None:
    output, target, reward = gaussian(B, D), gaussian(B, D, seed=1), gaussian(B, seed=2)
    plain = pseudo_huber(output, target).mean()
    assert_close(reward_distillation_loss(output, target, reward, reward_weight=0.0), plain, **EXACT)
    assert_close(reward_distillation_loss(output, target, reward), plain - reward.mean(), **EXACT)
    wide = reward_distillation_loss(output, target, reward, reward_weight=0.3, c=0.5)
    assert_close(wide, pseudo_huber(output, target, c=0.5).mean() - 0.3 * reward.mean(), **EXACT)


def test_where_student_and_target_agree_the_reward_alone_pulls() -> None:
    output = gaussian(B, D).requires_grad_()
    reward = -((output - 1) ** 2).sum(1)
    reward_distillation_loss(output, output.detach(), reward, reward_weight=0.5).backward()
    assert_close(output.grad, (output.detach() - 1) / B, **EXACT)


# A reward on latents


def pairwise(scores: Tensor, i: int, j: int) -> torch.distributions.Categorical:
    return torch.distributions.Categorical(logits=scores[:, [i, j]])


def test_it_is_the_mean_kl_over_all_pairs() -> None:
    scores, expert = gaussian(B, K), gaussian(B, K, seed=1)
    kls = [
        torch.distributions.kl_divergence(pairwise(expert, i, j), pairwise(scores, i, j))
        for i, j in itertools.combinations(range(K), 2)
    ]
    assert_close(latent_reward_loss(scores, expert), torch.stack(kls).mean(), **EXACT)


def test_it_is_zero_only_where_the_pairs_agree_and_ignores_a_prompts_constant() -> None:
    expert = gaussian(B, K)
    scores = (expert + gaussian(B, 1, seed=1)).requires_grad_()
    loss = latent_reward_loss(scores, expert)
    loss.backward()
    assert_close(loss.item(), 0.0, rtol=0, atol=1e-14)
    assert_close(scores.grad, torch.zeros(B, K, dtype=torch.float64), **EXACT)
    other = gaussian(B, K, seed=2)
    moved = latent_reward_loss(other + gaussian(B, 1, seed=3), expert)
    assert_close(moved, latent_reward_loss(other, expert), **EXACT)
    assert moved > 0.01


@pytest.mark.parametrize(
    ("real", "labels"),
    [("expert", None), ("wins", (1.0, 1.0)), ("smoothed", (0.5, 1.0))],
)
def test_the_real_sample_has_its_own_label(real: RealLabel, labels: tuple[float, float] | None) -> None:
    # The expert puts the first above the real one, and the second below it.
    expert = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    scores = gaussian(1, K)

    def kl(p: float, i: int, j: int) -> float:
        q = torch.sigmoid(scores[0, j] - scores[0, i]).item()
        return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)

    of_expert = [torch.sigmoid(expert[0, j] - expert[0, i]).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    with_real = of_expert[1:] if labels is None else labels
    expected = (kl(of_expert[0], 0, 1) + kl(with_real[0], 0, 2) + kl(with_real[1], 1, 2)) / 3
    assert_close(latent_reward_loss(scores, expert, real=real).item(), expected)


def test_an_even_expert_does_not_object() -> None:
    even, scores = torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])
    smoothed, wins = (latent_reward_loss(scores, even, real=real) for real in ("smoothed", "wins"))
    assert torch.equal(smoothed, wins)


def test_every_label_leaves_the_dtype_of_the_scores() -> None:
    scores = gaussian(B, K).bfloat16()
    assert len(get_args(RealLabel)) == 3
    for real in get_args(RealLabel):
        assert latent_reward_loss(scores, scores, real=real).dtype == torch.bfloat16


def test_pairs_are_made_on_the_scores_device_whatever_the_default_is() -> None:
    expected = latent_reward_loss(gaussian(B, K), gaussian(B, K, seed=1))
    scores, expert = gaussian(B, K), gaussian(B, K, seed=1)
    with torch.device("meta"):
        loss = latent_reward_loss(scores, expert)
    assert torch.equal(loss, expected)


def test_hopeless_scores_keep_a_finite_loss() -> None:
    loss = latent_reward_loss(torch.tensor([[500.0, -500.0]]), torch.tensor([[-500.0, 500.0]]))
    assert_close(loss.item(), 1000.0)


def test_mistakes_are_refused() -> None:
    narrow = torch.ones(B, 1)
    one = torch.ones(B, D)
    functions: dict[str, Any] = {
        r"clean_prediction: expected \[B, ...\] = ": lambda: consistency_output(
            one, narrow, one[:, 0], one[:, 0]
        ),
        r"c_skip: expected \[B\] = ": lambda: consistency_output(one, one, narrow, one[:, 0]),
        r"c_out: expected \[B\] = ": lambda: consistency_output(one, one, one[:, 0], narrow),
        r"unconditional: expected \[B, ...\] = ": lambda: lcm_guidance(one, narrow, guidance=one[:, 0]),
        r"guidance: expected \[B\] = ": lambda: lcm_guidance(one, one, guidance=narrow),
        r"target: expected \[B, ...\] = ": lambda: pseudo_huber(one, narrow),
        r"output: expected \[B, ...\], got \[3\]": lambda: pseudo_huber(one[:, 0], one[:, 0]),
        r"reward: expected \[B\] = ": lambda: reward_distillation_loss(one, one, narrow),
        r"expert_scores: expected \[B, K\] = ": lambda: latent_reward_loss(one, narrow),
        r"scores: expected \[B, K\] with K >= 2, got \[3, 1\]": lambda: latent_reward_loss(narrow, narrow),
        r"scores: expected \[B, K\] with K >= 2, got \[3\]": lambda: latent_reward_loss(one[:, 0], one[:, 0]),
    }
    for message, function in functions.items():
        with pytest.raises(ShapeError, match=f"^{message}"):
            function()
    unknown: Any = "win"
    with pytest.raises(UnknownNameError, match="Did you mean 'wins'"):
        latent_reward_loss(one, one, real=unknown)
