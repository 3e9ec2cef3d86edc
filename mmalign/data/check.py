"""Looks a preference file over before hours are spent on it: counts, repetitions, what is missing, what leaks."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmalign.data.pairs import Pair
from mmalign.data.schemas import media_of, read_what_can_be
from mmalign.data.tables import read_records
from mmalign.errors import DataError

NAMES = ("prompt", "caption", "captions", "text")
"""Columns of prompts, the first that a table has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a preference file holds."""

    schema: str
    rows: int
    """In the file: ``used + rejected``."""
    used: int
    rejected: tuple[DataError, ...]
    """One for each row that cannot be used, with row and column."""
    missing_media: int
    """Rejected rows that name a file that is not there."""
    prompts: int
    media: int
    """Different files."""
    repeated_rows: int
    """Rows that say what an earlier row said."""
    same_content: int
    """Files whose bytes are those of an earlier file under another name."""
    contradictions: int
    """Pairs whose two sides stand the other way round in an earlier row of the same aspect, or are one file."""

    @property
    def sound(self) -> bool:
        """Whether every row can be used and none contradicts another."""
        return not self.rejected and not self.contradictions


def check_preferences(path: Path) -> Findings:
    """Look a table of preferences over; see :class:`Findings`.

    Raises:
        DataError: it cannot be read, has no rows, or is no table of preferences.
    """
    schema, used, rejected = read_what_can_be(path)
    entries = [entry for _, _, entry in used]
    files = dict.fromkeys(file for entry in entries for file in media_of(schema, entry))
    digests = Counter(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return Findings(
        schema=schema.name,
        rows=len(used) + len(rejected),
        used=len(used),
        rejected=tuple(rejected),
        missing_media=sum("no such file" in str(error) for error in rejected),
        prompts=len({entry.prompt for entry in entries}),
        media=len(files),
        repeated_rows=len(entries) - len(set(entries)),
        same_content=sum(count - 1 for count in digests.values()),
        contradictions=_contradictions(entry for entry in entries if isinstance(entry, Pair)),
    )


def _contradictions(pairs: Iterable[Pair]) -> int:
    seen: set[tuple[str, Path, Path, str | None]] = set()
    found = 0
    for pair in pairs:
        back = (pair.prompt, pair.rejected, pair.chosen, pair.aspect)
        found += pair.chosen == pair.rejected or back in seen
        seen.add((pair.prompt, pair.chosen, pair.rejected, pair.aspect))
    return found


def plain_prompt(prompt: str) -> str:
    """A prompt without what does not make it another one: case, spaces, a full stop at the end.

    >>> plain_prompt("  A red   Circle. ")
    'a red circle'
    """
    return " ".join(prompt.casefold().split()).rstrip(".").rstrip()


def read_prompts_of(path: Path) -> list[str]:
    """The prompts of a table, or of a text file with one a line.

    Raises:
        DataError: it cannot be read, or no column holds prompts.
    """
    if path.suffix.lower() == ".txt":
        try:
            return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read ({error})", file=path) from None
    rows = list(read_records(path))
    column = next((name for name in NAMES if any(name in row for row in rows)), None)
    if column is None:
        raise DataError(f"no column holds prompts; known: {', '.join(NAMES)}", file=path)
    return [row[column] for row in rows if isinstance(row.get(column), str) and row[column].strip()]


def leaked_prompts(first: Path, second: Path) -> list[str]:
    """Prompts of the first file that the second has too, but for case and spaces, each once.

    Raises:
        DataError: a file cannot be read, or holds no prompts.
    """
    known = {plain_prompt(prompt) for prompt in read_prompts_of(second)}
    return list(dict.fromkeys(p for p in read_prompts_of(first) if plain_prompt(p) in known))
