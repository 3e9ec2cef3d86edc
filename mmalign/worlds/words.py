"""How a world reads its own captions, and how it makes some of them wrong at random."""

import re
from collections.abc import Collection, Sequence

import torch


def named_once(text: str, words: Collection[str]) -> str | None:
    """The one of ``words`` that a text names, or None where it names none or two.

    >>> named_once("a red star", ("red", "blue")), named_once("a red and blue star", ("red", "blue"))
    ('red', None)
    """
    found = [word for word in words if re.search(rf"\b{word}\b", text.lower())]
    return found[0] if len(found) == 1 else None


def redraw(values: Sequence[str], kept: str, generator: torch.Generator, *, noise: float) -> str:
    """A value that is, with probability ``noise``, drawn anew from all; how embedded generators are left imperfect."""
    if float(torch.rand((), generator=generator)) >= noise:
        return kept
    return values[draw(len(values), generator)]


def draw(count: int, generator: torch.Generator) -> int:
    """A number from 0 to ``count`` - 1."""
    return int(torch.randint(count, (), generator=generator))
