"""Rows of other people's preference tables, as ours: one function a layout, under the columns that were published."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from mmalign.data.cells import number_of, plain_name, text_of
from mmalign.data.pairs import Pair, Tie
from mmalign.data.ratings import Rating
from mmalign.data.tables import Record, brief, is_file
from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.media.from_bytes import suffix_of
from mmalign.roots import lies_in, outside, root_of

OVERALL = ("Overall", "ALL")
ASPECTS = ("VQ", "MQ", "TA")
LABELS = ("A", "B", "same")


@dataclass(frozen=True, slots=True)
class Place:
    """A row of a foreign table, and where its media go.

    Args:
        path: of the table; relative paths of media start in its folder.
        number: of the row, from 1.
        folder: where media are written that the row holds itself.
        aspect: which one is wanted, "all" for every one; None for the layout's own choice.
        names: of files that were written already, by content.
    """

    path: Path
    number: int
    folder: Path
    aspect: str | None = None
    names: dict[str, Path] = field(default_factory=dict)

    def fault(self, message: str, column: str | None = None) -> DataError:
        """What is wrong with the row."""
        return DataError(message, file=self.path, row=self.number, column=column)

    def text(self, row: Record, column: str) -> str:
        """A text that has to be there."""
        return text_of(row, column, self.path, self.number)

    def number_in(self, row: Record, column: str) -> float | None:
        """A finite number, or None where the cell is empty."""
        return number_of(row, column, self.path, self.number)

    def medium(self, row: Record, column: str, *, name: str | None = None) -> Path:
        """The file of a cell that names one, or that holds one, which is then written.

        Raises:
            DataError: the cell is empty, holds no known format, or names a file that is not there or lies elsewhere.
        """
        cell = row.get(column)
        named = cell.get("path") if isinstance(cell, Mapping) else cell
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if isinstance(data, bytes):
            return self._written(data, column, name)
        if not isinstance(named, str) or not named:
            raise self.fault("no medium in it", column)
        path = self.path.parent / named if self.path.is_file() else self.path / named
        if not lies_in(path, root_of(self.path)):
            raise self.fault(outside(path, root_of(self.path)), column)
        if not is_file(path):
            raise self.fault(f"no such file: {plain_name(path)}", column)
        return path

    def _written(self, data: bytes, column: str, name: str | None) -> Path:
        suffix = suffix_of(data)
        if suffix is None:
            raise self.fault("holds bytes that begin like no medium", column)
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.names:
            stem = re.sub(r"[^\w-]+", "_", name or "")[:80]
            # Two media of one name keep both: the content tells them apart.
            path = self.folder / f"{stem + '-' if stem else ''}{digest[:16]}{suffix}"
            with whole_file(path) as unfinished:
                unfinished.write_bytes(data)
            self.names[digest] = path
        return self.names[digest]


Entry: TypeAlias = Pair | Rating
Layout: TypeAlias = Callable[[Record, Place], list[Entry]]


def pickapic(row: Record, place: Place) -> list[Entry]:
    """Pick-a-Pic: ``caption``, ``jpg_0`` and ``jpg_1`` as bytes, ``label_0`` and ``label_1``, 0.5 each for a tie.

    Source: Kirstain et al. 2023, Pick-a-Pic (arXiv:2305.01569), and the columns of its data sets.
    """
    prompt = place.text(row, "caption")
    if row.get("has_label") is False:
        raise place.fault("has no label", "has_label")
    first, second = place.number_in(row, "label_0"), place.number_in(row, "label_1")
    if first is None or second is None:
        raise place.fault("has no label", "label_0" if first is None else "label_1")
    files = [place.medium(row, f"jpg_{i}", name=str(row.get(f"image_{i}_uid") or "")) for i in (0, 1)]
    chosen, rejected = files if first >= second else files[::-1]
    annotator = row.get("user_id")
    return [
        Pair(
            prompt,
            chosen,
            rejected,
            annotator=None if annotator is None else str(annotator),
            source="pickapic",
            verdict="tie" if first == second else None,
        )
    ]


def videoalign(row: Record, place: Place) -> list[Entry]:
    """VideoAlign and VideoGen-RewardBench: ``prompt, path_A, path_B``, and A, B or same in a column an aspect.

    The overall verdict where the table has one (``Overall`` or ``ALL``), else one pair each for ``VQ, MQ, TA``.

    Source: Liu et al. 2025, VideoAlign (arXiv:2501.13918), datasets/train/README.md of its code.
    """
    prompt = place.text(row, "prompt")
    overall = [name for name in OVERALL if name in row]
    every = [name for name in (*ASPECTS, *overall) if name in row]
    if place.aspect not in (None, "all", *every):
        raise place.fault(f"no aspect is called '{place.aspect}'; there are: {', '.join(every) or 'none'}")
    wanted = every if place.aspect == "all" else [place.aspect] if place.aspect else overall[:1] or every
    if not wanted:
        raise place.fault(f"no verdict; expected a column of {', '.join((*OVERALL, *ASPECTS))}")
    first, second = place.medium(row, "path_A"), place.medium(row, "path_B")
    pairs: list[Entry] = []
    for aspect in wanted:
        label = row.get(aspect)
        if label not in LABELS:
            raise place.fault(f"expected A, B or same, got {brief(label)}", aspect)
        sides = (second, first) if label == "B" else (first, second)
        name = None if aspect in OVERALL else aspect
        verdict: Tie | None = "tie" if label == "same" else None
        pairs.append(Pair(prompt, *sides, source="videoalign", aspect=name, verdict=verdict))
    return pairs


def tangoflux(row: Record, place: Place) -> list[Entry]:
    """TangoFlux and Tango 2: ``captions`` or ``prompt``, and the paths ``chosen`` and ``reject`` or ``rejected``.

    Source: Hung et al. 2024, TangoFlux (arXiv:2412.21037), the columns that its training reads.
    """
    text = "captions" if "captions" in row else "prompt"
    other = "reject" if "reject" in row else "rejected"
    chosen, rejected = place.medium(row, "chosen"), place.medium(row, other)
    return [Pair(place.text(row, text), chosen, rejected, source="tangoflux")]


def imagefolder(row: Record, place: Place) -> list[Entry]:
    """A folder for ``datasets``: metadata with ``file_name`` and ``text``, ``prompt`` or ``caption``.

    Source: the documentation of Hugging Face Datasets, ImageFolder.
    """
    text = next((name for name in ("text", "prompt", "caption") if name in row), "text")
    return [Rating(place.text(row, text), place.medium(row, "file_name"))]


def verl_omni(row: Record, place: Place) -> list[Entry]:
    """VeRL-Omni, offline DPO: ``prompt`` as messages, the paths ``img_win`` and ``img_lose``, and their scores.

    Source: verl-project/verl-omni, examples/dpo_trainer/data_process/prepare_offline_dpo.py.
    """
    extra = row.get("extra_info")
    raw = extra.get("raw_prompt") if isinstance(extra, Mapping) else None
    prompt = raw if isinstance(raw, str) and raw.strip() else _user_text(row.get("prompt"))
    if not prompt:
        raise place.fault("no message of a user in it", "prompt")
    win, lose = place.number_in(row, "win_score"), place.number_in(row, "lose_score")
    margin = None if win is None or lose is None else win - lose
    if margin is not None and margin <= 0:
        raise place.fault(f"the winner's score, {win}, is not above the loser's, {lose}", "win_score")
    chosen, rejected = place.medium(row, "img_win"), place.medium(row, "img_lose")
    return [Pair(prompt, chosen, rejected, margin, source="verl-omni")]


def _user_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt.strip()
    said = [
        message["content"]
        for message in (prompt if isinstance(prompt, list) else [])
        if isinstance(message, Mapping)
        and message.get("role") == "user"
        and isinstance(message.get("content"), str)
    ]
    return "\n".join(said).strip()


LAYOUTS: dict[str, Layout] = {
    "imagefolder": imagefolder,
    "pickapic": pickapic,
    "tangoflux": tangoflux,
    "verl-omni": verl_omni,
    "videoalign": videoalign,
}
"""By the name that ``mmalign data convert --from`` knows."""
