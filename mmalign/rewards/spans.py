"""From what a critique says of pieces of a text to rewards of its tokens; characters first, tokens last."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError

SHORTEST = 2
"""Characters; shorter quotations are found everywhere and are skipped."""


@dataclass(frozen=True, order=True)
class Span:
    """A piece of a text, characters [start, end), with its score."""

    start: int
    end: int
    score: float


def find_quotation(
    text: str, quotation: str, *, least: float = 0.75, prefix_words: int = 10, prefix_least: float = 0.70
) -> tuple[int, int] | None:
    """Where a critique's quotation stands, though it may be quoted inexactly.

    Exactly if it can be; else the piece of as many words that matches best, by difflib's ratio; else the same of the
    quotation's first words.

    Args:
        text: what is criticised.
        quotation: what the critique quotes.
        least: the ratio that a match needs.
        prefix_words: how many first words are tried then.
        prefix_least: the ratio that these need.

    Returns:
        Start and end in characters; None where nothing matches, or the quotation has fewer than two characters.

    Source: Wang et al. 2025, Text2Grad (arXiv:2505.22338), in the form of its code.

    >>> find_quotation("a red car at night", "red  car")
    (2, 9)
    """
    quotation = quotation.strip()
    if len(quotation) < SHORTEST:
        return None
    at = text.find(quotation)
    if at >= 0:
        return at, at + len(quotation)
    prefix = " ".join(quotation.split()[:prefix_words])
    for wanted, ratio in ((quotation, least), (prefix, prefix_least)):
        found = _closest(text, wanted) if len(wanted) >= SHORTEST else None
        if found is not None and found[0] >= ratio:
            return found[1], found[2]
    return None


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Spans without overlap: what overlaps becomes one, with the lowest score; what only touches stays apart.

    Args:
        spans: in any order.

    Returns:
        In the order of the text.

    Raises:
        ConfigError: a span is empty or begins before the text.

    Source: Wang et al. 2025, Text2Grad (arXiv:2505.22338), in the form of its code.

    >>> merge_spans([Span(3, 8, 0.0), Span(0, 5, -1.0)])
    [Span(start=0, end=8, score=-1.0)]
    """
    merged: list[Span] = []
    for span in sorted(spans):
        if not 0 <= span.start < span.end:
            raise ConfigError(f"span {span.start} to {span.end}: expected 0 <= start < end")
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            span = Span(last.start, max(last.end, span.end), min(last.score, span.score))
        merged.append(span)
    return merged


def spans_to_tokens(
    spans: Iterable[Span], offsets: Sequence[tuple[int, int]], *, default: float = 0.0, centred: bool = False
) -> Tensor:
    """Scores of spans on the tokens that share a character with them.

    Args:
        spans: ``merge_spans`` is applied; a token that two spans meet in has the lower score.
        offsets: characters [start, end) of each token, as a tokenizer's ``return_offsets_mapping``; an empty pair
            (special tokens) is met by no span.
        default: of tokens without a span; 1 for code in the published runs, which favours length: then centre.
        centred: take the mean over the tokens that are not empty off them.

    Returns:
        [T]; empty tokens have 0 where ``centred``, else the default.

    Raises:
        ConfigError: a span is empty or begins before the text.

    Source: Wang et al. 2025, Text2Grad (arXiv:2505.22338); centring is ours.

    >>> spans_to_tokens([Span(2, 5, -1.0)], [(0, 1), (1, 5), (5, 9), (0, 0)])
    tensor([ 0., -1.,  0.,  0.])
    """
    merged = merge_spans(spans)
    scores = []
    for start, end in offsets:
        met = [span.score for span in merged if span.start < end and start < span.end and start < end]
        scores.append(min(met, default=default))
    rewards = torch.tensor(scores)
    if centred:
        real = torch.tensor([start < end for start, end in offsets], dtype=torch.bool)
        rewards = torch.where(real, rewards - rewards[real].mean(), torch.zeros_like(rewards))
    return rewards


def changed_token_labels(original: Sequence[str], changed: Sequence[str]) -> list[int]:
    """Labels of a caption that was made wrong on purpose: 0 on tokens that were changed, 1 on those that were kept.

    Replaced and inserted tokens are 0; so is the token after a deletion (the last one where the end was deleted).

    Args:
        original: tokens of the right text.
        changed: tokens of the wrong one.

    Returns:
        One label for each token of ``changed``.

    Source: Fu et al. 2024, TLDR: Token-Level Detective Reward Model (arXiv:2410.04734), for the idea; the rule is ours.

    >>> changed_token_labels("a red car".split(), "a blue car".split())
    [1, 0, 1]
    """
    labels = [1] * len(changed)
    blocks = difflib.SequenceMatcher(None, list(original), list(changed), autojunk=False).get_opcodes()
    for kind, _, _, start, end in blocks:
        if kind in ("replace", "insert"):
            labels[start:end] = [0] * (end - start)
        elif kind == "delete" and changed:
            labels[min(start, len(changed) - 1)] = 0
    return labels


def _closest(text: str, wanted: str) -> tuple[float, int, int] | None:
    """Best ratio of a piece of as many words as are wanted, where it begins and ends; of equals the first."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    count = max(1, len(wanted.split()))
    best: tuple[float, int, int] | None = None
    matcher = difflib.SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted)
    for first in range(max(0, len(words) - count + 1)):
        start, end = words[first][0], words[first + count - 1][1]
        matcher.set_seq1(text[start:end])
        floor = best[0] if best else 0.0
        if matcher.real_quick_ratio() > floor and matcher.quick_ratio() > floor and matcher.ratio() > floor:
            best = matcher.ratio(), start, end
    return best
