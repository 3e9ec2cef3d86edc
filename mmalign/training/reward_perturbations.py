"""Captions made wrong on purpose, one attribute each, with a label for every word: hard negatives of a token head."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmalign.errors import DataError
from mmalign.rewards.spans import changed_token_labels

Groups = Sequence[Sequence[str]]

GROUPS: Groups = (
    ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown", "black", "white", "grey"),
    ("small", "large"),
    ("tiny", "huge"),
    ("little", "big"),
    ("one", "two", "three", "four", "five", "six"),
    ("left", "right"),
    ("above", "below"),
    ("in front of", "behind"),
    ("inside", "outside"),
    ("circle", "square", "triangle", "star"),
    ("cube", "sphere", "cylinder", "cone"),
    ("wooden", "metal", "plastic", "glass"),
    ("old", "young"),
    ("man", "woman"),
    ("boy", "girl"),
    ("cat", "dog", "horse", "bird"),
    ("car", "bus", "bicycle", "train"),
)
"""Words of which one may stand for another, and the sentence stays one, but is no longer true."""


@dataclass(frozen=True)
class Perturbed:
    """A caption with one attribute exchanged.

    Args:
        text: the wrong caption.
        labels: for each word of ``pieces(text)`` whether it is still right.
    """

    text: str
    labels: tuple[bool, ...]


def read_groups(path: Path) -> Groups:
    """Groups of a text file: one a line, words or phrases with commas between; empty lines and # comments are skipped.

    Raises:
        DataError: no such file, a group of one, or a word that is in two of them.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", file=path) from None
    groups, known = [], set[str]()
    for number, line in enumerate(lines, 1):
        words = [word.strip().lower() for word in line.partition("#")[0].split(",") if word.strip()]
        if not words:
            continue
        if len(words) < 2:
            raise DataError(f"'{words[0]}' has nothing that could stand for it", file=path, row=number)
        for word in words:
            if word in known:
                raise DataError(f"'{word}' is in two groups", file=path, row=number)
            known.add(word)
        groups.append(tuple(words))
    if not groups:
        raise DataError("no groups of words in it", file=path)
    return groups


class Perturber:
    """Exchanges one word or phrase of a caption for another of its group.

    The longest phrase is meant where two begin at one place, so that "in front of" is not taken for "in".

    Args:
        groups: of words or phrases in lower case.
    """

    def __init__(self, groups: Groups = GROUPS) -> None:
        self._group = {word: group for group in groups for word in group}
        longest = sorted(self._group, key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b", re.IGNORECASE)

    def attributes(self, caption: str) -> list[bool]:
        """For each word of ``pieces(caption)`` whether it is part of something that can be exchanged."""
        found = [match.span() for match in self._pattern.finditer(caption)]
        return [any(a < end and start < b for a, b in found) for start, end in _places(caption)]

    def __call__(self, caption: str, generator: torch.Generator) -> Perturbed | None:
        """The caption with one attribute exchanged; None where it has none.

        A word is wrong where it differs from what stood in its place. Of a phrase, only words that changed are, and one
        before which something is missing, as ``changed_token_labels`` has it.
        """
        found = list(self._pattern.finditer(caption))
        if not found:
            return None
        match = found[_draw(len(found), generator)]
        old = match.group()
        others = [word for word in self._group[old.lower()] if word != old.lower()]
        new = others[_draw(len(others), generator)]
        if old[:1].isupper():
            new = new[:1].upper() + new[1:]
        text = caption[: match.start()] + new + caption[match.end() :]
        wrong, at = [], match.start()
        for word, kept in zip(new.split(), changed_token_labels(old.split(), new.split()), strict=True):
            at = text.index(word, at)
            if not kept:
                wrong.append((at, at + len(word)))
            at += len(word)
        labels = [not any(a < end and start < b for a, b in wrong) for start, end in _places(text)]
        return Perturbed(text, tuple(labels))


def _places(text: str) -> list[tuple[int, int]]:
    """Characters [start, end) of each word."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
