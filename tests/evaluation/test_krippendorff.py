"""Krippendorff's alpha: his own worked numbers, its limits, and what it ignores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.krippendorff import Metric, alpha_interval, krippendorff_alpha

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]
UNITS = [
    [int(value) for value in unit if value != "."]
    for unit in zip(*(row.split() for row in OBSERVERS), strict=True)
]
METRICS: tuple[Metric, ...] = ("nominal", "ordinal", "interval")
some_units = st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=2, max_size=8)


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_his_example_of_four_observers(metric: Metric, alpha: float) -> None:
    assert krippendorff_alpha(UNITS, metric=metric) == pytest.approx(alpha, abs=5e-4)


def test_his_example_of_two_observers_and_five_categories() -> None:
    first, second = "a a b b d c c c e d d a", "b a b b b c c c e d d d"
    units = list(zip(first.split(), second.split(), strict=True))
    assert krippendorff_alpha(units) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_agreement_is_1_chance_is_0_and_the_opposite_is_below(metric: Metric) -> None:
    assert krippendorff_alpha([[1, 1], [2, 2], [3, 3, 3]], metric=metric) == 1
    random = np.random.default_rng(0)
    chance = [list(pair) for pair in random.integers(1, 4, (4000, 2)).tolist()]
    assert krippendorff_alpha(chance, metric=metric) == pytest.approx(0, abs=0.05)
    assert krippendorff_alpha([[1, 2], [2, 1], [1, 2]], metric=metric) < -0.5


def test_it_is_undefined_without_variation_or_without_two_values() -> None:
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert np.isnan(krippendorff_alpha([[1], [2], []]))
    assert np.isnan(krippendorff_alpha([]))


@settings(max_examples=40)
@given(units=some_units, metric=st.sampled_from(METRICS), seed=st.integers(0, 9))
def test_neither_order_nor_lonely_values_nor_names_matter(
    units: list[list[int]], metric: Metric, seed: int
) -> None:
    random = np.random.default_rng(seed)
    alpha = krippendorff_alpha(units, metric=metric)
    mixed = [random.permutation(unit).tolist() for unit in units]
    random.shuffle(mixed)
    assert krippendorff_alpha([*mixed, [9]], metric=metric) == pytest.approx(alpha, nan_ok=True)
    other = [[10 * value + 7 for value in unit] for unit in units]
    assert krippendorff_alpha(other, metric=metric) == pytest.approx(alpha, nan_ok=True)
    names = [["dcba"[value - 1] for value in unit] for unit in units]
    nominal = krippendorff_alpha(units)
    assert krippendorff_alpha(names) == pytest.approx(nominal, nan_ok=True)


def test_a_small_disagreement_counts_less_where_values_have_an_order() -> None:
    near, far = [[1, 1], [2, 2], [3, 3], [1, 2]], [[1, 1], [2, 2], [3, 3], [1, 3]]
    for metric in ("ordinal", "interval"):
        assert krippendorff_alpha(near, metric=metric) > krippendorff_alpha(far, metric=metric)


def test_the_interval_holds_alpha_shrinks_with_units_and_needs_two_groups() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 400)
    units = [[int(t), int(t if random.random() < 0.8 else 1 - t)] for t in truth]
    alpha = krippendorff_alpha(units)
    low, high = alpha_interval(units, range(400), resamples=200)
    assert low < alpha < high
    few_low, few_high = alpha_interval(units[:50], range(50), resamples=200)
    assert high - low < few_high - few_low
    # Forty units of one prompt, ten times over, are ten prompts' worth of evidence.
    whole = [unit for unit in units[:10] for _ in range(40)]
    together = alpha_interval(whole, [i // 40 for i in range(400)], resamples=200)
    assert together[1] - together[0] > high - low
    assert all(np.isnan(alpha_interval(units, [0] * 400)))
    assert alpha_interval(units, range(400), resamples=200) == (low, high)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ShapeError, match="one for each of 2 units"):
        alpha_interval([[1], [2]], [0])
    with pytest.raises(ConfigError, match="metric"):
        krippendorff_alpha([[1, 2]], metric="ratio")  # type: ignore[arg-type]
