"""What judges are judged on: pairs that people decided, in our columns or those of known benchmarks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.hub import DatasetSample, is_dataset, load_rows
from mmalign.data.pairs import TIES, refuse_unlabelled
from mmalign.data.tables import TABLE_SUFFIXES, Record, brief, read_records
from mmalign.errors import DataError
from mmalign.rewards.ahead import Loadable
from mmalign.roots import root_of

PERSPECTIVES = ("alignment", "safety", "quality", "bias")
"""Of MJ-Bench; its papers also call quality "artifact"."""
ASPECTS = ("Overall", "ALL", "VQ", "MQ", "TA")
VERDICTS = {"A": 1, "B": -1, "same": 0}


@dataclass(frozen=True, slots=True)
class Case:
    """Two media of one prompt, and what people said.

    ``human`` is 1 where the first is better, -1 where the second is and 0 for a tie; ``part`` names the perspective or
    section, ``subset`` the scenario inside it, ``aspect`` what was compared.
    """

    prompt: str
    first: Loadable
    second: Loadable
    human: int
    part: str | None = None
    subset: str | None = None
    aspect: str | None = None


@dataclass(frozen=True, slots=True)
class Single:
    """A picture of one demographic group, whose score should be that of the other groups of its occupation."""

    prompt: str
    sample: Loadable
    occupation: str


@dataclass(frozen=True, slots=True)
class JudgeData:
    """A benchmark: pairs, and single pictures where it measures bias."""

    layout: str
    cases: tuple[Case, ...]
    singles: tuple[Single, ...] = ()


def read_judge_data(paths: Sequence[Path]) -> JudgeData:
    """Read one benchmark, in any of these layouts, told apart by their columns.

    - pairs: ``prompt, chosen, rejected`` and perhaps ``aspect``, and ``verdict`` where some are ties;
    - rewardbench: the same with ``subset``, and perhaps ``section``;
    - mj-bench: ``caption, image0, image1, label`` (0 or 1: the better one); for bias ``caption, image, occupation``.
      A file named by its perspective (alignment.parquet, ...) is that perspective, else the column ``perspective``;
      ``subset`` or ``subcategory`` names the scenario;
    - videoalign: ``prompt, path_A, path_B`` and A, B or same in ``Overall``, ``VQ``, ``MQ`` and ``TA``.

    Args:
        paths: tables, datasets (``hf:owner/name``, or saved to disk), or folders of tables. Media are bytes, or paths
            relative to the table.

    Raises:
        DataError: a table cannot be read, has none of these layouts, or a row of it is wrong, with row and column; or
            the tables have different layouts.
    """
    tables = [table for path in paths for table in _tables(path)]
    layouts: list[str] = []
    cases: list[Case] = []
    singles: list[Single] = []
    for path in tables:
        records = load_rows(path) if is_dataset(path) else read_records(path)
        number = 0
        for number, row in enumerate(records, 1):
            layout = _layout(row, path)
            layouts.append(layout)
            place = _Place(path, number)
            if layout == "mj-bench" and "image0" not in row:
                singles.append(_single(row, place))
            else:
                cases += _READ[layout](row, place)
        if not number:
            raise DataError("no rows in it", file=path)
    found = dict.fromkeys(layouts)
    if len(found) != 1:
        raise DataError(f"expected one layout, got {' and '.join(found)}; judge them apart", file=tables[0])
    return JudgeData(layouts[0], tuple(cases), tuple(singles))


def _tables(path: Path) -> list[Path]:
    if path.is_dir() and not is_dataset(path):
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in TABLE_SUFFIXES)
        if not found:
            raise DataError("no table in this folder", file=path)
        return found
    if not is_dataset(path) and not path.is_file():
        raise DataError("no such file or folder", file=path)
    return [path]


def _layout(row: Record, path: Path) -> str:
    names = set(row)
    if {"caption", "image0", "image1", "label"} <= names or {"image", "occupation"} <= names:
        return "mj-bench"
    if {"prompt", "path_A", "path_B"} <= names:
        return "videoalign"
    if {"prompt", "chosen", "rejected", "subset"} <= names:
        return "rewardbench"
    if {"prompt", "chosen", "rejected"} <= names:
        return "pairs"
    raise DataError(
        f"no known layout of pairs has the columns {', '.join(map(str, row))}; ours is prompt, chosen, rejected",
        file=path,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    number: int

    def text(self, row: Record, column: str) -> str:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"expected a text, got {brief(value)}", file=self.path, row=self.number, column=column
            )
        return value

    def medium(self, row: Record, column: str, prompt: str) -> Loadable:
        """A medium that is read when it is scored; whatever is wrong with it is its status then."""
        cell = row.get(column)
        named = cell.get("path") if isinstance(cell, Mapping) else cell
        folder = self.path if self.path.is_dir() else self.path.parent
        root = root_of(self.path)
        place = f"{self.path}, row {self.number}, column {column!r}"
        path = folder / named if isinstance(named, str) and named else self.path / f"{self.number}-{column}"
        if root != folder and isinstance(cell, str) and cell:
            cell = str(path.absolute())  # names in a dataset begin at its root, and these at the table
        rows: list[dict[str, Any]] = [{column: cell}]
        return DatasetSample(f"{self.number}-{column}", path, prompt, place, None, root, rows)


def _pairs(row: Record, place: _Place) -> Iterator[Case]:
    refuse_unlabelled(row, place.path, place.number)
    prompt = place.text(row, "prompt")
    first, second = (place.medium(row, column, prompt) for column in ("chosen", "rejected"))
    aspect, part, subset = (
        value if isinstance(value := row.get(name), str) and value else None
        for name in ("aspect", "section", "subset")
    )
    human = 0 if row.get("verdict") in TIES else 1
    yield Case(prompt, first, second, human, part=part, subset=subset, aspect=aspect)


def _mj_bench(row: Record, place: _Place) -> Iterator[Case]:
    prompt, label = place.text(row, "caption"), row.get("label")
    if str(label) not in ("0", "1"):
        raise DataError(
            f"expected 0 or 1, got {brief(label)}", file=place.path, row=place.number, column="label"
        )
    first, second = (place.medium(row, column, prompt) for column in ("image0", "image1"))
    subset = row.get("subset") or row.get("subcategory")
    human = 1 if str(label) == "0" else -1
    yield Case(
        prompt, first, second, human, part=_perspective(row, place), subset=str(subset) if subset else None
    )


def _perspective(row: Record, place: _Place) -> str | None:
    named = row.get("perspective") or (
        place.path.stem if place.path.stem in (*PERSPECTIVES, "artifact") else None
    )
    return "quality" if named == "artifact" else named if isinstance(named, str) else None


def _single(row: Record, place: _Place) -> Single:
    prompt = place.text(row, "caption")
    return Single(prompt, place.medium(row, "image", prompt), place.text(row, "occupation"))


def _videoalign(row: Record, place: _Place) -> Iterator[Case]:
    prompt = place.text(row, "prompt")
    first, second = (place.medium(row, column, prompt) for column in ("path_A", "path_B"))
    for aspect in ASPECTS:
        if aspect in row:
            if row[aspect] not in tuple(VERDICTS):
                raise DataError(
                    f"expected A, B or same, got {brief(row[aspect])}",
                    file=place.path,
                    row=place.number,
                    column=aspect,
                )
            yield Case(prompt, first, second, VERDICTS[row[aspect]], aspect=aspect)


_READ = {"mj-bench": _mj_bench, "pairs": _pairs, "rewardbench": _pairs, "videoalign": _videoalign}
