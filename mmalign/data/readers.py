"""Reads what users bring to be scored: media, folders of them, and tables that list them.

Every error names the file and, where there is one, the row (1 is the first record, headers and blank lines not counted)
and the column. No row is dropped: rows in = rows out.
"""

import difflib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mmalign.data.hub import DatasetOptions, DatasetSample, is_dataset, read_dataset
from mmalign.data.tables import TABLE_SUFFIXES as TABLE_SUFFIXES
from mmalign.data.tables import Record as Record
from mmalign.data.tables import (
    brief,
    is_file,
    is_folder,
    is_text,
    listing,
)
from mmalign.data.tables import read_records as read_records
from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.media import CONTEXT_MEDIA, MEDIA, MEDIA_SUFFIXES, Media, Modality, SampleFile
from mmalign.roots import root_of
from mmalign.unfinished import is_unfinished

NAMES_OF_FILES = ("media", "file_name", *CONTEXT_MEDIA)
"""Columns whose texts need not be UTF-8."""
__all__ = ["TABLE_SUFFIXES", "Record", "read_records", "read_sample_files"]


def read_sample_files(
    paths: Sequence[Path],
    *,
    prompt: str | None = None,
    needs_prompt: bool = True,
    modality: Modality | None = None,
    root: Path | None = None,
    dataset: DatasetOptions | None = None,
    context: Mapping[str, bool] | None = None,
    reference: Media | None = None,
) -> list[SampleFile | DatasetSample]:
    """List the samples of media files, folders, manifests and datasets, in order, without opening a medium.

    Args:
        paths: media files; folders, with ``metadata.jsonl`` (``file_name``, ``prompt``) or plain, then every media file
            below them by name; manifests with ``media`` (relative to the manifest) and ``prompt``; datasets, as
            ``hf:owner/name`` or a folder that ``save_to_disk`` wrote. A table may also have an ``id``, elsewhere the
            running number, and a ``modality``.
        prompt: the prompt of media that come without their own.
        needs_prompt: whether a source without prompts is a mistake.
        modality: what the files are where no table says so; None for what their suffixes say.
        root: the folder in which the media of tables and folders have to lie, links followed; by default, a table's
            own. One that lies elsewhere keeps its row, fails when it is loaded, and is not opened.
        dataset: which split and columns of datasets are meant.
        context: further columns of tables and datasets, each with whether a source without it is a mistake; they are
            what ``Sample.context`` calls so. Media are named as the column of media names them.
        reference: the ``reference`` of media that come without their own.

    Returns:
        One entry per file or row. A row whose cell is empty is kept, without its path or its prompt.

    Raises:
        DataError: a path does not exist or holds nothing to score, a table cannot be read, or a prompt or a column of
            the context is missing or given twice.
        ConfigError: a dataset's split or column has to be named, or was named and there is no dataset.
    """
    dataset = dataset or DatasetOptions()
    if dataset != DatasetOptions() and not any(map(is_dataset, paths)):
        raise ConfigError("--split, --media-column and --prompt-column are for datasets, and none is named")
    if root is not None and not root.is_dir():
        raise DataError("the root of media is no folder", file=root)
    context = context or {}
    files: list[SampleFile | DatasetSample] = []
    for path in paths:
        found: Sequence[SampleFile | DatasetSample]
        if is_dataset(path):
            found = read_dataset(path, root=root, options=dataset, context=tuple(context))
        elif not is_file(path) and not is_folder(path):
            raise DataError(f"no such file or folder{_near(path)}", file=path)
        elif path.is_dir() and (path / "metadata.jsonl").exists():
            found = listed = _listed(path / "metadata.jsonl", media="file_name", root=root, context=context)
            _warn_of_unlisted(path, listed)
        elif path.is_dir():
            found = [SampleFile("", medium, None, str(medium), root=root) for medium in _media(path)]
        elif path.suffix.lower() in TABLE_SUFFIXES:
            found = _listed(path, media="media", root=root, context=context)
        elif path.suffix.lower() in MEDIA_SUFFIXES:
            found = [SampleFile("", path, None, str(path))]
        else:
            known = ", ".join((*MEDIA_SUFFIXES, *TABLE_SUFFIXES))
            raise DataError(f"not a kind of file that can be scored; known: {known}", file=path)
        if not found:
            nothing = "no rows in it" if is_dataset(path) else "no media in this folder"
            raise DataError(nothing if path.is_dir() else "no rows in this file", file=path)
        has_prompts = any(file.prompt is not None for file in found)
        if has_prompts and prompt is not None:
            raise DataError("has prompts of its own; leave --prompt out, or score it apart", file=path)
        if needs_prompt and not has_prompts and prompt is None:
            raise DataError(
                "has no prompts; add --prompt TEXT, or use a manifest with media and prompt", file=path
            )
        found = _with_reference(found, path, reference)
        for name in (name for name, needed in context.items() if needed):
            if not any(file.gives(name) for file in found):
                way = " or --reference FILE" if name == "reference" else ""
                raise DataError(f"has no {name}; use a manifest with media and {name}{way}", file=path)
        files += [
            replace(
                file,
                id=file.id or str(len(files) + i),
                prompt=file.prompt if has_prompts else prompt,
                modality=file.modality or modality,
            )
            for i, file in enumerate(found)
        ]
    return files


def _with_reference(
    found: Sequence[SampleFile | DatasetSample], path: Path, reference: Media | None
) -> Sequence[SampleFile | DatasetSample]:
    """The samples, with the one reference that was given for all."""
    if reference is None:
        return found
    if any(file.gives("reference") for file in found):
        raise DataError("has references of its own; leave --reference out, or score it apart", file=path)
    return [replace(file, context={**cast(Any, file.context), "reference": reference}) for file in found]


def _listed(path: Path, *, media: str, root: Path | None, context: Iterable[str]) -> list[SampleFile]:
    """The samples that a table lists, its media relative to its folder and, if no root is given, inside it."""
    files = []
    for row, record in enumerate(read_records(path), start=1):
        if media not in record:
            there = f"the column is missing; there are: {listing(record)}"
            raise DataError(there, file=path, row=row, column=media)
        name = _text(record, media, path, row)
        found = path.parent / name if name else None
        place = f"{path}, row {row}, column {media!r}"
        identity = "" if record.get("id") is None else str(record["id"])
        prompt, modality = _text(record, "prompt", path, row), _text(record, "modality", path, row)
        if modality is not None and modality not in MEDIA:
            unknown = UnknownNameError("modality", modality, MEDIA)
            raise DataError(str(unknown), file=path, row=row, column="modality")
        kind = cast(Modality | None, modality)
        given = {name: _text(record, name, path, row) for name in context}
        said = {n: path.parent / v if n in CONTEXT_MEDIA else v for n, v in given.items() if v is not None}
        files.append(SampleFile(identity, found, prompt, place, kind, root or root_of(path), said))
    return files


def _text(record: Record, column: str, path: Path, row: int) -> str | None:
    value = record.get(column)
    if value is not None and not isinstance(value, str):
        raise DataError(f"expected text, got {brief(value)}", file=path, row=row, column=column)
    if value is not None and column not in NAMES_OF_FILES and not is_text(value):
        raise DataError(f"holds half a character: {brief(value)}", file=path, row=row, column=column)
    return value


def _media(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in MEDIA_SUFFIXES and not is_unfinished(p) and p.is_file()
    )


def _warn_of_unlisted(folder: Path, listed: Sequence[SampleFile]) -> None:
    known = {os.path.abspath(file.path) for file in listed if file.path is not None}
    left = [medium for medium in _media(folder) if os.path.abspath(medium) not in known]
    if left:
        warnings.warn(f"{folder}: metadata.jsonl leaves out {len(left)} media, the first is {left[0].name}")


def _near(path: Path) -> str:
    """A hint at a name that nearly is this one."""
    if not path.parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1, cutoff=0.6)
    return f". Did you mean '{path.parent / near[0]}'?" if near else ""
