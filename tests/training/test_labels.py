"""Who answers which question, that a missing answer is none, and that answers come back from their file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmalign.errors import DataError
from mmalign.media import Image, Sample
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card
from mmalign.rewards.relative import WithinPrompt
from mmalign.training.labels import (
    Answer,
    Question,
    by_reward,
    by_reward_and_people,
    by_simulated_people,
    count_choices,
    pairs_of,
    read_answers,
    write_answers,
)


class Brightness:
    """The mean of a picture, none for one called "blind"; higher is better unless told otherwise."""

    def __init__(self, *, higher_is_better: bool = True) -> None:
        self.card = replace(find_card("placebo"), name="bright-v1", higher_is_better=higher_is_better)

    def score(self, samples: Sequence[Sample]) -> Score:
        values = torch.tensor([float(s.media.pixels.mean()) for s in samples if isinstance(s.media, Image)])
        blind = torch.tensor([s.prompt == "blind" for s in samples])
        status = ["blind" if s.prompt == "blind" else "ok" for s in samples]
        return Score(values.masked_fill(blind, float("nan")), status)


def question(number: int, first: float, second: float, prompt: str = "x") -> Question:
    sides = [
        Sample(
            prompt,
            Image(torch.full((3, 2, 2), level)),
            meta={"file_name": f"{number}{side}.png", "path": Path(f"{number}{side}.png")},
        )
        for side, level in (("a", first), ("b", second))
    ]
    return Question(prompt, *sides)


QUESTIONS = [
    question(0, 0.9, 0.1),
    question(1, 0.4, 0.5),
    question(2, 0.3, 0.3),
    question(3, 0.7, 0.1, "blind"),
]


def test_a_reward_takes_the_higher_one_and_knows_no_answer_without_a_score() -> None:
    words = [None if answer is None else answer.choice for answer in by_reward(Brightness())(QUESTIONS)]
    assert words == ["first", "second", "tie", None]
    turned = by_reward(Brightness(higher_is_better=False))(QUESTIONS)
    assert [None if answer is None else answer.choice for answer in turned] == [
        "second",
        "first",
        "tie",
        None,
    ]


def test_people_get_what_the_reward_is_least_sure_of() -> None:
    asked: list[Question] = []

    def people(questions: Sequence[Question]) -> list[Answer | None]:
        asked.extend(questions)
        return [Answer("first", "Ann", "people") for _ in questions]

    answers = by_reward_and_people(Brightness(), people, budget=3)(QUESTIONS)
    assert asked == QUESTIONS[1:]  # the widest margin stays with the reward; no score at all is no certainty
    assert [answer.source for answer in answers if answer] == ["reward", "people", "people", "people"]
    assert by_reward_and_people(Brightness(), people, budget=0)(QUESTIONS) == by_reward(Brightness())(
        QUESTIONS
    )


def test_simulated_people_are_wrong_one_time_in_ten_and_never_twice_alike() -> None:
    random = torch.Generator().manual_seed(0)
    levels = torch.rand(400, 2, generator=random).tolist()
    questions = [question(i, *pair) for i, pair in enumerate(levels)]
    right = by_reward(Brightness())(questions)
    rounds = [by_simulated_people(Brightness(), seed=0, number=number)(questions) for number in (1, 2)]
    wrong = [
        {i for i, (a, b) in enumerate(zip(said, right, strict=True)) if a and b and a.choice != b.choice}
        for said in rounds
    ]
    for found in wrong:
        assert abs(len(found) / 400 - 0.1) < 3 * (0.09 / 400) ** 0.5
    assert wrong[0] != wrong[1]
    assert rounds[0] == by_simulated_people(Brightness(), seed=0, number=1)(questions)
    assert len({answer.annotator for answer in rounds[0] if answer}) == 5
    assert by_simulated_people(Brightness(), seed=0, number=1)(QUESTIONS)[3] is None


def test_answers_come_back_and_belong_to_their_questions(tmp_path: Path) -> None:
    path, answers = tmp_path / "labels" / "round-1.jsonl", by_reward(Brightness())(QUESTIONS)
    write_answers(path, QUESTIONS, answers)
    assert read_answers(path, QUESTIONS) == answers
    assert json.loads(path.read_text().splitlines()[3])["choice"] is None
    with pytest.raises(DataError, match="other questions than this round asks"):
        read_answers(path, QUESTIONS[::-1])


def test_ties_and_missing_answers_make_no_pair() -> None:
    answers = by_reward(Brightness())(QUESTIONS)
    pairs = pairs_of(QUESTIONS, answers)
    assert [(pair.chosen.name, pair.rejected.name) for pair in pairs] == [
        ("0a.png", "0b.png"),
        ("1b.png", "1a.png"),
    ]
    assert {pair.source for pair in pairs} == {"reward"}
    assert count_choices(answers) == {"asked": 4, "choices": 3, "ties": 1, "reward": 3}


def test_a_reward_that_compares_the_samples_of_a_prompt_sees_both_sides() -> None:
    relative = WithinPrompt(find_card("placebo"), Brightness())
    questions = [question(0, 0.9, 0.1, "a"), question(1, 0.4, 0.5, "b")]
    assert [answer and answer.choice for answer in by_reward(relative)(questions)] == ["first", "second"]
