"""Who says which of two samples is better: people at a page, simulated people, a reward, or a reward and people."""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mmalign.data.pairs import Pair
from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.media import Sample
from mmalign.methods.base import mixed_generator
from mmalign.rewards.base import Reward
from mmalign.rewards.compose import score_in_batches
from mmalign.rewards.label_routing import route_to_people

Choice = Literal["first", "second", "tie"]
CHOICES: tuple[Choice, ...] = ("tie", "first", "second")
"""By a verdict's sign: 0, 1, -1."""
WORLD = "mmalign.worlds.annotators"
"""Where simulated people are; as with the cards of the worlds' rewards, only who names them loads them."""
PEOPLE = 40
"""What the random numbers of simulated people are mixed with."""


@dataclass(frozen=True)
class Question:
    """Two samples of one prompt.

    Args:
        prompt: what both were made for.
        first: one of them, with its file as ``meta["path"]``.
        second: the other.
    """

    prompt: str
    first: Sample
    second: Sample


@dataclass(frozen=True)
class Answer:
    """What somebody said of a question.

    Args:
        choice: which is better.
        annotator: who said so.
        source: people, simulated people, or a reward.
    """

    choice: Choice
    annotator: str
    source: str


Labeller = Callable[[Sequence[Question]], list[Answer | None]]
"""Answers questions, None where there is none: skipped, or without a score."""


def by_reward(reward: Reward) -> Labeller:
    """The one with the higher score is better; of equal ones neither."""

    def label(questions: Sequence[Question]) -> list[Answer | None]:
        difference = _difference(reward, questions)
        return [
            None if value != value else Answer(choice(value), reward.card.name, "reward")
            for value in difference.tolist()
        ]

    return label


def by_simulated_people(truth: Reward, *, seed: int, number: int) -> Labeller:
    """Five people who see a world's true reward and are wrong about one pair in ten.

    Args:
        truth: what they see.
        seed: of the run.
        number: of the round, so that no noise is had twice.
    """
    world = importlib.import_module(WORLD)

    def label(questions: Sequence[Question]) -> list[Answer | None]:
        sides = [
            score_in_batches(truth, [getattr(question, side) for question in questions])
            for side in ("first", "second")
        ]
        first, second = ({"overall": side.value} for side in sides)
        verdicts, who = world.verdicts_of(
            world.PEOPLE,
            (first, second),
            count=len(questions),
            generator=mixed_generator(seed, PEOPLE, number),
        )
        known = ~(first["overall"].isnan() | second["overall"].isnan())
        return [
            Answer(choice(float(verdict)), world.PEOPLE[int(person)].name, world.SOURCE) if seen else None
            for verdict, person, seen in zip(verdicts, who, known, strict=True)
        ]

    return label


def by_reward_and_people(reward: Reward, people: Labeller, *, budget: int) -> Labeller:
    """People answer what the reward is least sure of, the smallest differences of scores; it answers all others.

    Args:
        reward: scores both sides of every question; one that it cannot score goes to people first.
        people: answer the rest.
        budget: questions that people are asked.
    """

    def label(questions: Sequence[Question]) -> list[Answer | None]:
        difference = _difference(reward, questions).nan_to_num(0.0)
        asked = sorted(route_to_people(-difference.abs(), budget=budget).tolist())
        answers = by_reward(reward)(questions)
        if not asked:
            return answers
        for index, answer in zip(asked, people([questions[i] for i in asked]), strict=True):
            answers[index] = answer
        return answers

    return label


def _difference(reward: Reward, questions: Sequence[Question]) -> Tensor:
    """[B], of the scores of the two sides, above 0 where the first is better; NaN where one is missing."""
    first, second = (
        score_in_batches(reward, [getattr(question, side) for question in questions]).value
        for side in ("first", "second")
    )
    return (first - second) * (1 if reward.card.higher_is_better else -1)


def choice(verdict: float) -> Choice:
    """A verdict's sign as a word.

    >>> choice(0.3), choice(-2), choice(0)
    ('first', 'second', 'tie')
    """
    return CHOICES[(verdict > 0) - (verdict < 0)]


# --- files ------------------------------------------------------------------------------------------------------------


def write_answers(path: Path, questions: Sequence[Question], answers: Sequence[Answer | None]) -> None:
    """Write one row a question, whole or not at all; ``choice`` is null where there is no answer."""
    rows: list[dict[str, Any]] = []
    for question, answer in zip(questions, answers, strict=True):
        said = {"choice": None, "annotator": None, "source": None} if answer is None else asdict(answer)
        files = {side: getattr(question, side).meta["file_name"] for side in ("first", "second")}
        rows.append({"prompt": question.prompt, **files, **said})
    with whole_file(path) as unfinished:
        unfinished.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )


def read_answers(path: Path, questions: Sequence[Question]) -> list[Answer | None]:
    """The answers to questions that ``write_answers`` wrote, in their order.

    Raises:
        DataError: the file answers other questions.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    asked = [(question.first.meta["file_name"], question.second.meta["file_name"]) for question in questions]
    if [(row["first"], row["second"]) for row in rows] != asked:
        raise DataError("answers other questions than this round asks", file=path)
    return [
        None if row["choice"] is None else Answer(row["choice"], row["annotator"], row["source"])
        for row in rows
    ]


def pairs_of(questions: Sequence[Question], answers: Sequence[Answer | None]) -> list[Pair]:
    """The preferences among the answers; ties and questions without an answer give none."""
    pairs = []
    for question, answer in zip(questions, answers, strict=True):
        if answer is None or answer.choice == "tie":
            continue
        sides = [question.first.meta["path"], question.second.meta["path"]]
        chosen, rejected = sides if answer.choice == "first" else sides[::-1]
        pairs.append(
            Pair(question.prompt, chosen, rejected, annotator=answer.annotator, source=answer.source)
        )
    return pairs


def count_choices(answers: Sequence[Answer | None]) -> dict[str, int]:
    """How many were asked, answered, and answered by whom.

    >>> count_choices([Answer("tie", "Ann", "people"), None])
    {'asked': 2, 'choices': 1, 'ties': 1, 'people': 1}
    """
    given = [answer for answer in answers if answer is not None]
    sources = dict.fromkeys(answer.source for answer in given)
    return {
        "asked": len(answers),
        "choices": len(given),
        "ties": sum(answer.choice == "tie" for answer in given),
        **{source: sum(answer.source == source for answer in given) for source in sources},
    }
