"""What a judge wrote is read strictly: plainly one thing, or nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.rewards.vlm_parsing import parse_likert, parse_number, parse_verdict
from mmalign.rewards.vlm_questions import LIKERT_WORDS, Scale, ask

TEN = Scale(1, 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        ("Score: 8", 8.0),
        ("score : 3", 3.0),
        ("**Score:** 8/10", 8.0),
        ("8/10 overall, clarity 3", None),  # no label before a number, and two numbers
        ("Clarity rating: 3. Overall rating: 8/10", 8.0),
        ("I see two stars. Score: seven", 7.0),
        ("The score is 6.5", 6.5),
        ("seven", 7.0),
        ("score: 8/5", None),
        ("11", None),
        ("score: 11", None),
        ("0", None),
        ("-3", None),
        ("between 3 and 4", None),
        ("", None),
        ("good", None),
        ("1st", None),
    ],
)
def test_numbers(text: str, expected: float | None) -> None:
    assert parse_number(text, TEN) == expected


@settings(max_examples=40)
@given(st.text("score: 0123456789-/.", max_size=20), st.integers(-3, 8), st.integers(1, 9))
def test_whatever_is_written_a_number_lies_on_the_scale(text: str, low: int, width: int) -> None:
    found = parse_number(text, Scale(low, low + width))
    assert found is None or low <= found <= low + width


@pytest.mark.parametrize(("level", "word"), enumerate(LIKERT_WORDS, start=1))
def test_each_level_is_read_and_no_other(level: int, word: str) -> None:
    assert parse_likert(word) == level
    assert parse_likert(f"Rating: {word.title()}.") == level


@pytest.mark.parametrize("text", ["", "fine", "good or average", "poorly done", "goodness"])
def test_an_answer_without_one_level_is_none(text: str) -> None:
    assert parse_likert(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 0),
        ("The first one.", 0),
        ("2", 1),
        ("Second", 1),
        ("0", 2),
        ("-1", 2),
        ("Neither", 2),
        ("1 or 2", None),
        ("the first, not the second", None),
        ("12", None),
        ("", None),
    ],
)
def test_verdicts(text: str, expected: int | None) -> None:
    assert parse_verdict(text) == expected


@pytest.mark.parametrize("prompt", ['a "quoted" star', "{prompt} {medium}", "{0} {}", "100 % {low}", "\\1"])
def test_a_prompt_is_put_into_a_question_literally(prompt: str) -> None:
    assert ask('Does it show "{prompt}", {low}?', low=1, prompt=prompt) == f'Does it show "{prompt}", 1?'


def test_a_scale_has_a_direction() -> None:
    with pytest.raises(ConfigError, match="expected low < high, got 5 and 5"):
        Scale(5, 5)
