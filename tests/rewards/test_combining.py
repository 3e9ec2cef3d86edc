"""Formulas of composition: limits, invariances, worked numbers, and which way a multiplier moves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmalign.errors import MmalignError
from mmalign.rewards.combining import (
    contrastive,
    hybrid,
    lagrange_loss,
    lagrange_mix,
    maxmin_weights,
    multipliers,
    standardised,
    within_groups,
)

NAN = math.nan
GROUPS = ["a", "b", "a", "b", "a", "c", "b", "a"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("how", ["z", "rank", "leave-one-out"])
def test_within_groups_is_the_plain_formula(how: str) -> None:
    r = drawn(8)
    r[2] = NAN
    found = within_groups(r, GROUPS, how=how)
    for name, rows in {"a": [0, 4, 7], "b": [1, 3, 6]}.items():
        mine = [float(r[i]) for i in rows]
        mean = sum(mine) / 3
        std = math.sqrt(sum((x - mean) ** 2 for x in mine) / 3)
        for i, x in zip(rows, mine, strict=True):
            others = [y for y in mine if y != x]
            expected = {
                "z": (x - mean) / std,
                "rank": sum(y < x for y in others) / 2,
                "leave-one-out": x - sum(others) / 2,
            }[how]
            assert found[i] == pytest.approx(expected), name
    assert found[[2, 5]].isnan().all()  # without a score, and alone


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-50, 50), order=st.permutations(range(8)))
def test_z_and_rank_ignore_scale_zero_and_order(scale: float, shift: float, order: list[int]) -> None:
    r = drawn(8)
    for how in ("z", "rank"):
        plain = within_groups(r, GROUPS, how=how)
        assert_close(
            within_groups(scale * r + shift, GROUPS, how=how), plain, equal_nan=True, atol=1e-6, rtol=0
        )
        moved = within_groups(r[list(order)], [GROUPS[i] for i in order], how=how)
        assert_close(moved, plain[list(order)], equal_nan=True)
    one = within_groups(r, GROUPS, how="leave-one-out")
    assert_close(
        within_groups(r + shift, GROUPS, how="leave-one-out"), one, equal_nan=True, atol=1e-9, rtol=0
    )


def test_equal_scores_are_zero_and_share_their_rank() -> None:
    assert within_groups(torch.full((3,), 0.3), ["a"] * 3).tolist() == [0, 0, 0]
    assert within_groups(torch.tensor([1.0, 2.0, 2.0, 5.0]), ["a"] * 4, how="rank").tolist() == pytest.approx(
        [0, 0.5, 0.5, 1]
    )


def test_contrast_cancels_what_the_prompt_alone_decides() -> None:
    scores, base, prompt = drawn(5), drawn(5, 3, seed=1), drawn(5, seed=2)
    for reduce in ("mean", "min", "max"):
        plain = contrastive(scores, base, reduce=reduce)
        assert_close(contrastive(scores + prompt, base + prompt[:, None], reduce=reduce), plain)
        expected = {"mean": base.mean(1), "min": base.amin(1), "max": base.amax(1)}[reduce]
        assert_close(plain, scores - expected)
        base_gap = base.clone()
        base_gap[0] = NAN
        base_gap[1, 0] = NAN
        gap = contrastive(scores, base_gap, reduce=reduce)
        assert gap.isnan().tolist() == [True, False, False, False, False]
        assert_close(gap[1], contrastive(scores[1:2], base[1:2, 1:], reduce=reduce)[0])
    assert torch.equal(contrastive(scores, base[:, :0]), scores)


def test_multipliers_and_the_mix_at_their_limits() -> None:
    main, others = drawn(4), drawn(4, 1, seed=1)
    assert multipliers(torch.tensor([0.5]), kind="equality")[0] == pytest.approx(0.462117, abs=1e-6)
    assert_close(lagrange_mix(main, others, torch.zeros(1), kind="equality"), main)
    assert_close(lagrange_mix(main, others, torch.tensor([40.0]), kind="equality"), others[:, 0])
    assert_close(lagrange_mix(main, others, torch.tensor([40.0]), kind="inequality"), others[:, 0])
    two = drawn(4, 2, seed=2)
    u = torch.tensor([0.3, -0.2])
    m = u.tanh().double()
    by_hand = (2 - m.sum()) * main + m[0] * two[:, 0] + m[1] * two[:, 1]
    assert_close(lagrange_mix(main, two, u, kind="equality"), by_hand)


@pytest.mark.parametrize("kind", ["equality", "inequality"])
def test_a_multiplier_rises_below_its_threshold_and_falls_above(kind: str) -> None:
    u = torch.zeros(3, requires_grad=True)
    lagrange_loss(u, torch.tensor([0.4, 0.5, 0.7]), torch.full((3,), 0.5), kind=kind).backward()
    assert u.grad is not None
    assert (-u.grad).sign().tolist() == [1, 0, -1]
    slope = {"equality": 1.0, "inequality": 0.25}[kind]
    assert u.grad.tolist() == pytest.approx([-0.1 * slope, 0.0, 0.2 * slope])


def test_two_rewards_settle_at_the_threshold() -> None:
    """One number x: the main reward, -x^2, wants it at 0, and the constrained one, x, has to reach 0.7."""
    x, u = 0.0, torch.zeros(1)
    for _ in range(600):
        mixed = lagrange_mix(torch.tensor([-2 * x]), torch.ones(1, 1), u, kind="inequality")
        x += 0.1 * float(mixed)
        free = u.clone().requires_grad_()
        lagrange_loss(free, torch.tensor([x]), torch.tensor([0.7]), kind="inequality").backward()
        assert free.grad is not None
        u = u - 0.5 * free.grad
    assert x == pytest.approx(0.7, rel=0.05)


def test_who_is_worst_off_counts_more_and_more() -> None:
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    scores = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    last = 0.0
    for _ in range(50):
        weights = maxmin_weights(weights, scores)
        assert float(weights.sum()) == pytest.approx(1)
        assert float(weights[1]) > last
        last = float(weights[1])
    assert_close(weights, (-0.1 * 50 * scores).softmax(0))


def test_a_rule_counts_as_far_as_it_can_be_trusted() -> None:
    rule, model = torch.tensor([1.0, 0.0, NAN, 1.0]), torch.tensor([0.2, 0.4, 0.6, NAN])
    assert hybrid(rule, torch.ones(4), model).nan_to_num(nan=-1).tolist() == pytest.approx([1, 0, 0.6, 1])
    assert hybrid(rule, torch.zeros(4), model).nan_to_num(nan=-1).tolist() == pytest.approx(
        [0.2, 0.4, 0.6, -1]
    )
    assert hybrid(rule, torch.full((4,), 0.25), model)[0] == pytest.approx(0.25 + 0.15)


def test_standardised_scores_are_clipped() -> None:
    assert standardised(torch.tensor([0.0, 20.0, 100.0]), mean=20.0, std=2.0, most=5.0).tolist() == [-5, 0, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: within_groups(torch.zeros(2), ["a"]), "expected \\[B\\]"),
        (lambda: within_groups(torch.zeros(1), ["a"], how="zz"), "expected z, rank or leave-one-out"),
        (lambda: contrastive(torch.zeros(2), torch.zeros(3, 1)), "expected scores"),
        (lambda: contrastive(torch.zeros(2), torch.zeros(2, 1), reduce="sum"), "expected mean, min or max"),
        (lambda: multipliers(torch.zeros(1), kind="x"), "expected equality or inequality"),
        (
            lambda: lagrange_mix(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2), kind="equality"),
            "expected main",
        ),
        (
            lambda: lagrange_loss(torch.zeros(2), torch.zeros(1), torch.zeros(2), kind="equality"),
            "three times",
        ),
        (lambda: maxmin_weights(torch.ones(2), torch.zeros(3)), "expected twice"),
        (lambda: hybrid(torch.zeros(2), torch.full((2,), 2.0), torch.zeros(2)), "confidence: expected"),
        (lambda: standardised(torch.zeros(2), mean=0, std=0), "both are positive"),
    ],
)
def test_what_cannot_work_is_refused(call: object, message: str) -> None:
    with pytest.raises(MmalignError, match=message):
        call()  # type: ignore[operator]
