import itertools
import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses import best_and_worst, best_of_n_kl, best_of_n_mean, filter_groups, kept_mean
from tests.losses.drawing import EXACT, gaussian

P, G = 4, 6


# The best and the worst


def test_two_kept_are_the_best_and_the_worst() -> None:
    scores = gaussian(P, G)
    kept = best_and_worst(scores, keep=2)
    assert torch.equal(kept, torch.stack([scores.argmax(1), scores.argmin(1)], 1))


def test_all_kept_are_a_permutation() -> None:
    kept = best_and_worst(gaussian(P, G), keep=G)
    assert torch.equal(kept.sort(1).values, torch.arange(G).expand(P, G))


def test_four_kept_leave_out_the_middle() -> None:
    scores = torch.tensor([[3.0, 9.0, 1.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert best_and_worst(scores, keep=4).tolist() == [[1, 3, 0, 2], [4, 3, 1, 0]]


def test_of_equal_scores_the_earlier_is_the_better() -> None:
    assert best_and_worst(torch.ones(1, 5), keep=2).tolist() == [[0, 4]]


def test_of_many_equal_scores_too_the_earlier_is_the_better() -> None:
    # A sort that is not asked to be stable keeps up to 16 equal entries in order, and no more.
    assert torch.equal(best_and_worst(torch.zeros(P, 64), keep=64), torch.arange(64).expand(P, 64))


@pytest.mark.parametrize("keep", [0, 1, 3, 8, -2])
def test_halves_of_an_odd_number_or_of_more_than_there_are_are_refused(keep: int) -> None:
    with pytest.raises(ConfigError, match=f"keep = {keep}, but it is an even number from 2 to the 6 samples"):
        best_and_worst(gaussian(P, G), keep=keep)


# Groups that teach something


def test_the_two_rules_differ_on_hard_prompts_and_on_good_ones_that_vary() -> None:
    groups = {
        "solved": [0.95, 0.95],
        "hopeless": [0.1, 0.1],
        "good, varied": [0.85, 1.0],  # mean 0.925, std 0.075
        "mixed": [0.0, 1.0],
    }
    rewards = torch.tensor(list(groups.values()))
    assert filter_groups(rewards).tolist() == [False, True, True, True]
    assert filter_groups(rewards, rule="solved").tolist() == [False, True, True, True]
    assert filter_groups(rewards, rule="strict").tolist() == [False, False, False, True]


def test_the_std_is_of_the_population_and_the_bounds_are_settings() -> None:
    # Mean 0.5, population std 0.25, sample std 0.354.
    rewards = torch.tensor([[0.25, 0.75]])
    for std_min, kept in ((0.2, True), (0.25, False), (0.3, False)):
        assert filter_groups(rewards, rule="strict", std_min=std_min).item() is kept
    for mean_max, kept in ((0.4, False), (0.5, False), (0.6, True)):
        assert filter_groups(rewards, rule="strict", mean_max=mean_max).item() is kept
    for std_min, mean_max, kept in ((0.25, 0.4, True), (0.3, 0.5, True), (0.3, 0.4, False)):
        assert filter_groups(rewards, std_min=std_min, mean_max=mean_max).item() is kept


def test_the_published_bounds_are_the_defaults() -> None:
    # Just inside and just outside std 0.05 and mean 0.9.
    narrow, wide = torch.tensor([0.049, -0.049]), torch.tensor([0.051, -0.051])
    rewards = torch.stack([0.91 + narrow, 0.91 + wide, 0.89 + narrow, 0.89 + wide])
    assert filter_groups(rewards).tolist() == [False, True, True, True]
    assert filter_groups(rewards, rule="strict").tolist() == [False, False, False, True]


def test_an_unknown_rule_names_the_nearest() -> None:
    unknown: Any = "solve"
    with pytest.raises(UnknownNameError, match="Did you mean 'solved'"):
        filter_groups(torch.ones(P, G), rule=unknown)


def test_the_mean_over_what_is_kept() -> None:
    values = torch.tensor([1.0, float("nan"), 5.0]).requires_grad_()
    mean = kept_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean == 3
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


def test_if_nothing_is_kept_the_loss_is_zero_and_so_is_its_gradient() -> None:
    values = torch.tensor([1.0, 2.0]).requires_grad_()
    mean = kept_mean(values, torch.tensor([False, False]))
    mean.backward()
    assert mean == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


def test_the_split_into_micro_batches_changes_nothing_of_what_is_kept() -> None:
    values, keep = gaussian(5), torch.tensor([True, False, False, True, True])
    parts = [kept_mean(values[rows], keep[rows], total=3) for rows in ([0, 1], [2], [3, 4])]
    assert_close(sum(parts), kept_mean(values, keep), **EXACT)
    assert parts[1] == 0
    with pytest.raises(ConfigError, match="total = 2, but here alone 3 are kept"):
        kept_mean(values, keep, total=2)


def test_a_total_may_be_all_that_is_kept_here() -> None:
    assert kept_mean(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([True, True, False]), total=2) == 2


def test_selection_refuses_what_would_broadcast() -> None:
    for function in (lambda s: best_and_worst(s, keep=2), filter_groups, lambda s: best_of_n_mean(s, n=1)):
        with pytest.raises(ShapeError, match=r"expected \[P, [GM]\], got \[4\]"):
            function(torch.ones(P))
    with pytest.raises(ShapeError, match=r"keep: expected \[B\] = \[4\], got \[4, 1\]"):
        kept_mean(torch.ones(P), torch.ones(P, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"values: expected \[B\] = \[4\], got \[4, 6\]"):
        kept_mean(torch.ones(P, G), torch.ones(P, G, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"keep: expected booleans.*give keep.bool\(\)"):
        kept_mean(torch.ones(P), torch.ones(P))


# The best of n


def exact_kl(n: int, count: int) -> float:
    """KL of the best of n to one draw, where each of ``count`` ranks is equally likely."""
    rank = torch.arange(count + 1, dtype=torch.float64) / count
    p = rank[1:] ** n - rank[:-1] ** n  # the best has rank k if all are at most k, and not all at most k - 1
    return torch.special.xlogy(p, p * count).sum().item()


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_kl_of_the_best_is_that_of_many_ranks_and_a_bound_for_few(n: int) -> None:
    assert abs(best_of_n_kl(n) - exact_kl(n, 10_000)) < 1e-4
    assert exact_kl(n, 10) <= best_of_n_kl(n) + 1e-15
    assert best_of_n_kl(n) == pytest.approx(math.log(n) - (n - 1) / n)


def test_the_kl_of_one_is_zero_and_of_none_undefined() -> None:
    assert best_of_n_kl(1) == 0
    assert round(best_of_n_kl(2), 6) == 0.193147
    with pytest.raises(ConfigError, match="n = 0, but the best is of at least 1 sample"):
        best_of_n_kl(0)


@pytest.mark.parametrize("n", range(1, 7))
def test_the_estimate_of_the_best_is_the_mean_over_all_subsets(n: int) -> None:
    rewards = gaussian(P, G)
    subsets = torch.stack([rewards[:, list(s)].amax(1) for s in itertools.combinations(range(G), n)])
    assert_close(best_of_n_mean(rewards, n=n), subsets.mean(0), **EXACT)


@pytest.mark.parametrize("n", [0, 7])
def test_the_best_of_more_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n = {n}, but it is from 1 to the 6 samples"):
        best_of_n_mean(gaussian(P, G), n=n)
