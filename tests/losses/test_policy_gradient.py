import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    clip_fraction,
    clipped_ratio_loss,
    clipped_ratio_terms,
    dapo_mean,
    dr_grpo_mean,
    group_advantages,
    grpo_mean,
    score_function_loss,
)
from tests.losses.drawing import EXACT, gaussian

B, T = 3, 5
P, G = 4, 6


# The score function


def test_the_score_function_has_the_gradient_of_the_first_pass_of_the_ratio() -> None:
    for advantage in (gaussian(B, seed=1), gaussian(B, T, seed=1)):
        log_prob = gaussian(B, T).requires_grad_()
        (plain,) = torch.autograd.grad(score_function_loss(log_prob, advantage), log_prob)
        (ratio,) = torch.autograd.grad(
            clipped_ratio_loss(log_prob, log_prob.detach(), advantage, clip=1e-4), log_prob
        )
        assert_close(plain, ratio, **EXACT)


def test_the_score_function_worked_by_hand() -> None:
    log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    assert score_function_loss(log_prob, torch.tensor([2.0, -1.0])).item() == -(-6 + 7) / 4
    assert score_function_loss(log_prob[:, 0], torch.tensor([2.0, -1.0])).item() == -(-2 + 3) / 2


def test_the_score_function_averages_to_the_gradient_of_the_expected_reward() -> None:
    # Every sequence of two steps with three choices, weighted by its probability: an exact expectation.
    logits = gaussian(2, 3).requires_grad_()
    token = logits.log_softmax(1)
    steps = torch.stack([torch.stack([token[0, a], token[1, b]]) for a in range(3) for b in range(3)])
    probability, reward = steps.sum(1).exp(), gaussian(9, seed=1)
    (exact,) = torch.autograd.grad((probability * reward).sum(), logits, retain_graph=True)
    # score_function_loss takes the mean over 9 samples and 2 steps.
    loss = score_function_loss(steps, 9 * 2 * probability.detach() * reward)
    assert_close(torch.autograd.grad(loss, logits)[0], -exact, **EXACT)


def test_the_score_function_refuses_what_would_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"advantage: expected \[B\] = \[3\], got \[3, 1\]"):
        score_function_loss(torch.ones(B, T), torch.ones(B, 1))
    with pytest.raises(ShapeError, match=r"log_prob: expected \[B\] or \[B, T\], got \[3, 5, 1\]"):
        score_function_loss(torch.ones(B, T, 1), torch.ones(B, T, 1))


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
        (0.0, 0.5, 0.0, False),
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


@pytest.mark.parametrize(("ratio", "loss"), [(1.5, -1.4), (1.35, -1.35), (0.5, -0.5), (0.95, -0.95)])
def test_the_upper_bound_may_be_wider_than_the_lower(ratio: float, loss: float) -> None:
    log_prob, one, zero = torch.tensor([ratio]).log(), torch.ones(1), torch.zeros(1)
    assert_close(clipped_ratio_loss(log_prob, zero, one, clip=0.1, clip_high=0.4).item(), loss)
    clipped = clip_fraction(log_prob, zero, one, clip=0.1, clip_high=0.4)
    assert clipped == float(ratio > 1.4)
    below = max(ratio, 0.9)  # with a negative advantage only the lower bound cuts
    assert_close(clipped_ratio_loss(log_prob, zero, -one, clip=0.1, clip_high=0.4).item(), below)
    assert clip_fraction(log_prob, zero, -one, clip=0.1, clip_high=0.4) == float(ratio < 0.9)


def test_a_ratio_on_the_bound_is_not_yet_clipped() -> None:
    log_prob = torch.tensor([0.25, 1.75], dtype=torch.float64).log()
    ratio = log_prob.exp()
    assert ratio.tolist() == [0.25, 1.75]
    advantage = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert clip_fraction(log_prob, torch.zeros_like(log_prob), advantage, clip=0.75) == 0


def test_without_a_clip_it_is_importance_sampling() -> None:
    log_prob, old, advantage = 3 * gaussian(B, T), gaussian(B, T, seed=1), gaussian(B, seed=2)
    expected = -(advantage[:, None] * (log_prob - old).exp()).mean()
    assert_close(clipped_ratio_loss(log_prob, old, advantage, clip=math.inf), expected, **EXACT)


def test_every_step_may_have_its_own_advantage() -> None:
    log_prob, old, advantage = gaussian(B, T), gaussian(B, T, seed=1), gaussian(B, T, seed=2)
    ratio = (log_prob - old).exp()
    expected = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    assert_close(clipped_ratio_terms(log_prob, old, advantage, clip=0.2), expected, **EXACT)
    assert_close(clipped_ratio_loss(log_prob, old, advantage, clip=0.2), expected.mean(), **EXACT)


def test_clipped_tokens_are_counted_under_the_mask() -> None:
    log_prob = torch.tensor([[1.5, 1.0, 1.5]]).log()
    arguments = (log_prob, torch.zeros(1, 3), torch.ones(1))
    mask = torch.tensor([[True, True, False]])
    assert_close(clip_fraction(*arguments, clip=0.2).item(), 2 / 3)
    assert clip_fraction(*arguments, clip=0.2, mask=mask) == 0.5
    with pytest.raises(ConfigError, match="mask: expected booleans"):
        clip_fraction(*arguments, clip=0.2, mask=mask.float())


@pytest.mark.parametrize("options", [{"clip": 0.0}, {"clip": -0.1}, {"clip": 0.2, "clip_high": 0.0}])
def test_a_clip_that_lets_nothing_move_is_refused(options: dict[str, float]) -> None:
    for function in (clipped_ratio_loss, clipped_ratio_terms, clip_fraction):
        with pytest.raises(ConfigError, match=r"clip(_high)? = .* must be positive"):
            function(torch.zeros(B), torch.zeros(B), torch.ones(B), **options)


# Averages over tokens

MASK = torch.tensor(
    [[True, True, True, True, True], [True, True, False, False, False], [False, True, True, True, False]]
)


def test_three_means_worked_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 9.0], [6.0, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert_close(grpo_mean(values, mask).item(), (2.0 + 6.0) / 2)
    assert_close(dapo_mean(values, mask).item(), 10 / 3)
    assert_close(dr_grpo_mean(values, mask, max_tokens=5).item(), (4 + 6) / 5 / 2)


def test_the_means_agree_where_lengths_do_and_only_there() -> None:
    values, full = gaussian(B, T), torch.ones(B, T, dtype=torch.bool)
    assert_close(grpo_mean(values, full), values.mean(), **EXACT)
    assert_close(dapo_mean(values, full), values.mean(), **EXACT)
    assert_close(dr_grpo_mean(values, full, max_tokens=T), values.mean(), **EXACT)
    assert (grpo_mean(values, MASK) - dapo_mean(values, MASK)).abs() > 0.01


def test_a_long_answers_token_weighs_less_only_in_grpo() -> None:
    values = gaussian(B, T).requires_grad_()
    lengths = MASK.sum(1)
    for mean, weight in (
        (grpo_mean(values, MASK), 1 / (B * lengths)),
        (dapo_mean(values, MASK), torch.full((B,), 1 / int(lengths.sum()))),
        (dr_grpo_mean(values, MASK, max_tokens=8), torch.full((B,), 1 / (B * 8))),
    ):
        (gradient,) = torch.autograd.grad(mean, values)
        assert_close(gradient, weight.double()[:, None] * MASK, rtol=1e-6, atol=0)


def test_the_split_into_micro_batches_changes_no_gradient_of_dapo() -> None:
    values, total = gaussian(B, T), int(MASK.sum())
    parts = [dapo_mean(values[rows], MASK[rows], total_tokens=total) for rows in ([0], [1, 2])]
    assert_close(parts[0] + parts[1], dapo_mean(values, MASK), **EXACT)


def test_masked_tokens_are_inert_in_every_mean() -> None:
    values = gaussian(B, T)
    other = values.masked_fill(~MASK, float("nan"))
    for mean in (grpo_mean, dapo_mean, lambda v, m: dr_grpo_mean(v, m, max_tokens=T)):
        assert torch.equal(mean(other, MASK), mean(values, MASK))


def test_a_truncated_answer_may_be_left_out_whole_where_no_row_is_averaged() -> None:
    mask = MASK.clone()
    mask[1] = False
    values = gaussian(B, T)
    kept = values[[0, 2]], mask[[0, 2]]
    assert_close(dapo_mean(values, mask), dapo_mean(*kept), **EXACT)
    assert_close(dr_grpo_mean(values, mask, max_tokens=T), dr_grpo_mean(*kept, max_tokens=T) * 2 / 3, **EXACT)
    with pytest.raises(ConfigError, match="row 1 is empty"):
        grpo_mean(values, mask)


def test_a_count_of_tokens_that_cannot_be_is_refused() -> None:
    values = gaussian(B, T)
    with pytest.raises(ConfigError, match="total_tokens = 9, but this mask has 10"):
        dapo_mean(values, MASK, total_tokens=9)
    with pytest.raises(ConfigError, match="total_tokens = 0, but this mask has 0"):
        dapo_mean(values, torch.zeros(B, T, dtype=torch.bool))
    assert_close(dapo_mean(values, MASK, total_tokens=10), dapo_mean(values, MASK), **EXACT)
    for count in (0, -1):
        with pytest.raises(ConfigError, match=f"max_tokens = {count}, but it is the longest answer"):
            dr_grpo_mean(values, MASK, max_tokens=count)
    one = torch.ones(1, 1)
    assert dapo_mean(one, one.bool()) == dr_grpo_mean(one, one.bool(), max_tokens=1) == 1


def test_on_policy_token_grpo_is_minus_the_mean_advantage_and_its_gradient_reinforce() -> None:
    log_prob = gaussian(B, T).requires_grad_()
    advantage = gaussian(B, seed=1)
    loss = grpo_mean(clipped_ratio_terms(log_prob, log_prob.detach(), advantage, clip=0.2), MASK)
    loss.backward()
    assert_close(loss.detach(), -advantage.mean(), **EXACT)
    expected = -(advantage / B / MASK.sum(1))[:, None] * MASK
    assert_close(log_prob.grad, expected, **EXACT)


def test_equal_rewards_give_no_token_gradient() -> None:
    log_prob = gaussian(B, T).requires_grad_()
    advantage = group_advantages(torch.full((1, B), 0.3, dtype=torch.float64))[0]
    dapo_mean(clipped_ratio_terms(log_prob, gaussian(B, T, seed=1), advantage, clip=0.2), MASK).backward()
    assert_close(log_prob.grad, torch.zeros(B, T, dtype=torch.float64), rtol=0, atol=0)
