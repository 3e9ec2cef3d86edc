"""Scores kept on disk by the content of what was scored, so that nothing is scored twice."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.media import Sample, Speech, content_hash
from mmalign.rewards.base import OK, PreparingReward, Reward, Score
from mmalign.rewards.cards import RewardCard, load_reward
from mmalign.rewards.direction import check_direction
from mmalign.rewards.groups import refuse_comparing
from mmalign.rewards.rows import join_scores, pick
from mmalign.rewards.wire_scores import decode_scores, encode_scores


class Cached:
    """A reward that asks another only for what it has not seen.

    A score is one file of JSON, named by a hash of the reward's card and of the sample, written whole or not at all,
    so that several processes may share the folder. What failed is not kept, since it may succeed next time, and a file
    that is damaged counts as absent. Media count as files keep them, with 8 bits a channel or 16 a sample.

    Args:
        card: of the cached reward; range, unit and direction are those of ``reward``.
        reward: what scores.
        folder: where scores are kept.

    Raises:
        ConfigError: ``reward`` compares the samples of a prompt, so that its scores are not those of single samples.
    """

    def __init__(self, card: RewardCard, reward: Reward, *, folder: Path) -> None:
        refuse_comparing(
            reward, f"'{card.name}' keeps scores of single samples; keep those of what it is made of"
        )
        check_direction(card, reward.card)
        self.card, self.reward = card, reward
        self.hits = 0
        """Scores that were found so far."""
        said = json.dumps(astuple(reward.card), default=str, sort_keys=True)
        self._folder = folder / hashlib.sha256(said.encode()).hexdigest()[:16]

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample, in order."""
        paths = [self._path(sample) for sample in samples]
        found = [_read(path) for path in paths]
        missing = [i for i, score in enumerate(found) if score is None]
        self.hits += len(samples) - len(missing)
        if missing:
            fresh = self.reward.score([samples[i] for i in missing])
            for row, i in enumerate(missing):
                found[i] = pick(fresh, [row])
                if fresh.status[row] == OK:
                    _write(paths[i], pick(fresh, [row]))
        return join_scores([score for score in found if score is not None])

    def _path(self, sample: Sample) -> Path:
        parts = [content_hash(sample)]
        if isinstance(self.reward, PreparingReward):
            # What a reward takes from elsewhere, such as the sound of a video's file, is in the prepared sample only.
            parts.append(content_hash(self.reward.prepare(sample)))
        if isinstance(sample.media, Speech):
            parts += [repr(sample.media.transcript), repr(sample.media.voice)]
        name = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / f"{name}.json"


def _read(path: Path) -> Score | None:
    try:
        entry: Any = json.loads(path.read_text(encoding="utf-8"))
        score = decode_scores([entry], count=1)
    except (OSError, ValueError, RecursionError, DataError):
        return None
    return score if score.status == [OK] else None


def _write(path: Path, score: Score) -> None:
    (entry,) = encode_scores(score)
    if score.regions is not None:
        entry["regions"] = score.regions[0].to(torch.float32).tolist()  # all digits
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(entry, allow_nan=False), encoding="utf-8")


def cached(card: RewardCard, *, device: str = "cpu", of: str, folder: str) -> Cached:
    """The target of a card with ``options: {of: NAME, folder: FOLDER}``."""
    return Cached(card, load_reward(of, device=device), folder=Path(folder).expanduser())
