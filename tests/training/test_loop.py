"""The learning rate over a run."""

from dataclasses import replace
from typing import Literal

import pytest

from mmalign.training.loop import learning_rate_share
from mmalign.training.recipe import TrainConfig

CONFIG = TrainConfig(steps=50, warmup_steps=10)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_schedule_rises_to_the_whole_rate(schedule: Literal["constant", "linear", "cosine"]) -> None:
    config = replace(CONFIG, lr_schedule=schedule)
    rising = [learning_rate_share(config, step) for step in range(10)]
    assert rising == pytest.approx([step / 10 for step in range(1, 11)])
    assert learning_rate_share(config, 10) == 1.0


def test_falling_schedules_reach_one_half_in_the_middle_and_nothing_after_the_last_step() -> None:
    for config in (replace(CONFIG, lr_schedule="linear"), replace(CONFIG, lr_schedule="cosine")):
        shares = [learning_rate_share(config, step) for step in range(10, 50)]
        assert shares == sorted(shares, reverse=True)
        assert learning_rate_share(config, 30) == pytest.approx(0.5)
        assert 0 < shares[-1] < 0.03
        assert learning_rate_share(config, 50) == 0.0


def test_cosine_stays_high_longer_and_ends_lower() -> None:
    linear, cosine = replace(CONFIG, lr_schedule="linear"), replace(CONFIG, lr_schedule="cosine")
    assert learning_rate_share(cosine, 15) > learning_rate_share(linear, 15)
    assert learning_rate_share(cosine, 45) < learning_rate_share(linear, 45)
    assert {learning_rate_share(CONFIG, step) for step in range(9, 50)} == {1.0}


def test_no_warm_up_starts_at_the_whole_rate() -> None:
    assert learning_rate_share(replace(CONFIG, warmup_steps=0), 0) == 1.0
