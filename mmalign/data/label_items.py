"""What people are asked to judge: samples, pairs or groups of one prompt, and the order that each person sees them in.

An item is named by what is in it, and an order follows from seed, annotator and items alone. Both come back alike when
the page is started again, and a label still finds its item when samples were added to the folder.
"""

import hashlib
import json
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from pathlib import Path
from typing import Literal, get_args

from mmalign.data.cells import plain_name, relative_to
from mmalign.data.readers import read_sample_files
from mmalign.data.tables import is_file
from mmalign.errors import ConfigError, DataError
from mmalign.media import SampleFile
from mmalign.roots import lies_in

Mode = Literal["pairs", "ranking", "rating", "binary", "marks"]
MODES: tuple[Mode, ...] = get_args(Mode)
GROUPED: tuple[Mode, ...] = ("pairs", "ranking")
"""Those that show several samples beside each other."""
LARGEST_GROUP = 9
"""There is one digit for each sample."""


@dataclass(frozen=True, slots=True)
class Item:
    """Samples of one prompt that are judged together.

    Args:
        prompt: what all were made for.
        samples: their files, relative to the folder of samples.
    """

    prompt: str
    samples: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name that depends on prompt and files alone, not on their order.

        >>> Item("a dog", ("a.png", "b.png")).id == Item("a dog", ("b.png", "a.png")).id
        True
        """
        return hashlib.sha256(json.dumps([self.prompt, sorted(self.samples)]).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Showing:
    """An item as one person sees it at one time.

    Args:
        item: what is judged.
        order: its samples from left to right.
        repeat: whether this person has seen it before.
    """

    item: Item
    order: tuple[str, ...]
    repeat: bool = False

    @property
    def key(self) -> str:
        """Tells it from every other showing to the same person."""
        return f"{self.item.id}{'-again' if self.repeat else ''}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The samples of a folder.

    Args:
        samples: prompt, source (the folder below the given one, or "") and file of each.
        missing: one error for each that cannot be shown.
    """

    samples: tuple[tuple[str, str, str], ...]
    missing: tuple[DataError, ...]


def list_samples(folder: Path) -> Listed:
    """The samples of a folder with metadata.jsonl, or of the folders in it that have one, as sources to be compared.

    Raises:
        DataError: no such folder, no metadata.jsonl, or no sample that can be shown.
    """
    if not folder.is_dir():
        raise DataError("no such folder", file=folder)
    if (folder / "metadata.jsonl").is_file():
        sources = {"": folder}
    else:
        below = sorted(path.parent for path in folder.glob("*/metadata.jsonl"))
        sources = {path.name: path for path in below}
    if not sources:
        raise DataError("has no metadata.jsonl (file_name, prompt), nor has a folder in it", file=folder)
    found, missing = [], []
    for name, source in sources.items():
        with warnings.catch_warnings():  # a mesh beside its views is listed by them
            warnings.filterwarnings("ignore", message=".*leaves out")
            files = read_sample_files([source])
        for number, file in enumerate(files, 1):
            assert isinstance(file, SampleFile)
            fault = _fault(file, folder)
            if fault is not None:
                missing.append(DataError(fault, file=source / "metadata.jsonl", row=number))
            else:
                assert file.path is not None
                assert file.prompt
                found.append((file.prompt, name, relative_to(folder / "x", file.path)))
    if not found:
        raise DataError(f"no sample of it can be shown; the first: {missing[0]}", file=folder)
    return Listed(tuple(found), tuple(missing))


def _fault(file: SampleFile, folder: Path) -> str | None:
    """Why a sample cannot be shown."""
    if file.path is None:
        return "no file is named"
    if not file.prompt:
        return "has no prompt"
    if not is_file(file.path):
        return f"no such file: {plain_name(file.path)}"
    if not lies_in(file.path, folder):
        return f"'{file.path}' lies outside the folder of samples and is not shown"
    return None


def make_items(
    samples: Sequence[tuple[str, str, str]],
    mode: Mode,
    *,
    group_size: int = 2,
    per_prompt: int = 1,
    seed: int = 0,
) -> list[Item]:
    """What is judged, prompt by prompt.

    Single samples are all judged. Groups hold different samples of a prompt; where there are as many sources as samples
    in a group, or more, each sample of a group comes from another source, the first ones of every source together, and
    so on, as runs with the same seeds leave them.

    Args:
        samples: prompt, source and file.
        mode: ``pairs`` and ``ranking`` need groups, the others single samples.
        group_size: samples of a group; 2 for pairs.
        per_prompt: groups of a prompt at most, drawn with ``seed``.
        seed: of the draws.

    Raises:
        ConfigError: a number that cannot be, or no prompt has enough samples.
    """
    if mode == "pairs" and group_size != 2:
        raise ConfigError(f"group_size = {group_size}, but a pair has 2; mode ranking takes more")
    if mode in GROUPED and not 2 <= group_size <= LARGEST_GROUP:
        raise ConfigError(
            f"group_size = {group_size}: expected 2 to {LARGEST_GROUP}, a digit for each sample"
        )
    if per_prompt < 1:
        raise ConfigError(f"per_prompt = {per_prompt}: expected at least 1")
    by_prompt: dict[str, dict[str, list[str]]] = {}
    for prompt, source, file in samples:
        by_prompt.setdefault(prompt, {}).setdefault(source, []).append(file)
    items = []
    for prompt, by_source in by_prompt.items():
        files = list(dict.fromkeys(file for found in by_source.values() for file in found))
        if mode not in GROUPED:
            items += [Item(prompt, (file,)) for file in files]
            continue
        draw = random.Random(f"{seed}/{prompt}")
        items += [Item(prompt, group) for group in _groups(by_source, files, group_size, per_prompt, draw)]
    if not items:
        raise ConfigError(f"no prompt has {group_size} samples, as mode {mode} needs them")
    return items


def _groups(
    by_source: dict[str, list[str]], files: list[str], size: int, count: int, draw: random.Random
) -> Iterable[tuple[str, ...]]:
    if len(by_source) >= size:
        alike = [
            group
            for rank in range(max(map(len, by_source.values())))
            for group in combinations([f[rank] for f in by_source.values() if rank < len(f)], size)
        ]
        return draw.sample(alike, min(count, len(alike)))
    if comb(len(files), size) <= count:
        return combinations(files, size)
    # As many as are wanted are far fewer than there are, or nearly all of a few; both end soon.
    seen: dict[tuple[str, ...], None] = {}
    while len(seen) < count:
        seen[tuple(files[i] for i in sorted(draw.sample(range(len(files)), size)))] = None
    return list(islice(seen, count))


def showings(items: Sequence[Item], annotator: str, *, repeat: float = 0.0, seed: int = 0) -> list[Showing]:
    """All that one person is shown, in order: every item once, and some of them again, the other way round.

    Args:
        items: what is judged; the order that they come in does not matter.
        annotator: everybody has an order of their own.
        repeat: share of the items that come again, in [0, 1]; each at least a quarter of all items later, where it can.
        seed: of all orders.

    Raises:
        ConfigError: ``repeat`` is no share.
    """
    if not 0 <= repeat <= 1:
        raise ConfigError(f"repeat = {repeat}: expected a share in [0, 1]")
    draw = random.Random(f"{seed}/{annotator}")
    order = sorted(items, key=lambda item: item.id)
    draw.shuffle(order)
    first = [Showing(item, tuple(draw.sample(sorted(item.samples), len(item.samples)))) for item in order]
    # What comes first has the most room behind it.
    again = first[: round(repeat * len(first))]
    gap = max(1, len(first) // 4)
    placed: list[tuple[float, int, Showing]] = [(place, 0, showing) for place, showing in enumerate(first)]
    for place, showing in enumerate(again):
        later = draw.uniform(min(place + gap, len(first) - 1), len(first) - 1)
        placed.append((later, 1, Showing(showing.item, showing.order[::-1], repeat=True)))
    return [showing for _, _, showing in sorted(placed, key=lambda entry: entry[:2])]
