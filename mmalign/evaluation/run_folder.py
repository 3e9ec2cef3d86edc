"""Reads a run folder for those who show it; whatever a run did not write is empty here, and nothing is guessed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mmalign.errors import DataError
from mmalign.roots import lies_in


@dataclass(frozen=True)
class SamplePair:
    """The same prompt and seed before and after; a score is None where it is missing."""

    prompt: str
    seed: int
    before: Path
    after: Path
    before_score: float | None = None
    after_score: float | None = None

    @property
    def gain(self) -> float | None:
        """``after_score - before_score``, or None where either is missing."""
        if self.before_score is None or self.after_score is None:
            return None
        return self.after_score - self.before_score


@dataclass(frozen=True)
class Run:
    """What is in a run folder."""

    folder: Path
    recipe: str
    """The text of recipe.yaml."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl."""
    summary: dict[str, Any]
    pairs: list[SamplePair]
    """In the order of samples/before."""
    unpaired: int
    """Samples whose prompt and seed are on one side only."""
    after: list[dict[str, Any]]
    """Rows of samples/after/metadata.jsonl."""
    rounds: list[dict[str, Any]]
    """Rows of rounds.jsonl, of an alignment with labels."""

    @property
    def weights(self) -> str | None:
        """What the run trained: a diffusers LoRA, a PEFT folder, a whole student, or None."""
        files = {
            "lora/pytorch_lora_weights.safetensors": "diffusers",
            "lora/adapter_config.json": "peft",
            "student": "student",
        }
        return next((kind for file, kind in files.items() if (self.folder / file).exists()), None)


def read_run(folder: Path | str) -> Run:
    """Read recipe, metrics, summary and sample pairs of a run.

    A last line that was cut off while it was written is passed over; any other broken line is an error.

    Raises:
        DataError: the folder holds no run, or a file of it is broken, with its row.
    """
    folder = Path(folder)
    names = ("recipe.yaml", "summary.json", "metrics.jsonl")
    if not any((folder / name).is_file() for name in names):
        raise DataError(f"not a run folder: it has none of {', '.join(names)}", file=folder)
    heldout = _summary(folder / "summary.json").get("heldout_reward")
    reward = heldout.get("name") if isinstance(heldout, Mapping) else None
    before, after = (_samples(folder / "samples" / side, reward) for side in ("before", "after"))
    pairs = [
        SamplePair(*key, first["path"], after[key]["path"], first["score"], after[key]["score"])
        for key, first in before.items()
        if key in after
    ]
    return Run(
        folder=folder,
        recipe=_text(folder / "recipe.yaml"),
        metrics=_rows(folder / "metrics.jsonl"),
        summary=_summary(folder / "summary.json"),
        pairs=pairs,
        unpaired=len(before) + len(after) - 2 * len(pairs),
        after=_rows(folder / "samples" / "after" / "metadata.jsonl"),
        rounds=_rows(folder / "rounds.jsonl"),
    )


def _samples(folder: Path, reward: str | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Path and score by prompt and seed, from metadata.jsonl and, if it is there, scores.jsonl."""
    scores: dict[str, float | None] = {}
    for row in _rows(folder / "scores.jsonl"):
        if row.get("reward") in (None, reward):
            failed = row.get("status") not in (None, "", "ok")
            name = PurePath(str(row.get("file_name", row.get("media")))).name
            scores[name] = None if failed else finite(row.get("score"))
    samples = {}
    file = folder / "metadata.jsonl"
    for number, row in enumerate(_rows(file), 1):
        for column in ("file_name", "prompt", "seed"):
            if column not in row:
                raise DataError(f"no field '{column}'", file=file, row=number)
        medium = folder / str(row["file_name"])
        if not lies_in(medium, folder):
            raise DataError(
                f"'{row['file_name']}' lies outside this folder", file=file, row=number, column="file_name"
            )
        key = (str(row["prompt"]), int(row["seed"]))
        samples[key] = {"path": medium, "score": scores.get(medium.name)}
    return samples


def finite(value: object) -> float | None:
    """A number as a float; None for what is missing, not finite, or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start})", file=file) from None


def _summary(file: Path) -> dict[str, Any]:
    text = _text(file)
    try:
        summary = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error})", file=file) from None
    if not isinstance(summary, dict):
        raise DataError("expected one JSON object", file=file)
    return summary


def _rows(file: Path) -> list[dict[str, Any]]:
    text, rows = _text(file), []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline after it: the run was stopped while writing
                break
            raise DataError(f"not JSON ({error.msg})", file=file, row=number) from None
        if not isinstance(row, dict):
            raise DataError("expected one JSON object a line", file=file, row=number)
        rows.append(row)
    return rows
