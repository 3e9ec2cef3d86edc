import math

import numpy as np
import pytest

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.evaluation.overoptimisation import (
    Law,
    best_of_n_curve,
    distance,
    fit_overoptimisation,
    law_peak,
    law_reward,
    reward_variance,
)
from mmalign.losses import best_of_n_kl, best_of_n_mean

LAWS: list[Law] = ["best-of-n", "policy-gradient", "direct"]
AT = np.linspace(0.2, 9, 25)


def test_peaks_worked_by_hand() -> None:
    assert law_peak(1.0, 0.1, law="best-of-n") == pytest.approx((5.0, 2.5))
    assert law_peak(1.0, 0.5, law="policy-gradient") == pytest.approx((math.e, 1.359141), abs=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_the_peak_is_the_highest_point_of_the_law(law: Law) -> None:
    alpha, beta = 0.9, 0.35
    at, height = law_peak(alpha, beta, law=law)
    near = law_reward([at - 1e-3, at, at + 1e-3], alpha, beta, law=law)
    assert near.argmax() == 1
    assert near[1] == pytest.approx(height)
    assert law_reward(0.0, alpha, beta, law=law) == 0


def test_laws_without_a_peak() -> None:
    assert law_peak(1.0, 0.0, law="best-of-n") == (math.inf, math.inf)
    assert law_peak(-1.0, 0.1, law="best-of-n") == (0.0, 0.0)
    assert law_peak(1.0, -0.1, law="policy-gradient") == (math.inf, math.inf)
    assert law_peak(1.0, 1e-9, law="direct")[0] == math.inf


@pytest.mark.parametrize("law", LAWS)
def test_a_fit_without_noise_finds_the_coefficients(law: Law) -> None:
    fit = fit_overoptimisation(AT, law_reward(AT, 0.8, 0.11, law=law), law=law, resamples=20)
    assert (fit.alpha, fit.beta) == pytest.approx((0.8, 0.11), abs=1e-8)
    assert (fit.peak, fit.peak_reward) == pytest.approx(law_peak(0.8, 0.11, law=law))
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.peak_ci == pytest.approx((fit.peak, fit.peak))


def test_the_fit_scales_with_the_reward_and_ignores_what_is_missing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, len(AT))
    y = law_reward(AT, 1.0, 0.1, law="best-of-n") + noise
    one = fit_overoptimisation(AT, y, law="best-of-n", resamples=50)
    ten = fit_overoptimisation(AT, 10 * y, law="best-of-n", resamples=50)
    assert (ten.alpha, ten.beta, ten.peak) == pytest.approx((10 * one.alpha, 10 * one.beta, one.peak))
    more_x, more_y = np.append(AT, [0.0, 3.0]), np.append(y, [99.0, np.nan])
    assert fit_overoptimisation(more_x, more_y, law="best-of-n", resamples=50) == one
    assert one.n == len(AT)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    x = np.repeat(np.linspace(0.5, 8, 10), 4)
    held = 0
    for _ in range(60):
        y = law_reward(x, 1.0, 0.1, law="best-of-n") + random.normal(0, 0.3, len(x))
        low, high = fit_overoptimisation(x, y, law="best-of-n", resamples=120).alpha_ci
        held += low <= 1.0 <= high
    assert 49 <= held <= 60  # of 60 at 95 %, a little fewer for so few points


def test_runs_are_resampled_together_and_one_run_says_nothing_of_others() -> None:
    y = law_reward(AT, 1.0, 0.1, law="direct")
    lone = fit_overoptimisation(AT, y, law="direct", groups=["a"] * len(AT), resamples=10)
    assert all(math.isnan(end) for end in (*lone.alpha_ci, *lone.beta_ci, *lone.peak_ci))
    x, apart = np.tile(AT, 2), np.concatenate([0.5 * y, 1.5 * y])
    both = fit_overoptimisation(x, apart, law="direct", groups=["a"] * 25 + ["b"] * 25, resamples=200)
    assert both.alpha_ci == pytest.approx((0.5, 1.5))


def test_a_curve_that_still_rises_has_an_open_peak() -> None:
    x = np.linspace(0.1, 1, 12)
    y = x + np.random.default_rng(2).normal(0, 0.05, 12)
    fit = fit_overoptimisation(x, y, law="best-of-n", resamples=200)
    assert fit.peak_ci[1] == math.inf


def test_distance_of_an_estimate_below_zero_is_zero() -> None:
    assert distance([9.0, -1e-3]).tolist() == [3.0, 0.0]


def test_best_of_n_by_hand() -> None:
    proxy, gold = [[0.0, 1.0, 2.0, 3.0]], [[0.0, 1.0, 3.0, 2.0]]
    expected = [(1.5, 1.5), (7 / 3, 13 / 6), (2.75, 2.25), (3.0, 2.0)]
    found = best_of_n_curve(proxy, gold, [1, 2, 3, 4])
    assert [x for pair in found for x in pair] == pytest.approx([x for pair in expected for x in pair])
    assert (best_of_n_kl(2), best_of_n_kl(4)) == pytest.approx((0.193147, 0.636294), abs=1e-6)


def test_best_of_n_is_the_mean_over_draws_and_the_losses_own_on_the_proxy() -> None:
    import torch

    random = np.random.default_rng(3)
    proxy, gold = random.normal(size=(2, 3, 12))
    ((p, g),) = best_of_n_curve(proxy, gold, [4])
    assert p == pytest.approx(float(best_of_n_mean(torch.from_numpy(proxy), n=4).mean()))
    draws = [random.permuted(np.tile(np.arange(12), (20_000, 1)), axis=1)[:, :4] for _ in range(3)]
    plain = np.mean(
        [gold[i][d[np.arange(20_000), proxy[i][d].argmax(1)]].mean() for i, d in enumerate(draws)]
    )
    assert g == pytest.approx(plain, abs=0.03)
    many = best_of_n_curve(random.normal(size=(1, 3000)), np.ones((1, 3000)), [1500])
    assert many[0][1] == pytest.approx(1.0)  # huge binomials


def test_variance_inside_prompts() -> None:
    random = np.random.default_rng(4)
    only_prompt = np.repeat(random.normal(size=(50, 1)), 10, axis=1)
    assert reward_variance(only_prompt).max() < 1e-20
    free = random.normal(size=(2000, 10))
    assert reward_variance(free).mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(reward_variance(10 * free - 3), reward_variance(free))
    assert np.isnan(reward_variance(np.ones((2, 3)))).all()


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="distances above 0"):
        fit_overoptimisation([0.0, 1.0, 1.0], [0.0, 1.0, 1.0], law="direct")
    with pytest.raises(ConfigError, match=r"distance\(kl\)"):
        fit_overoptimisation([-1.0, 1.0], [0.0, 1.0], law="direct")
    with pytest.raises(ShapeError, match="groups"):
        fit_overoptimisation(AT, AT, law="direct", groups=["a"])
    with pytest.raises(UnknownNameError, match="best-of-n"):
        law_peak(1.0, 1.0, law="best-of-m")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="from 1 to"):
        best_of_n_curve([[1.0]], [[1.0]], [2])
    with pytest.raises(ConfigError, match="NaN"):
        best_of_n_curve([[np.nan]], [[1.0]], [1])
    with pytest.raises(ShapeError, match="N >= 2"):
        reward_variance([[1.0]])
