"""Every choice is kept once, undone ones come back, and a server that was killed goes on where it was."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.data.label_items import MODES, Mode
from mmalign.data.label_log import read_labels
from mmalign.data.label_store import LabelSettings, LabelStore, StaleError, check_name, choice_of
from mmalign.errors import ConfigError
from tests.data.label_folders import choice_for, listed

LEFT = {"choice": "left", "strength": 1.0}


def pairs(path: Path, count: int = 6, **options: Any) -> LabelStore:
    return LabelStore(path, listed(count, 2), LabelSettings(**options))


def key_of(store: LabelStore, name: str) -> str:
    showing = store.current(name)
    assert showing is not None
    return showing.key


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_gone_through_and_every_choice_is_in_the_file(mode: Mode, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with LabelStore(path, listed(5, 3), LabelSettings(mode=mode, repeat=0.4)) as store:
        made: list[dict[str, Any]] = []
        while (showing := store.current("ann")) is not None:
            made.append(store.choose("ann", showing.key, choice_for(mode, len(made), len(showing.order))))
        progress = store.progress("ann")
        assert progress.done == progress.total == len(made) == round(1.4 * len(store.items))
    found = read_labels(path)
    assert list(found.choices) == made
    assert all(row["mode"] == mode for row in made)
    assert {row["item"] for row in made} == {item.id for item in store.items}


def test_a_label_says_what_was_shown_and_how_long_it_took(tmp_path: Path) -> None:
    now = [10.0]
    with LabelStore(tmp_path / "l.jsonl", listed(1, 2), LabelSettings(), clock=lambda: now[0]) as store:
        showing = store.current("ann")
        assert showing is not None
        now[0] = 12.5
        assert store.current("ann") == showing, "a page that asks again does not begin anew"
        row = store.choose("ann", showing.key, LEFT)
    assert row["seconds"] == 2.5
    assert row["shown"] == list(showing.order)
    assert (row["annotator"], row["number"], row["prompt"]) == ("ann", 1, "prompt 0")
    assert row["at"].endswith("+00:00")


@settings(max_examples=15)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["choose", "choose", "undo", "kill", "tear"]),
            st.sampled_from("ab"),
            st.integers(0, 3),
        ),
        max_size=25,
    )
)
def test_the_file_holds_exactly_what_a_simple_model_remembers(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("model") / "labels.jsonl"
    store = pairs(path, repeat=0.3)
    model: dict[str, list[tuple[str, Any]]] = {"a": [], "b": []}
    for what, name, number in steps:
        if what == "choose" and (showing := store.current(name)) is not None:
            store.choose(name, showing.key, choice_for("pairs", number))
            model[name].append((showing.key, choice_for("pairs", number)["choice"]))
        elif what == "undo":
            showing = store.current(name)
            assert store.undo(name, None if showing is None else showing.key) == bool(model[name])
            if model[name]:
                key, _ = model[name].pop()
                assert key_of(store, name) == key
        elif what in ("kill", "tear"):
            store.close()
            if what == "tear":
                with path.open("ab") as file:
                    file.write(b'{"annotator": "a", "numb')
            store = pairs(path, repeat=0.3)
    store.close()
    for name, made in model.items():
        rows = [row for row in read_labels(path).choices if row["annotator"] == name]
        keys = [row["item"] + ("-again" if row["repeat"] else "") for row in rows]
        assert list(zip(keys, [row["choice"] for row in rows], strict=True)) == made


def test_a_page_that_is_open_twice_counts_once(tmp_path: Path) -> None:
    with pairs(tmp_path / "l.jsonl") as store:
        key = key_of(store, "ann")
        store.choose("ann", key, LEFT)
        with pytest.raises(StaleError, match="answered already"):
            store.choose("ann", key, LEFT)
        with pytest.raises(StaleError, match="behind"):
            store.undo("ann", key)
        assert store.progress("ann").done == 1
        assert store.undo("ann", key_of(store, "ann"))
        assert key_of(store, "ann") == key
        assert not store.undo("ann", key), "there is nothing before the first"


def test_what_is_no_choice_leaves_no_trace(tmp_path: Path) -> None:
    with pairs(tmp_path / "l.jsonl") as store:
        key, before = key_of(store, "ann"), (tmp_path / "l.jsonl").read_bytes()
        with pytest.raises(ConfigError, match="left, right"):
            store.choose("ann", key, {"choice": "up"})
        assert key_of(store, "ann") == key
    assert (tmp_path / "l.jsonl").read_bytes() == before


@pytest.mark.parametrize(("threads", "each"), [(8, 15), pytest.param(2, 500, marks=pytest.mark.slow)])
def test_people_at_once_lose_and_double_nothing(threads: int, each: int, tmp_path: Path) -> None:
    """Each choice is sent twice, as by two pages of one person."""
    path = tmp_path / "l.jsonl"
    store = LabelStore(path, listed(each, 2), LabelSettings(repeat=0.0))
    stale = Counter[str]()

    def work(name: str) -> None:
        for number in range(each):
            key = key_of(store, name)
            store.choose(name, key, choice_for("pairs", number))
            try:
                store.choose(name, key, choice_for("pairs", number + 1))
            except StaleError:
                stale[name] += 1

    workers = [threading.Thread(target=work, args=(f"p{i}",)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    rows = read_labels(path).choices
    assert len(rows) == threads * each
    assert Counter(row["annotator"] for row in rows) == {f"p{i}": each for i in range(threads)}
    assert len({(row["annotator"], row["item"]) for row in rows}) == len(rows)
    for i in range(threads):
        made = [row["choice"] for row in rows if row["annotator"] == f"p{i}"]
        assert made == [choice_for("pairs", number)["choice"] for number in range(each)]
    assert set(stale.values()) == {each}


def test_labels_of_samples_that_are_gone_stay_and_count_for_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with pairs(path, 4, repeat=0.0) as store:
        for _ in range(4):
            store.choose("ann", key_of(store, "ann"), LEFT)
    before = path.read_bytes()
    with LabelStore(path, listed(6, 2)[4:], LabelSettings(repeat=0.0)) as store:
        assert store.gone == 2
        progress = store.progress("ann")
        assert (progress.done, progress.total) == (2, 4)
        undone = store.undo("ann", key_of(store, "ann"))
        assert undone
        assert store.progress("ann").done == 1
    assert path.read_bytes().startswith(before)
    assert len(read_labels(path).choices) == 3


def test_what_was_undone_comes_next_also_where_samples_were_added(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with pairs(path, 3, repeat=0.0) as store:
        keys = [store.choose("ann", key_of(store, "ann"), LEFT)["item"] for _ in range(3)]
    with pairs(path, 30, repeat=0.0) as store:
        assert store.undo("ann", key_of(store, "ann"))
        assert key_of(store, "ann") == keys[-1]


@pytest.mark.parametrize(
    "name",
    ["", " ", "../ann", "a/b", "a\\b", "a..b", "ann ", ".ann", "_ann", "a\nb", "a\0b", "x" * 65, None, 7],
)
def test_a_name_with_path_characters_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no name here"):
        check_name(name)
    with pairs(tmp_path / "l.jsonl") as store, pytest.raises(ConfigError, match="is no name here"):
        store.current(name)


@pytest.mark.parametrize("name", ["ann", "Ann Müller", "李", "ann@example.org", "7"])
def test_a_name_is_a_name(name: str) -> None:
    assert check_name(name) == name


def test_the_rate_is_of_late_and_leaves_breaks_out(tmp_path: Path) -> None:
    now = [0.0]
    with LabelStore(tmp_path / "l.jsonl", listed(9, 2), LabelSettings(), clock=lambda: now[0]) as store:
        for step in (1.0, 3.0, 3.0, 4000.0, 3.0):
            now[0] += step
            store.choose("ann", key_of(store, "ann"), LEFT)
        assert store.progress("ann").per_minute == pytest.approx(20)
        assert [s.key for s in store.upcoming("ann", 1)] == [key_of(store, "ann")]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"repeat": 1.5}, "a share"),
        ({"scale": 10}, "2 to 9"),
        ({"aspects": ("look",)}, "are for mode rating"),
        ({"mode": "rating", "aspects": ("look", "look")}, "different names"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LabelSettings(**options)


def test_a_choice_is_about_files_and_not_sides() -> None:
    row = {"mode": "pairs", "shown": ["b", "a"], "choice": "right"}
    assert choice_of(row) == "a"
    assert choice_of({**row, "choice": "tie"}) == "tie"
    assert choice_of({"mode": "ranking", "shown": ["b", "a"], "ranks": [1, 2]}) == (("a", 2), ("b", 1))
    assert choice_of({"mode": "pairs", "skipped": True}) is None
    assert choice_of({"mode": "binary", "label": False}) is False
    assert choice_of({"mode": "rating", "scores": {"b": 1, "a": 2}}) == (("a", 2), ("b", 1))
    assert choice_of({"mode": "marks", "regions": [], "words": [1]}) is True
