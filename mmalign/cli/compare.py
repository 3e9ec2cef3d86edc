"""``mmalign compare``: runs side by side."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from mmalign.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareCommand:
    """Compare finished runs on the held-out prompts and seeds that all of them have, with paired 95% intervals."""

    runs: Positional[tuple[Path, ...]]
    """Run folders; the first is what the others are compared with."""
    out: Path | None = None
    """A folder for comparison.html, which holds all it shows, and comparison.json."""
    format: Literal["table", "json"] = "table"
    """Of standard output."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign compare``."""
    command = parse(CompareCommand, arguments, prog="mmalign compare")
    import json

    from mmalign.evaluation.comparison import (
        compare,
        comparison_table,
        comparison_values,
        write_comparison,
    )

    found = compare(command.runs)
    if command.out is not None:
        print(write_comparison(found, command.out)["html"], file=sys.stderr)
    if command.format == "json":
        print(json.dumps(comparison_values(found), indent=2))
    else:
        print(comparison_table(found), end="")
    return 0
