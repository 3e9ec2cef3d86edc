"""Scores as JSON, version 1: what ``mmalign serve`` answers and ``RemoteReward`` reads.

A score is ``{"score": NUMBER or null, "status": TEXT, "std": NUMBER or null, "aspects": {NAME: NUMBER or null}}``, and
``"text"``, ``"tokens"`` (pairs of text and number) and ``"regions"`` (rows of numbers) where a reward gives them.
Numbers are finite; a sample without a score has null and a status that is not "ok".
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from mmalign.errors import DataError
from mmalign.rewards.base import OK, Score, TokenScores
from mmalign.rewards.wire import short

LARGEST = torch.finfo(torch.float32).max


def encode_scores(score: Score) -> list[dict[str, Any]]:
    """A score as JSON, one entry per sample."""

    def number(value: Any) -> float | None:
        return float(value) if math.isfinite(value) else None

    entries: list[dict[str, Any]] = []
    for i, status in enumerate(score.status):
        value = number(score.value[i])
        if status == OK and value is None:
            status = "the score is not a finite number"
        entry: dict[str, Any] = {"score": value if status == OK else None, "status": status}
        entry["std"] = None if score.std is None else number(score.std[i])
        entry["aspects"] = {name: number(values[i]) for name, values in score.aspects.items()}
        if score.text is not None:
            entry["text"] = score.text[i]
        if score.tokens is not None:
            entry["tokens"] = [
                [text, number(value)]
                for text, value in zip(score.tokens[i].text, score.tokens[i].score, strict=True)
            ]
        if score.regions is not None:
            entry["regions"] = [[round(float(v), 4) for v in row] for row in score.regions[i]]
        entries.append(entry)
    return entries


def decode_scores(entries: Any, *, count: int) -> Score:
    """A score from JSON; an entry that is none becomes a status.

    Raises:
        DataError: not ``count`` entries.
    """
    if not isinstance(entries, list) or len(entries) != count:
        got = f"{len(entries)}" if isinstance(entries, list) else short(entries)
        raise DataError(f"expected {count} scores, got {got}", file="the reward's answer")
    fine = [
        entry if isinstance(entry, dict) else {"status": f"no score: {short(entry)}"} for entry in entries
    ]
    values, status = [], []
    for entry in fine:
        value, said = _finite(entry.get("score")), entry.get("status")
        if said == OK and math.isnan(value):
            said = f"no score: {short(entry.get('score'))}"
        status.append(said if isinstance(said, str) and said else "no status")
        values.append(value if status[-1] == OK else math.nan)
    parts = [_named(entry.get("aspects")) for entry in fine]
    names = list(dict.fromkeys(name for aspects in parts for name in aspects))
    stds = [_finite(entry.get("std")) for entry in fine]
    texts, tokens = [entry.get("text") for entry in fine], [entry.get("tokens") for entry in fine]
    return Score(
        torch.tensor(values, dtype=torch.float64).float(),
        status,
        std=torch.tensor(stds) if any(not math.isnan(std) for std in stds) else None,
        aspects={name: torch.tensor([_finite(aspects.get(name)) for aspects in parts]) for name in names},
        text=[text if isinstance(text, str) else "" for text in texts] if any(texts) else None,
        tokens=[_tokens(entry) for entry in tokens] if any(tokens) else None,
        regions=_regions([entry.get("regions") for entry in fine]),
    )


def _named(aspects: Any) -> dict[str, Any]:
    return {str(name): value for name, value in aspects.items()} if isinstance(aspects, dict) else {}


def _finite(value: Any) -> float:
    """A number that fp32 can hold, or NaN."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and abs(value) <= LARGEST else math.nan


def _tokens(entry: Any) -> TokenScores:
    pairs: Sequence[Any] = entry if isinstance(entry, list) else []
    sound = [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)]
    return TokenScores(tuple(pair[0] for pair in sound), tuple(_finite(pair[1]) for pair in sound))


def _regions(entries: Sequence[Any]) -> torch.Tensor | None:
    try:
        regions = torch.tensor(entries, dtype=torch.float32)
    except (TypeError, ValueError):
        return None
    return regions if regions.ndim == 3 and 0 not in regions.shape else None
