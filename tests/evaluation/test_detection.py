import math

import numpy as np
import pytest

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.detection import auroc, false_positives_at, interval_coverage

RANDOM = np.random.default_rng(0)


def test_auroc_is_the_plain_double_loop() -> None:
    score = RANDOM.integers(0, 6, 60).astype(float)  # with many ties
    positive = RANDOM.random(60) < 0.4
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[positive] for b in score[~positive]]
    assert auroc(score, positive) == pytest.approx(float(np.mean(pairs)))


def test_auroc_sees_only_the_order() -> None:
    score, positive = RANDOM.normal(size=50), RANDOM.random(50) < 0.5
    assert auroc(np.exp(3 * score), positive) == auroc(score, positive)
    assert auroc(-score, positive) == pytest.approx(1 - auroc(score, positive))
    assert auroc(positive.astype(float), positive) == 1
    assert auroc(np.ones(50), positive) == 0.5
    assert math.isnan(auroc([1.0], [True]))


def test_false_positives_by_hand() -> None:
    score = [5, 4, 3, 2, 1, 4.5, 2.5, 0.5]
    positive = [True] * 5 + [False] * 3
    assert false_positives_at(score, positive, recall=0.2) == 0  # above 5
    assert false_positives_at(score, positive, recall=0.4) == pytest.approx(1 / 3)  # above 4
    assert false_positives_at(score, positive, recall=0.8) == pytest.approx(2 / 3)  # above 2
    assert false_positives_at(score, positive, recall=1.0) == pytest.approx(2 / 3)


def test_coverage_counts_the_ends_and_leaves_out_what_is_missing() -> None:
    nan = float("nan")
    assert interval_coverage([0, 0, 0, nan, 0], [1, 1, 1, 1, 1], [0, 1, 1.1, 0, nan]) == pytest.approx(2 / 3)
    low = RANDOM.normal(size=40_000)
    assert interval_coverage(low - 1, low + 1, low + RANDOM.normal(size=40_000)) == pytest.approx(
        math.erf(1 / math.sqrt(2)), abs=0.01
    )
    with pytest.raises(ConfigError, match="row 0"):
        interval_coverage([2], [1], [1])
    with pytest.raises(ShapeError, match="three times"):
        interval_coverage([2], [1, 2], [1])
    with pytest.raises(ConfigError, match="booleans"):
        auroc([1.0, 2.0], [0, 1])
