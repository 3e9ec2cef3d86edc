"""The bootstrap against worked numbers, its invariances, and its coverage on data whose true gain is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mmalign.errors import ConfigError, MmalignError, ShapeError
from mmalign.evaluation.statistics import paired_bootstrap

SCORES = st.lists(st.floats(-10, 10), min_size=2, max_size=12)


def test_worked_number() -> None:
    # Differences 1 and 3. Two draws of two prompts: mean 1 with probability 1/4, 2 with 1/2, 3 with 1/4.
    gain = paired_bootstrap([0.0, 1.0], [1.0, 4.0])
    assert (gain.before, gain.after, gain.gain, gain.n) == (0.5, 2.5, 2.0, 2)
    assert gain.ci95 == (1.0, 3.0)
    assert paired_bootstrap([0.0, 1.0], [1.0, 4.0], level=0.4).ci95 == (2.0, 2.0)


def test_worked_number_with_groups_of_two_sizes() -> None:
    # Prompt a has differences 1, 1, 1 and prompt b has 5. Draws: aa -> 6/6 = 1, ab -> 8/4 = 2, bb -> 10/2 = 5.
    gain = paired_bootstrap(np.zeros(4), [1.0, 1.0, 5.0, 1.0], groups=["a", "a", "b", "a"])
    assert (gain.gain, gain.ci95, gain.n, gain.prompts) == (2.0, (1.0, 5.0), 4, 2)


@given(scores=SCORES)
def test_identical_arrays_gain_exactly_nothing(scores: list[float]) -> None:
    gain = paired_bootstrap(scores, scores, resamples=50)
    assert (gain.gain, gain.ci95) == (0.0, (0.0, 0.0))


@settings(max_examples=30)
@given(scores=SCORES, shift=st.floats(-100, 100), scale=st.floats(0.1, 10))
def test_only_the_differences_count(scores: list[float], shift: float, scale: float) -> None:
    before = np.array(scores)
    after = np.sin(before) + before
    plain = paired_bootstrap(before, after, resamples=200)
    moved = paired_bootstrap(before + shift, after + shift, resamples=200)
    lifted = paired_bootstrap(before, after + shift, resamples=200)
    scaled = paired_bootstrap(scale * before, scale * after, resamples=200)
    assert_allclose([moved.gain, *moved.ci95], [plain.gain, *plain.ci95], atol=1e-9)
    assert_allclose([lifted.gain, *lifted.ci95], np.array([plain.gain, *plain.ci95]) + shift, atol=1e-9)
    assert_allclose([scaled.gain, *scaled.ci95], scale * np.array([plain.gain, *plain.ci95]), atol=1e-9)


def test_row_order_does_not_matter_and_the_seed_does() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(size=(2, 40))
    groups = np.arange(40) % 13
    order = random.permutation(40)
    plain = paired_bootstrap(before, after, groups=groups.tolist(), resamples=300)
    shuffled = paired_bootstrap(before[order], after[order], groups=groups[order].tolist(), resamples=300)
    assert_allclose(shuffled.ci95, plain.ci95, atol=1e-12)
    assert paired_bootstrap(before, after, groups=groups.tolist(), resamples=300).ci95 == plain.ci95
    assert paired_bootstrap(before, after, groups=groups.tolist(), resamples=300, seed=1).ci95 != plain.ci95


def test_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = []
    for seed in range(400):
        before = random.normal(size=80)
        after = before + 0.3 + random.exponential(size=80) - 1.0
        low, high = paired_bootstrap(before, after, resamples=400, seed=seed).ci95
        hits.append(low <= 0.3 <= high)
    assert 0.91 <= np.mean(hits) <= 0.98


def test_rows_of_one_prompt_must_be_drawn_together() -> None:
    """Eight pictures that fail together are hardly more than one: without groups the interval is too sure."""
    random = np.random.default_rng(1)
    prompts = np.repeat(np.arange(60), 8)
    grouped, separate = [], []
    for seed in range(200):
        after = random.normal(size=60)[prompts] + 0.1 * random.normal(size=480)
        low, high = paired_bootstrap(
            np.zeros(480), after, groups=prompts.tolist(), resamples=300, seed=seed
        ).ci95
        grouped.append(low <= 0 <= high)
        low, high = paired_bootstrap(np.zeros(480), after, resamples=300, seed=seed).ci95
        separate.append(low <= 0 <= high)
    assert np.mean(grouped) >= 0.90
    assert np.mean(separate) <= 0.70


def test_pairs_with_a_missing_score_are_left_out_and_counted() -> None:
    nan = math.nan
    holes = paired_bootstrap([0.0, nan, 1.0, 5.0], [1.0, 9.0, 4.0, nan], groups=["a", "a", "b", "c"])
    whole = paired_bootstrap([0.0, 1.0], [1.0, 4.0])
    assert (holes.before, holes.after, holes.gain, holes.ci95) == (
        whole.before,
        whole.after,
        whole.gain,
        whole.ci95,
    )
    assert (holes.n, holes.prompts, holes.excluded) == (2, 2, 2)


def test_one_prompt_has_a_gain_but_no_interval() -> None:
    gain = paired_bootstrap([0.0, 0.0], [1.0, 2.0], groups=["a", "a"])
    assert gain.gain == 1.5
    assert all(math.isnan(end) for end in gain.ci95)


def test_many_prompts_are_drawn_in_blocks_with_the_same_result_as_theory() -> None:
    difference = np.random.default_rng(2).normal(size=30_000)
    low, high = paired_bootstrap(np.zeros(30_000), difference, resamples=400).ci95
    assert_allclose((high - low) / 2, 1.96 * difference.std() / 30_000**0.5, rtol=0.1)


def test_what_cannot_be_compared_is_refused_with_the_reason() -> None:
    with pytest.raises(ShapeError, match=r"after: expected \[B\] = \[3\] as in before, got \[2\]"):
        paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"before: expected \[B\], got \[1, 2\]"):
        paired_bootstrap([[1.0, 2.0]], [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"groups: expected \[B\] = \[2\]"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], groups=["a"])
    with pytest.raises(MmalignError, match="none of the 2 pairs"):
        paired_bootstrap([math.nan, 1.0], [1.0, math.nan])
    with pytest.raises(MmalignError, match="after: row 1 is infinite"):
        paired_bootstrap([1.0, 2.0], [1.0, math.inf])
    with pytest.raises(ConfigError, match="level = 95"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], level=95)
    with pytest.raises(ConfigError, match="resamples = 0"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], resamples=0)
