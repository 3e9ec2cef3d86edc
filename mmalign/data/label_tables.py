"""Labels as tables that methods learn from, with annotator and strength: pairs, rankings, ratings, labels, faults."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image

from mmalign.data.binary import Labelled
from mmalign.data.cells import plain_name
from mmalign.data.faults import Fault
from mmalign.data.label_log import read_labels
from mmalign.data.pairs import TIES, Pair
from mmalign.data.rankings import Ranking
from mmalign.data.ratings import Rating
from mmalign.data.tables import brief, is_file, is_folder, listing
from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.media.image import IMAGE_SUFFIXES, Image
from mmalign.roots import lies_in, root_of

SOURCE = "labels"
"""What the column ``source`` says of them."""
Entry: TypeAlias = Pair | Ranking | Rating | Labelled | Fault


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTables:
    """What became of a file of labels: ``rows`` choices, each used or rejected.

    Args:
        rows: choices that stand and repeat no earlier one.
        entries: of the table; a rating gives one an aspect.
        rejected: skipped items, samples that are gone, choices of another mode, each with its reason.
        notes: what was no choice to count: repeated and undone ones, torn lines.
    """

    rows: int
    entries: tuple[Entry, ...]
    rejected: tuple[DataError, ...]
    notes: tuple[str, ...]


def tables_of(
    path: Path, samples: Path | None = None, *, aspect: str | None = None, masks: Path | None = None
) -> LabelTables:
    """The choices of a file of labels, as preferences.

    Args:
        path: the file.
        samples: the folder of the samples; None for the one that the file names.
        aspect: of ratings; None or "all" for every one.
        masks: the folder that pictures of marked regions are written to; None for none.

    Raises:
        DataError: it is no file of labels, or its folder is gone.
    """
    found = read_labels(path)
    folder = samples or path.parent / str(found.header.get("samples", ""))
    if samples is None and not lies_in(folder, root_of(path)):
        raise DataError(
            f"its samples are at '{folder}', outside '{root_of(path)}', and are not opened; if that is right, say so "
            f"with --samples {folder}",
            file=path,
        )
    if not is_folder(folder):
        raise DataError(
            f"its samples are not at {plain_name(folder)}; say where, with --samples FOLDER", file=path
        )
    once = [row for row in found.choices if not row.get("repeat")]
    mode = found.header.get("mode") or next((row["mode"] for row in once), None)
    entries: list[Entry] = []
    rejected = []
    for row in once:
        try:
            if row["mode"] != mode:
                raise DataError(f"is of mode {row['mode']}, and the file is of mode {brief(mode)}", file=path)
            entries += _entries(row, path, folder, aspect, masks)
        except DataError as error:
            rejected.append(error)
    again, torn = len(found.choices) - len(once), [str(fault) for fault in found.faults]
    notes = [f"{again} choices repeat an item and are for agreement alone"] if again else []
    notes += [f"{found.undone} choices were undone"] if found.undone else []
    return LabelTables(
        rows=len(once), entries=tuple(entries), rejected=tuple(rejected), notes=(*notes, *torn)
    )


def _entries(
    row: Mapping[str, Any], path: Path, folder: Path, aspect: str | None, masks: Path | None
) -> list[Entry]:
    """What one choice says.

    Raises:
        DataError: it was skipped, is of another mode than the file's, or a sample is gone.
    """
    name, prompt, place = (
        row["annotator"],
        row["prompt"],
        f"{path}, choice {row['number']} of {row['annotator']}",
    )
    if row.get("skipped"):
        raise DataError("was skipped", file=place)
    files = [folder / file for file in row["shown"]]
    far = next((file for file in files if not lies_in(file, folder)), None)
    if far is not None:
        raise DataError(
            f"'{plain_name(far)}' lies outside the folder of samples and is not opened", file=place
        )
    gone = next((file for file in files if not is_file(file)), None)
    if gone is not None:
        raise DataError(f"no such file: {plain_name(gone)}", file=place)
    match row["mode"]:
        case "pairs":
            chosen, rejected = files[::-1] if row["choice"] == "right" else files
            return [
                Pair(
                    prompt,
                    chosen,
                    rejected,
                    strength=row["strength"],
                    annotator=name,
                    source=SOURCE,
                    verdict=row["choice"] if row["choice"] in TIES else None,
                )
            ]
        case "ranking":
            return [Ranking(prompt, tuple(files), tuple(map(float, row["ranks"])), SOURCE, name)]
        case "rating":
            scores = {a: score for a, score in row["scores"].items() if aspect in (None, "all", a)}
            if not scores:
                raise DataError(
                    f"no aspect is called '{aspect}'; there are: {listing(row['scores'])}", file=place
                )
            whole = list(row["scores"]) == ["overall"]
            return [
                Rating(
                    prompt, files[0], float(score), name, SOURCE, None if whole else a, row.get("rationale")
                )
                for a, score in scores.items()
            ]
        case "binary":
            return [Labelled(prompt, files[0], row["label"], name, SOURCE)]
        case _:
            right = tuple(i not in row["words"] for i in range(len(prompt.split())))
            picture = masks is not None and files[0].suffix.lower() in IMAGE_SUFFIXES
            who = hashlib.sha256(name.encode()).hexdigest()[:8]
            # The name of an item is a hash; whatever else stands there is no part of a path.
            item = hashlib.sha256(row["item"].encode("utf-8", "surrogatepass")).hexdigest()[:16]
            item = row["item"] if re.fullmatch(r"[0-9a-f]{16}", row["item"]) else item
            mask = masks / f"{item}-{who}.png" if picture and masks is not None else None
            if mask is not None:
                _draw(row["regions"], files[0], mask)
            return [Fault(prompt, files[0], right, mask)]


def _draw(regions: list[list[float]], sample: Path, mask: Path) -> None:
    """White boxes on black, as large as the sample; all black where nothing was marked.

    Raises:
        DataError: the sample is no picture that can be read.
    """
    # Through the one reader: people marked the picture as it is shown, upright, whatever its file says first.
    height, width = Image.load(sample).pixels.shape[1:]
    drawn = PIL.Image.new("L", (width, height))
    for left, top, right, bottom in regions:
        low = (round(left * width), round(top * height))
        size = (max(1, round(right * width) - low[0]), max(1, round(bottom * height) - low[1]))
        drawn.paste(255, (*low, low[0] + size[0], low[1] + size[1]))
    with whole_file(mask) as unfinished:
        drawn.save(unfinished)
