"""Of every kind of file that a run keeps, a flipped bit or a cut end is noticed, or does not matter."""

from collections.abc import Callable

import pytest

from tests.faults.conftest import Rows, how_many
from tests.faults.damage import KEPT
from tests.faults.rows import GOOD

pytestmark = pytest.mark.slow
COUNT = how_many("damages", 30)


@pytest.fixture(scope="module")
def rows(disturb: Callable[..., Rows]) -> Rows:
    return disturb("damage", COUNT)


@pytest.mark.parametrize("number", range(COUNT))
def test_a_damaged_file_is_noticed_or_does_not_matter(number: int, rows: Rows) -> None:
    row = rows[number]
    assert row["result"].startswith(GOOD), row


def test_each_was_done_at_least_once() -> None:
    assert len(KEPT) <= COUNT
