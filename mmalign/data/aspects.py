"""Which aspect of a table is meant, and one rating of each sample where several people gave some."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from mmalign.data.ratings import Rating
from mmalign.data.tables import listing
from mmalign.errors import ConfigError, DataError, UnknownNameError

WHOLE = "overall"
"""The name of what was said of the whole, where no aspect is named."""
ALL = "all"


class Aspected(Protocol):
    """What may be of one aspect: a pair, a ranking, a rating, a label."""

    @property
    def aspect(self) -> str | None:
        """None for the whole."""


E = TypeVar("E", bound=Aspected)


def names_of(entries: Iterable[Aspected]) -> tuple[str, ...]:
    """The aspects that entries are of, each once, in their order."""
    return tuple(dict.fromkeys(entry.aspect or WHOLE for entry in entries))


def of_aspect(entries: Sequence[E], aspect: str | None, path: Path) -> list[E]:
    """The entries of one aspect.

    Args:
        entries: of a table.
        aspect: its name; "all" for every one; None where the table has one only.
        path: of the table.

    Raises:
        ConfigError: the table has several aspects, and none was named.
        DataError: it has none of this name.
    """
    names = names_of(entries)
    if aspect is None and len(names) > 1:
        raise ConfigError(
            f"{path} has the aspects {listing(names)}, which may say opposite things of one sample; choose with "
            "--aspect NAME, or --aspect all"
        )
    if aspect in (None, ALL):
        return list(entries)
    if aspect not in names:
        raise DataError(str(UnknownNameError("aspect", str(aspect), names)), file=path)
    return [entry for entry in entries if (entry.aspect or WHOLE) == aspect]


def one_of_each(ratings: Sequence[Rating]) -> list[Rating]:
    """Each sample of each prompt once, with the mean of its ratings: one that many people rated counts as one.

    >>> one = Rating("a", Path("a.png"), 1.0, annotator="Ann")
    >>> [rating.score for rating in one_of_each([one, replace(one, score=4.0, annotator="Bob")])]
    [2.5]
    """
    groups: dict[tuple[str, Path], list[Rating]] = {}
    for rating in ratings:
        groups.setdefault((rating.prompt, rating.sample), []).append(rating)
    found = []
    for group in groups.values():
        scores = [rating.score for rating in group if rating.score is not None]
        one = group[0]
        found.append(one if len(group) == 1 else replace(one, score=statistics.fmean(scores), annotator=None))
    return found
