"""Laws through means of prompts or runs, their bands, and prompts that nearly say the same."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.contrast import contrast_consistency, contrast_partners
from mmalign.evaluation.overoptimisation import (
    Law,
    best_of_n_by_prompt,
    best_of_n_curve,
    fit_overoptimisation,
    law_reward,
)
from mmalign.evaluation.overoptimisation_curves import fit_curve

D = np.array([0.0, 0.4, 0.9, 1.3, 1.7])


def noisy(law: Law, groups: int = 200, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return law_reward(D, 1.0, 0.5, law=law) + noise * random.standard_normal((groups, len(D)))


@pytest.mark.parametrize("law", ["best-of-n", "policy-gradient", "direct"])
def test_exact_means_give_the_law_back_and_the_band_closes_on_it(law: Law) -> None:
    exact = np.repeat(law_reward(D, 1.0, 0.5, law=law)[None], 3, 0)
    found = fit_curve(D, exact, law=law, resamples=50)
    assert_allclose((found.alpha, found.beta, found.r_squared), (1, 0.5, 1), atol=1e-10)
    assert_allclose(found.band_low, found.fitted, atol=1e-10)
    assert_allclose(found.band_high, law_reward(found.grid, 1.0, 0.5, law=law), atol=1e-10)
    peak = 1.0 if law == "best-of-n" else math.e
    assert_allclose((found.peak, *found.peak_ci), peak, atol=1e-8)
    assert found.falls == (1.0 if peak < D[-1] else 0.0)
    assert found.grid[0] == found.fitted[0] == 0


def test_a_law_of_means_is_the_one_of_all_points_and_fewer_prompts_know_less() -> None:
    y = noisy("best-of-n")
    found = fit_curve(D, y, law="best-of-n", resamples=300)
    points = fit_overoptimisation(np.tile(D, len(y)), y.ravel(), law="best-of-n", resamples=1)
    assert_allclose((found.alpha, found.beta), (points.alpha, points.beta), atol=1e-10)
    fewer = fit_curve(D, y[:20], law="best-of-n", resamples=300)
    assert (fewer.band_high - fewer.band_low)[-1] > (found.band_high - found.band_low)[-1]


def test_intervals_and_bands_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of 80 experiments; a right 95 % interval holds it 76 times, and fewer than 68 times in one of 1,000."""
    truth = law_reward(np.linspace(0, D[-1], 60), 1.0, 0.5, law="best-of-n")
    held = np.zeros(4)
    for seed in range(80):
        y = noisy("best-of-n", groups=60, seed=seed)
        found = fit_curve(D, y, law="best-of-n", resamples=120, seed=seed)
        held += [
            found.alpha_ci[0] <= 1.0 <= found.alpha_ci[1],
            found.peak_ci[0] <= 1.0 <= found.peak_ci[1],
            found.low[-1] <= law_reward(D[-1], 1.0, 0.5, law="best-of-n") <= found.high[-1],
            found.band_low[-1] <= truth[-1] <= found.band_high[-1],
        ]
    assert (held >= 68).all()
    assert (held < 80).all()


def test_one_group_has_no_interval_and_missing_rewards_are_left_out() -> None:
    y = law_reward(D, 1.0, 0.5, law="direct")[None].copy()
    one = fit_curve(D, y, law="direct", resamples=10)
    assert math.isnan(one.alpha_ci[0])
    assert np.isnan(one.band_low).all()
    assert math.isnan(one.falls)
    assert_allclose(one.beta, 0.5)
    two = np.repeat(y, 2, 0)
    two[0, 2] = math.nan  # the other group has it
    two[:, 3] = math.nan  # nobody has it
    found = fit_curve(D, two, law="direct", resamples=10)
    assert found.d.tolist() == [0.0, 0.4, 0.9, 1.7]
    assert_allclose((found.alpha, found.beta), (1, 0.5), atol=1e-10)


def test_a_law_that_never_falls_has_an_infinite_peak() -> None:
    found = fit_curve(D, np.stack([D, 2 * D]), law="best-of-n", resamples=20)
    assert found.falls == 0
    assert found.peak > 1e6


def test_what_cannot_be_fitted_is_told() -> None:
    with pytest.raises(ShapeError, match=r"d \[C\] and reward \[G, C\]"):
        fit_curve(D, D, law="direct")
    with pytest.raises(ConfigError, match="1 distances above 0 differ"):
        fit_curve([0.0, 1.0], [[0.0, 1.0]], law="direct")
    with pytest.raises(ConfigError, match="negative"):
        fit_curve([-1.0, 1.0], [[0.0, 1.0]], law="direct")


def test_the_best_of_n_of_each_prompt_is_the_mean_over_subsets() -> None:
    random = np.random.default_rng(0)
    proxy, gold = random.standard_normal((2, 3, 4))
    p, g = best_of_n_by_prompt(proxy, gold, [1, 2, 4])
    assert_allclose(p[:, 0], proxy.mean(1))
    assert_allclose(p[:, 2], proxy.max(1))
    assert_allclose(g[:, 2], gold[np.arange(3), proxy.argmax(1)])
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    best = [[gold[m, i if proxy[m, i] > proxy[m, j] else j] for i, j in pairs] for m in range(3)]
    assert_allclose(g[:, 1], np.mean(best, 1))
    assert_allclose(best_of_n_curve(proxy, gold, [2])[0], (p[:, 1].mean(), g[:, 1].mean()))


def test_partners_differ_in_little_and_never_in_nothing() -> None:
    prompts = [
        "a small red circle",
        "A small red circle",
        "a small blue circle",
        "one tone",
        "a big blue circle",
    ]
    assert contrast_partners(prompts) == [(0, 2), (1, 2), (2, 4)]
    assert contrast_partners(prompts, least=0.9) == []
    assert contrast_partners(["same", "same"]) == []


def test_a_reward_blind_to_prompts_is_told_and_a_perfect_one_too() -> None:
    random = np.random.default_rng(0)
    media = random.standard_normal((500, 2))
    response, instruction = contrast_consistency(media, media[:, ::-1])
    assert instruction == 0
    assert response == 0.5
    assert contrast_consistency([[1.0, 1.0]], [[0.0, 0.0]]) == (1.0, 1.0)
    # R(q1, a1) = 2 > R(q2, a1) = 1 and R(q2, a2) = 2 < R(q1, a2) = 3: half right on both counts.
    assert contrast_consistency([[2.0, 2.0], [math.nan, 1.0]], [[3.0, 1.0], [0.0, 0.0]]) == (0.5, 0.5)
    assert all(map(math.isnan, contrast_consistency([[math.nan, 1.0]], [[0.0, 0.0]])))
    with pytest.raises(ShapeError, match=r"\[n, 2\]"):
        contrast_consistency([1.0, 2.0], [1.0, 2.0])
