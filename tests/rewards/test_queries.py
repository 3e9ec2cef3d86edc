"""Which pairs to ask people about, and which labels to give them."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.rewards.label_routing import fit_gain, knee, mixture_design, predicted_gain, route_to_people
from mmalign.rewards.queries import (
    boltzmann_pair,
    double_thompson,
    gap_variance,
    most_informative,
    near_policy,
    smallest_gap,
    thompson_and_variance,
    verdict_disagreement,
)

E, M, N = 4, 6, 5


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# queries


def test_two_members_with_different_favourites_choose_both() -> None:
    scores = torch.zeros(2, 1, N)
    scores[0, 0, 3] = scores[1, 0, 1] = 1
    for seed in range(5):
        found = double_thompson(scores, generator=seeded(seed))
        assert sorted(found.pairs[0].tolist()) == [1, 3]
        assert not found.clash[0]


def test_members_of_one_opinion_ask_about_the_two_best_and_say_so() -> None:
    scores = gaussian(1, M, N).expand(E, M, N)
    found = double_thompson(scores, generator=seeded())
    assert torch.equal(found.pairs, scores[0].topk(2, dim=1).indices)
    assert found.clash.all()
    flat = double_thompson(torch.full((E, M, N), -torch.inf), generator=seeded())
    assert (flat.pairs[:, 0] != flat.pairs[:, 1]).all()


def test_as_many_second_members_are_asked_as_the_option_says() -> None:
    scores = torch.zeros(3, 1, 3)
    scores[0, 0, 0] = scores[1, 0, 0] = scores[2, 0, 2] = 1  # one of three disagrees
    clashes = {
        tries: sum(
            bool(double_thompson(scores, generator=seeded(s), tries=tries).clash[0]) for s in range(600)
        )
        for tries in (1, 2)
    }
    assert clashes[2] == 0
    # Both draws are of the two who agree: 2/3 * 1/2.
    assert clashes[1] / 600 == pytest.approx(1 / 3, abs=0.06)


def test_favourites_come_from_members_and_repeat_with_the_seed() -> None:
    scores = gaussian(E, M, N)
    one, again = (double_thompson(scores, generator=seeded(7)) for _ in range(2))
    assert torch.equal(one.pairs, again.pairs)
    favourites = scores.argmax(2)
    for m in range(M):
        assert one.pairs[m, 0] in favourites[:, m]
        assert one.clash[m] or one.pairs[m, 1] in favourites[:, m]


def test_disagreement_is_the_plain_loop() -> None:
    scores = gaussian(E, M, N)
    variance, nats = gap_variance(scores), verdict_disagreement(scores)
    for m, i, j in itertools.product(range(2), range(N), range(N)):
        gaps = [float(scores[e, m, i] - scores[e, m, j]) for e in range(E)]
        middle = sum(gaps) / E
        assert variance[m, i, j].item() == pytest.approx(sum((g - middle) ** 2 for g in gaps) / E)
        wins = [1 / (1 + math.exp(-g)) for g in gaps]
        mean = sum(wins) / E
        plain = sum(p * math.log(p / mean) + (1 - p) * math.log((1 - p) / (1 - mean)) for p in wins) / E
        assert nats[m, i, j].item() == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("function", [gap_variance, verdict_disagreement])
def test_disagreement_is_symmetric_and_a_members_zero_is_its_own(
    function: Callable[[Tensor], Tensor],
) -> None:
    scores = gaussian(E, M, N)
    found = function(scores)
    assert_close(found, found.mT)
    assert (found.diagonal(dim1=1, dim2=2) == 0).all()
    assert_close(function(scores + gaussian(E, M, 1, seed=1)), found)
    assert (function(scores[:1]) <= 1e-12).all()


def test_sure_members_who_agree_have_nothing_to_learn_though_their_gaps_differ() -> None:
    scores = torch.tensor([[[20.0, 0.0]], [[60.0, 0.0]]])
    assert gap_variance(scores)[0, 0, 1] == 400
    assert verdict_disagreement(scores)[0, 0, 1] < 1e-6


def test_the_chosen_pair_is_the_largest_or_the_smallest() -> None:
    scores = gaussian(E, M, N)
    for information in (gap_variance(scores), verdict_disagreement(scores)):
        pairs = most_informative(information)
        assert (pairs[:, 0] < pairs[:, 1]).all()
        for m in range(M):
            assert_close(information[m, pairs[m, 0], pairs[m, 1]], information[m].max())
    mean = scores.mean(0)
    for m, (i, j) in enumerate(smallest_gap(scores).tolist()):
        gaps = [abs(float(mean[m, a] - mean[m, b])) for a, b in itertools.combinations(range(N), 2)]
        assert abs(float(mean[m, i] - mean[m, j])) == pytest.approx(min(gaps))


def test_the_favourite_and_whoever_is_hardest_to_tell_from_it() -> None:
    scores = gaussian(E, M, N)
    pairs = thompson_and_variance(scores, generator=seeded())
    variance = gap_variance(scores)
    for m, (i, j) in enumerate(pairs.tolist()):
        assert i in scores[:, m].argmax(1)
        assert i != j
        assert_close(variance[m, i, j], variance[m, i].max())
    alike = thompson_and_variance(scores[:1], generator=seeded())
    assert (alike[:, 0] != alike[:, 1]).all()


def test_a_boltzmann_pair_has_the_softmaxs_frequencies() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(1, 20_000, 3)
    pairs = boltzmann_pair(scores, temperature=2.0, generator=seeded())
    assert (pairs[:, 0] != pairs[:, 1]).all()
    first = torch.bincount(pairs[:, 0], minlength=3) / 20_000
    assert_close(first, torch.softmax(torch.tensor([0.0, 0.5, 1.0]), 0), rtol=0, atol=0.012)
    cold = boltzmann_pair(gaussian(E, M, N), temperature=1e-9, generator=seeded())
    assert torch.equal(cold, gaussian(E, M, N).mean(0).topk(2, dim=1).indices)


def test_asking_with_two_opinions_finds_the_best_of_ten_sooner_than_asking_at_random() -> None:
    """Linear bandit: a posterior of members, each answer sharpens it; regret of the asked pairs."""

    def regret(double: bool, seed: int) -> float:
        generator, x = seeded(seed), gaussian(10, 3, seed=seed + 100)
        truth = gaussian(3, seed=seed + 200)
        precision, evidence, total = (
            torch.eye(3, dtype=torch.float64),
            torch.zeros(3, dtype=torch.float64),
            0.0,
        )
        for _ in range(60):
            covariance = torch.linalg.inv(precision)
            draws = torch.randn(8, 3, dtype=torch.float64, generator=generator)
            members = covariance @ evidence + draws @ torch.linalg.cholesky(covariance).mT
            scores = (members @ x.mT)[:, None]
            if double:
                i, j = double_thompson(scores, generator=generator).pairs[0].tolist()
            else:
                i, j = torch.randperm(10, generator=generator)[:2].tolist()
            gap = x[i] - x[j]
            total += float((x @ truth).max() - (x @ truth)[[i, j]].mean())
            answer = float(gap @ truth + torch.randn((), dtype=torch.float64, generator=generator))
            precision, evidence = precision + torch.outer(gap, gap), evidence + gap * answer
        return total

    wins = sum(regret(True, seed) < regret(False, seed) for seed in range(10))
    assert wins >= 9


def test_what_was_drawn_long_ago_is_left_out() -> None:
    step = torch.tensor([0, 7, 8, 10])
    assert near_policy(step, now=10, window=3).tolist() == [False, False, True, True]
    assert near_policy(step, now=10, window=11).all()
    with pytest.raises(ConfigError, match="after now"):
        near_policy(step, now=9, window=3)


def test_scores_that_are_missing_are_refused() -> None:
    scores = gaussian(E, M, N)
    scores[0, 0, 0] = float("nan")
    for function in (gap_variance, verdict_disagreement, smallest_gap):
        with pytest.raises(ConfigError, match="NaN"):
            function(scores)
    with pytest.raises(ShapeError, match="N >= 2"):
        double_thompson(scores[..., :1], generator=seeded())
    with pytest.raises(ConfigError, match="tries"):
        double_thompson(gaussian(E, M, N), generator=seeded(), tries=0)
    with pytest.raises(ConfigError, match="temperature"):
        boltzmann_pair(gaussian(E, M, N), temperature=0.0, generator=seeded())


# routing


@pytest.mark.parametrize("quadratic", [False, True])
def test_a_planted_model_is_recovered_and_its_best_are_routed(quadratic: bool) -> None:
    F, n = 3, 60
    counts = torch.randint(0, 9, (n, F), generator=seeded()).double()
    truth = gaussian(mixture_design(counts, quadratic=quadratic).shape[1], seed=1)
    found = fit_gain(counts, mixture_design(counts, quadratic=quadratic) @ truth, quadratic=quadratic)
    assert_close(found, truth, rtol=1e-6, atol=1e-6)
    kinds = torch.randint(0, 2, (20, F), generator=seeded(1)).double()
    gain = predicted_gain(found, kinds, quadratic=quadratic)
    zero = torch.zeros(1, F, dtype=torch.float64)
    plain = (mixture_design(kinds, quadratic=quadratic) - mixture_design(zero, quadratic=quadratic)) @ truth
    assert_close(gain, plain, rtol=1e-5, atol=1e-5)
    shifted = found + torch.eye(len(found), dtype=torch.float64)[0]
    assert_close(predicted_gain(shifted, kinds, quadratic=quadratic), gain)


def test_dependent_one_hot_features_still_predict() -> None:
    kind = torch.randint(0, 3, (40, 12), generator=seeded())
    counts = torch.stack([(kind == k).sum(1) for k in range(3)], 1).double()  # they add up to 12
    truth = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    found = fit_gain(counts, mixture_design(counts) @ truth)
    assert_close(mixture_design(counts) @ found, mixture_design(counts) @ truth)
    assert predicted_gain(found, torch.eye(3, dtype=torch.float64)).argsort().tolist() == [0, 1, 2]


def test_a_ridge_shrinks_all_but_the_intercept() -> None:
    counts, score = gaussian(30, 2).abs(), gaussian(30, seed=1) + 5
    strong = fit_gain(counts, score, ridge=1e12)
    assert strong[1:].abs().max() < 1e-6
    assert strong[0].item() == pytest.approx(float(score.mean()))


def test_budgets() -> None:
    gain = torch.tensor([0.1, 0.5, -0.2, 0.5])
    assert route_to_people(gain, budget=0).tolist() == []
    assert route_to_people(gain, budget=2).tolist() == [1, 3]
    assert sorted(route_to_people(gain, budget=4).tolist()) == [0, 1, 2, 3]
    assert route_to_people(gain, budget=4, least=0.0).tolist() == [1, 3, 0]
    with pytest.raises(ConfigError, match="budget"):
        route_to_people(gain, budget=-1)


def test_the_knee_of_two_lines_is_where_they_meet() -> None:
    curve = torch.cat([torch.linspace(-5, 1, 13), 1 + 0.1 * torch.arange(1.0, 20.0)])
    assert knee(curve) == 12
    assert knee(3 * curve + 2) == 12
    assert knee(-curve.flip(0)) == len(curve) - 1 - 12
    with pytest.raises(ShapeError, match="n >= 3"):
        knee(curve[:2])
