"""``mmalign data``: look a preference file over, convert one of another layout, or see how far annotators agree."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from mmalign.cli.options import parse
from mmalign.cli.root import in_root, root_that_is_needed
from mmalign.errors import UnknownNameError
from mmalign.ranges import COUNT, check_ranges

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
    root: Path | None = None
    """Its media may lie anywhere below this folder; by default, below the file's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertCommand:
    """Convert a table of another layout to ours. Exit status: 0 every row was used, 1 some were not, 2 wrong usage."""

    file: Positional[Path]
    """A table, a dataset (hf:owner/name, or a folder that save_to_disk wrote), or the folder of an imagefolder."""
    layout: Annotated[
        Literal["imagefolder", "labels", "pickapic", "tangoflux", "verl-omni", "videoalign"], arg(name="from")
    ]
    """Whose columns it has; labels are what mmalign label writes."""
    out: Path
    """The parquet file; media that the table holds itself go to a folder beside it."""
    aspect: str | None = None
    """Of videoalign: VQ, MQ, TA, Overall or all; by default the overall verdict, and all where there is none. Of labels
    that are ratings: one of their aspects; by default all."""
    split: str | None = None
    """Of a dataset that has several."""
    samples: Path | None = None
    """The folder that labels are about, if it is not where it was."""
    root: Path | None = None
    """Its media may lie anywhere below this folder; by default, below the table's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementCommand:
    """How far the people agree who made a file of labels, and who had better be left out, with the reasons.

    Intervals are of 95 %, over prompts drawn anew; shares have Wilson's. Exit status: 0, or 2 for wrong usage.
    """

    file: Positional[Path]
    """What mmalign label wrote."""
    resamples: Annotated[int, COUNT] = 1_000
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign data``.

    Raises:
        MmalignError: wrong usage; nothing was written.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: mmalign data check FILE [--against FILE] [--root DIR] | "
            "convert FILE --from LAYOUT --out FILE [--root DIR] | agreement FILE"
        )
        return 0 if arguments else 2
    name, *rest = arguments
    actions: dict[str, Callable[[list[str]], int]] = {
        "agreement": lambda a: agreement(parse(AgreementCommand, a, prog="mmalign data agreement")),
        "check": lambda a: in_root(check, parse(CheckCommand, a, prog="mmalign data check")),
        "convert": lambda a: in_root(convert_table, parse(ConvertCommand, a, prog="mmalign data convert")),
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
    from mmalign.locks import locked_output

    with locked_output(command.out, command.out.with_name(f"{command.out.stem}-media")):
        found = convert(
            command.file,
            command.layout,
            command.out,
            aspect=command.aspect,
            split=command.split,
            samples=command.samples,
        )
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for error in found.rejected[:SHOWN]:
        say(str(error), markup=False)
    for note in (*found.notes, *filter(None, [root_that_is_needed(command.out, found.media)])):
        say(note, markup=False)
    say(
        f"{found.rows} rows = {found.used} used + {len(found.rejected)} rejected: {found.written} {found.kind}",
        markup=False,
    )
    print(command.out)
    return 1 if found.rejected else 0


def agreement(command: AgreementCommand) -> int:
    """Print who agrees with whom; the exit status."""
    from mmalign.data.label_log import read_labels
    from mmalign.evaluation.annotators import report_annotators

    labels = read_labels(command.file)
    found = report_annotators(labels.choices, str(labels.header.get("mode")), resamples=command.resamples)
    print(f"{command.file}: {found.mode}, {found.choices} choices of {len(found.people)} annotators")
    print(f"undone: {labels.undone}, lines that count for nothing: {len(labels.faults)}")
    _print_some([str(fault) for fault in labels.faults])
    print(
        f"Krippendorff's alpha: {_number(found.alpha)} {_interval(found.alpha_ci95)}, {found.shared} values shared"
    )
    for person in found.people:
        print(
            f"{person.name}: {person.choices} choices, {person.skipped} skipped, {_number(person.seconds)} s an item"
        )
        print(
            f"  agrees with others in {_number(person.agreement)}, "
            f"alpha {_number(person.alpha)} {_interval(person.alpha_ci95)}"
        )
        print(f"  shown first is better in {_number(person.left)} {_interval(person.left_ci95)}")
        print(
            f"  repeated items answered alike {_number(person.consistent)} {_interval(person.consistent_ci95)}, "
            f"{person.repeats} repeated"
        )
    for (a, b), (shared, same, alpha) in found.pairs.items():
        print(f"{a} and {b}: {shared} values shared, {_number(same)} the same, alpha {_number(alpha)}")
    left_out = [person for person in found.people if person.suspicions]
    print(f"suggested exclusions: {len(left_out)}")
    for person in left_out:
        print(f"  {person.name}: {'; '.join(person.suspicions)}")
    return 0


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{_number(ends[0])}, {_number(ends[1])}]"


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")
