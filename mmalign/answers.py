"""What somebody answered in words, read strictly: one plain statement, or none. A guess would be a wrong number."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from mmalign.texts import latin_digits, normal

T = TypeVar("T")


def word_set(words: str) -> frozenset[str]:
    """Words of a line."""
    return frozenset(words.split())


FILLER = word_set(
    "a an and answer answers as assessment be best better choice choose clip final give gave grade i i'd "
    "image is it its it's judgement judgment level mark match medium my of one option out overall pick "
    "picture prefer prompt quality rate rated rating recording say scene score shows sound that the this "
    "to total verdict video was would"
)
"""What may stand beside an answer without changing it."""
NEGATIONS = word_set(
    "almost anything barely below beyond can't cannot could couldn't doesn't don't except far few hardly "
    "if isn't lacks less may maybe might more nearly neither never no nor not nothing only or perhaps "
    "possibly rarely scarcely should than unless unlike wasn't without won't wouldn't wrong"
)
"""Words before an answer, in its sentence, after which it is not plain any more."""


class Clause(NamedTuple):
    """A piece of an answer.

    Args:
        text: its words, in normal form, markdown taken out.
        before: the sentence up to it.
        after: the sentence from it on.
        end: the sign that closes it, "" at the end of the answer.
        goes_on: whether text follows on the same line.
    """

    text: str
    before: str
    after: str
    end: str
    goes_on: bool


def said(answer: str) -> str:
    """An answer in normal form, line by line, without what was only thought, and without markdown.

    What stands before a closing ``</think>``, and after an opening one that is never closed, is not said.

    >>> said("<think>3? 4?</think>**Score:** `4`")
    'score: 4'
    """
    thought = r"think(?:ing)?|reasoning"
    answer = re.sub(
        rf"[<\[]({thought})[>\]].*?(?:[<\[]/\1[>\]]|\Z)", "", answer, flags=re.DOTALL | re.IGNORECASE
    )
    answer = re.split(rf"[<\[]/(?:{thought})[>\]]", answer, flags=re.IGNORECASE)[-1]
    lines = (latin_digits(normal(_unmarked(line))) for line in answer.splitlines())
    return re.sub(r"([:=])\s*\n+\s*", r"\1 ", "\n".join(line for line in lines if line))


def _unmarked(line: str) -> str:
    # Other numbers (½, ², ⑧) would become digits of the number before them; "half" is no plain number.
    line = re.sub(r"[²³¹⁰-⁹₀-₉¼-¾⅐-⅞①-⓿]", " half ", line)
    return re.sub(r"</?answer>|\\boxed|[*_`#{}\[\]\"“”$\\]|^\s*[->•]\s+(?!\d)", " ", line)


def clauses(text: str) -> Iterator[Clause]:
    """The pieces of what was ``said`` between commas, brackets, dashes and the ends of sentences."""
    start = 0
    for mark in re.finditer(r"[;()!?\n]|[.,](?=\s|$)|\s-+\s|\b(?:because|since)\b|\Z", text):
        piece = text[start : mark.start()].strip(" '.,")
        first = max(text.rfind(sign, 0, start) for sign in ("\n", ". ", "! ", "? ")) + 1
        following = text[mark.end() :]
        if piece:
            yield Clause(
                text=piece,
                before=text[first:start],
                after=re.split(r"[!?\n]|\.(?=\s|$)", following, maxsplit=1)[0],
                end=mark.group().strip(" "),
                goes_on=bool(following.split("\n")[0].strip()),
            )
        start = mark.end()


def named(answer: str, names: Mapping[str, T]) -> T | None:
    """The one of several answers that is named plainly.

    Some clause has to consist of the name and ``FILLER`` alone, without a question mark after it and without a negation
    or a comparison before it in its sentence; and no clause may name another answer.

    >>> named("Bad! The hand melts.", {"good": 1, "bad": 0}), named("Not bad.", {"good": 1, "bad": 0})
    (0, None)

    Args:
        answer: whole.
        names: in normal form; several may mean one thing. Longer ones are looked for first.

    Returns:
        None where none is named plainly, or more than one is named at all.
    """
    longest = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w.'-])(?:{longest})(?![\w'-])(?!\.\d)")
    text = pattern.sub(
        lambda found: found.group() + "\n" * (found.string[found.end() :][:1] == ":"), said(answer)
    )
    anywhere = {names[name] for name in pattern.findall(text)}
    plain = any(_is_plain(clause, pattern) for clause in clauses(text))
    return anywhere.pop() if plain and len(anywhere) == 1 else None


def _is_plain(clause: Clause, name: re.Pattern[str]) -> bool:
    """Whether a clause is a name and nothing that changes it."""
    after = words_of(clause.after)
    return (
        name.search(clause.text) is not None
        and words_of(name.sub(" ", clause.text)) <= FILLER
        and clause.end != "?"
        and not words_of(clause.before) & NEGATIONS
        and not (after and after <= NEGATIONS)
        and not after & {"if", "unless"}
    )


def words_of(text: str) -> set[str]:
    """Words of a piece of what was ``said``, and signs of numbers that are none of its letters."""
    return set(re.findall(r"[\w']+", text))
