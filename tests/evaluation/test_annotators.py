"""Labels of simulated people whose habits are known: who is careful, who guesses, and who has a favourite side."""

import math
import random
from typing import Any

import pytest

from mmalign.evaluation.annotators import (
    LabelReport,
    alpha_with_others,
    report_annotators,
    values_of,
    wilson_interval,
)
from mmalign.evaluation.krippendorff import krippendorff_alpha


def pairs_of(
    name: str,
    *,
    right: float = 0.9,
    left: float | None = None,
    items: int = 120,
    repeats: int = 30,
    seconds: float = 4.0,
) -> list[dict[str, Any]]:
    """One person's pairs: right with a probability, or the left side with one, whatever is right."""
    draw = random.Random(name)
    rows = []
    for number in range(items + repeats):
        item = number % items
        better, worse = f"{item}-better.png", f"{item}-worse.png"
        shown = [better, worse] if draw.random() < 0.5 else [worse, better]
        if left is not None:
            side = "left" if draw.random() < left else "right"
        else:
            wanted = better if draw.random() < right else worse
            side = ("left", "right")[shown.index(wanted)]
        rows.append(
            {
                "annotator": name,
                "number": number + 1,
                "mode": "pairs",
                "item": f"item {item}",
                "prompt": f"prompt {item // 2}",
                "shown": shown,
                "repeat": number >= items,
                "choice": side,
                "strength": 1.0,
                "seconds": seconds,
            }
        )
    return rows


@pytest.fixture(scope="module")
def report() -> LabelReport:
    rows = [
        *pairs_of("ann"),
        *pairs_of("bob"),
        *pairs_of("cat"),
        *pairs_of("guess", right=0.5, seconds=0.5),
        *pairs_of("lefty", left=0.9),
    ]
    return report_annotators(rows, "pairs", resamples=200)


def test_careful_people_are_left_alone_and_others_named_with_reasons(report: LabelReport) -> None:
    said = {person.name: " ".join(person.suspicions) for person in report.people}
    assert said["ann"] == said["bob"] == said["cat"] == ""
    assert "repeated items alike" in said["guess"]
    assert "with the others, who have" in said["guess"]
    assert "0.5 s for an item, others 4.0 s" in said["guess"]
    assert "shown first in 86% of 150" in said["lefty"]


def test_numbers_are_those_of_the_simulation(report: LabelReport) -> None:
    people = {person.name: person for person in report.people}
    assert (people["ann"].choices, people["ann"].repeats, people["ann"].skipped) == (150, 30, 0)
    assert people["lefty"].left == pytest.approx(0.9, abs=0.06)
    assert people["ann"].left_ci95[0] < 0.5 < people["ann"].left_ci95[1]
    # Two who are right in 0.9 agree in 0.9^2 + 0.1^2, beyond chance in 2 * 0.82 - 1.
    shared, same, alpha = report.pairs["ann", "bob"]
    assert shared == 120
    assert same == pytest.approx(0.82, abs=0.08)
    assert alpha == pytest.approx(0.64, abs=0.16)
    assert people["cat"].consistent == pytest.approx(0.82, abs=0.15)
    assert abs(people["guess"].alpha) < 0.2
    assert report.alpha_ci95[0] < report.alpha < report.alpha_ci95[1]
    assert (report.choices, report.shared, report.mode) == (750, 120, "pairs")


def test_a_verdict_is_of_files_not_of_sides_and_names_do_not_tilt_it() -> None:
    rows = pairs_of("ann", right=1.0, items=200, repeats=0)
    verdicts = [value for row in rows for _, value in values_of(row)]
    assert 70 < verdicts.count("first") < 130, "the better file's name is always the first by letter"
    turned = [
        {**row, "shown": row["shown"][::-1], "choice": {"left": "right", "right": "left"}[row["choice"]]}
        for row in rows
    ]
    assert [values_of(row) for row in turned] == [values_of(row) for row in rows]
    both = report_annotators([*rows, *({**row, "annotator": "bob"} for row in turned)], "pairs", resamples=10)
    assert both.alpha == 1


def row(mode: str, annotator: str = "ann", item: str = "i", **more: Any) -> dict[str, Any]:
    return {"mode": mode, "annotator": annotator, "item": item, "prompt": item, "shown": ["b", "a"], **more}


def test_a_ranking_is_its_pairs_a_rating_its_aspects() -> None:
    found = values_of({**row("ranking", ranks=[2, 1, 2]), "shown": ["c", "a", "b"]})
    by_pair = {unit: value for unit, value in found}
    assert [unit[1:] for unit in by_pair if isinstance(unit, tuple)] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert by_pair["i", "b", "c"] == "tie"
    assert {by_pair["i", "a", "b"], by_pair["i", "a", "c"]} <= {"first", "second"}
    assert values_of(row("rating", scores={"look": 2, "fit": 5})) == [(("i", "fit"), 5), (("i", "look"), 2)]
    assert values_of(row("binary", label=True)) == [("i", True)]
    assert values_of(row("marks", regions=[], words=[])) == [("i", False)]
    assert values_of(row("pairs", skipped=True)) == []


def test_ratings_are_in_an_order() -> None:
    def rated(scores: list[list[int]]) -> LabelReport:
        rows = [
            row("rating", f"p{who}", f"i{i}", scores={"overall": score})
            for i, pair in enumerate(scores)
            for who, score in enumerate(pair)
        ]
        return report_annotators(rows, "rating", resamples=10)

    near, far = [[1, 2], [2, 3], [4, 5], [5, 5]], [[1, 5], [2, 5], [4, 1], [5, 5]]
    assert rated(near).alpha > 0.5 > rated(far).alpha
    assert rated(near).alpha == krippendorff_alpha(near, metric="ordinal")
    assert all(math.isnan(person.left) for person in rated(near).people)


def test_one_person_alone_agrees_with_nobody() -> None:
    alone = report_annotators(pairs_of("ann"), "pairs", resamples=10)
    assert alone.shared == 0
    assert math.isnan(alone.alpha)
    assert math.isnan(alone.people[0].agreement)
    assert alone.people[0].suspicions == ()
    assert report_annotators([], "pairs").people == ()


def test_skipped_items_take_no_part() -> None:
    rows = [*pairs_of("ann", items=4, repeats=0), *pairs_of("bob", items=4, repeats=0)]
    rows[0] = {**{k: v for k, v in rows[0].items() if k != "choice"}, "skipped": True}
    found = report_annotators(rows, "pairs", resamples=10)
    assert found.shared == 3
    assert found.people[0].skipped == 1


def test_the_alpha_of_two_is_each_one_s_with_the_other() -> None:
    said = [{"a": x, "b": y} for x, y in [(1, 1), (2, 2), (1, 2), (2, 2), (1, 1)]]
    both = krippendorff_alpha([list(found.values()) for found in said])
    for name in "ab":
        alpha, _ = alpha_with_others(name, said, range(5), metric="nominal", resamples=10)
        assert alpha == pytest.approx(both)


def test_wilson_s_interval() -> None:
    low, high = wilson_interval(0, 10)
    assert low == 0
    assert high == pytest.approx(1.96**2 / (10 + 1.96**2))
    assert wilson_interval(10, 10) == pytest.approx((1 - high, 1))
