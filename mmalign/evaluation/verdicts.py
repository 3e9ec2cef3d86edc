"""Asks a judge about every pair of a benchmark, each medium once, and measures what else the media differ in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.errors import DataError
from mmalign.evaluation.judge_data import Case, Single
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Video
from mmalign.rewards.ahead import Loadable
from mmalign.rewards.base import OK, Reward, Score
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.pairwise import PairReward
from mmalign.rewards.scoring import score_files

COVARIATES = ("pixels", "duration_s", "brightness", "saturation", "loudness")
"""What a judge should not go by."""
LOGIT_MOST = 30.0
"""Of a probability 0 or 1."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a judge says of n pairs.

    Args:
        cases: n.
        margin: [n], above 0 where the first is better, NaN where there is no verdict; log odds for a judge of pairs.
        agreed: [n], 1 where a judge of pairs decided alike in both orders and 0 where not; NaN without that.
        covariates: named [n, 2], of the first and the second; NaN where a medium has none.
        failures: why there is no verdict, each reason once.
    """

    cases: tuple[Case, ...]
    margin: NDArray[np.float64]
    agreed: NDArray[np.float64]
    covariates: dict[str, NDArray[np.float64]]
    failures: tuple[str, ...]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """[n], whether there is a verdict."""
        return ~np.isnan(self.margin)


class Covariates:
    """Size, length, brightness, saturation and loudness of a sample, as aspects of a reward that says nothing."""

    card = RewardCard(
        name="covariates",
        target="mmalign.evaluation.verdicts:Covariates",
        modalities=("image", "video", "scene3d", "audio", "speech"),
        unit="several",
        higher_is_better=True,
        differentiable=False,
        needs=(),
        source="computed",
    )

    def score(self, samples: Sequence[Sample]) -> Score:
        """Zeros, and the aspects ``COVARIATES``, NaN where a medium has none."""
        measured = [covariates(sample.media) for sample in samples]
        aspects = {
            name: torch.tensor([entry.get(name, math.nan) for entry in measured], dtype=torch.float64)
            for name in COVARIATES
        }
        return Score(torch.zeros(len(samples)), [OK] * len(samples), aspects=aspects)


def covariates(media: Media | None) -> dict[str, float]:
    """What can be measured of a medium: pixels [count], duration [s], brightness, saturation and loudness in [0, 1].

    >>> covariates(Audio(torch.full((1, 8000), 0.5), 16_000))
    {'duration_s': 0.5, 'loudness': 0.5}
    """
    match media:
        case Image():
            return _of_pixels(media.pixels[None])
        case Video():
            return {**_of_pixels(media.frames), "duration_s": len(media.frames) / media.fps}
        case Scene3D():
            return {} if media.views is None else _of_pixels(media.views)
        case Audio():
            wave = media.waveform.float()
            length = wave.shape[-1] / media.sample_rate_hz
            return {"duration_s": length, "loudness": float(wave.square().mean().sqrt())}
    return {}


def _of_pixels(frames: torch.Tensor) -> dict[str, float]:
    most, least = frames.amax(1), frames.amin(1)
    return {
        "pixels": float(frames.shape[-1] * frames.shape[-2]),
        "brightness": float(frames.mean()),
        "saturation": float(((most - least) / most.clamp(min=1e-6)).mean()),
    }


def score_sides(reward: Reward, cases: Sequence[Case], *, batch_size: int) -> Verdicts:
    """Verdicts of a reward of single samples: the difference of its scores, or of its aspects of a case's name."""
    files: dict[tuple[str, str], Loadable] = {}
    for case in cases:
        for file in (case.first, case.second):
            files.setdefault(_key(file), file)
    rows = iter(score_files(list(files.values()), [reward, Covariates()], batch_size=batch_size))
    found = {key: (next(rows), next(rows)) for key in files}
    sign = reward.card.sign
    margin = np.full(len(cases), math.nan)
    sides = {name: np.full((len(cases), 2), math.nan) for name in COVARIATES}
    failures: dict[str, None] = {}
    for i, case in enumerate(cases):
        scores = []
        for k, file in enumerate((case.first, case.second)):
            row, measured = found[_key(file)]
            value = row.score
            if case.aspect is not None and value is not None and case.aspect in row.aspects:
                value = row.aspects[case.aspect]
            if value is None:
                failures[row.status if row.score is None else f"no score for the aspect {case.aspect}"] = None
            scores.append(math.nan if value is None else sign * value)
            for name in COVARIATES:
                number = measured.aspects.get(name)
                sides[name][i, k] = math.nan if number is None else number
        margin[i] = scores[0] - scores[1]
    return Verdicts(tuple(cases), margin, np.full(len(cases), math.nan), sides, tuple(failures))


def compare_sides(judge: PairReward, cases: Sequence[Case], *, batch_size: int) -> Verdicts:
    """Verdicts of a judge of pairs in both orders, so that a liking for the first place cancels.

        p = (p_12 + 1 - p_21) / 2,   margin = log(p / (1 - p)),   p = P(first) + P(tie) / 2

    A judge that shows each pair in both orders by itself is asked once.

    Source: RL-VLM-F's debiasing as in Wang et al. 2024 (arXiv:2402.03681), with probabilities.
    """
    n = len(cases)
    agreed, margin = np.full(n, math.nan), np.full(n, math.nan)
    failures: dict[str, None] = {}
    for start in range(0, n, batch_size):
        part = range(start, min(start + batch_size, n))
        loaded: list[tuple[int, Sample, Sample]] = []
        for i in part:
            try:
                loaded.append((i, cases[i].first.load(), cases[i].second.load()))
            except DataError as error:
                failures[str(error)] = None
        if not loaded:
            continue
        first, second = [entry[1] for entry in loaded], [entry[2] for entry in loaded]
        found = judge.compare(first, second)
        p, same, status = found.wins, found.agreed, found.status
        if same is None:
            again = judge.compare(second, first)
            same = (p - 0.5).sign() == (0.5 - again.wins).sign()
            p, status = (p + 1 - again.wins) / 2, [*status, *again.status]
        failures |= dict.fromkeys(entry for entry in status if entry != OK)
        for k, (i, _, _) in enumerate(loaded):
            margin[i] = _logit(float(p[k]))
            agreed[i] = math.nan if math.isnan(margin[i]) else float(same[k])
    empty = {name: np.full((n, 2), math.nan) for name in COVARIATES}
    return Verdicts(tuple(cases), margin, agreed, empty, tuple(failures))


def score_singles(
    reward: Reward, singles: Sequence[Single], *, batch_size: int
) -> tuple[list[float], tuple[str, ...]]:
    """A score each, NaN where there is none, and why."""
    rows = list(score_files([single.sample for single in singles], [reward], batch_size=batch_size))
    failures = dict.fromkeys(row.status for row in rows if row.score is None)
    return [math.nan if row.score is None else row.score for row in rows], tuple(failures)


def _key(file: Loadable) -> tuple[str, str]:
    return str(file.path), file.prompt or ""


def _logit(p: float) -> float:
    if math.isnan(p):
        return p
    if not 0 < p < 1:
        return math.copysign(LOGIT_MOST, p - 0.5)
    return math.log(p / (1 - p))
