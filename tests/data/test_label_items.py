"""Items hold samples of one prompt, an order is a person's own, and nothing outside a folder is in it."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.data.label_items import Item, Mode, list_samples, make_items, showings
from mmalign.errors import ConfigError, DataError
from tests.data.label_folders import listed, write_folder


@settings(max_examples=30)
@given(
    prompts=st.integers(1, 4),
    each=st.integers(3, 6),
    size=st.integers(2, 3),
    count=st.integers(1, 25),
    seed=st.integers(0, 5),
)
def test_groups_are_different_samples_of_one_prompt(
    prompts: int, each: int, size: int, count: int, seed: int
) -> None:
    samples = listed(prompts, each)
    of = {file: prompt for prompt, _, file in samples}
    items = make_items(samples, "ranking", group_size=size, per_prompt=count, seed=seed)
    assert items == make_items(samples, "ranking", group_size=size, per_prompt=count, seed=seed)
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert len(set(item.samples)) == size
        assert {of[file] for file in item.samples} == {item.prompt}
    assert len(items) == prompts * min(count, math.comb(each, size))


def test_pairs_of_two_sources_are_one_of_each_with_the_same_place() -> None:
    items = make_items(listed(3, 2, "before") + listed(3, 2, "after"), "pairs", per_prompt=9)
    assert len(items) == 6
    for item in items:
        before, after = sorted(item.samples, reverse=True)
        assert (before.split("/")[0], after.split("/")[0]) == ("before", "after")
        assert before.split("/")[1] == after.split("/")[1]


@pytest.mark.parametrize("mode", ["rating", "binary", "marks"])
def test_single_samples_are_all_judged(mode: Mode) -> None:
    items = make_items(listed(2, 3), mode)
    assert sorted(item.samples for item in items) == [(f"{i:05d}.png",) for i in range(6)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mode": "pairs", "group_size": 3}, "a pair has 2"),
        ({"mode": "ranking", "group_size": 10}, "2 to 9"),
        ({"mode": "pairs", "per_prompt": 0}, "at least 1"),
        ({"mode": "ranking", "group_size": 4}, "no prompt has 4 samples"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make_items(listed(2, 3), **options)


@settings(max_examples=30)
@given(count=st.integers(1, 40), repeat=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 3))
def test_everybody_sees_every_item_once_and_some_again_the_other_way_round(
    count: int, repeat: float, seed: int
) -> None:
    items = [Item(f"prompt {i}", (f"{i}a", f"{i}b")) for i in range(count)]
    shown = showings(items, "ann", repeat=repeat, seed=seed)
    assert shown == showings(items[::-1], "ann", repeat=repeat, seed=seed), "the order of the folder matters"
    once = [showing for showing in shown if not showing.repeat]
    assert sorted(showing.item.id for showing in once) == sorted(item.id for item in items)
    assert len(shown) - len(once) == round(repeat * count)
    assert len({showing.key for showing in shown}) == len(shown)
    for place, showing in enumerate(shown):
        assert sorted(showing.order) == sorted(showing.item.samples)
        if showing.repeat:
            (first,) = (other for other in shown[:place] if other.item == showing.item)
            assert showing.order == first.order[::-1]


def test_people_have_orders_of_their_own_and_sides_are_even() -> None:
    items = [Item(f"prompt {i}", (f"{i}a", f"{i}b")) for i in range(400)]
    ann, bob = (showings(items, name) for name in ("ann", "bob"))
    assert [s.item for s in ann] != [s.item for s in bob]
    left = sum(showing.order[0].endswith("a") for showing in ann)
    assert 160 < left < 240, "four standard deviations around one half"


def test_a_repeated_item_comes_a_good_while_later() -> None:
    items = [Item(f"prompt {i}", (f"{i}a", f"{i}b")) for i in range(100)]
    shown = showings(items, "ann", repeat=0.2)
    place = {showing.key: i for i, showing in enumerate(shown)}
    again = [showing for showing in shown if showing.repeat]
    assert len(again) == 20
    assert min(place[showing.key] - place[showing.item.id] for showing in again) >= 25


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="a share"):
        showings([], "ann", repeat=2.0)


def test_a_folder_gives_its_samples_and_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "s", [("a dog", "0.png"), ("a dog", "1.png"), ("", "2.png"), ("a cat", "3.png")]
    )
    (folder / "1.png").unlink()
    found = list_samples(folder)
    assert found.samples == (("a dog", "", "0.png"), ("a cat", "", "3.png"))
    assert [error.row for error in found.missing] == [2, 3]
    assert "no such file" in str(found.missing[0])
    assert "no prompt" in str(found.missing[1])


def test_folders_inside_are_sources(tmp_path: Path) -> None:
    for name in ("before", "after"):
        write_folder(tmp_path / name, [("a dog", "0.png")])
    assert list_samples(tmp_path).samples == (
        ("a dog", "after", "after/0.png"),
        ("a dog", "before", "before/0.png"),
    )


def test_nothing_outside_the_folder_is_shown(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = write_folder(
        tmp_path / "s", [("a", "../secret.png"), ("a", "link.png"), ("a", "0.png")], files=False
    )
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    (folder / "0.png").write_bytes(b"x")
    found = list_samples(folder)
    assert [file for _, _, file in found.samples] == ["0.png"]
    assert len(found.missing) == 2
    assert all("outside" in str(error) for error in found.missing)


def test_a_folder_without_anything_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_samples(tmp_path / "none")
    with pytest.raises(DataError, match=r"no metadata\.jsonl"):
        list_samples(tmp_path)
    write_folder(tmp_path / "s", [("a", "0.png")], files=False)
    with pytest.raises(DataError, match="no sample of it can be shown"):
        list_samples(tmp_path / "s")
