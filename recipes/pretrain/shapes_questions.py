"""The questions that ``embedded/shapes-vlm`` learns from, with their true answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mmalign.rewards import vlm_questions as questions
from mmalign.worlds import shapes

BLEND = 0.35
"""Most of another picture that may show through before the first is no longer what is seen."""
IGNORED = -100
"""A label that no answer has."""

TABLES: dict[str, Sequence[str]] = {
    "kind": shapes.KINDS,
    "colour": tuple(shapes.COLOURS),
    "size": tuple(shapes.SIZES),
    "place": tuple(shapes.PLACES),
}
ATTRIBUTE_QUESTIONS = {
    "kind": "Is the shape a {value}?",
    "colour": "Is the shape {value}?",
    "size": "Is the shape {value}?",
    "place": "Is the shape {value}?",
}
SCALE = questions.Scale(1, 5)


@dataclass(frozen=True)
class Block:
    """A question, its answer, and the weight of each of the answer's words in the loss."""

    question: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True)
class Pair:
    """A shape to show beside another, which of the two comes second, and what is asked about both."""

    other: shapes.Shape
    turned: bool
    blocks: list[Block]


def vocabulary() -> list[str]:
    """Every word and mark of the world and of the questions, lower case, in alphabetical order."""
    texts = [*shapes.captions("train"), *shapes.captions("heldout"), *ATTRIBUTE_QUESTIONS.values()]
    texts += [value for name, value in vars(questions).items() if name.isupper() and isinstance(value, str)]
    texts += [
        " ".join([*questions.LIKERT_WORDS, *questions.MEDIUM_NAMES.values()]),
        "yes no score : 0123456789",
    ]
    texts += [
        "and two shapes than one other both same different image neither more less there background light"
    ]
    texts += [" ".join("0123456789")]
    words = {word for text in texts for word in re.findall(r"[a-z]+|[0-9]|[^\w\s]", text.lower())}
    return sorted(words)


def draw(count: int, random: torch.Generator) -> int:
    """A whole number below ``count``."""
    return int(torch.randint(count, (), generator=random))


def changed(
    shape: shapes.Shape, count: int, random: torch.Generator, *, split: shapes.Split | None = "train"
) -> shapes.Shape:
    """The shape with ``count`` of its attributes, drawn at random, set to other values."""
    while True:
        values = {}
        for i in torch.randperm(4, generator=random)[:count].tolist():
            name = shapes.ATTRIBUTES[i]
            others = [value for value in TABLES[name] if value != getattr(shape, name)]
            values[name] = others[draw(len(others), random)]
        other = replace(shape, **values)
        if split in (None, other.split):
            return other


def matches(shown: shapes.Shape, named: shapes.Shape) -> int:
    """How many of the four attributes agree."""
    return sum(getattr(shown, name) == getattr(named, name) for name in shapes.ATTRIBUTES)


def say(shape: shapes.Shape, random: torch.Generator) -> str:
    """A random paraphrase."""
    return shapes.caption((shape,), draw(len(shapes.TEMPLATES), random))


def attribute_block(shown: shapes.Shape, name: str, random: torch.Generator) -> Block:
    """Whether the shape has a value of one attribute, which it has half the time."""
    others = [value for value in TABLES[name] if value != getattr(shown, name)]
    right = bool(draw(2, random))
    value = getattr(shown, name) if right else others[draw(len(others), random)]
    return Block(questions.ask(ATTRIBUTE_QUESTIONS[name], value=value), "yes" if right else "no")


def attribute_blocks(shown: shapes.Shape, random: torch.Generator) -> list[Block]:
    """Two questions about each attribute."""
    return [attribute_block(shown, name, random) for name in shapes.ATTRIBUTES * 2]


def picture_blocks(
    shown: shapes.Shape, random: torch.Generator, *, split: shapes.Split | None = "train"
) -> list[Block]:
    """Questions about one picture: a right and a wrong caption, a rating, and one more of several kinds."""

    def near(count: int) -> shapes.Shape:
        return changed(shown, count, random, split=split)

    def rated(template: str, named: shapes.Shape, **fields: object) -> str:
        return questions.ask(template, prompt=say(named, random), medium="picture", **fields)

    ends = {"low": SCALE.low, "high": SCALE.high}
    wrong = near(1 if draw(4, random) else 2)
    digit, word, number = near(draw(5, random)), near(draw(5, random)), near(draw(5, random))
    likert = rated(questions.LIKERT, word, words=", ".join(questions.LIKERT_WORDS))
    blocks = [
        Block(rated(questions.VQASCORE, shown), "yes"),
        Block(rated(questions.VQASCORE, wrong), "no"),
        Block(rated(questions.DIGITS, digit, **ends), f"{1 + matches(shown, digit)}"),
    ]
    form = draw(6, random)
    if form < 2:
        blocks.append(attribute_block(shown, shapes.ATTRIBUTES[draw(4, random)], random))
    elif form == 2:
        blocks.append(Block(likert, questions.LIKERT_WORDS[matches(shown, word)], 0.5))
    elif form == 3:
        score = f"score: {1 + matches(shown, number)}"
        blocks.append(Block(rated(questions.NUMBER, number, **ends), score, 0.3))
    else:
        # One wording always, so that each word of it is an attribute to be read off the picture.
        told = f"{shapes.caption((shown,))}. score: {1 + matches(shown, number)}"
        blocks.append(Block(rated(questions.CRITIQUE, number, **ends), told, 0.2))
    return blocks


def pair_blocks(shape: shapes.Shape, random: torch.Generator, *, rivals: bool = False) -> Pair:
    """A second picture, mostly wrong in one attribute, and which of the two shows the caption of each.

    With ``rivals``, also which is nearer to a caption that is right of neither, as it mostly is with a generator.
    """
    kind = draw(8, random)
    other = shape if kind == 0 else changed(shape, 1 if kind < 6 else 1 + draw(4, random), random)
    turned = bool(draw(2, random))

    def which(named: shapes.Shape) -> Block:
        first, second = (other, shape) if turned else (shape, other)
        ahead = matches(first, named) - matches(second, named)
        answer = "0" if ahead == 0 else "1" if ahead > 0 else "2"
        return Block(questions.ask(questions.PAIR, prompt=say(named, random), medium="picture"), answer)

    named = [shape, other, *([changed(shape, 1 + draw(3, random), random)] if rivals else [])]
    return Pair(other, turned, [which(caption) for caption in named])


def turn(blocks: list[Block]) -> list[Block]:
    """The same questions of a pair in the other order."""
    exchanged = {"1": "2", "2": "1", "0": "0"}
    return [replace(block, answer=exchanged[block.answer]) for block in blocks]
