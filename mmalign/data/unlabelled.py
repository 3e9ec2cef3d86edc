"""Samples that nobody has compared yet: read by prompt, and written as pairs that wait for a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmalign.data.cells import failed, number_of, plain_name, relative_to, text_of
from mmalign.data.pairs import TEXTS, UNLABELLED
from mmalign.data.tables import TABLE_SUFFIXES, Record, brief, is_file, read_records
from mmalign.data.writers import write_parquet
from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.roots import lies_in, outside, root_of


@dataclass(frozen=True, slots=True)
class Pool:
    """The samples of P prompts, each once.

    Args:
        prompts: P, in the order of their first sample.
        media: P lists of files.
        steps: as ``media``, the optimiser step at which each was drawn; None where the table has no such column.
    """

    prompts: tuple[str, ...]
    media: tuple[tuple[Path, ...], ...]
    steps: tuple[tuple[int, ...], ...] | None

    def __len__(self) -> int:
        return sum(len(group) for group in self.media)


def read_pool(path: Path, *, root: Path | None = None) -> Pool:
    """Samples of a folder with ``metadata.jsonl``, of a manifest, or of a file that ``mmalign score`` wrote.

    Args:
        path: the folder (``file_name, prompt``), or a table (``media, prompt``); a column ``step`` is read where there
            is one. A sample that several rewards scored, or that is named twice, counts once.
        root: where relative paths of media start; by default the folder of the table, and for scores the current one.

    A row whose status says that its sample could not be scored is left out.

    Raises:
        DataError: no samples or no prompts in it, a missing column or value, or a medium that does not exist, with row
            and column.
    """
    table, column = path, "media"
    if path.is_dir():
        table, column = path / "metadata.jsonl", "file_name"
        if not table.is_file():
            raise DataError(
                "no metadata.jsonl in it, so no prompts (and media inside a dataset are no files that pairs could "
                "name); write one with file_name and prompt",
                file=path,
            )
    elif not path.is_file():
        raise DataError("no such file or folder", file=path)
    elif path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"expected a folder or a table ({', '.join(TABLE_SUFFIXES)})", file=path)
    rows = list(read_records(table))
    if not rows:
        raise DataError("no samples in it", file=table)
    if all(map(failed, rows)):
        raise DataError("no sample in it could be scored, as its column status says", file=table)
    scored = all("reward" in row and "score" in row for row in rows)
    base = table.parent if path.is_dir() else root or (Path() if scored else table.parent)
    stepped = any(row.get("step") is not None for row in rows)
    found: dict[str, dict[Path, int]] = {}
    for number, row in enumerate(rows, 1):
        if failed(row):
            continue
        medium = base / text_of(row, column, table, number)
        inside = base if scored and root is None else root or root_of(table)
        if not lies_in(medium, inside):
            raise DataError(outside(medium, inside), file=table, row=number, column=column)
        if not is_file(medium):
            raise DataError(
                f"no such file: {plain_name(medium)}; is it --root?", file=table, row=number, column=column
            )
        prompt = text_of(row, "prompt", table, number)
        found.setdefault(prompt, {})[medium] = _step(row, table, number) if stepped else 0
    return Pool(
        tuple(found),
        tuple(tuple(group) for group in found.values()),
        tuple(tuple(group.values()) for group in found.values()) if stepped else None,
    )


def _step(row: Record, path: Path, number: int) -> int:
    value = number_of(row, "step", path, number)
    if value is None or value < 0 or math.floor(value) != value:
        raise DataError(
            f"expected a step, got {brief(row.get('step'))}", file=path, row=number, column="step"
        )
    return int(value)


def write_unlabelled(path: Path, pairs: Sequence[tuple[str, Path, Path]], *, source: str) -> None:
    """Write pairs without a verdict as a parquet file of pairs, whole or not at all.

    ``chosen`` and ``rejected`` are the two media in the order given, which says nothing: ``strength`` is 0, and there
    is no annotator. Whatever reads preferences refuses such a row until a person has put them in order and said how
    sure they are.

    Args:
        path: the file; media are written relative to it.
        pairs: prompt and two files.
        source: what chose them.
    """
    rows = [
        {
            "prompt": prompt,
            "chosen": relative_to(path, first),
            "rejected": relative_to(path, second),
            "margin": None,
            "strength": UNLABELLED,
            "annotator": None,
            "source": source,
        }
        for prompt, first, second in pairs
    ]
    with whole_file(path) as unfinished:
        write_parquet(rows, unfinished, text=TEXTS)
