"""Scores many files with several rewards: files are read in threads while the models work on the batch before."""

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import Tensor

from mmalign.errors import DataError
from mmalign.media import Sample, SampleFile
from mmalign.rewards.base import OK, PreparingReward, Reward, Score

TEXT_COLUMNS = ("id", "media", "prompt", "reward", "status")


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
    files: Sequence[SampleFile],
    rewards: Sequence[Reward],
    *,
    weights: Sequence[float] | None = None,
    batch_size: int = 32,
    threads: int | None = None,
) -> Iterator[ScoredRow]:
    """Score every file with every reward.

    Args:
        files: in the order of the result.
        rewards: each gives one row per file.
        weights: one per reward; adds a row with the weighted sum of the raw scores, which fails where one of them does.
        batch_size: files per call of a reward.
        threads: that read files; by default one per core, at most 8.

    Yields:
        File by file, one row per reward, then the weighted sum if asked for.
    """
    threads = threads or min(8, os.cpu_count() or 1)
    loaded = _load_ahead(files, rewards, ahead=2 * batch_size, threads=threads)
    for start in range(0, len(files), batch_size):
        batch = list(islice(loaded, batch_size))
        scores = [reward.score([samples[i] for samples, _ in batch]) for i, reward in enumerate(rewards)]
        columns = [_columns(score) for score in scores]
        for i, (file, (_, fault)) in enumerate(zip(files[start : start + batch_size], batch, strict=True)):
            rows = [
                _row(file, reward.card.name, score, values, i, fault)
                for reward, score, values in zip(rewards, scores, columns, strict=True)
            ]
            yield from rows
            if weights is not None:
                yield weighted_sum(rows, weights)


def weighted_sum(rows: Sequence[ScoredRow], weights: Sequence[float]) -> ScoredRow:
    """One file's rows as one: ``score = sum_k weight_k * score_k``, none where one is missing."""
    name = "+".join(f"{row.reward}:{weight:g}" for row, weight in zip(rows, weights, strict=True))
    failed = [row for row in rows if row.score is None]
    total = sum(weight * (row.score or 0.0) for row, weight in zip(rows, weights, strict=True))
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


def _load_ahead(
    files: Sequence[SampleFile], rewards: Sequence[Reward], *, ahead: int, threads: int
) -> Iterator[tuple[list[Sample], str]]:
    """Each file's sample as each reward wants it, in order, with "ok" or what is wrong with the file."""
    prepare = [reward.prepare if isinstance(reward, PreparingReward) else None for reward in rewards]

    def load(file: SampleFile) -> tuple[list[Sample], str]:
        try:
            sample, fault = file.load(), OK
        except DataError as error:
            sample, fault = Sample(file.prompt or ""), str(error)
        # The whole picture is let go here, so that a queue of large ones stays small.
        return [step(sample) if step else sample for step in prepare], fault

    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        waiting: deque[Future[tuple[list[Sample], str]]] = deque()
        try:
            for file in files:
                waiting.append(pool.submit(load, file))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_Column = list[float | None]


def _columns(score: Score) -> tuple[_Column, _Column | None, dict[str, _Column]]:
    def plain(values: Tensor) -> _Column:
        return [number if math.isfinite(number) else None for number in values.tolist()]

    std = None if score.std is None else plain(score.std)
    return plain(score.value), std, {name: plain(aspect) for name, aspect in score.aspects.items()}


def _row(
    file: SampleFile,
    reward: str,
    score: Score,
    columns: tuple[_Column, _Column | None, dict[str, _Column]],
    i: int,
    fault: str,
) -> ScoredRow:
    values, std, aspects = columns
    status = score.status[i] if fault == OK else fault
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
