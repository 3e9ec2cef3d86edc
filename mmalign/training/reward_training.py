"""Trains a reward from a preference file: reads, embeds, splits by prompt, fits, judges, and writes its folder."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.evaluation.agreement import accuracy_without_ties, bootstrap_interval, fitted_temperature
from mmalign.evaluation.detection import auroc
from mmalign.files import whole_file
from mmalign.media import Sample, load_media
from mmalign.rewards.base import EmbeddingReward
from mmalign.rewards.cards import BESIDE, CARD, load_reward
from mmalign.rewards.familiarity import Familiarity
from mmalign.rewards.learned import HEAD, KNOWN, fingerprint, load_backbone
from mmalign.rewards.learned_heads import HeadOptions, Heads
from mmalign.rewards.rows import join_scores
from mmalign.training.progress import stage
from mmalign.training.reward_data import Examples, Kind, Split, read_examples, split_by_prompt
from mmalign.training.reward_features import FeatureCache, embed_media, embed_prompts
from mmalign.training.reward_fitting import FitOptions, features_of, fit_heads
from mmalign.training.reward_groups import check_people, groups_of, in_groups, write_groups
from mmalign.training.reward_objectives import Vectors
from mmalign.weights import write_weights

UNITS: dict[Kind, str] = {
    "pairs": "standard deviations over the samples of its training",
    "ratings": "unit of the ratings",
    "binary": "log odds of a good sample",
}
FEATURES = "features"


@dataclass(frozen=True, kw_only=True)
class RewardTraining:
    """What `mmalign reward train` needs."""

    data: Path
    backbone: str
    out: Path
    head: HeadOptions = field(default_factory=HeadOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    heldout: float = 0.2
    seed: int = 0
    features: Path | None = None
    """Where vectors are kept; None for ``out/features``."""
    nuisance: str | None = None
    """A reward whose score of a medium should not count, for the loss ``odin``."""
    groups: int = 1
    """Of annotators, found by EM; each has an aspect of its own."""
    over_groups: Literal["worst", "mean", "least"] = "worst"
    """What the value is of the groups' rewards: a mean by weights that follow whose mean over a rollout is lowest
    (MaxMin-RLHF), their mean, or the least of each sample's."""
    personal: int = 0
    """Features that are common to all annotators, of which each has weights; 0 for one reward of all."""
    std: Literal["distance", "members"] = "distance"
    """Whether the std grows with the distance to the training samples, or is the spread of the members alone."""
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of it."""

    measure: str
    """What ``value`` is: accuracy of pairs, of labels (as AUC), or the correlation with ratings."""
    value: float
    ci95: tuple[float, float]
    heldout: int
    """Examples of held-out prompts that ``value`` is over."""
    epochs: int
    best_epoch: int
    rows: int
    used: int
    rejected: tuple[str, ...]
    log_odds_per_unit: float | None
    """Of pairs: the difference of two scores times this is the log odds that the first is preferred."""


def train_reward(training: RewardTraining, examples: Examples | None = None) -> Trained:
    """Train and write a reward.

    Args:
        training: what to do.
        examples: of ``training.data``, where they are read already.

    The folder has ``card.yaml`` and ``head.safetensors``, and in ``features`` the vectors that can be thrown away.

    Raises:
        DataError: the table cannot be used.
        ConfigError: a setting that cannot work, or a backbone without vectors.
    """
    examples = examples or read_examples(training.data)
    backbone = load_backbone(training.backbone, device=training.device)
    weights_of = fingerprint(backbone)
    cache = FeatureCache(training.features or training.out / FEATURES, weights_of)
    media, status = embed_media(backbone, examples.media, cache)
    examples = examples.without_media(status, training.data)
    vectors = Vectors(media, embed_prompts(backbone, examples.prompts))
    if training.nuisance is not None:
        nuisance, examples = measured_nuisance(
            training.nuisance, examples, training.data, device=training.device
        )
        vectors = replace(vectors, nuisance=nuisance)
    generator = torch.Generator().manual_seed(training.seed)
    split = split_by_prompt(examples, heldout=training.heldout, generator=generator)
    head = replace(training.head, aspects=examples.aspects)
    if training.groups > 1:
        random = torch.Generator().manual_seed(training.seed)
        found = groups_of(split.train, vectors, groups=training.groups, generator=random)
        write_groups(training.out, examples.annotators, found)
        split = Split(*(in_groups(part, found) for part in (split.train, split.stopping, split.heldout)))
        over = training.over_groups
        head = replace(
            head, aspects=split.train.aspects, maxmin=over == "worst", worst_aspect=over == "least"
        )
    if training.personal:
        check_people(examples)
        head = replace(
            head, personal=True, aspects=tuple(f"feature-{i + 1}" for i in range(training.personal))
        )
    with stage("fitting", training.fit.epochs) as bar:

        def after_epoch(epoch: int, loss: float) -> None:
            bar.advance()
            bar.note(f"loss on unseen prompts {loss:.4f}")

        heads, losses = fit_heads(
            vectors,
            split.train,
            split.stopping,
            head=head,
            fit=training.fit,
            generator=generator,
            after_epoch=after_epoch,
        )
    trained = judge_heads(heads, vectors, split, losses)
    known = (
        fit_familiarity(heads, vectors, split, generator=generator) if training.std == "distance" else None
    )
    write_folder(training, heads, backbone, weights_of, trained, examples, known)
    return trained


@torch.no_grad()
def predicted(heads: Heads, vectors: Vectors, examples: Examples) -> np.ndarray[Any, Any]:
    """[N]: the difference of scores of pairs, the score of single samples, each of the example's own aspect."""

    def scores(media: torch.Tensor) -> torch.Tensor:
        members = heads.members(vectors.features(media, examples.prompt))
        if heads.options.personal:
            return heads.overall(members).mean(0)
        return members.mean(0).gather(1, examples.aspect[:, None])[:, 0]

    found = scores(examples.first)
    return (found - scores(examples.second) if examples.kind == "pairs" else found).double().numpy()


def judge_heads(heads: Heads, vectors: Vectors, split: Split, losses: list[float]) -> Trained:
    """The agreement with held-out examples, with a bootstrap interval over prompts."""
    heldout, kind = split.heldout, split.heldout.kind
    said, target = predicted(heads, vectors, heldout), heldout.target.double().numpy()
    measures: dict[Kind, tuple[str, Callable[[Any], float]]] = {
        "pairs": ("accuracy", lambda rows: accuracy_without_ties(target[rows], said[rows])),
        "binary": ("AUC", lambda rows: auroc(said[rows], target[rows] > 0.5)),
        "ratings": ("correlation", lambda rows: correlation(said[rows], target[rows])),
    }
    name, statistic = measures[kind]
    if kind != "pairs" and len(heldout.aspects) > 1:
        statistic = over_aspects(statistic, heldout.aspect.numpy())
    interval = bootstrap_interval(statistic, heldout.prompt.tolist())
    scale = None
    if kind == "pairs":
        margin = predicted(heads, vectors, split.stopping.pick(split.stopping.target > 0))
        scale = 1 / fitted_temperature(margin, np.ones(len(margin)))
    return Trained(
        measure=name,
        value=float(statistic(np.arange(len(heldout)))),
        ci95=interval,
        heldout=len(heldout),
        epochs=len(losses),
        best_epoch=1 + int(np.argmin(losses)),
        rows=heldout.rows,
        used=sum(part.used for part in (split.train, split.stopping, split.heldout)),
        rejected=heldout.rejected,
        log_odds_per_unit=scale,
    )


def over_aspects(statistic: Callable[[Any], float], aspect: np.ndarray[Any, Any]) -> Callable[[Any], float]:
    """The mean of a statistic over the aspects [N] of rows, since their scores have no common zero or scale."""

    def mean(rows: Any) -> float:
        rows = np.asarray(rows)
        each = [statistic(rows[aspect[rows] == index]) for index in np.unique(aspect[rows])]
        known = [value for value in each if value == value]
        return float(np.mean(known)) if known else float("nan")

    return mean


def measured_nuisance(
    name: str, examples: Examples, path: Path, *, device: str = "cpu"
) -> tuple[Tensor, Examples]:
    """What a reward says of each medium, [M], and the examples that it has a number for.

    Raises:
        ConfigError: a reward that needs a prompt: what should not count is the medium's own.
        DataError: no example is left.
    """
    reward = load_reward(name, device=device)
    if reward.card.needs:
        raise ConfigError(
            f"--nuisance {name} needs {', '.join(reward.card.needs)}; take a measure of the medium alone"
        )
    scores = [
        reward.score([Sample("", load_media(medium)) for medium in examples.media[start : start + 64]])
        for start in range(0, len(examples.media), 64)
    ]
    score = join_scores(scores)
    return score.value.nan_to_num(0.0), examples.without_media(score.status, path)


@torch.no_grad()
def fit_familiarity(
    heads: Heads, vectors: Vectors, split: Split, *, generator: torch.Generator
) -> Familiarity:
    """What the training part has seen, with distances from the part that decided when to stop."""

    def of(part: Examples) -> tuple[Tensor, Tensor]:
        media = torch.cat([part.first, part.second]).unique()
        return vectors.media[media], vectors.prompts[part.prompt.unique()]

    value = heads.overall(heads.members(features_of(vectors, split.train))).mean(0)
    return Familiarity.fit(
        of(split.train), of(split.stopping), prior_std=float(value.std(correction=0)), generator=generator
    )


def correlation(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Pearson's; NaN where one side does not vary."""
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def write_folder(
    training: RewardTraining,
    heads: Heads,
    backbone: EmbeddingReward,
    weights_of: str,
    trained: Trained,
    examples: Examples,
    known: Familiarity | None = None,
) -> None:
    """``head.safetensors``, ``known.safetensors`` where there is one, then ``card.yaml``: with a card it is whole."""
    parts: dict[str, nn.Module] = {HEAD: heads} if known is None else {HEAD: heads, KNOWN: known}
    calibration = {
        "log_odds_per_unit": trained.log_odds_per_unit,
        f"heldout_{trained.measure}": trained.value,
    }
    head = heads.options.plain()
    card = {
        "target": "mmalign.rewards.learned:LearnedReward",
        "weights": BESIDE,
        "modalities": list(backbone.card.modalities),
        "unit": UNITS[examples.kind],
        "higher_is_better": True,
        "differentiable": backbone.card.differentiable,
        "licence": {**backbone.card.licence, "head": "that of the preferences"},
        "calibration": {k: float(v) for k, v in calibration.items() if v is not None and np.isfinite(v)},
        "source": (
            f"`mmalign reward train` on {trained.used} rows of {training.data.name}: {examples.kind} of "
            f"{len(examples.prompts)} prompts; {trained.measure} {trained.value:.3f} on held-out prompts; std from "
            f"{'the spread of members' if known is None else 'the spread of members and the distance to training'}"
        ),
        "options": {
            "backbone": training.backbone,
            "weights_of": weights_of,
            "head": head,
            **(
                {} if known is None else {"known": {"media": len(known.media), "prompts": len(known.prompts)}}
            ),
        },
    }
    note = yaml.safe_dump(
        {"seed": training.seed, **asdict(training.fit)}, default_flow_style=True, width=1_000
    )
    sealed(training.out, parts, card, note=f"# Trained with {note.strip()}\n")


def sealed(folder: Path, parts: Mapping[str, nn.Module], card: dict[str, Any], *, note: str = "") -> None:
    """Write modules, and then the card with the hashes of all weights in the folder: with a card it is whole.

    Args:
        folder: of the reward.
        parts: modules by the name of their file.
        card: all fields but ``files``.
        note: a comment at its head.
    """
    for name, module in parts.items():
        write_weights(folder / name, module.state_dict())
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (HEAD, KNOWN)
        if name in parts or name in card.get("files", {})
    }
    with whole_file(folder / CARD) as unfinished:
        text = yaml.safe_dump({**card, "files": files}, sort_keys=False, allow_unicode=True)
        unfinished.write_text(note + text, encoding="utf-8")
