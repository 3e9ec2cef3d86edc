"""What a reward is trained from: a table of preferences as indices into its media and prompts."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.data.binary import Labelled
from mmalign.data.pairs import Pair
from mmalign.data.rankings import Ranking
from mmalign.data.ratings import Rating
from mmalign.data.schemas import Schema, read_what_can_be
from mmalign.errors import ConfigError, DataError
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

    @property
    def used(self) -> int:
        """Rows of the table that examples come from."""
        return len(self.row.unique())

    def __len__(self) -> int:
        return len(self.row)

    def pick(self, rows: Tensor) -> "Examples":
        """Some of them, by indices or a mask; media and prompts stay."""
        columns = ("prompt", "first", "second", "target", "aspect", "annotator", "row")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

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


def read_examples(path: Path, *, ties: bool = False) -> Examples:
    """The rows of a table that can be used, told apart by its columns.

    Args:
        path: of the table.
        ties: whether media of equal ranks are an example, as a tie, and not nothing.

    Raises:
        DataError: no such file, another kind of table, nothing in it that can be used, or one class or score only.
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
    entries: list[tuple[int, str, Path, Path, float, str, str]] = []
    for number, _, entry in used:
        found = list(_examples_of(entry, ties=ties))
        if not found:
            rejected.append(f"{path}, row {number}: {_nothing_to_learn(schema)}")
        entries += [(number, *one) for one in found]
    examples = _indexed(entries, kind=_kind(schema), rows=len(used) + len(errors), rejected=rejected)
    _check(examples, path)
    return examples


def _kind(schema: Schema) -> Kind:
    return "pairs" if schema.name == "rankings" else schema.name  # type: ignore[return-value]


def _nothing_to_learn(schema: Schema) -> str:
    return "all ranks are equal" if schema.name == "rankings" else "chosen and rejected are the same file"


def _examples_of(entry: Any, *, ties: bool) -> Iterable[tuple[str, Path, Path, float, str, str]]:
    """(prompt, first, second, target, aspect, annotator) of one row."""
    match entry:
        case Pair():
            if entry.chosen != entry.rejected:
                yield (
                    entry.prompt,
                    entry.chosen,
                    entry.rejected,
                    1.0,
                    entry.aspect or OVERALL,
                    entry.annotator or "",
                )
        case Ranking():
            ranked = zip(entry.samples, entry.ranks, strict=True)
            for (one, rank), (other, other_rank) in itertools.combinations(ranked, 2):
                if one != other and (ties or rank != other_rank):
                    better, worse = (one, other) if rank <= other_rank else (other, one)
                    yield entry.prompt, better, worse, float(rank != other_rank), OVERALL, ""
        case Labelled():
            yield entry.prompt, entry.sample, entry.sample, float(entry.label), OVERALL, ""
        case Rating(score=float() as score):
            yield entry.prompt, entry.sample, entry.sample, score, OVERALL, ""


def _indexed(
    entries: Sequence[tuple[int, str, Path, Path, float, str, str]],
    *,
    kind: Kind,
    rows: int,
    rejected: Sequence[str],
) -> Examples:
    media: dict[Path, int] = {}
    prompts: dict[str, int] = {}
    aspects = {name: i for i, name in enumerate(sorted({entry[5] for entry in entries}))}
    annotators = {name: i for i, name in enumerate(sorted({entry[6] for entry in entries}))}
    columns = [
        (
            prompts.setdefault(prompt, len(prompts)),
            media.setdefault(first, len(media)),
            media.setdefault(second, len(media)),
            aspects[aspect],
            annotators[annotator],
            row,
        )
        for row, prompt, first, second, _, aspect, annotator in entries
    ]
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
        target=torch.tensor([entry[4] for entry in entries], dtype=torch.float32),
        aspect=table[:, 3],
        annotator=table[:, 4],
        row=table[:, 5],
        rows=rows,
        rejected=tuple(rejected),
    )


def _check(examples: Examples, path: Path) -> None:
    if not len(examples):
        first = f"; first: {examples.rejected[0]}" if examples.rejected else ""
        raise DataError(f"none of its {examples.rows} rows can be used{first}", file=path)
    if examples.kind != "pairs" and len(examples.target.unique()) < 2:
        value = float(examples.target[0])
        what = f"label is {bool(value)}" if examples.kind == "binary" else f"score is {value:g}"
        raise DataError(f"every {what}, so there is nothing to tell apart", file=path)


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
