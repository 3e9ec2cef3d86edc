"""Scores taken apart and put together, sample by sample."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from mmalign.rewards.base import OK, Score, TokenScores

T = TypeVar("T")


def without_score(status: Sequence[str]) -> Score:
    """The score of B samples none of which could be scored.

    >>> without_score(["no media"]).value
    tensor([nan])
    """
    return Score(torch.full((len(status),), math.nan), list(status))


def join_scores(parts: Sequence[Score]) -> Score:
    """Scores of batches as one, in order, on the CPU; what a part does not have is NaN or empty there.

    >>> join_scores([Score(torch.ones(1), ["ok"]), without_score(["no prompt"])]).value
    tensor([1., nan])

    Args:
        parts: of one reward.

    Returns:
        Values, statuses, stds, aspects, tokens and texts of all; regions too, where they have one size, and 0 where a
        part has none.
    """

    def joined(pick: Callable[[Score], Tensor | None]) -> Tensor | None:
        found = [pick(part) for part in parts]
        if all(values is None for values in found):
            return None
        gaps = [torch.full((len(part.status),), math.nan) for part in parts]
        return torch.cat([g if v is None else v.cpu() for v, g in zip(found, gaps, strict=True)])

    names = dict.fromkeys(name for part in parts for name in part.aspects)
    aspects = {name: joined(lambda part, name=name: part.aspects.get(name)) for name in names}  # type: ignore[misc]
    value = joined(lambda part: part.value)
    return Score(
        value=torch.zeros(0) if value is None else value,
        status=[entry for part in parts for entry in part.status],
        std=joined(lambda part: part.std),
        aspects={name: values for name, values in aspects.items() if values is not None},
        tokens=_listed([part.tokens for part in parts], parts, TokenScores((), ())),
        regions=_joined_regions(parts),
        text=_listed([part.text for part in parts], parts, ""),
        parts=_joined_parts(parts),
    )


def _joined_parts(scores: Sequence[Score]) -> tuple[Score, ...]:
    """Of a composed reward; of scores that lack them, nobody's."""
    count = max((len(score.parts) for score in scores), default=0)
    return tuple(
        join_scores(
            [
                score.parts[k] if score.parts else without_score(["no score"] * len(score.status))
                for score in scores
            ]
        )
        for k in range(count)
    )


def _joined_regions(parts: Sequence[Score]) -> Tensor | None:
    sizes = {tuple(part.regions.shape[1:]) for part in parts if part.regions is not None}
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    return torch.cat(
        [
            torch.zeros(len(part.status), *size) if part.regions is None else part.regions.float().cpu()
            for part in parts
        ]
    )


def _listed(found: Sequence[list[T] | None], parts: Sequence[Score], empty: T) -> list[T] | None:
    if all(entries is None for entries in found):
        return None
    return [
        entry
        for entries, part in zip(found, parts, strict=True)
        for entry in (entries if entries is not None else [empty] * len(part.status))
    ]


def pick(score: Score, rows: Sequence[int]) -> Score:
    """The score of some of the samples, in this order.

    >>> pick(Score(torch.tensor([1.0, 2.0]), ["ok", "ok"]), [1]).value
    tensor([2.])
    """
    where = list(rows)
    return Score(
        score.value[where],
        [score.status[i] for i in where],
        std=None if score.std is None else score.std[where],
        aspects={name: values[where] for name, values in score.aspects.items()},
        tokens=None if score.tokens is None else [score.tokens[i] for i in where],
        regions=None if score.regions is None else score.regions[where],
        text=None if score.text is None else [score.text[i] for i in where],
        parts=tuple(pick(part, where) for part in score.parts),
    )


def place(status: Sequence[str], score: Score) -> Score:
    """A whole score from that of the samples that could be scored.

    >>> place(["no media", "ok"], Score(torch.ones(1), ["ok"])).value
    tensor([nan, 1.])

    Args:
        status: B times "ok", or why this sample was left out.
        score: of those with "ok", in order; what it says of them stays.
    """
    rows = iter(range(len(score.status)))
    return join_scores(
        [pick(score, [next(rows)]) if entry == OK else without_score([entry]) for entry in status]
    )
