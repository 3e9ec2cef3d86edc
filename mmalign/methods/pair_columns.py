"""What a file of pairs says beside their order: margins, strengths, who said so, and of what aspect."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.data.pairs import Pair
from mmalign.losses.bradley_terry import strength_weights

TERMS = {"margin": "margin", "strength": "weight"}
"""Columns that change a loss, and the argument of a ``pair_loss`` that takes each."""


@dataclass(frozen=True, eq=False)
class PairColumns:
    """Columns of N pairs; None for one that no pair has.

    Args:
        margin: [N], how much better the chosen side is, in the scorer's unit; NaN where a pair says none.
        strength: [N], how sure the annotator was, in (0, 1]; NaN where a pair says none.
        weight: [N], the strengths with mean 1 over the whole file, a pair that says none counted as 1 before.
        annotator: [N], index into ``annotators``, -1 where a pair names nobody.
        annotators: names.
        aspect: [N], index into ``aspects``, -1 for the whole.
        aspects: names.
    """

    margin: Tensor | None = None
    strength: Tensor | None = None
    weight: Tensor | None = None
    annotator: Tensor | None = None
    annotators: tuple[str, ...] = ()
    aspect: Tensor | None = None
    aspects: tuple[str, ...] = ()

    def rows(self, rows: Tensor | slice) -> "PairColumns":
        """Those of some pairs."""
        of_rows = ("margin", "strength", "weight", "annotator", "aspect")
        found = {name: getattr(self, name) for name in of_rows}
        picked: dict[str, Any] = {name: None if c is None else c[rows] for name, c in found.items()}
        return replace(self, **picked)


def columns_of(pairs: Sequence[Pair]) -> PairColumns:
    """The columns of pairs, in their order."""
    strength = _numbers([pair.strength for pair in pairs])
    annotator, annotators = _names([pair.annotator for pair in pairs])
    aspect, aspects = _names([pair.aspect for pair in pairs])
    return PairColumns(
        margin=_numbers([pair.margin for pair in pairs]),
        strength=strength,
        weight=None if strength is None else strength_weights(strength.nan_to_num(1.0)),
        annotator=annotator,
        annotators=annotators,
        aspect=aspect,
        aspects=aspects,
    )


def _numbers(values: Sequence[float | None]) -> Tensor | None:
    if all(value is None for value in values):
        return None
    return torch.tensor([float("nan") if value is None else value for value in values])


def _names(values: Sequence[str | None]) -> tuple[Tensor | None, tuple[str, ...]]:
    names = tuple(dict.fromkeys(value for value in values if value is not None))
    if not names:
        return None, ()
    return torch.tensor([-1 if value is None else names.index(value) for value in values]), names


def terms_of(
    pair_loss: Callable[..., Any], columns: PairColumns, *, margin_scale: float
) -> dict[str, Tensor]:
    """The arguments that a loss of pairs takes of the columns: it takes those that it names.

    Args:
        pair_loss: a method's ``pair_loss``.
        columns: of the batch.
        margin_scale: log odds per unit of the margins; at 0 they are not used.
    """
    taken = inspect.signature(pair_loss).parameters
    terms = {}
    if columns.margin is not None and margin_scale and "margin" in taken:
        terms["margin"] = margin_scale * columns.margin.nan_to_num(0.0)
    if columns.weight is not None and "weight" in taken:
        terms["weight"] = columns.weight
    return terms


def unused_columns(pair_loss: Callable[..., Any], columns: PairColumns, *, margin_scale: float) -> list[str]:
    """One line for each column that a file has and the loss does not read, with the way to have it read."""
    used = terms_of(pair_loss, columns, margin_scale=margin_scale)
    taken = inspect.signature(pair_loss).parameters
    said = []
    for column, term in TERMS.items():
        if getattr(columns, column) is None or term in used:
            continue
        way = " (--method.margin-scale reads it)" if column == "margin" and "margin" in taken else ""
        said.append(f"the column {column} is not read by this loss{way}")
    return said
