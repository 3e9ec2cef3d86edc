"""What is wrong in single samples, word by word and place by place: rich human feedback."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.cells import medium_of, optional_text_of, relative_to, text_of
from mmalign.data.tables import Record, brief, read_records
from mmalign.data.writers import write_parquet
from mmalign.errors import DataError
from mmalign.files import whole_file

MARK = "_0"
"""Behind a word that is wrong."""
_MARKED = re.compile(rf"(?<=\w){MARK}(?!\w)")


@dataclass(frozen=True)
class Fault:
    """One sample of a prompt, with what is wrong.

    Args:
        prompt: what it was made for.
        sample: its file.
        right: for each word of the prompt, as spaces part them, whether the sample shows it.
        region: a picture of the same proportions, white where the fault is and black elsewhere; None where nobody
            looked for a place.
    """

    prompt: str
    sample: Path
    right: tuple[bool, ...]
    region: Path | None = None

    @property
    def marked(self) -> str:
        """The prompt with ``_0`` behind each wrong word."""
        words = iter(self.right)

        def mark(match: re.Match[str]) -> str:
            if next(words):
                return match.group()
            return re.sub(r"^(.*\w)", rf"\1{MARK}", match.group())

        return re.sub(r"\S+", mark, self.prompt)


def parse_marked(text: str) -> tuple[str, tuple[bool, ...]]:
    """A prompt without its marks, and for each word whether it had none.

    Source: Liang et al. 2024, Rich Human Feedback for Text-to-Image Generation (arXiv:2312.10240), whose model writes
    prompts so.

    >>> parse_marked("a yellow_0 cat, small_0, on it")
    ('a yellow cat, small, on it', (True, False, True, False, True, True))
    """
    right = tuple(_MARKED.search(word) is None for word in text.split())
    return _MARKED.sub("", text), right


def read_faults(path: Path) -> list[Fault]:
    """The samples of a jsonl, csv or parquet file with the columns ``prompt, sample, marked`` (and ``region``).

    ``marked`` is the prompt with ``_0`` behind each wrong word. Media and regions are paths relative to the file.

    Raises:
        DataError: no rows, a missing column or value, a marked prompt that is another, or a file that does not exist,
            with row and column.
    """
    rows = list(read_records(path))
    if not rows:
        raise DataError("no samples in it", file=path)
    return [fault_of(row, path, number) for number, row in enumerate(rows, 1)]


def fault_of(row: Record, path: Path, number: int) -> Fault:
    """One row of a table of faults.

    Raises:
        DataError: a missing value, a marked prompt that is another, or a file that does not exist, with row and column.
    """
    prompt, sample = text_of(row, "prompt", path, number), medium_of(row, "sample", path, number)
    plain, right = parse_marked(text_of(row, "marked", path, number))
    if plain != prompt:
        raise DataError(
            f"expected the prompt with {MARK} behind its wrong words, got {brief(plain)} for {brief(prompt)}",
            file=path,
            row=number,
            column="marked",
        )
    region = None
    if optional_text_of(row, "region", path, number) is not None:
        region = medium_of(row, "region", path, number)
    return Fault(prompt, sample, right, region)


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """Write a parquet file, whole or not at all; media and regions stay where they are."""
    rows: list[dict[str, Any]] = [
        {
            "prompt": fault.prompt,
            "sample": relative_to(path, fault.sample),
            "marked": fault.marked,
            "region": None if fault.region is None else relative_to(path, fault.region),
        }
        for fault in faults
    ]
    with whole_file(path) as unfinished:
        write_parquet(rows, unfinished, text=("prompt", "sample", "marked", "region"))
