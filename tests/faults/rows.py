"""Many disturbances one after the other, each a row of a log that a later call goes on after."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.place import Place

GOOD = "equal"
"""How a result begins where all was right; what follows says how."""


def do_rows(
    once: Callable[[Place, int], Any],
    *,
    count: int,
    log: Path,
    place: Path,
    only: str | None,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Do what is missing of ``count`` disturbances, and say how each ended.

    Args:
        once: does the disturbance of a number, which decides everything about it; returns a dataclass with ``result``.
        count: of disturbances, from number 0.
        log: takes the rows, as jsonl.
        place: for inputs and results.
        only: of ``names``, that whose turn has to be; None for all.
        names: take turns.

    Returns:
        The rows of these numbers.
    """
    wanted = [n for n in range(count) if only in (None, names[n % len(names)])]
    done = read_rows(log)
    where = None
    for number in wanted:
        if number in done:
            continue
        where = where or Place(place)
        row = {"number": number, **_done(once, where, number)}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        done[number] = row
    return [done[number] for number in wanted]


def _done(once: Callable[[Place, int], Any], place: Place, number: int) -> dict[str, Any]:
    """The row; what hangs, or could not be brought to where it is disturbed, is one that is not as it should be."""
    try:
        return asdict(once(place, number))
    except (AssertionError, TimeoutError, OSError) as error:
        return {"result": f"{type(error).__name__}: {error}"}


def read_rows(log: Path) -> dict[int, dict[str, Any]]:
    """The rows of a log by number."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return {row["number"]: row for row in map(json.loads, lines)}


def bad(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose result is not as it should be."""
    return [row for row in rows if not row["result"].startswith(GOOD)]


def main(
    arguments: Sequence[str], once: Callable[[Place, int], Any], names: Sequence[str], *, about: str
) -> int:
    """The command of a kind of disturbance; 0 where all rows are as they should be."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", choices=names, help="those whose turn it is")
    parser.add_argument(
        "--log", type=Path, required=True, help="a row each, as jsonl; what is in it is not done again"
    )
    parser.add_argument(
        "--place", type=Path, required=True, help="for inputs and results; can be thrown away"
    )
    options = parser.parse_args(arguments)
    rows = do_rows(
        once, count=options.count, log=options.log, place=options.place, only=options.only, names=names
    )
    print(f"{len(rows) - len(bad(rows))} of {len(rows)} as they should be")
    return 1 if bad(rows) else 0
