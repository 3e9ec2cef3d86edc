"""Reads what a judge wrote, strictly: an answer that does not say one thing plainly is none, and never a number."""

import re
from collections.abc import Sequence

from mmalign.rewards.vlm_questions import LIKERT_WORDS, Scale

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_LABELLED = re.compile(
    rf"\b(?:score|rating|overall)\b[\s\"'*_:=-]*(?:is\s+|of\s+)?[\"'*_]*({_NUMBER}|{'|'.join(NUMBER_WORDS)})\b"
    r"(?:\s*/\s*(\d+))?"
)


def parse_number(text: str, scale: Scale) -> float | None:
    """The score that an answer states.

    The last number that follows "score", "rating" or "overall"; without such a word, the only number there is. "8/10"
    counts where the scale ends at 10. Number words up to ten count.

    >>> parse_number("Clarity 3. Score: 8/10", Scale(1, 10)), parse_number("11", Scale(1, 10))
    (8.0, None)

    Args:
        text: the whole answer.
        scale: what the judge was asked for; a number outside of it is none.

    Returns:
        None where no score, or more than one, could be meant.
    """
    text = text.lower().strip()
    labelled = _LABELLED.findall(text)
    if labelled:
        number, ceiling = labelled[-1]
    else:
        found = re.findall(rf"(?<![\w.])({_NUMBER}|{'|'.join(NUMBER_WORDS)})\b(?:\s*/\s*(\d+))?", text)
        if len(found) != 1:
            return None
        number, ceiling = found[0]
    if ceiling and int(ceiling) != scale.high:
        return None
    value = float(NUMBER_WORDS.index(number)) if number in NUMBER_WORDS else float(number)
    return value if scale.low <= value <= scale.high else None


def parse_likert(text: str, words: Sequence[str] = LIKERT_WORDS) -> int | None:
    """The level that an answer names, from 1; longer names are looked for first, since "poor" ends "extremely poor".

    >>> parse_likert("Extremely Poor."), parse_likert("I would say good, not average"), parse_likert("fine")
    (1, None, None)

    Args:
        text: the whole answer.
        words: from worst to best.

    Returns:
        None where no level, or more than one, is named.
    """
    rest, found = text.lower(), set()
    for word in sorted(words, key=len, reverse=True):
        pattern = rf"\b{re.escape(word.lower())}\b"
        if re.search(pattern, rest):
            found.add(words.index(word) + 1)
            rest = re.sub(pattern, " ", rest)
    return found.pop() if len(found) == 1 else None


def parse_verdict(text: str) -> int | None:
    """Which of two media an answer prefers: 0 the first, 1 the second, 2 neither.

    >>> parse_verdict("2"), parse_verdict("The first."), parse_verdict("0"), parse_verdict("1 or 2")
    (1, 0, 2, None)

    Returns:
        None where no verdict, or more than one, is given.
    """
    names = {0: ("1", "first"), 1: ("2", "second"), 2: ("0", "-1", "neither", "tie")}
    text = re.sub(r"(?<!\w)-1\b", "neither", text.lower())
    found = {
        verdict
        for verdict, words in names.items()
        if any(re.search(rf"\b{re.escape(word)}\b", text) for word in words if word != "-1")
    }
    return found.pop() if len(found) == 1 else None
