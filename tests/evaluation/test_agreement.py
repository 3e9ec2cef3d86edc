"""Agreement with people: the worked numbers of the benchmarks, the plain loops, and what a number ignores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.agreement import (
    accuracy_with_ties,
    accuracy_without_ties,
    bias_accuracy,
    bootstrap_interval,
    correlation_within,
    fitted_temperature,
    gini_equality,
    normalised_dispersion,
    pair_calibration_error,
    section_score,
)

HUMAN = [1, -1, 0, 1, -1, 0, 1, -1, 0]
MARGIN = [0.8, 0.1, -0.4, 0.3, -0.3, -0.1, 0.3, -0.1, -0.1]
pairs = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-0.5, -0.2, 0.0, 0.2, 0.5])),
    min_size=1,
    max_size=12,
)


def test_worked_accuracies() -> None:
    assert accuracy_without_ties(HUMAN, MARGIN) == pytest.approx(5 / 6)
    assert accuracy_with_ties(HUMAN, MARGIN) == pytest.approx((6 / 9, 0.1))
    assert math.isnan(accuracy_without_ties([0, 0], [1.0, 2.0]))


@settings(max_examples=60, deadline=None)
@given(pairs=pairs)
def test_ties_are_the_plain_loop_over_widths(pairs: list[tuple[int, float]]) -> None:
    best = max(
        sum((0 if abs(m) <= eps else np.sign(m)) == h for h, m in pairs) / len(pairs)
        for eps in [-1.0, *(abs(m) for _, m in pairs)]
    )
    human, margin = zip(*pairs, strict=True)
    found, eps = accuracy_with_ties(human, margin)
    assert found == pytest.approx(best)
    assert sum((0 if abs(m) <= eps else np.sign(m)) == h for h, m in pairs) / len(pairs) == pytest.approx(
        best
    )
    mirrored = accuracy_with_ties([-h for h in human], [-m for m in margin])
    assert mirrored == pytest.approx((found, eps))


def test_a_constant_judge_is_right_only_about_ties() -> None:
    assert accuracy_without_ties(HUMAN, [0.0] * 9) == 0
    assert accuracy_with_ties(HUMAN, [0.0] * 9)[0] == pytest.approx(3 / 9)


def test_worked_calibration() -> None:
    confidence = np.array([0.55, 0.65, 0.75, 0.95])
    margin = np.log(confidence / (1 - confidence))
    assert pair_calibration_error(margin, [1, 0, 1, 1]) == pytest.approx((0.45 + 0.65 + 0.25 + 0.05) / 4)
    assert pair_calibration_error(-margin, [1, 0, 1, 1]) == pytest.approx(0.35)


def test_overconfidence_is_found_and_mended() -> None:
    random = np.random.default_rng(0)
    margin = random.normal(size=20_000)
    human = np.where(random.random(20_000) < 1 / (1 + np.exp(-margin)), 1, -1)
    right = np.sign(margin) == human
    assert pair_calibration_error(margin, right) < 0.015
    assert pair_calibration_error(10 * margin, right) > 0.2
    assert fitted_temperature(margin, human) == pytest.approx(1, abs=0.08)
    assert fitted_temperature(10 * margin, human) == pytest.approx(10, abs=0.8)
    assert math.isnan(fitted_temperature([0.0, 1.0], [1, 0]))


def test_worked_bias() -> None:
    assert normalised_dispersion([1, 2, 3, 4]) == pytest.approx(0.552786, abs=1e-6)
    assert gini_equality([4, 2, 1, 3]) == pytest.approx(0.75)
    assert bias_accuracy([1, 2, 3, 4]) == 0
    for measure in (normalised_dispersion, gini_equality, bias_accuracy):
        assert measure([2.5, 2.5, 2.5]) == pytest.approx(1)
    assert bias_accuracy([1.0, 1.05, 3.0], within=2.0) == 1


def test_a_section_needs_all_its_subsets() -> None:
    assert section_score({"a": 0.5, "b": 1.0, "c": 0.0}, {"a": 2, "b": 1}) == pytest.approx(2 / 3)
    assert math.isnan(section_score({"a": 0.5}, {"a": 2, "b": 1}))
    assert math.isnan(section_score({"a": 0.5}, {}))


def test_correlation_is_taken_inside_prompts() -> None:
    random = np.random.default_rng(0)
    prompt = np.repeat(np.arange(500), 4)
    offset = random.normal(size=500)[prompt] * 100
    covariate = random.normal(size=2_000)
    groups = prompt.tolist()
    assert correlation_within(covariate + offset, covariate, groups) == pytest.approx(1)
    assert correlation_within(-3 * covariate + offset, covariate, groups) == pytest.approx(-1)
    assert abs(correlation_within(random.normal(size=2_000) + offset, covariate, groups)) < 0.06
    assert math.isnan(correlation_within(offset, covariate, groups))


def test_an_interval_over_prompts_is_that_of_the_mean() -> None:
    values = np.array([0.0, 1.0])
    assert bootstrap_interval(lambda r: float(values[r].mean()), ["a", "b"]) == (0.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval(lambda r: 1.0, ["a", "a"]))
    many = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(lambda r: float(many[r].mean()), list(range(400)), resamples=500)
    half = 1.96 * many.std() / 20
    assert low == pytest.approx(many.mean() - half, abs=0.015)
    assert high == pytest.approx(many.mean() + half, abs=0.015)
    with pytest.raises(ConfigError, match="expected one in"):
        bootstrap_interval(lambda r: 1.0, ["a", "b"], level=1.0)


def test_arrays_of_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected human and margin"):
        accuracy_without_ties([1, 1], [0.5])
    with pytest.raises(ShapeError, match="expected \\[n\\]"):
        gini_equality([[1.0]])
