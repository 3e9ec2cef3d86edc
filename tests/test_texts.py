"""Texts that differ only in how they are typed are one text, wherever texts are compared."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.rewards.ocr import text_match
from mmalign.rewards.word_errors import word_error_rate
from mmalign.texts import letters, normal, plain_prompt, quoted_texts, spelt, words

SAME = [
    ("it's open", "it’s open"),
    ("it's open", "It＇s  OPEN"),
    ("rock'n'roll", "rock´n´roll"),
    ('say "stop"', "say “stop”"),
    ('say "stop"', "say «stop»"),
    ("café au lait", unicodedata.normalize("NFD", "café au lait")),
    ("straße", "STRASSE"),
    ("re-open", "re‑open"),
    ("re-open", "re−open"),
    ("one\u00a0two", "one two"),
    ("zero\u200bwidth", "zerowidth"),
    ("soft\u00adhyphen", "softhyphen"),
    ("ＯＰＥＮ", "open"),
    ("ﬁne", "fine"),
    ("wait...", "wait…"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_how_a_text_is_typed_costs_nothing_in_any_measure(first: str, second: str) -> None:
    assert normal(first) == normal(second)
    assert plain_prompt(first) == plain_prompt(second + ".")
    assert word_error_rate(first, second) == word_error_rate(second, first) == 0.0
    assert text_match(first, second) == text_match(second, first, anywhere=True) == 1.0


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        ("'open the door'", "open the door"),
        ("“21 cats”", "twenty one cats"),
        ("21 cats", "twenty-one cats"),
        ("the 3rd of 12", "the third of twelve"),
        ("3.5 %", "three point five percent"),
        ("$5 & $1", "five dollars and one dollar"),
        ("1,205 ٣", "one thousand two hundred five three"),
        ("007", "zero zero seven"),
    ],
)
def test_numbers_are_heard_as_words(wanted: str, heard: str) -> None:
    assert word_error_rate(wanted, heard) == 0.0


@pytest.mark.parametrize("text", ["mp3", "2x", "v1.2.3", "10000000000000"])
def test_what_is_no_plain_number_is_left(text: str) -> None:
    assert not set("".join(words(text))) & set("uo")  # no "two", "one", "hundred"


def test_numbers_of_another_language_are_left_and_a_writing_is_no_speech() -> None:
    assert words("21 Katzen", english=False) == ["21", "katzen"]
    assert words("Straße", fold=False) == ["straße"]
    assert text_match("21", "twenty one") < 0.3


@given(st.integers(0, 10**12 - 1))
@settings(max_examples=60)
def test_every_number_is_spelt_in_its_own_words(number: int) -> None:
    again = 0
    block = 0
    for word in spelt(number).split():
        if word in ("thousand", "million", "billion"):
            again, block = again + block * {"t": 1_000, "m": 10**6, "b": 10**9}[word[0]], 0
        elif word == "hundred":
            block *= 100
        else:
            block += next(n for n in [*range(20), *range(20, 100, 10)] if spelt(n) == word)
    assert again + block == number


@given(st.text(max_size=12))
@settings(max_examples=100)
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    assert normal(normal(text)) == normal(text)


def test_texts_that_say_different_things_stay_different() -> None:
    for first, second in [("open", "opens"), ("cafe", "café"), ("a b", "ab"), ("3½", "31/2"), ("1.5", "15")]:
        assert normal(first) != normal(second)
    assert letters("a b") == letters("ab")  # what a reader of pictures cannot tell


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign "Open" and one "Closed"', ["Open", "Closed"]),
        ('a 24" screen that shows "HELLO"', ["HELLO"]),
        ('24 " wide, showing "HELLO"', ["HELLO"]),
        ('a 24" screen and a 27" one', []),
        ("a sign that says 'Open Late'", ["Open Late"]),
        ("‘Don’t stop’ on a wall", ["Don’t stop"]),
        ("say 'open' then 'close'", ["open", "close"]),
        ("boys' toys and cats' food", []),
        ("'til night, the boys' \"Open\"", ["Open"]),
        ("a sign \"Rock 'n' Roll\"", ["Rock 'n' Roll"]),
        ("「開店」 and 『閉店』", ["開店", "閉店"]),
        ("＂開店＂", ["開店"]),
        ("„Offen“ »Zu« «Ouvert» ‹x›", ["Offen", "Zu", "Ouvert"]),
        ("”Öppet”", ["Öppet"]),
        ('says" Open "', [" Open "]),
        ('a "Room 24" sign', ["Room 24"]),
    ],
)
def test_all_quoted_texts_are_found(prompt: str, texts: list[str]) -> None:
    assert quoted_texts(prompt) == texts


def test_several_texts_are_read_in_any_order_and_each_is_missed() -> None:
    wanted = ["Open", "Closed"]
    for anywhere in (False, True):
        assert text_match(wanted, "CLOSED open", anywhere=anywhere) == 1.0
        assert text_match(wanted, "", anywhere=anywhere) == 0.0
        assert text_match(wanted, "closed", anywhere=anywhere) == pytest.approx(0.6)
    assert text_match(wanted, "xx open yy closed", anywhere=True) == 1.0
    assert text_match(["on", "on"], "on", anywhere=True) == pytest.approx(0.5)  # twice wanted, once shown
    assert text_match(list("abcdef"), "abcdef") == 1.0
