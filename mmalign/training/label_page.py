"""People at a page as those who answer a round's questions: it is open until every pair was judged by somebody."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmalign.data.label_items import list_samples
from mmalign.data.label_log import read_labels
from mmalign.data.label_store import LabelSettings, choice_of
from mmalign.training.labels import Answer, Labeller, Question, choice
from mmalign.training.progress import console
from mmalign.web.label_server import LabelServer

SOURCE = "people"
POLL_S = 0.5
"""Between looks at the file of labels."""


def by_people(folder: Path, out: Path, *, seed: int = 0) -> Labeller:
    """Open the labelling page over a round's samples and wait until every pair has an answer.

    Choices are on disk as they are made: a run that is stopped while people judge goes on with those it has.

    Args:
        folder: of the round's samples, with metadata.jsonl.
        out: the file of labels.
        seed: of the order in which pairs are shown.
    """

    def label(questions: Sequence[Question]) -> list[Answer | None]:
        if not questions:
            return []
        listed = list_samples(folder)
        wanted = {getattr(q, side).meta["file_name"] for q in questions for side in ("first", "second")}
        asked = replace(listed, samples=tuple(sample for sample in listed.samples if sample[2] in wanted))
        server = LabelServer(folder, asked, out, LabelSettings(mode="pairs", repeat=0.0, seed=seed))
        thread = server.start()
        console.print(f"{len(questions)} pairs to judge at {server.url}", markup=False, soft_wrap=True)
        try:
            while _unseen(read_labels(out).choices, questions):
                time.sleep(POLL_S)
        finally:
            server.stop()
            thread.join()
            server.close()
        return people_answers(read_labels(out).choices, questions)

    return label


def people_answers(rows: Sequence[Mapping[str, Any]], questions: Sequence[Question]) -> list[Answer | None]:
    """What most people said of every question; None where all who saw it skipped it, or none saw it.

    Args:
        rows: choices of pairs, as the labelling page keeps them; "both are bad" is a tie.
        questions: in the order of the answers.
    """
    answers: list[Answer | None] = []
    shown = _by_files(rows)
    for question in questions:
        rows = shown[frozenset(_files(question))]
        said = {row["annotator"]: choice_of(row) for row in rows}  # the last one of each counts
        said = {name: what for name, what in said.items() if what is not None}
        first, second = (sum(what == file for what in said.values()) for file in _files(question))
        answers.append(Answer(choice(first - second), ", ".join(said), SOURCE) if said else None)
    return answers


def _unseen(rows: Sequence[Mapping[str, Any]], questions: Sequence[Question]) -> int:
    """How many questions nobody has answered or skipped."""
    shown = _by_files(rows)
    return sum(not shown[frozenset(_files(question))] for question in questions)


def _by_files(rows: Sequence[Mapping[str, Any]]) -> dict[frozenset[str], list[Mapping[str, Any]]]:
    by_files: dict[frozenset[str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_files[frozenset(row["shown"])].append(row)
    return by_files


def _files(question: Question) -> tuple[str, str]:
    return question.first.meta["file_name"], question.second.meta["file_name"]
