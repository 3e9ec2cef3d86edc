"""SIGINT, SIGTERM and SIGHUP in every stage: a sentence that says how to go on, and nothing is lost."""

from collections.abc import Callable

import pytest

from tests.faults.conftest import Rows, how_many
from tests.faults.rows import GOOD
from tests.faults.signals import STAGES

pytestmark = pytest.mark.slow
COUNT = how_many("signals", 9)


@pytest.fixture(scope="module")
def rows(disturb: Callable[..., Rows]) -> Rows:
    return disturb("signals", COUNT)


@pytest.mark.parametrize("number", range(COUNT))
def test_who_asks_to_stop_is_told_how_to_go_on(number: int, rows: Rows) -> None:
    row = rows[number]
    assert row["result"].startswith(GOOD), row


def test_each_was_done_at_least_once() -> None:
    assert len(STAGES) <= COUNT
