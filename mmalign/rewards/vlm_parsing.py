"""Reads what a judge wrote, strictly: an answer that does not say one thing plainly is none, and never a number."""

import re
from collections.abc import Sequence

from mmalign.answers import FILLER, Clause, clauses, named, said, word_set, words_of
from mmalign.rewards.vlm_questions import LIKERT_WORDS, Scale
from mmalign.texts import normal

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LABELS = word_set("answer gave give grade mark overall rate rated rating score verdict")
"""Words that say of the number after them that it is the score."""
FINAL = word_set("final overall total")
VERDICTS = {"1": 0, "first": 0, "2": 1, "second": 1, "0": 2, "-1": 2, "neither": 2, "tie": 2}
_REVERSED = word_set("worse worst loses lose inferior weaker wrong")
_BOUNDS = word_set("best highest lowest max maximum min minimum perfect possible top")
_DOUBT = word_set(
    "above actually almost at below between can't cannot could don't half if isn't least less may maybe "
    "might more most nearly neither no nor not or over perhaps possibly probably quarter rather than to "
    "under unless up wait without"
)
_RUN = re.compile(r"(?<![\w.,-])[-+]?[.,]?\d(?:[\d.,]*\d)?")
_SCORE = re.compile(
    r"(?P<number>[-+]?\d+(?:\.\d+)?)(?:\s*(?:/|out of|of)\s*(?P<ceiling>\d+(?:\.\d+)?))?(?P<percent>\s*%)?"
)


def parse_number(text: str, scale: Scale) -> float | None:
    """The score that an answer states.

    A clause states it that is nothing but a number, or a number after "score", "rating", "overall" and the like, with
    "/10" or "out of 10" where the scale ends at 10. What is called final or overall counts before what is called a
    score, and that before the score of something. All that count alike have to agree. Ranges, decimal commas, numbers
    of other scales, and numbers that a word makes doubtful ("not", "or", "at least") are none; so is a number of
    something else, as in "3 stars, none red". Number words up to ten count, and digits of every script.

    >>> parse_number("Clarity 3. Score: 8/10", Scale(1, 10)), parse_number("11", Scale(1, 10))
    (8.0, None)
    >>> parse_number("Score: 3-4", Scale(1, 5)), parse_number("Score: -3", Scale(-5, 5))
    (None, -3.0)

    Args:
        text: the whole answer.
        scale: what the judge was asked for; a number outside of it is none.

    Returns:
        None where no score, or more than one, could be meant.
    """
    plain = _without_scale(_in_digits(said(text)), scale)
    if plain is None or (scale.low < 0 and re.search(r"-\s+[\d.]", plain)):  # a dash or a minus
        return None
    pieces = list(clauses(plain))
    found: dict[int, set[float | None]] = {}
    for clause in pieces:
        rank = _rank(clause, alone=len(pieces) == 1)
        if rank is not None:
            found.setdefault(rank, set()).add(_value(clause.text, scale))
    best = found[min(found)] if found else set()
    value = best.pop() if len(best) == 1 else None
    return value if value is not None and scale.low <= value <= scale.high else None


def parse_likert(text: str, words: Sequence[str] = LIKERT_WORDS) -> int | None:
    """The level that an answer names, from 1; longer names are looked for first, since "poor" ends "extremely poor".

    >>> parse_likert("Extremely Poor."), parse_likert("I would say good, not average"), parse_likert("Not good.")
    (1, None, None)

    Args:
        text: the whole answer.
        words: from worst to best.

    Returns:
        None where no level, or more than one, is named plainly; see :func:`mmalign.answers.named`.
    """
    return named(text, {normal(word): level for level, word in enumerate(words, 1)})


def parse_verdict(text: str) -> int | None:
    """Which of two media an answer prefers: 0 the first, 1 the second, 2 neither.

    >>> parse_verdict("2"), parse_verdict("The first."), parse_verdict("0"), parse_verdict("1 or 2")
    (1, 0, 2, None)

    Returns:
        None where no verdict, or more than one, is given plainly; see :func:`mmalign.answers.named`.
    """
    return None if words_of(said(text)) & _REVERSED else named(text, VERDICTS)


def _in_digits(text: str) -> str:
    """Number words as digits, and "minus" before them as a sign."""
    for number, word in enumerate(NUMBER_WORDS):
        text = re.sub(rf"(?<![\w.,'-]){word}(?![\w'-])", str(number), text)
    return re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", text)


def _without_scale(text: str, scale: Scale) -> str | None:
    """An answer without what repeats the scale; None where it speaks of another one."""
    bounds = r"(-?\d+)\s*(?:-|to|and)\s*(-?\d+)"
    forms = (
        rf",?\s*(?:on|in|using)?\s*(?:an?|the)?\s*\bscale\s*(?:of|from|between|:)?\s*\(?{bounds}\)?",
        rf"\(\s*(?:scale|from|out of)?\s*{bounds}(?:\s*scale)?\s*\)",
        rf",?\s*on\s+(?:an?|the)\s+{bounds}\s+scale",
        r",?\s*on\s+(?:an?|the)\s+(\d+)[- ](point)\s+scale",
    )
    for form in forms:
        for low, high in re.findall(form, text):
            if (
                (int(low) != scale.high)
                if high == "point"
                else ((int(low), int(high)) != (scale.low, scale.high))
            ):
                return None
        text = re.sub(form, "", text)
    return None if re.search(r"\bscale\b[^.\n]*\d|\d[^.\n]*\bscale\b", text) else text


def _rank(clause: Clause, *, alone: bool) -> int | None:
    """How much a clause with a number counts: 0 the most; -1 makes all doubtful; None does not count."""
    number = _RUN.search(clause.text)
    if number is None:
        return None
    text = re.sub(r"\bout of\b|\d\s*of(?=\s*\d)|(?:stars?|points?)$", "", clause.text)
    known = re.findall(r"[^\W\d][\w']*", text)
    if not known:
        listed = clause.end in (".", ")", "-") and clause.goes_on  # "1. Colours: ..."
        return 1 if alone or (not listed and text == clause.text) or "/" in text else None
    if set(known) <= FILLER | LABELS | _DOUBT and set(known) & _DOUBT:
        return -1
    before = re.findall(r"[^\W\d][\w']*", clause.text[: number.start()])
    labels = [place for place, word in enumerate(before) if word in LABELS]
    if not labels or set(before) & _BOUNDS:
        return None
    return 0 if set(before) & FINAL else 1 if set(before) <= FILLER | LABELS else 2


def _value(text: str, scale: Scale) -> float | None:
    """The number that a clause states, None where it is none of this scale, or anything stands beside it."""
    label = max((m.end() for m in re.finditer(r"[^\W\d][\w']*", text) if m.group() in LABELS), default=0)
    number = _RUN.search(text)
    if number is None or words_of(text) & _DOUBT:
        return None
    between = text[label : number.start()]
    if not words_of(between) <= FILLER or set(re.sub(r"[\w']", "", between)) - set(" :=-,"):  # ">", "~"
        return None
    found = _SCORE.fullmatch(re.sub(r"\s*(?:stars?|points?|overall)$", "", text[number.start() :]))
    if found is None:
        return None
    if found["ceiling"] and float(found["ceiling"]) != scale.high:
        return None
    if found["percent"] and (found["ceiling"] or (scale.low, scale.high) != (0, 100)):
        return None
    return float(found["number"])
