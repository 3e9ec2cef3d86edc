"""Preference pairs: read from a user's file, made from scored samples, and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mmalign.data.cells import medium_of, number_of, optional_text_of, relative_to, share_of, text_of
from mmalign.data.tables import Record, brief, read_records
from mmalign.data.writers import write_parquet
from mmalign.errors import DataError, ShapeError
from mmalign.files import whole_file

Tie = Literal["tie", "both_bad"]
TIES: tuple[Tie, ...] = get_args(Tie)
"""What the column ``verdict`` says where neither side is better: both are as good, or both are bad."""
CHOSEN = "chosen"
"""What the column ``verdict`` says, or nothing, where one side is better."""

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """One judgement of two media of one prompt: a preference, or a tie.

    Args:
        prompt: what both were made for.
        chosen: file of the better one.
        rejected: file of the other.
        margin: how much better, in the scorer's unit, at least 0.
        strength: how sure the annotator was, in (0, 1]; a row with 0 has no verdict yet and is no preference.
        annotator: who said so.
        source: which data or reward it comes from.
        aspect: what was compared; None for the whole.
        verdict: None for a preference; where neither side is better, which of ``TIES``, and the order says nothing.
    """

    prompt: str
    chosen: Path
    rejected: Path
    margin: float | None = None
    strength: float | None = None
    annotator: str | None = None
    source: str | None = None
    aspect: str | None = None
    verdict: Tie | None = None


TEXTS = ("prompt", "chosen", "rejected", "annotator", "source", "aspect", "verdict")
UNLABELLED = 0.0
"""The ``strength`` of two media that nobody has put in order yet, as ``mmalign pairs --select`` writes them."""
OPTIONAL = ("strength", "annotator", "source", "aspect", "verdict")
"""Columns that are only written where some pair has them."""
COLUMNS = ("margin", *OPTIONAL)
"""What may stand beside a pair."""


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What a table of pairs holds for a method that needs an order: rows = pairs + rejected.

    Args:
        pairs: in which one side is better.
        rejected: ties, each with its row.
    """

    pairs: tuple[Pair, ...]
    rejected: tuple[DataError, ...]

    @property
    def rows(self) -> int:
        """Of the table."""
        return len(self.pairs) + len(self.rejected)

    @property
    def aspects(self) -> tuple[str | None, ...]:
        """That were compared, None for the whole, each once."""
        return tuple(dict.fromkeys(pair.aspect for pair in self.pairs))


def read_judgements(path: Path) -> list[Pair]:
    """All rows of a table of pairs, ties too.

    Raises:
        DataError: as ``read_preferences``, but for ties.
    """
    rows = list(read_records(path))
    if not rows:
        raise DataError("no pairs in it", file=path)
    return [pair_of(row, path, number) for number, row in enumerate(rows, 1)]


def read_preferences(path: Path) -> Preferences:
    """The pairs of a table with the columns ``prompt, chosen, rejected``, those without an order apart.

    ``margin, strength, annotator, source, aspect`` and ``verdict`` may stand beside them. Media are paths relative to
    the file.

    Raises:
        DataError: no rows, a missing column or value, one out of its range, or a medium that does not exist, with row
            and column; or ties alone.
    """
    found = read_judgements(path)
    ties = tuple(
        DataError(f"is no order: {pair.verdict.replace('_', ' ')}", file=path, row=number, column="verdict")
        for number, pair in enumerate(found, 1)
        if pair.verdict is not None
    )
    if len(ties) == len(found):
        raise DataError(f"none of its {len(ties)} rows says which side is better: all are ties", file=path)
    return Preferences(pairs=tuple(pair for pair in found if pair.verdict is None), rejected=ties)


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of ``read_preferences`` in which one side is better.

    Raises:
        DataError: as ``read_preferences``.
    """
    return list(read_preferences(path).pairs)


def pair_of(row: Record, path: Path, number: int) -> Pair:
    """One row of a table of pairs.

    Raises:
        DataError: a missing value, one out of its range, a medium that does not exist, or a pair that nobody has
            judged, with row and column.
    """
    refuse_unlabelled(row, path, number)
    prompt = text_of(row, "prompt", path, number)
    chosen, rejected = (medium_of(row, column, path, number) for column in ("chosen", "rejected"))
    annotator, source, aspect = (
        optional_text_of(row, column, path, number) for column in ("annotator", "source", "aspect")
    )
    margin = number_of(row, "margin", path, number)
    if margin is not None and margin < 0:
        raise DataError(
            f"expected how much better the chosen side is, at least 0, got {margin:g}; swap the sides",
            file=path,
            row=number,
            column="margin",
        )
    strength = share_of(row, "strength", path, number)
    return Pair(
        prompt, chosen, rejected, margin, strength, annotator, source, aspect, _tie_of(row, path, number)
    )


def _tie_of(row: Record, path: Path, number: int) -> Tie | None:
    verdict = optional_text_of(row, "verdict", path, number)
    if verdict in (None, CHOSEN):
        return None
    if verdict not in TIES:
        raise DataError(
            f"expected {', '.join((CHOSEN, *TIES))} or nothing, got {brief(verdict)}",
            file=path,
            row=number,
            column="verdict",
        )
    return verdict


def refuse_unlabelled(row: Record, path: Path, number: int) -> None:
    """Let no pair that waits for a verdict pass for a preference.

    Raises:
        DataError: its ``strength`` is 0, with row and column.
    """
    if number_of(row, "strength", path, number) == UNLABELLED:
        raise DataError(
            "nobody has labelled this pair yet (strength 0); put its two media in order and say how sure you are",
            file=path,
            row=number,
            column="strength",
        )


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a parquet file of pairs, whole or not at all, with media paths relative to it."""
    more = [name for name in OPTIONAL if any(getattr(p, name) is not None for p in pairs)]
    rows = [
        {
            "prompt": p.prompt,
            "chosen": relative_to(path, p.chosen),
            "rejected": relative_to(path, p.rejected),
            "margin": p.margin,
            **{name: getattr(p, name) for name in more},
        }
        for p in pairs
    ]
    with whole_file(path) as unfinished:
        write_parquet(rows, unfinished, text=TEXTS)


def best_against_worst(scores: "Tensor", *, pairs_per_group: int = 1) -> list[tuple[int, int, int]]:
    """Pairs inside each prompt's group: best against worst, second best against second worst, and so on.

    Samples without a score (NaN) take no part, and no pair is made of equal scores.

    Args:
        scores: [P, G], G samples for each of P prompts.
        pairs_per_group: at most this many for each prompt.

    Returns:
        (prompt, chosen, rejected) as indices into P, G, G.

    Raises:
        ShapeError: ``scores`` is not [P, G] with G >= 2.

    >>> import torch
    >>> best_against_worst(torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3], [0.2, float("nan"), 0.4]]))
    [(0, 1, 0), (2, 2, 0)]
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ShapeError(f"scores: expected [P, G] with G >= 2, got {list(scores.shape)}")
    pairs = []
    for prompt, group in enumerate(scores.tolist()):
        order = sorted((i for i, score in enumerate(group) if score == score), key=lambda i: -group[i])
        for rank in range(min(pairs_per_group, len(order) // 2)):
            chosen, rejected = order[rank], order[-1 - rank]
            if group[chosen] > group[rejected]:
                pairs.append((prompt, chosen, rejected))
    return pairs
