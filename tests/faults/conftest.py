"""Runs a kind of disturbance in a process of its own, once for all tests of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rows import read_rows

Rows = dict[int, dict[str, Any]]


def how_many(kind: str, default: int) -> int:
    """Disturbances of a kind: the variable ``MMALIGN_KILLS`` and its like."""
    return int(os.environ.get(f"MMALIGN_{kind.upper()}", default))


@pytest.fixture(scope="session")
def disturb(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rows]:
    """Do a number of disturbances of a kind; its rows."""
    folder = tmp_path_factory.mktemp("faults")
    place = os.environ.get("MMALIGN_FAULTS_PLACE", str(folder / "place"))

    def disturb(kind: str, count: int, before: Sequence[str] = ()) -> Rows:
        log = Path(folder / f"{kind}.jsonl")
        command = [*before, sys.executable, "-m", f"tests.faults.{kind}"]
        done = subprocess.run(
            [*command, "--count", str(count), "--log", str(log), "--place", place],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode in (0, 1), done.stderr[-3000:]
        found = read_rows(log)
        assert list(found) == list(range(count)), done.stderr[-3000:]
        return found

    return disturb
