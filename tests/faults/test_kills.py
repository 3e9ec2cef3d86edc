"""Commands killed at a random change to their files end as if nobody had killed them; each one at least once."""

from collections.abc import Callable

import pytest

from tests.faults.commands import COMMANDS
from tests.faults.conftest import Rows, how_many
from tests.faults.rows import GOOD

pytestmark = pytest.mark.slow
COUNT = how_many("kills", 12)


@pytest.fixture(scope="module")
def rows(disturb: Callable[..., Rows]) -> Rows:
    return disturb("kills", COUNT)


@pytest.mark.parametrize("number", range(COUNT))
def test_what_was_killed_ends_as_the_undisturbed(number: int, rows: Rows) -> None:
    row = rows[number]
    assert row["result"].startswith(GOOD), row


def test_each_was_done_at_least_once() -> None:
    assert len(COMMANDS) <= COUNT
