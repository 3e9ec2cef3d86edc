"""The verdict says no more than the interval allows."""

from typing import Any

import pytest

from mmalign.evaluation.verdict import outcome, verdict
from tests.evaluation.conftest import SUMMARY

HELDOUT: dict[str, Any] = SUMMARY["heldout_reward"]


@pytest.mark.parametrize(
    ("ci95", "higher_is_better", "expected"),
    [
        ([0.01, 0.1], True, "better"),
        ([-0.1, -0.01], True, "worse"),
        ([-0.1, 0.1], True, "no clear change"),
        ([0.0, 0.0], True, "no clear change"),
        ([0.0, 0.1], True, "no clear change"),
        ([0.01, 0.1], False, "worse"),
        ([-0.1, -0.01], False, "better"),
        ([None, None], True, "not measured"),
        ([float("nan"), float("nan")], True, "not measured"),
        (None, True, "not measured"),
    ],
)
def test_outcome_follows_the_interval(ci95: Any, higher_is_better: bool, expected: str) -> None:
    assert outcome({"gain": 0.05, "ci95": ci95, "higher_is_better": higher_is_better}) == expected


def test_the_sentence_has_the_numbers() -> None:
    text = verdict(SUMMARY)
    assert text.startswith(
        "Better: the held-out reward shapes-truth, which training never used, went from 0.651 to 0.727"
    )
    assert "+0.076 (95% interval +0.052 to +0.101, 512 samples of 256 prompts)" in text
    assert "embedded/shapes-clip went from 21.3 to 23.9" in text
    assert "please its scorer" not in text


def test_a_reward_that_was_fooled_is_called_so() -> None:
    text = verdict({**SUMMARY, "heldout_reward": {**HELDOUT, "gain": -0.01, "ci95": [-0.03, 0.01]}})
    assert text.startswith("No clear change")
    assert "learnt to please its scorer" in text


def test_a_held_out_reward_that_was_trained_on_is_called_so() -> None:
    train = {"name": "shapes-truth:2.0 + embedded/shapes-clip", "before": 0.5, "after": 0.6}
    assert "which training used too" in verdict({**SUMMARY, "train_reward": train})


def test_left_out_samples_are_told() -> None:
    text = verdict({**SUMMARY, "heldout_reward": {**HELDOUT, "excluded": 7}})
    assert "Left out: 7 samples without a score" in text
