"""Captions made wrong on purpose."""

from pathlib import Path

import pytest
import torch

from mmalign.errors import DataError
from mmalign.rewards.clip_dense import pieces
from mmalign.training.reward_perturbations import GROUPS, Perturber, read_groups

PLACES = ("on the left", "in the top left corner", "in the center")


def made(caption: str, perturber: Perturber) -> dict[str, tuple[bool, ...]]:
    """Every wrong caption that many draws give, with its labels."""
    generator = torch.Generator().manual_seed(0)
    found = [perturber(caption, generator) for _ in range(200)]
    return {p.text: p.labels for p in found if p is not None}


def test_one_word_is_exchanged_and_only_that_is_wrong() -> None:
    found = made("a red car, and a red bus", Perturber([("red", "blue"), ("bus", "tram")]))
    assert found == {
        "a blue car, and a red bus": (True, False, True, True, True, True, True),
        "a red car, and a blue bus": (True, True, True, True, True, False, True),
        "a red car, and a red tram": (True, True, True, True, True, True, False),
    }


def test_of_a_phrase_the_words_that_changed_are_wrong_and_the_longest_is_meant() -> None:
    perturber = Perturber([PLACES, ("left", "right")])
    found = made("in the top left corner, a star", perturber)
    assert found["on the left, a star"] == (False, True, False, True, True)  # "top" is missing
    assert found["in the center, a star"] == (True, True, False, True, True)
    assert len(found) == 2
    assert made("a star on the left", perturber)["a star in the top left corner"][2:] == (
        False, True, False, True, False,
    )  # fmt: skip


def test_capitals_stay_and_parts_of_words_are_left_alone() -> None:
    perturber = Perturber([("red", "blue")])
    assert list(made("Red hair", perturber)) == ["Blue hair"]
    assert made("a bored reader", perturber) == {}
    assert perturber("a bored reader", torch.Generator()) is None
    assert perturber.attributes("a RED, bored (blue) one") == [False, True, False, True, False]


@pytest.mark.parametrize(
    "caption", ["Two small dogs in front of a red car", "a man left  of one large cube."]
)
def test_every_word_has_a_label_and_one_is_wrong(caption: str) -> None:
    found = made(caption, Perturber())
    assert len(found) >= 5
    for text, labels in found.items():
        assert len(labels) == len(pieces(text))
        assert text != caption
        assert not all(labels)


def test_no_word_is_in_two_groups() -> None:
    words = [word for group in GROUPS for word in group]
    assert len(set(words)) == len(words)


def test_groups_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# colours\nRed, blue ,green\n\non the left, on the right  # places\n")
    assert read_groups(path) == [("red", "blue", "green"), ("on the left", "on the right")]
    for text, message in (
        ("red\n", "nothing that could"),
        ("a, b\nb, c\n", "in two groups"),
        ("#\n", "no groups"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_groups(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_groups(tmp_path / "none.txt")
