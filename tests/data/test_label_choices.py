"""A choice is kept as it was made, or refused with its reason."""

from typing import Any

import pytest

from mmalign.data.label_choices import checked_choice
from mmalign.data.label_items import MODES, Mode
from mmalign.errors import ConfigError

ASKED: dict[str, Any] = {"shown": 3, "words": 4, "aspects": ("look", "fit"), "scale": 5}
TWO = {"look": 1, "fit": 5}


@pytest.mark.parametrize(
    ("mode", "choice", "kept"),
    [
        ("pairs", {"choice": "left", "strength": 1}, {"choice": "left", "strength": 1.0}),
        ("pairs", {"choice": "tie", "strength": 1}, {"choice": "tie", "strength": None}),
        ("pairs", {"choice": "both_bad"}, {"choice": "both_bad", "strength": None}),
        ("ranking", {"ranks": [3, 1, 1]}, {"ranks": [2, 1, 1]}),
        ("rating", {"scores": TWO, "rationale": " why "}, {"scores": TWO, "rationale": "why"}),
        ("rating", {"scores": TWO, "rationale": " "}, {"scores": TWO, "rationale": None}),
        ("binary", {"label": False, "more": 1}, {"label": False}),
        ("marks", {"regions": [], "words": []}, {"regions": [], "words": []}),
        (
            "marks",
            {"regions": [[0, 0.123456, 1, 0.5]], "words": [3, 0, 3]},
            {"regions": [[0.0, 0.1235, 1.0, 0.5]], "words": [0, 3]},
        ),
    ],
)
def test_a_choice_is_kept(mode: Mode, choice: dict[str, Any], kept: dict[str, Any]) -> None:
    assert checked_choice(choice, mode, **ASKED) == kept


@pytest.mark.parametrize("mode", MODES)
def test_anything_may_be_skipped(mode: Mode) -> None:
    assert checked_choice({"skipped": True, "choice": "left"}, mode, **ASKED) == {"skipped": True}


@pytest.mark.parametrize(
    ("mode", "choice", "word"),
    [
        ("pairs", None, "an object"),
        ("pairs", {"choice": "up"}, "left, right, tie"),
        ("pairs", {"choice": "left"}, "0.5 or 1"),
        ("pairs", {"choice": "left", "strength": True}, "0.5 or 1"),
        ("ranking", {"ranks": [1, 2]}, "expected 3"),
        ("ranking", {"ranks": [1, 2, 4]}, "from 1 to 3"),
        ("ranking", {"ranks": [1, 2, True]}, "from 1 to 3"),
        ("rating", {"scores": {"look": 1}}, "look, fit"),
        ("rating", {"scores": {"look": 1, "fit": 6}}, "from 1 to 5"),
        ("rating", {"scores": {"look": 1, "fit": 2.5}}, "from 1 to 5"),
        ("rating", {"scores": TWO, "rationale": 3}, "a text"),
        ("binary", {"label": 1}, "true or false"),
        ("marks", {"regions": [[0, 0, 1]], "words": []}, "left, top, right, bottom"),
        ("marks", {"regions": [[0.5, 0, 0.5, 1]], "words": []}, "left < right"),
        ("marks", {"regions": [[0, 0, float("nan"), 1]], "words": []}, "left < right"),
        ("marks", {"regions": [[0, 0, 2, 1]], "words": []}, "left < right"),
        ("marks", {"regions": [], "words": [4]}, "from 0 to 3"),
        ("marks", {"regions": [], "words": "1"}, "a list"),
    ],
)
def test_what_is_no_choice_is_refused(mode: Mode, choice: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        checked_choice(choice, mode, **ASKED)
