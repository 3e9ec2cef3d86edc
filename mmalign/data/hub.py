"""Samples of Hugging Face datasets: by hub id, or a folder that ``save_to_disk`` wrote; media stay undecoded rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from mmalign.data.tables import brief, is_file, listing
from mmalign.errors import ConfigError, DataError
from mmalign.media import CONTEXT_MEDIA, Media, Modality, Sample, SampleFile
from mmalign.media.from_bytes import media_from_bytes

HUB = "hf:"
"""What a path begins with that is a hub id, or anything else that ``datasets.load_dataset`` takes."""
MEDIA_FEATURES: dict[str, Modality | None] = {"Image": "image", "Video": "video", "Audio": "audio"}
"""Feature classes of ``datasets`` that hold media, and what they hold."""
MEDIA_COLUMNS = ("media", "file_name")
PROMPT_COLUMNS = ("prompt", "caption", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetOptions:
    """Which part of a dataset is meant."""

    split: str | None = None
    """By default the only one."""
    media_column: str | None = None
    """By default the only one that holds media, or ``media``."""
    prompt_column: str | None = None
    """By default ``prompt``, ``caption`` or ``text``, the first that is there."""


@dataclass(frozen=True, slots=True)
class DatasetSample:
    """A row whose medium is still in the dataset; ``load`` reads it, as that of ``SampleFile`` does.

    ``root`` is the folder that files have to lie in which the row names and does not hold.
    """

    id: str
    path: Path | None
    prompt: str | None
    place: str
    modality: Modality | None
    root: Path
    rows: Any = field(repr=False)
    row: int = 0
    context: Mapping[str, Media | str] = field(default_factory=dict)

    def gives(self, name: str) -> bool:
        """Whether its context has something of this name, or its dataset a column."""
        return name in self.context or name in self.rows.column_names[1:]

    def load(self) -> Sample:
        """Read the medium, and those of the context.

        Raises:
            DataError: the cell is empty, names a file outside ``root`` or none, or cannot be read.
        """
        (_, medium), *others = self.rows[self.row].items()
        context = {
            name: cast(Media, self._read(cell, None).media) if name in CONTEXT_MEDIA else cell
            for name, cell in others
            if cell is not None
        }
        return replace(self._read(medium, self.modality), context={**context, **self.context})

    def _read(self, cell: Any, modality: Modality | None) -> Sample:
        """A cell's medium, and where it came from."""
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        named = cell.get("path") if isinstance(cell, dict) else cell
        if isinstance(data, bytes):
            media = media_from_bytes(data, name=self.place, modality=modality)
            return Sample(self.prompt or "", media, meta={"id": self.id})
        path = self.root / named if isinstance(named, str) and named else None
        return SampleFile(self.id, path, self.prompt, self.place, modality, self.root).load()


def is_dataset(path: Path) -> bool:
    """Whether a path means a dataset: ``hf:...``, or a folder that ``save_to_disk`` wrote."""
    saved = is_file(path / "dataset_info.json") and is_file(path / "state.json")
    return str(path).startswith(HUB) or saved or is_file(path / "dataset_dict.json")


def load_rows(path: Path, *, split: str | None = None) -> Any:
    """A ``datasets.Dataset`` whose media columns are left undecoded.

    Raises:
        DataError: it cannot be loaded.
        ConfigError: it has several splits and none was named, or not the one that was.
    """
    import datasets

    datasets.disable_progress_bars()
    name = str(path)
    try:
        loaded = (
            datasets.load_dataset(name.removeprefix(HUB))
            if name.startswith(HUB)
            else datasets.load_from_disk(path)
        )
    except Exception as error:  # of many kinds: network, files, formats
        raise DataError(
            f"cannot be loaded as a dataset ({' '.join(str(error).split())[:200]})", file=path
        ) from error
    if isinstance(loaded, dict):
        names = ", ".join(map(str, loaded))
        if split is None and len(loaded) > 1:
            raise ConfigError(f"{path} has the splits {names}; add --split NAME")
        split = next(iter(loaded)) if split is None else split
        if split not in loaded:
            raise ConfigError(f"{path} has no split '{split}'; there are: {names}")
        loaded = loaded[split]
    elif split is not None:
        raise ConfigError(f"{path} is a single split; leave --split {split} out")
    for column, feature in loaded.features.items():
        if type(feature).__name__ in MEDIA_FEATURES:
            loaded = loaded.cast_column(column, type(feature)(decode=False))
    return loaded


def rows_of(rows: Any, path: Path) -> Iterator[Mapping[str, Any] | DataError]:
    """The rows of a dataset, and in place of one that cannot be read, why."""
    for index in range(len(rows)):
        try:
            row = rows[index]
        except Exception as error:  # of many kinds: files, formats, decoders
            said = " ".join(str(error).split())[:200]
            row = DataError(f"cannot be read ({said or type(error).__name__})", file=path, row=index + 1)
        yield row


def read_dataset(
    path: Path,
    *,
    root: Path | None = None,
    options: DatasetOptions | None = None,
    context: Iterable[str] = (),
) -> list[DatasetSample]:
    """List the samples of a dataset, in order, without reading a medium.

    Args:
        path: ``hf:owner/name``, or a folder that ``save_to_disk`` wrote.
        root: the folder in which files have to lie that rows only name; by default the dataset's folder, or where
            ``datasets`` keeps what it fetched.
        options: which split and columns.
        context: further columns, read into the samples' contexts where the dataset has them.

    Raises:
        DataError: it cannot be loaded, or a row's prompt is no text.
        ConfigError: the split or the column of media has to be named.
    """
    import datasets

    options = options or DatasetOptions()
    table = load_rows(path, split=options.split)
    context = tuple(context)
    column = _media_column(table, path, options.media_column, besides=context)
    prompts = _prompts(table, path, options.prompt_column)
    hub = str(path).startswith(HUB)
    inside = root or (Path(datasets.config.HF_CACHE_HOME) if hub else path)
    modality = MEDIA_FEATURES.get(type(table.features[column]).__name__)
    identities = table["id"] if "id" in table.column_names else [""] * len(table)
    further = [name for name in context if name in table.column_names and name != column]
    for name in further:
        if name not in CONTEXT_MEDIA:
            _texts(table, path, name)
    rows = table.select_columns([column, *further])
    return [
        DatasetSample(
            "" if identity is None else str(identity),
            path / str(number),
            prompt,
            f"{path}, row {number}, column {column!r}",
            modality,
            inside,
            rows,
            number - 1,
        )
        for number, (identity, prompt) in enumerate(zip(identities, prompts, strict=True), 1)
    ]


def _media_column(table: Any, path: Path, wanted: str | None, *, besides: Sequence[str]) -> str:
    names: Sequence[str] = table.column_names
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{path} has no column '{wanted}'; there are: {listing(names)}")
        return wanted
    found = [
        name
        for name, feature in table.features.items()
        if type(feature).__name__ in MEDIA_FEATURES and name not in besides
    ]
    found = found or [name for name in MEDIA_COLUMNS if name in names]
    if len(found) != 1:
        said = (
            f"several columns hold media ({', '.join(found)})"
            if found
            else "no column is known to hold media"
        )
        raise ConfigError(f"{path}: {said}; add --media-column NAME; there are: {listing(names)}")
    return found[0]


def _prompts(table: Any, path: Path, wanted: str | None) -> list[str | None]:
    names: Sequence[str] = table.column_names
    if wanted is not None and wanted not in names:
        raise ConfigError(f"{path} has no column '{wanted}'; there are: {listing(names)}")
    column = wanted or next((name for name in PROMPT_COLUMNS if name in names), None)
    if column is None:
        return [None] * len(table)
    return _texts(table, path, column)


def _texts(table: Any, path: Path, column: str) -> list[str | None]:
    """The cells of a column, which have to be text or empty."""
    texts = list(table[column])
    for number, text in enumerate(texts, 1):
        if text is not None and not isinstance(text, str):
            raise DataError(f"expected text, got {brief(text)}", file=path, row=number, column=column)
    return cast(list[str | None], texts)
