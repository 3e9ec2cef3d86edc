"""What a judge wrote is read strictly: plainly one thing, or nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.rewards.vlm_parsing import parse_likert, parse_number, parse_verdict
from mmalign.rewards.vlm_questions import LIKERT_WORDS, Scale, ask

TEN = Scale(1, 10)
FIVE = Scale(1, 5)
SIGNED = Scale(-5, 5)


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
        # plain in other ways
        ("10/10", 10.0),
        ("Score: 10 / 10!", 10.0),
        ("7 out of 10", 7.0),
        ("seven out of ten", 7.0),
        ("7 of 10", 7.0),
        ("Score = 7", 7.0),
        ("score:7", 7.0),
        ("Score:\n\n7", 7.0),
        ("Score — 7", 7.0),
        ("# Score\n7", 7.0),
        ("Final answer: 7", 7.0),
        ("Answer: \\boxed{7}", 7.0),
        ("<answer>7</answer>", 7.0),
        ('{"score": 7, "reason": "3 stars"}', 7.0),
        ("I'd give it a 7", 7.0),
        ("I would rate this 7 out of 10.", 7.0),
        ("Score (1-10): 7", 7.0),
        ("7 on a scale of 1 to 10", 7.0),
        ("On a scale from 1 to 10, the score is 7.", 7.0),
        ("7 stars", 7.0),
        ("Score: 7, because there are 3 stars", 7.0),
        ("7\nThe picture has 3 stars.", 7.0),
        ("Score: 7\nConfidence: 0.9", 7.0),
        ("Score: 7. Score: 7", 7.0),
        ("1. Colours fine.\n2. Shapes fine.\nScore: 7", 7.0),
        ("Colour score: 3, shape score: 5, score: 7", 7.0),
        ("Score: ７", 7.0),
        ("Score: ٧", 7.0),
        ("७", 7.0),
        ("<think>Perhaps 3, or 4.</think>Score: 7", 7.0),
        ("Perhaps 3.</think>\n7", 7.0),
        # unclear
        ("Score: 3-4", None),
        ("Score: 3–4", None),
        ("Score: 3 - 4", None),
        ("Score: 3 to 4", None),
        ("Score: 3 or 4", None),
        ("Score: 3 (or 4)", None),
        ("Score: 3, maybe 4", None),
        ("Score: 3 and 4", None),
        ("Score: 3. Score: 4", None),
        ("Colour score: 3. Shape score: 4.", None),
        ("3, 4", None),
        ("4,5", None),
        ("Score: 4,5", None),
        ("1,000", None),
        ("Score: 4.5.2", None),
        ("3½", None),
        ("Score: 4 and a half", None),
        ("four and a half", None),
        ("4²", None),
        ("Score: 3/4/5", None),
        ("3 out of 5", None),
        ("Score: 3 out of 100", None),
        ("Score (1-5): 3", None),
        ("3 on a scale of 1 to 5", None),
        ("80%", None),
        ("Score: not 4", None),
        ("It's not a 4", None),
        ("I cannot give a score of 4", None),
        ("The maximum score is 5", None),
        ("A score of 5 would mean perfect", None),
        ("at least 4", None),
        ("Score: more than 4", None),
        ("Score: >4", None),
        ("Score: ~4", None),
        ("4+", None),
        ("Score: 4±1", None),
        ("score: twenty-one", None),
        ("score: twenty one", None),
        ("No one is in it", None),
        ("This one shows it", None),
        ("There are 3 stars, none red.", None),  # a critique that was cut off before its score
        ("3 stars, none red.", None),
        ("Overall, 3 stars are visible", None),
        ("Overall 3 stars are visible", None),
        ("1. The colours are right", None),
        ("<think>Score: 4", None),
        ("Score: 4th", None),
        ("Score: v4", None),
        ("4 instead of 5", None),
        ("④", None),
    ],
)
def test_numbers(text: str, expected: float | None) -> None:
    assert parse_number(text, TEN) == expected


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [
        ("Score: -3", SIGNED, -3.0),
        ("Score: −3", SIGNED, -3.0),
        ("minus three", SIGNED, -3.0),
        ("Score: +3", SIGNED, 3.0),
        ("Score - 3", SIGNED, None),  # a dash, or a minus
        ("- 3", SIGNED, None),
        ("Score: -3", FIVE, None),
        ("Score-3", FIVE, None),
        ("3 out of 5 stars", FIVE, 3.0),
        ("three out of five", FIVE, 3.0),
        ("8/10", FIVE, None),
        ("Score (1-5): 3", FIVE, 3.0),
        ("3 on a 5-point scale", FIVE, 3.0),
        ("3 on a 10-point scale", FIVE, None),
        ("80%", Scale(0, 100), 80.0),
        ("zero", Scale(0, 5), 0.0),
    ],
)
def test_numbers_of_other_scales(text: str, scale: Scale, expected: float | None) -> None:
    assert parse_number(text, scale) == expected


@settings(max_examples=40)
@given(st.text("score: 0123456789-/.", max_size=20), st.integers(-3, 8), st.integers(1, 9))
def test_whatever_is_written_a_number_lies_on_the_scale(text: str, low: int, width: int) -> None:
    found = parse_number(text, Scale(low, low + width))
    assert found is None or low <= found <= low + width


@settings(max_examples=60)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["-", " - ", "–", " to ", " or ", "/", ", ", " and ", "~"]),
)
def test_two_numbers_that_differ_are_never_one(first: int, second: int, between: str) -> None:
    found = parse_number(f"Score: {first}{between}{second}", FIVE)
    assert found is None or (between == "/" and second == 5 and found == first) or first == second == found


@pytest.mark.parametrize(("level", "word"), enumerate(LIKERT_WORDS, start=1))
def test_each_level_is_read_and_no_other(level: int, word: str) -> None:
    assert parse_likert(word) == level
    for form in (
        "Rating: {}.",
        "**{}**",
        "The picture is {}.",
        "I would rate it as {}!",
        "{}, the star is not red.",
    ):
        assert parse_likert(form.format(word.title())) == level
    for form in (
        "Not {}.",
        "not, I think, {}",
        "far from {}",
        "It is anything but {}",
        "hardly {}",
        "{}? No.",
        "{} - not!",
        "less than {}",
        "It isn't {}.",
        "It would be {} if it were red",
        "very {}",
        "{} lighting",
        "{} or better",
        "<think>{}",
        "above {}",
    ):
        assert parse_likert(form.format(word)) is None, form


@pytest.mark.parametrize(
    "text", ["", "fine", "good or average", "poorly done", "goodness", "outstanding issues remain"]
)
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
        ("**1**", 0),
        ("Answer: 2", 1),
        ("2\nThe second has a red star.", 1),
        ("1. The first picture shows it better.", 0),
        ("I prefer the second picture.", 1),
        ("−1", 2),
        ("２", 1),
        ("<think>1</think>2", 1),
        ("not 1", None),
        ("The first is worse.", None),
        ("The first. It is worse.", None),
        ("The first star is missing", None),
        ("1? No.", None),
        ("1.5", None),
        ("1/2", None),
        ("1-2", None),
        ("1st", None),
        ("hardly the first", None),
        ("2 is better than 1", None),
        ("no tie", None),
        ("<think>1", None),
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
