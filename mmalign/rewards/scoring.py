"""Scores many files with several rewards: files are read in threads while the models work on the batch before."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Sample
from mmalign.media.decoding import MOST_BYTES
from mmalign.rewards.ahead import Ahead, Loadable
from mmalign.rewards.base import OK, Reward, Score
from mmalign.rewards.groups import compares, refuse_comparing
from mmalign.rewards.rows import join_scores, without_score

TEXT_COLUMNS = ("id", "media", "prompt", "reward", "status")
COLUMNS = ("id", "media", "prompt", "reward", "score", "std", "status")
"""Of score files; the aspects of all rewards follow."""


Explain: TypeAlias = Callable[[int, Loadable, str, Score, int], None]
"""Told of each file: its number, itself, the name of a reward, the score of a batch and its place in it."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What one reward says of one file; ``score`` is None exactly where ``status`` is not "ok"."""

    id: str
    media: str | None
    prompt: str | None
    reward: str
    score: float | None
    std: float | None
    status: str
    aspects: Mapping[str, float | None] = field(default_factory=dict)

    def record(self, aspects: Sequence[str]) -> dict[str, Any]:
        """The row under the columns of score files, these aspects last."""
        return {
            "id": self.id,
            "media": self.media,
            "prompt": self.prompt,
            "reward": self.reward,
            "score": self.score,
            "std": self.std,
            "status": self.status,
            **{name: self.aspects.get(name) for name in aspects},
        }


def records(rows: Sequence[ScoredRow]) -> list[dict[str, Any]]:
    """Rows under the same columns: an aspect that a reward does not have is None."""
    aspects = list(dict.fromkeys(name for row in rows for name in row.aspects))
    return [row.record(aspects) for row in rows]


def score_files(
    files: Sequence[Loadable],
    rewards: Sequence[Reward],
    *,
    weights: Sequence[float] | None = None,
    batch_size: int = 32,
    threads: int | None = None,
) -> Iterator[ScoredRow]:
    """Score every file with every reward; :func:`score_batches`, row by row.

    Yields:
        File by file, one row per reward, then the weighted sum if asked for.
    """
    for batch in score_batches(files, rewards, weights=weights, batch_size=batch_size, threads=threads):
        yield from batch


def score_batches(
    files: Sequence[Loadable],
    rewards: Sequence[Reward],
    *,
    weights: Sequence[float] | None = None,
    batch_size: int = 32,
    threads: int | None = None,
    explain: Explain | None = None,
    most_bytes: int = MOST_BYTES,
) -> Iterator[list[ScoredRow]]:
    """Score every file with every reward, whatever happens to one of them.

    Args:
        files: in the order of the result.
        rewards: each gives one row per file.
        weights: one per reward; adds a row with the weighted sum of the scores, each turned so that higher is better,
            which fails where one of them does.
        batch_size: files per call of a reward.
        threads: that read files; by default one per core, at most 8.
        explain: called with every file and reward, in order.
        most_bytes: memory that reading one file may take, and all that is read ahead together; a file above it is a
            failed row, and a batch that would be above it is scored in parts.

    Yields:
        The rows of a batch of files: file by file, one per reward, then the weighted sum if asked for.

    Raises:
        ConfigError: a reward compares the samples of a prompt with each other, which batches would take apart, or
            judges pairs only.
    """
    for reward in rewards:
        if not isinstance(reward, Reward):
            raise ConfigError(
                f"reward '{reward.card.name}' judges pairs and scores no single sample; see `mmalign reward evaluate`"
            )
        refuse_comparing(
            reward, "files are scored in batches that may part them; score with what it is made of"
        )
    threads = threads or min(8, os.cpu_count() or 1)
    loaded = Ahead(files, rewards, ahead=2 * batch_size, threads=threads, most_bytes=most_bytes)
    try:
        for start in range(0, len(files), batch_size):
            batch = range(start, min(start + batch_size, len(files)))
            scores, faults = _scored(loaded, batch, rewards)
            columns = [_columns(score) for score in scores]
            batch_rows = []
            for i, number in enumerate(batch):
                rows = [
                    _row(files[number], reward.card.name, score, values, i, faults[i])
                    for reward, score, values in zip(rewards, scores, columns, strict=True)
                ]
                batch_rows += rows if weights is None else [*rows, weighted_sum(rows, rewards, weights)]
                if explain is not None and faults[i] == OK:
                    for reward, score in zip(rewards, scores, strict=True):
                        explain(number, files[number], reward.card.name, score, i)
            yield batch_rows
    finally:
        loaded.close()


def _scored(loaded: Ahead, batch: range, rewards: Sequence[Reward]) -> tuple[list[Score], list[str]]:
    """Each reward's score of a batch of files, and what is wrong with each file."""
    parts: list[list[Score]] = []
    faults: list[str] = []
    for part in loaded.parts(batch.start, batch.stop):
        parts.append(
            [score_safely(reward, [samples[i] for samples, _ in part]) for i, reward in enumerate(rewards)]
        )
        faults += [fault for _, fault in part]
        part.clear()  # its room is given to others
    if len(parts) == 1:
        return parts[0], faults
    return [join_scores(scores) for scores in zip(*parts, strict=True)], faults


def score_safely(reward: Reward, samples: Sequence[Sample]) -> Score:
    """A reward's score, also where it raises: then one sample at a time, and those it fails on get a status."""
    try:
        score = reward.score(samples)
        if len(score.status) != len(samples):
            raise ShapeError(f"value: expected [B] = [{len(samples)}], got [{len(score.status)}]")
        return score
    except Exception as error:  # whatever a model may raise; the other samples are not to be lost with one
        # Alone, a sample of a reward that compares them would get another number, not its own.
        if len(samples) > 1 and not compares(reward):
            return join_scores([score_safely(reward, [sample]) for sample in samples])
        said = " ".join(str(error).split())[:200]
        return without_score([f"the reward failed ({type(error).__name__}: {said})"] * len(samples))


def shard_range(count: int, shard: int, shards: int, *, batch_size: int) -> range:
    """Which of ``count`` files belong to one of several shards: whole batches that follow each other.

    A batch is thus made of the same files whether there are shards or not, so that its scores are equal to the last
    bit, and the outputs of all shards in order are the output of one run.

    Args:
        count: of all files.
        shard: 1 to ``shards``.
        shards: how many there are.
        batch_size: files per batch.

    Raises:
        ConfigError: ``shard`` is not 1 to ``shards``.

    >>> [shard_range(70, shard, 3, batch_size=16) for shard in (1, 2, 3)]
    [range(0, 16), range(16, 48), range(48, 70)]
    """
    if not 1 <= shard <= shards:
        raise ConfigError(f"shard {shard} of {shards}: they count from 1, so expected 1 to {max(shards, 1)}")
    batches = -(-count // batch_size)
    first, last = batches * (shard - 1) // shards, batches * shard // shards
    return range(min(first * batch_size, count), min(last * batch_size, count))


def weighted_sum(rows: Sequence[ScoredRow], rewards: Sequence[Reward], weights: Sequence[float]) -> ScoredRow:
    """One file's rows as one, each turned so that higher is better, none where one is missing.

        score = sum_k weight_k * sign_k * score_k,   sign_k = -1 where lower is better

    It is what ``align`` optimises for the same names and weights (``mmalign.rewards.compose.WeightedSum``).
    """
    name = "+".join(f"{row.reward}:{weight:g}" for row, weight in zip(rows, weights, strict=True))
    failed = [row for row in rows if row.score is None]
    total = sum(
        weight * reward.card.sign * (row.score or 0.0)
        for row, reward, weight in zip(rows, rewards, weights, strict=True)
    )
    first = rows[0]
    return ScoredRow(
        first.id,
        first.media,
        first.prompt,
        name,
        None if failed else total,
        None,
        f"{failed[0].reward}: {failed[0].status}" if failed else OK,
    )


_Column = list[float | None]


def _columns(score: Score) -> tuple[_Column, _Column | None, dict[str, _Column]]:
    def plain(values: Tensor) -> _Column:
        return [number if math.isfinite(number) else None for number in values.tolist()]

    std = None if score.std is None else plain(score.std)
    return plain(score.value), std, {name: plain(aspect) for name, aspect in score.aspects.items()}


def _row(
    file: Loadable,
    reward: str,
    score: Score,
    columns: tuple[_Column, _Column | None, dict[str, _Column]],
    i: int,
    fault: str,
) -> ScoredRow:
    values, std, aspects = columns
    status = score.status[i] if fault == OK else fault
    if status == OK and values[i] is None:
        status = "the score is not a finite number"
    ok = status == OK
    return ScoredRow(
        file.id,
        None if file.path is None else str(file.path),
        file.prompt,
        reward,
        values[i] if ok else None,
        std[i] if ok and std is not None else None,
        status,
        {name: aspect[i] if ok else None for name, aspect in aspects.items()},
    )
