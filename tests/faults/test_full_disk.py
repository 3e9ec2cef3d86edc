"""A disk that fills up: one sentence, nothing half written, and the command goes on once there is room."""

from collections.abc import Callable

import pytest

from tests.faults.conftest import Rows, how_many
from tests.faults.full_disk import NAMES, apart, why_not
from tests.faults.rows import GOOD

pytestmark = pytest.mark.slow
COUNT = how_many("full_disks", 5)


@pytest.fixture(scope="module")
def rows(disturb: Callable[..., Rows]) -> Rows:
    if (reason := why_not()) is not None:
        pytest.skip(f"no small disk can be made here: {reason}")
    return disturb("full_disk", COUNT, apart())


@pytest.mark.parametrize("number", range(COUNT))
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(number: int, rows: Rows) -> None:
    row = rows[number]
    assert row["result"].startswith(GOOD), row


def test_each_was_done_at_least_once() -> None:
    assert len(NAMES) <= COUNT
