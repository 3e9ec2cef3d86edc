"""Two commands on one folder: the second refuses in a sentence, the first ends as if alone."""

from collections.abc import Callable

import pytest

from tests.faults.conftest import Rows, how_many
from tests.faults.rows import GOOD
from tests.faults.twice import NAMES

pytestmark = pytest.mark.slow
COUNT = how_many("twice", 7)


@pytest.fixture(scope="module")
def rows(disturb: Callable[..., Rows]) -> Rows:
    return disturb("twice", COUNT)


@pytest.mark.parametrize("number", range(COUNT))
def test_the_second_command_on_a_folder_refuses(number: int, rows: Rows) -> None:
    row = rows[number]
    assert row["result"].startswith(GOOD), row


def test_each_was_done_at_least_once() -> None:
    assert len(NAMES) <= COUNT
