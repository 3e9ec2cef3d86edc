"""``mmalign data``: look a preference file over, or convert one of another layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from mmalign.errors import UnknownNameError

SHOWN = 5
"""Rejected rows, and leaked prompts, that are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckCommand:
    """Count the rows of a preference file, and say what is wrong with it.

    Pairs, rankings, ratings, binary labels, faults and demonstrations are told apart by their columns. Exit status: 0
    nothing is wrong, 1 something is, 2 wrong usage.
    """

    file: Positional[Path]
    """A jsonl, csv or parquet file."""
    against: Path | None = None
    """Another file (a table, or .txt with a prompt a line), which no prompt of the first should be in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertCommand:
    """Convert a table of another layout to ours. Exit status: 0 every row was used, 1 some were not, 2 wrong usage."""

    file: Positional[Path]
    """A table, a dataset (hf:owner/name, or a folder that save_to_disk wrote), or the folder of an imagefolder."""
    layout: Annotated[
        Literal["imagefolder", "pickapic", "tangoflux", "verl-omni", "videoalign"], arg(name="from")
    ]
    """Whose columns it has."""
    out: Path
    """The parquet file; media that the table holds itself go to a folder beside it."""
    aspect: str | None = None
    """Of videoalign: VQ, MQ, TA, Overall or all; by default the overall verdict, and all where there is none."""
    split: str | None = None
    """Of a dataset that has several."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign data``.

    Raises:
        MmalignError: wrong usage; nothing was written.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: mmalign data check FILE [--against FILE] | convert FILE --from LAYOUT --out FILE")
        return 0 if arguments else 2
    name, *rest = arguments
    actions: dict[str, Callable[[list[str]], int]] = {
        "check": lambda a: check(tyro.cli(CheckCommand, prog="mmalign data check", args=a)),
        "convert": lambda a: convert_table(tyro.cli(ConvertCommand, prog="mmalign data convert", args=a)),
    }
    if name not in actions:
        raise UnknownNameError("action of mmalign data", name, actions)
    return actions[name](rest)


def check(command: CheckCommand) -> int:
    """Print what was found; the exit status."""
    from mmalign.data.check import check_preferences, leaked_prompts

    found = check_preferences(command.file)
    print(f"{command.file}: {found.schema}")
    print(f"rows: {found.rows} = {found.used} used + {len(found.rejected)} rejected")
    print(f"prompts: {found.prompts}, media: {found.media}")
    print(f"missing media: {found.missing_media}")
    print(f"repeated rows: {found.repeated_rows}, media with the content of another: {found.same_content}")
    if found.schema == "pairs":
        print(f"contradictions: {found.contradictions}")
    _print_some([str(error) for error in found.rejected])
    leaked = [] if command.against is None else leaked_prompts(command.file, command.against)
    if command.against is not None:
        print(f"prompts that {command.against} has too: {len(leaked)}")
        _print_some(leaked)
    return 0 if found.sound and not leaked else 1


def convert_table(command: ConvertCommand) -> int:
    """Convert, and say what was left out; the exit status."""
    from rich.console import Console

    from mmalign.data.convert import convert

    found = convert(command.file, command.layout, command.out, aspect=command.aspect, split=command.split)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for error in found.rejected[:SHOWN]:
        say(str(error), markup=False)
    say(
        f"{found.rows} rows = {found.used} used + {len(found.rejected)} rejected: {found.written} {found.kind}",
        markup=False,
    )
    print(command.out)
    return 1 if found.rejected else 0


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")
