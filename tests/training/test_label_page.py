"""What people said at the page is what a round takes: the majority, whatever side it was on, nothing skipped."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.data.label_items import list_samples
from mmalign.data.label_store import LabelSettings, LabelStore
from mmalign.media import Image, Sample
from mmalign.training.label_page import by_people, people_answers
from mmalign.training.labels import Answer, Question


def question(prompt: str, first: str, second: str) -> Question:
    return Question(prompt, *(Sample(prompt, meta={"file_name": name}) for name in (first, second)))


def row(annotator: str, shown: list[str], choice: str | None, **more: Any) -> dict[str, Any]:
    return {"annotator": annotator, "mode": "pairs", "shown": shown, "choice": choice, **more}


QUESTIONS = [
    question("a", "0.png", "1.png"),
    question("b", "2.png", "3.png"),
    question("c", "4.png", "5.png"),
]


def test_the_side_on_the_screen_is_not_the_side_of_the_question() -> None:
    rows = [row("Ann", ["1.png", "0.png"], "left"), row("Ann", ["2.png", "3.png"], "left")]
    assert people_answers(rows, QUESTIONS) == [
        Answer("second", "Ann", "people"),
        Answer("first", "Ann", "people"),
        None,
    ]


def test_most_people_decide_and_each_has_one_vote() -> None:
    shown = ["0.png", "1.png"]
    rows = [
        row("Ann", shown, "right"),
        row("Ann", shown, "left"),
        row("Bob", shown, "left"),
        row("Cy", shown, "right"),
    ]
    assert people_answers(rows, QUESTIONS)[0] == Answer("first", "Ann, Bob, Cy", "people")
    assert people_answers([*rows, row("Di", shown, "right")], QUESTIONS)[0] == Answer(
        "tie", "Ann, Bob, Cy, Di", "people"
    )
    assert people_answers([row("Ann", shown, "both_bad")], QUESTIONS)[0] == Answer("tie", "Ann", "people")


def test_what_was_skipped_has_no_answer() -> None:
    assert people_answers([row("Ann", ["0.png", "1.png"], None, skipped=True)], QUESTIONS)[0] is None


@pytest.mark.slow
def test_the_page_is_open_until_all_was_judged(tmp_path: Path) -> None:
    """With the choices that a page of an earlier process left it needs nobody; of a subset it asks that subset."""
    folder, out = tmp_path / "round-1", tmp_path / "people-1.jsonl"
    lines = []
    for i in range(6):
        folder.mkdir(exist_ok=True)
        Image(torch.rand(3, 8, 8)).save(folder / f"{i}.png")
        lines.append(f'{{"file_name": "{i}.png", "prompt": "{"abc"[i // 2]}"}}\n')
    (folder / "metadata.jsonl").write_text("".join(lines))
    settings = LabelSettings(mode="pairs", repeat=0.0, seed=1)
    with LabelStore(out, list_samples(folder).samples, settings, folder=folder) as store:
        while (showing := store.current("Ann")) is not None:
            better = min(showing.order)
            side = ("left", "right")[showing.order.index(better)]
            store.choose("Ann", showing.key, {"choice": side, "strength": 1})
    assert by_people(folder, out, seed=1)(QUESTIONS) == [Answer("first", "Ann", "people")] * 3
    assert by_people(folder, out, seed=1)(QUESTIONS[1:2]) == [Answer("first", "Ann", "people")]
    assert by_people(folder, out, seed=1)([]) == []
