"""What a reward is trained from: a table of preferences as indices into its media and prompts."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.data.aspects import ALL, names_of
from mmalign.data.binary import Labelled
from mmalign.data.pairs import Pair
from mmalign.data.rankings import Ranking
from mmalign.data.ratings import Rating
from mmalign.data.schemas import Schema, read_what_can_be
from mmalign.data.tables import brief
from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.losses.bradley_terry import strength_weights
from mmalign.rewards.learned_heads import OVERALL
from mmalign.texts import plain_prompt

Kind = Literal["pairs", "ratings", "binary"]
TRAINABLE = ("pairs", "rankings", "ratings", "binary")


@dataclass(frozen=True, eq=False)
class Examples:
    """N comparisons or single samples, and how many rows of the table they come from.

    Args:
        kind: pairs (rankings too), ratings or binary.
        media: M files, each once.
        prompts: P, each once.
        aspects: A names.
        annotators: R names; the empty one of rows that name nobody.
        prompt: [N], into ``prompts``.
        first: [N], into ``media``: the chosen one, or the only one.
        second: [N]: the rejected one; as ``first`` where there is one only.
        target: [N]: the rating, or the label as 1 or 0; of pairs 1, or 0 for a tie.
        aspect: [N], into ``aspects``.
        annotator: [N], into ``annotators``.
        row: [N], of the table, from 1; a ranking of K gives up to K (K - 1) / 2 comparisons of one row.
        rows: of the table.
        rejected: rows that are not used, with the reason. rows = used + rejected.
        margin: [N], of pairs, in the scorer's unit, 0 where a row says none; None where no row says one.
        weight: [N], of pairs, the strengths with mean 1, 1 before that where a row says none; None where no row does.
    """

    kind: Kind
    media: tuple[Path, ...]
    prompts: tuple[str, ...]
    aspects: tuple[str, ...]
    annotators: tuple[str, ...]
    prompt: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    aspect: Tensor
    annotator: Tensor
    row: Tensor
    rows: int
    rejected: tuple[str, ...]
    margin: Tensor | None = None
    weight: Tensor | None = None

    @property
    def used(self) -> int:
        """Rows of the table that examples come from."""
        return len(self.row.unique())

    def __len__(self) -> int:
        return len(self.row)

    def pick(self, rows: Tensor) -> "Examples":
        """Some of them, by indices or a mask; media and prompts stay."""
        columns = ("prompt", "first", "second", "target", "aspect", "annotator", "row", "margin", "weight")
        found = {name: getattr(self, name) for name in columns}
        picked: dict[str, Any] = {name: None if c is None else c[rows] for name, c in found.items()}
        return replace(self, **picked)

    def without_media(self, status: Sequence[str], path: Path) -> "Examples":
        """Those whose media could be read; the others' rows are rejected.

        Args:
            status: M times "ok", or what is wrong with a medium.
            path: of the table.

        Raises:
            DataError: none is left.
        """
        bad = torch.tensor([entry != "ok" for entry in status])
        wrong = bad[self.first] | bad[self.second]
        # A ranking with one medium that cannot be read is rejected whole, so that no row is half used.
        wrong = torch.isin(self.row, self.row[wrong].unique())
        reasons: dict[int, str] = {}
        for i in wrong.nonzero()[:, 0].tolist():
            for medium in (int(self.first[i]), int(self.second[i])):
                if bad[medium]:
                    reasons.setdefault(
                        int(self.row[i]),
                        f"{path}, row {int(self.row[i])}: {self.media[medium]}: {status[medium]}",
                    )
        left = replace(self.pick(~wrong), rejected=(*self.rejected, *reasons.values()))
        _check(left, path)
        return left


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    prompt: str
    first: Path
    second: Path
    target: float
    aspect: str
    annotator: str
    margin: float | None = None
    strength: float | None = None
    row: int = 0


def read_examples(path: Path, *, ties: bool = False, aspect: str | None = None) -> Examples:
    """The rows of a table that can be used, told apart by its columns.

    Each aspect of a table is one of ``Examples.aspects``, and each person's judgement is an example of its own.

    Args:
        path: of the table.
        ties: whether ties, media of equal ranks too, are examples; otherwise a tied pair is rejected.
        aspect: the only one that is used; rows of others are rejected. None or "all" for every one.

    Raises:
        DataError: no such file, another kind of table, nothing in it that can be used, no such aspect, or one class or
            score only.
    """
    if not path.is_file():
        raise DataError("no such file", file=path)
    schema, used, errors = read_what_can_be(path)
    if schema.name not in TRAINABLE:
        raise DataError(
            f"{schema.name} say nothing of what is better; a reward is trained from {', '.join(TRAINABLE)}",
            file=path,
        )
    rejected = [str(error) for error in errors]
    names = names_of(entry for _, _, entry in used)
    if aspect not in (None, ALL, *names):
        raise DataError(str(UnknownNameError("aspect", str(aspect), names)), file=path)
    entries: list[_Example] = []
    for number, _, entry in used:
        if aspect not in (None, ALL, entry.aspect or OVERALL):
            rejected.append(f"{path}, row {number}: is of the aspect {brief(entry.aspect or OVERALL)}")
            continue
        found = list(_examples_of(entry, ties=ties))
        if not found:
            rejected.append(f"{path}, row {number}: {_nothing_to_learn(schema, entry)}")
        entries += [replace(one, row=number) for one in found]
    examples = _indexed(entries, kind=_kind(schema), rows=len(used) + len(errors), rejected=rejected)
    _check(examples, path)
    return examples


def _kind(schema: Schema) -> Kind:
    return "pairs" if schema.name == "rankings" else schema.name  # type: ignore[return-value]


def _nothing_to_learn(schema: Schema, entry: Any) -> str:
    if schema.name == "rankings":
        return "all ranks are equal"
    if schema.name == "ratings":
        return "has no score"
    if entry.chosen == entry.rejected:
        return "chosen and rejected are the same file"
    return f"is no order: {entry.verdict.replace('_', ' ')}; --loss davidson and rao-kupper learn from ties"


def _examples_of(entry: Any, *, ties: bool) -> Iterator[_Example]:
    """What one row says."""

    def said(first: Path, second: Path, target: float, **more: Any) -> _Example:
        return _Example(
            prompt=entry.prompt,
            first=first,
            second=second,
            target=target,
            aspect=entry.aspect or OVERALL,
            annotator=entry.annotator or "",
            **more,
        )

    match entry:
        case Pair():
            if entry.chosen != entry.rejected and (ties or entry.verdict is None):
                target = float(entry.verdict is None)
                yield said(entry.chosen, entry.rejected, target, margin=entry.margin, strength=entry.strength)
        case Ranking():
            ranked = zip(entry.samples, entry.ranks, strict=True)
            for (one, rank), (other, other_rank) in itertools.combinations(ranked, 2):
                if one != other and (ties or rank != other_rank):
                    better, worse = (one, other) if rank <= other_rank else (other, one)
                    yield said(better, worse, float(rank != other_rank))
        case Labelled():
            yield said(entry.sample, entry.sample, float(entry.label))
        case Rating(score=float() as score):
            yield said(entry.sample, entry.sample, score)


def _indexed(
    entries: Sequence[_Example],
    *,
    kind: Kind,
    rows: int,
    rejected: Sequence[str],
) -> Examples:
    media: dict[Path, int] = {}
    prompts: dict[str, int] = {}
    aspects = {name: i for i, name in enumerate(sorted({entry.aspect for entry in entries}))}
    annotators = {name: i for i, name in enumerate(sorted({entry.annotator for entry in entries}))}
    columns = [
        (
            prompts.setdefault(entry.prompt, len(prompts)),
            media.setdefault(entry.first, len(media)),
            media.setdefault(entry.second, len(media)),
            aspects[entry.aspect],
            annotators[entry.annotator],
            entry.row,
        )
        for entry in entries
    ]
    strength = numbers_or_none([entry.strength for entry in entries], missing=1.0)
    table = torch.tensor(columns, dtype=torch.int64).reshape(-1, 6)
    return Examples(
        kind=kind,
        media=tuple(media),
        prompts=tuple(prompts),
        aspects=tuple(aspects),
        annotators=tuple(annotators),
        prompt=table[:, 0],
        first=table[:, 1],
        second=table[:, 2],
        target=torch.tensor([entry.target for entry in entries], dtype=torch.float32),
        aspect=table[:, 3],
        annotator=table[:, 4],
        row=table[:, 5],
        rows=rows,
        rejected=tuple(rejected),
        margin=numbers_or_none([entry.margin for entry in entries], missing=0.0),
        weight=None if strength is None else strength_weights(strength),
    )


def numbers_or_none(values: Sequence[float | None], *, missing: float) -> Tensor | None:
    """A column with a number in place of what is missing; None where all of it is."""
    if all(value is None for value in values):
        return None
    return torch.tensor([missing if value is None else value for value in values], dtype=torch.float32)


def _check(examples: Examples, path: Path) -> None:
    if not len(examples):
        first = f"; first: {examples.rejected[0]}" if examples.rejected else ""
        raise DataError(f"none of its {examples.rows} rows can be used{first}", file=path)
    if examples.kind == "pairs":
        return
    for index, name in enumerate(examples.aspects):
        targets = examples.target[examples.aspect == index]
        if len(targets.unique()) < 2:
            value = float(targets[0]) if len(targets) else math.nan
            what = f"label is {bool(value)}" if examples.kind == "binary" else f"score is {value:g}"
            of = f" of the aspect {brief(name)}" if len(examples.aspects) > 1 else ""
            raise DataError(f"every {what}{of}, so there is nothing to tell apart", file=path)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples by their prompts, in normal form: none has examples in two parts.

    Args:
        train: what heads learn from.
        stopping: what decides when they stop, and what scales are fitted on.
        heldout: what nothing was chosen by; the accuracy is of these.
    """

    train: Examples
    stopping: Examples
    heldout: Examples


def split_by_prompt(examples: Examples, *, heldout: float, generator: torch.Generator) -> Split:
    """Hold out a share of the prompts, half of them for stopping.

    Args:
        examples: all.
        heldout: share of the prompts, in (0, 1).
        generator: which.

    Raises:
        ConfigError: fewer prompts than parts, or a share that leaves a part empty.
    """
    if not 0 < heldout < 1:
        raise ConfigError(f"heldout = {heldout}, but it is a share of the prompts in (0, 1); 0.2 is usual")
    same: dict[str, int] = {}
    name = torch.tensor([same.setdefault(plain_prompt(prompt), len(same)) for prompt in examples.prompts])
    said = name[examples.prompt]
    names = said.unique()
    count = len(names)
    if count < 3:
        raise ConfigError(
            f"{count} prompt{'s' if count > 1 else ''}: one to train on, one to stop by and one to judge by are the "
            "least, as a split inside a prompt would judge a reward by what it has seen"
        )
    order = names[torch.randperm(count, generator=generator)]
    half = max(1, round(heldout * count / 2))
    if 2 * half >= count:
        raise ConfigError(f"heldout = {heldout} leaves no prompt of {count} to train on")
    parts = (order[2 * half :], order[:half], order[half : 2 * half])
    return Split(*(examples.pick(torch.isin(said, part)) for part in parts))
