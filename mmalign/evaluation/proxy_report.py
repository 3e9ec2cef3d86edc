"""A proxy reward against a true one on the same samples: how it rises and falls, what it sees, and what it goes by."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError
from mmalign.evaluation.agreement import bootstrap_interval, correlation_within
from mmalign.evaluation.contrast import contrast_consistency, contrast_partners
from mmalign.evaluation.overoptimisation import (
    Floats,
    Law,
    best_of_n_by_prompt,
    distance,
    reward_variance,
)
from mmalign.evaluation.overoptimisation_curves import FittedCurve, fit_curve
from mmalign.evaluation.run_folder import finite, read_run
from mmalign.evaluation.verdicts import COVARIATES, Covariates
from mmalign.losses.selection import best_of_n_kl
from mmalign.media import SampleFile
from mmalign.rewards.base import Reward, sound_modality
from mmalign.rewards.scoring import score_files

DIRECT = ("flow_dpo", "diffusion_dpo", "token_dpo")
"""Methods that learn from pairs without a sampler in the loop; their law is called ``direct``."""
MOST_CONTRASTS = 200
"""Pairs of prompts whose media are scored crosswise."""


@dataclass(frozen=True, eq=False)
class ScoredSamples:
    """Samples of P prompts with both scores, higher is better.

    Args:
        prompts: P.
        media: P lists of files.
        proxy: as ``media``.
        gold: as ``media``, the true reward.
        covariates: named as ``media``, NaN where a medium has none.
        failed: samples without one of the two scores, which are left out.
    """

    prompts: tuple[str, ...]
    media: tuple[tuple[Path, ...], ...]
    proxy: tuple[tuple[float, ...], ...]
    gold: tuple[tuple[float, ...], ...]
    covariates: Mapping[str, tuple[tuple[float, ...], ...]]
    failed: tuple[str, ...]

    @property
    def flat(self) -> tuple[Floats, Floats, list[str]]:
        """Proxy, truth and prompt of every sample."""
        pairs = [(p, g, name) for name, a, b in self._rows for p, g in zip(a, b, strict=True)]
        return (
            np.array([p for p, _, _ in pairs]),
            np.array([g for _, g, _ in pairs]),
            [n for _, _, n in pairs],
        )

    @property
    def _rows(self) -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
        return list(zip(self.prompts, self.proxy, self.gold, strict=True))

    def square(self) -> tuple[Floats, Floats]:
        """[P', N] each, of the prompts that have as many samples as most have, their first N.

        Raises:
            ConfigError: most prompts have one.
        """
        counts = [len(group) for group in self.media]
        usual = max(set(counts), key=lambda n: (counts.count(n), n))
        if usual < 2:
            raise ConfigError("most prompts have one scored sample; the best of n wants several of each")
        kept = [i for i, n in enumerate(counts) if n >= usual]
        return (
            np.array([self.proxy[i][:usual] for i in kept]),
            np.array([self.gold[i][:usual] for i in kept]),
        )


def score_pool(
    prompts: Sequence[str],
    media: Sequence[Sequence[Path]],
    proxy: Reward,
    gold: Reward,
    *,
    batch_size: int = 32,
) -> ScoredSamples:
    """Score samples with both rewards, and measure what neither should go by.

    Raises:
        ConfigError: no sample has both scores.
    """
    kind = sound_modality([proxy.card, gold.card])
    files = [
        SampleFile("", medium, prompt, str(medium), kind)
        for prompt, group in zip(prompts, media, strict=True)
        for medium in group
    ]
    rows = iter(score_files(files, [proxy, gold, Covariates()], batch_size=batch_size))
    signs = [reward.card.sign for reward in (proxy, gold)]
    failed: list[str] = []
    names, kept_media, both, beside = [], [], [], []
    for prompt, group in zip(prompts, media, strict=True):
        found = []
        for medium in group:
            first, second, measured = next(rows), next(rows), next(rows)
            if first.score is None or second.score is None:
                failed.append(f"{medium}: {first.status if first.score is None else second.status}")
                continue
            found.append((medium, (signs[0] * first.score, signs[1] * second.score), measured.aspects))
        if found:
            names.append(prompt)
            kept_media.append(tuple(entry[0] for entry in found))
            both.append([entry[1] for entry in found])
            beside.append([entry[2] for entry in found])
    if not names:
        raise ConfigError(f"no sample has a score by both rewards; first: {failed[0]}")
    covariates = {
        name: tuple(
            tuple(math.nan if (v := entry.get(name)) is None else float(v) for entry in group)
            for group in beside
        )
        for name in COVARIATES
    }
    return ScoredSamples(
        tuple(names),
        tuple(kept_media),
        tuple(tuple(pair[0] for pair in group) for group in both),
        tuple(tuple(pair[1] for pair in group) for group in both),
        covariates,
        tuple(failed),
    )


def best_of_n_curves(
    samples: ScoredSamples, *, resamples: int, seed: int
) -> tuple[list[int], FittedCurve, FittedCurve]:
    """What choosing the best of 1, 2, 4, ... by the proxy brings, by both, in the std of all samples of each.

    Returns:
        Each n, and the curves of the proxy and of the truth with their laws.
    """
    proxy, gold = samples.square()
    counts = [n for n in (2**k for k in range(30)) if n < proxy.shape[1]] + [proxy.shape[1]]
    d = distance([best_of_n_kl(n) for n in counts])
    found = best_of_n_by_prompt(proxy, gold, counts)
    curves = []
    for values, every in zip(found, (proxy, gold), strict=True):
        gain = (values - values[:, :1]) / _std(every)
        curves.append(fit_curve(d, gain, law="best-of-n", resamples=resamples, seed=seed))
    return counts, curves[0], curves[1]


def _std(values: Floats) -> float:
    std = float(values.std())
    return std if std > 0 else 1.0


def within_prompt_accuracy(samples: ScoredSamples, *, resamples: int, seed: int) -> dict[str, Any]:
    """How many of all pairs of one prompt's samples that truly differ the proxy orders rightly; a tie is wrong."""
    right, names = [], []
    for name, p, g in zip(samples.prompts, samples.proxy, samples.gold, strict=True):
        i, j = np.triu_indices(len(p), 1)
        said, true = np.sign(np.array(p)[i] - np.array(p)[j]), np.sign(np.array(g)[i] - np.array(g)[j])
        right += list((said == true)[true != 0])
        names += [name] * int((true != 0).sum())
    return _with_interval(lambda rows: float(np.mean(np.array(right)[rows])), names, resamples, seed)


def accuracy_drop(near: ScoredSamples, far: ScoredSamples, *, resamples: int, seed: int) -> dict[str, Any]:
    """The same on other samples (a shifted prompt set, an unseen generator), and how far it falls."""
    sides = [within_prompt_accuracy(side, resamples=resamples, seed=seed) for side in (near, far)]
    drop = sides[0]["value"] - sides[1]["value"]
    # Both sides are independent, so half-widths add as variances do.
    halves = [(side["ci95"][1] - side["ci95"][0]) / 2 for side in sides]
    half = math.hypot(*halves)
    return {
        "accuracy": sides[0],
        "accuracy_shifted": sides[1],
        "drop": {"value": drop, "ci95": [drop - half, drop + half], "n": min(s["n"] for s in sides)},
    }


def biases(samples: ScoredSamples, *, resamples: int, seed: int) -> dict[str, Any]:
    """Correlation inside prompts of both rewards with size, length and looks, where these vary."""
    proxy, gold, names = samples.flat
    found: dict[str, Any] = {}
    for name, groups in samples.covariates.items():
        values = np.array([v for group in groups for v in group])
        there = np.flatnonzero(~np.isnan(values))
        entry = {}
        for side, scores in (("proxy", proxy), ("true", gold)):

            def statistic(
                rows: NDArray[np.int64], scores: Floats = scores, values: Floats = values, there: Any = there
            ) -> float:
                mine = there[rows]
                return correlation_within(scores[mine], values[mine], [names[i] for i in mine])

            entry[side] = _with_interval(statistic, [names[i] for i in there], min(resamples, 200), seed)
        if entry["proxy"]["value"] is not None:
            found[name] = entry
    return found


def contrasts(
    samples: ScoredSamples, proxy: Reward, gold: Reward, *, batch_size: int, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Consistency under prompts that nearly say the same, each with its truly best sample; None without any."""
    partners = contrast_partners(samples.prompts)[:MOST_CONTRASTS]
    if not partners:
        return None
    kind = sound_modality([proxy.card, gold.card])
    best = [group[int(np.argmax(g))] for group, g in zip(samples.media, samples.gold, strict=True)]
    files = [
        SampleFile("", best[medium], samples.prompts[prompt], str(best[medium]), kind)
        for i, j in partners
        for prompt, medium in ((i, i), (j, j), (i, j), (j, i))
    ]
    found: dict[str, Any] = {"pairs": len(partners)}
    for side, reward in (("proxy", proxy), ("true", gold)):
        rows = score_files(files, [reward], batch_size=batch_size)
        table = np.array([math.nan if r.score is None else reward.card.sign * r.score for r in rows]).reshape(
            -1, 4
        )
        groups = list(range(len(table)))
        found[side] = {
            what: _with_interval(
                lambda rows, table=table, k=k: contrast_consistency(table[rows, :2], table[rows, 2:])[k],  # type: ignore[misc]
                groups,
                resamples,
                seed,
            )
            for k, what in enumerate(("response", "instruction"))
        }
    return found


def variances(samples: ScoredSamples) -> dict[str, Any]:
    """How far both rewards tell the samples of one prompt apart: the mean over prompts, and quartiles."""
    proxy, gold = samples.square()
    found = {}
    for side, values in (("proxy", proxy), ("true", gold)):
        each = reward_variance(values)
        found[side] = {
            "mean": plain(float(each.mean())),
            "quartiles": [plain(float(q)) for q in np.quantile(each, [0.25, 0.5, 0.75])],
        }
    return found


@dataclass(frozen=True, eq=False)
class TrainingPath:
    """What the glances of runs saw, in the std of each reward over the samples before.

    Args:
        law: direct for DPO on given pairs, else policy-gradient.
        runs: R folders.
        step: [C], optimiser steps.
        d: [C], the square root of the mean ``kl`` of the glances: nats of whole samples, as of the best of n.
        proxy: [R, C], gains, NaN where a run has no such glance.
        gold: [R, C].
    """

    law: Law
    runs: tuple[str, ...]
    step: Floats
    d: Floats
    proxy: Floats
    gold: Floats


def training_path(
    folders: Sequence[Path],
    score: Callable[[Sequence[SampleFile]], tuple[Floats, Floats]],
    *,
    gold_sign: float = 1.0,
) -> TrainingPath:
    """The rewards of runs of one recipe along their training, against how far the policy had moved.

    Args:
        folders: runs whose ``metrics.jsonl`` has glances (``--evaluation.every``).
        score: proxy and true scores [n] of files, turned so that higher is better: of the samples before, which the
            glances redraw.
        gold_sign: turns the glances' true scores, which are kept raw; those by the proxy are turned already.

    Raises:
        DataError: a run has no glances or no samples.
        ConfigError: the runs are of methods with different laws.
    """
    laws: set[Law] = set()
    found: list[dict[int, tuple[float, float, float]]] = []
    for folder in folders:
        run = read_run(folder)
        recipe = yaml.safe_load(run.recipe) or {}
        method = recipe.get("method", {}).get("name") or str(recipe.get("name", "")).rpartition("/")[2]
        laws.add("direct" if method in DIRECT else "policy-gradient")
        glances = [
            (int(row["step"]), values)
            for row in run.metrics
            if None
            not in (
                values := tuple(
                    finite(row.get(name)) for name in ("kl", "train_reward_heldout_prompts", "heldout_reward")
                )
            )
        ]
        if not glances:
            raise DataError(
                "no glance in metrics.jsonl has a training reward, a held-out one and a kl; train with "
                "--evaluation.every (older runs measured another distance, `drift`, which is no KL)",
                file=folder,
            )
        first = run.pairs[: recipe.get("evaluation", {}).get("glance", 48)]
        if not first:
            raise DataError("no samples before, with which the glances are compared", file=folder)
        base = score([SampleFile("", pair.before, pair.prompt, str(pair.before)) for pair in first])
        scale = [(float(np.nanmean(values)), _std(values[~np.isnan(values)])) for values in base]
        found.append(
            {
                step: (
                    float(values[0]),  # type: ignore[arg-type]
                    (values[1] - scale[0][0]) / scale[0][1],  # type: ignore[operator]
                    (gold_sign * values[2] - scale[1][0]) / scale[1][1],  # type: ignore[operator]
                )
                for step, values in glances
            }
        )
    if len(laws) > 1:
        raise ConfigError("runs of direct and of other methods have different laws; give them apart")
    steps = sorted({step for run_steps in found for step in run_steps})
    table = np.array([[run_steps.get(step, (math.nan,) * 3) for step in steps] for run_steps in found])
    d = distance(np.nanmean(table[..., 0], 0))
    return TrainingPath(
        laws.pop(),
        tuple(str(folder) for folder in folders),
        np.array(steps, dtype=np.float64),
        d,
        table[..., 1],
        table[..., 2],
    )


def curve_values(curve: FittedCurve) -> dict[str, Any]:
    """A curve as JSON has it; an infinite peak is null: it never falls."""
    return {
        "law": curve.law,
        "distance": [plain(v) for v in curve.d.tolist()],
        "gain_in_stds": [plain(v) for v in curve.reward.tolist()],
        "low": [plain(v) for v in curve.low.tolist()],
        "high": [plain(v) for v in curve.high.tolist()],
        "alpha": {"value": plain(curve.alpha), "ci95": [plain(v) for v in curve.alpha_ci]},
        "beta": {"value": plain(curve.beta), "ci95": [plain(v) for v in curve.beta_ci]},
        "peak_distance": {"value": plain(curve.peak), "ci95": [plain(v) for v in curve.peak_ci]},
        "r_squared": plain(curve.r_squared),
        "share_of_resamples_past_the_peak": plain(curve.falls),
    }


def plain(value: float) -> float | None:
    """For JSON, which has no word for NaN and infinity."""
    return value if math.isfinite(value) else None


def _with_interval(
    statistic: Callable[[NDArray[np.int64]], float], groups: Sequence[Any], resamples: int, seed: int
) -> dict[str, Any]:
    if not len(groups):
        return {"value": None, "ci95": [None, None], "n": 0}
    value = statistic(np.arange(len(groups)))
    low, high = (
        (math.nan, math.nan)
        if math.isnan(value)
        else bootstrap_interval(statistic, groups, resamples=resamples, seed=seed)
    )
    return {"value": plain(value), "ci95": [plain(low), plain(high)], "n": len(groups)}
