"""Looks a preference file over before hours are spent on it: counts, repetitions, what is missing, what leaks."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmalign.data.pairs import Pair
from mmalign.data.prompts import read_prompt_file
from mmalign.data.schemas import media_of, read_what_can_be
from mmalign.errors import DataError
from mmalign.texts import plain_prompt


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
    digests = Counter(filter(None, map(_digest, files)))
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


def _digest(file: Path) -> bytes | None:
    """Of the content; None where it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None


def _contradictions(pairs: Iterable[Pair]) -> int:
    seen: set[tuple[str, Path, Path, str | None]] = set()
    found = 0
    for pair in pairs:
        back = (pair.prompt, pair.rejected, pair.chosen, pair.aspect)
        found += pair.chosen == pair.rejected or back in seen
        seen.add((pair.prompt, pair.chosen, pair.rejected, pair.aspect))
    return found


def leaked_prompts(first: Path, second: Path) -> list[str]:
    """Prompts of the first file that the second has too in their normal form, each once.

    Raises:
        DataError: a file cannot be read, or holds no prompts.
    """
    known = {plain_prompt(prompt) for prompt in read_prompt_file(second, skip_faults=True)}
    return list(
        dict.fromkeys(p for p in read_prompt_file(first, skip_faults=True) if plain_prompt(p) in known)
    )
