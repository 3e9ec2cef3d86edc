"""The table of rewards: what a card file says, what is refused, and whether a reward can be used here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.errors import ConfigError, DataError, MmalignError, UnknownNameError
from mmalign.rewards import cards as table
from mmalign.rewards.cards import RewardCard, WeightFiles, cards, load_reward, parse_weighted, read_card


def test_cards_are_in_alphabetical_order() -> None:
    assert list(cards()) == sorted(cards())
    assert len(cards()) >= 3


def test_an_unknown_reward_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no reward is called 'shape-truth'\. Did you mean 'shapes-truth'"
    ):
        load_reward("shape-truth")


@pytest.mark.parametrize(
    ("text", "expected"), [("placebo", ("placebo", 1.0)), ("a/b:0.5", ("a/b", 0.5)), ("x:-2", ("x", -2.0))]
)
def test_a_weight_follows_a_colon(text: str, expected: tuple[str, float]) -> None:
    assert parse_weighted(text) == expected


@pytest.mark.parametrize("text", ["placebo:", "placebo:much", "placebo:nan", "placebo:inf"])
def test_a_weight_is_a_finite_number(text: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME or NAME:WEIGHT with a number"):
        parse_weighted(text)


GOOD_CARD = (
    "target: a:B\nmodalities: [image]\nunit: u\nhigher_is_better: true\ndifferentiable: false\nsource: s\n"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "unitt: x\n", "no card field is called 'unitt'. Did you mean 'unit'"),
        (lambda text: text + "name: other\n", "no card field is called 'name'"),
        (lambda text: text.replace("unit: u\n", ""), "the field 'unit' is missing"),
        (lambda text: "[" + text, "not YAML"),
        (lambda text: "", "expected named fields"),
        (lambda text: text + "parts: {processor: x/y}\n", "parts: expected ROLE"),
        (lambda text: text + "parts: {processor: {files: [a.json]}}\n", "parts: expected ROLE"),
    ],
)
def test_a_faulty_card_is_refused_by_file_and_field(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(change(GOOD_CARD))
    with pytest.raises(DataError, match=message) as caught:
        read_card(path, name="mine")
    assert str(path) in str(caught.value)


def test_files_come_as_a_list_or_with_their_digests(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        GOOD_CARD
        + "weights: a/b\nfiles: {m.bin: abc, c.json: null}\nparts: {words: {source: c/d, files: [t.json]}}\n"
    )
    card = read_card(path, name="mine")
    assert card.weight_files() == WeightFiles(source="a/b", files={"m.bin": "abc", "c.json": None})
    assert card.weight_files("words") == WeightFiles(source="c/d", files={"t.json": None})


def test_weights_for_a_reward_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match="reward 'placebo' is computed and has none"):
        load_reward("placebo", weights="somewhere")


def test_a_card_without_its_weights_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD_CARD + "weights: embedded/nothing-here\n")
    assert read_card(path, name="mine").readiness() == "needs weights"


def test_a_card_without_its_extra_is_not_ready_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = RewardCard(
        name="ocr-v1",
        target="x:Y",
        modalities=("image",),
        unit="u",
        higher_is_better=True,
        differentiable=False,
        extra="ocr",
        source="s",
    )
    monkeypatch.setitem(table.EXTRAS, "ocr", "a_module_that_nobody_has")
    monkeypatch.setattr(table, "cards", lambda: {"ocr-v1": card})
    assert card.readiness() == "needs extra ocr"
    with pytest.raises(MmalignError, match=r"pip install 'mmalign\[ocr\]'"):
        load_reward("ocr-v1")
