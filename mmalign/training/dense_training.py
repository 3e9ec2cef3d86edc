"""Trains a reward that finds wrong words or wrong regions: reads, embeds, splits, fits, judges, writes its folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from mmalign.errors import DataError
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.evaluation.detection import auroc
from mmalign.evaluation.saliency import pointing_game
from mmalign.files import whole_file
from mmalign.media import Image, Sample
from mmalign.rewards.cards import BESIDE, CARD
from mmalign.rewards.clip import ClipReward
from mmalign.rewards.clip_dense import DenseClip
from mmalign.rewards.clip_tuning import make_trainable
from mmalign.rewards.dense import BACKBONE, load_dense_backbone
from mmalign.rewards.dense_head import DenseHead, DenseHeadOptions
from mmalign.rewards.learned import HEAD, fingerprint
from mmalign.training.dense_data import DenseExamples, read_dense, read_region, split_dense
from mmalign.training.dense_fitting import Captioned, DenseModel, both_ways, fit_dense
from mmalign.training.progress import stage
from mmalign.training.reward_features import FeatureCache, embed_media
from mmalign.training.reward_fitting import FitOptions
from mmalign.training.reward_perturbations import GROUPS, Groups, Perturber
from mmalign.training.reward_training import FEATURES
from mmalign.weights import write_weights

UNIT = "nats per word, log of a word's probability over chance"
MARKED = 0.5
"""Share of a patch from which on it belongs to a marked region."""


@dataclass(frozen=True, kw_only=True)
class DenseTraining:
    """What `mmalign reward train --head token` and `--head region` need."""

    data: Path
    backbone: str
    out: Path
    head: DenseHeadOptions = field(default_factory=DenseHeadOptions)
    fit: FitOptions = field(default_factory=lambda: FitOptions(batch_size=32, learning_rate=2e-3))
    groups: Groups = GROUPS
    """Words of which one may stand for another."""
    negatives: float = 0.5
    """Share of right captions that a step makes wrong."""
    heldout: float = 0.2
    seed: int = 0
    features: Path | None = None
    """Where features are kept; None for ``out/features``."""
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseTrained:
    """What came of it, on prompts that were held out."""

    word_auroc: float
    """That a wrong word is found among those that could be wrong; NaN where there is none of one kind."""
    word_ci95: tuple[float, float]
    words: int
    pointing: float | None
    """Share of wrong captions whose hottest patch lies in the marked region; None without regions."""
    pointing_ci95: tuple[float, float] | None
    regions: int
    epochs: int
    best_epoch: int
    rows: int
    used: int
    rejected: tuple[str, ...]


def train_dense(training: DenseTraining, examples: DenseExamples | None = None) -> DenseTrained:
    """Train and write a reward.

    Args:
        training: what to do.
        examples: of ``training.data``, where they are read already.

    The folder has ``card.yaml`` and ``head.safetensors``, ``backbone.safetensors`` where the backbone was trained, and
    in ``features`` what can be thrown away.

    Raises:
        DataError: the table cannot be used, or no caption of it can be made wrong.
        ConfigError: a setting that cannot work, or a backbone without patches and words.
    """
    head, device = training.head, training.device
    examples = examples or read_dense(training.data, regions=head.regions)
    clip, dense = load_dense_backbone(training.backbone, patch_layer=head.patch_layer, device=device)
    weights_of = fingerprint(clip)
    keeper = Patches(clip, dense) if head.tune == "frozen" else Pixels(clip)
    cache = FeatureCache(training.features or training.out / FEATURES, f"{weights_of}-{keeper.name}")
    kept, status = embed_media(keeper, examples.media, cache)
    examples = examples.without_media(status, training.data)
    perturber = Perturber(training.groups)
    _check_wrong(examples, perturber, training.data)
    generator = torch.Generator().manual_seed(training.seed)
    split = split_dense(examples.examples, heldout=training.heldout, generator=generator)
    regions, known = _regions(examples, clip, dense) if head.regions else _nothing(examples, dense)
    model = DenseModel(
        dense,
        DenseHead(dense.patch_width, dense.word_width, dense.grid, head, generator=generator).to(device),
        kept=kept,
        regions=regions,
        region_known=known,
        trained=make_trainable(dense.model, head.tune, rank=head.lora_rank),
        device=device,
    )
    with stage("fitting", training.fit.epochs) as bar:

        def after_epoch(epoch: int, loss: float) -> None:
            bar.advance()
            bar.note(f"loss on unseen prompts {loss:.4f}")

        losses = fit_dense(
            model,
            examples.examples,
            split.train.tolist(),
            split.stopping.tolist(),
            perturber=perturber,
            negatives=training.negatives,
            fit=training.fit,
            generator=generator,
            after_epoch=after_epoch,
        )
    trained = judge_dense(model, examples, split.heldout.tolist(), perturber, losses, generator)
    write_dense(training, model, clip, weights_of, trained, examples)
    return trained


class Patches:
    """Pictures as features of their patches, [P, D] each: what a head on a frozen backbone sees."""

    def __init__(self, clip: ClipReward, dense: DenseClip) -> None:
        self.clip, self.dense = clip, dense
        self.name = f"patches{dense.layer}"
        self.obstacle, self.prepare = clip.obstacle, clip.prepare

    @torch.no_grad()
    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, P, D], on the CPU."""
        size = self.clip.batch_size
        return torch.cat(
            [
                self.dense.patches(_pixels(self.clip, samples[i : i + size])).float().cpu()
                for i in range(0, len(samples), size)
            ]
        )


class Pixels:
    """Pictures as a backbone takes them, [3, h, w] each: what there is to keep where it is trained itself."""

    def __init__(self, clip: ClipReward) -> None:
        self.clip, self.name = clip, "pixels"
        self.obstacle, self.prepare = clip.obstacle, clip.prepare

    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, 3, h, w], on the CPU."""
        return _pixels(self.clip, samples).cpu()


def _pixels(clip: ClipReward, samples: Sequence[Sample]) -> Tensor:
    prepared = [clip.prepare(sample) for sample in samples]
    pictures = torch.stack([s.media.pixels for s in prepared if isinstance(s.media, Image)])
    return clip.preprocessing(pictures.to(clip.device))


def _regions(examples: DenseExamples, clip: ClipReward, dense: DenseClip) -> tuple[Tensor, Tensor]:
    """[N, P] of all examples, all of them known: where nothing is marked, nothing is wrong."""
    regions = torch.zeros(len(examples), dense.grid[0] * dense.grid[1])
    for i, example in enumerate(examples.examples):
        if example.region is not None and not example.sound:
            regions[i] = read_region(example.region, clip.preprocessing, dense.grid)
    return regions, torch.ones(len(examples), dtype=torch.bool)


def _nothing(examples: DenseExamples, dense: DenseClip) -> tuple[Tensor, Tensor]:
    empty = torch.zeros(len(examples), dense.grid[0] * dense.grid[1])
    return empty, torch.zeros(len(examples), dtype=torch.bool)


def _check_wrong(examples: DenseExamples, perturber: Perturber, path: Path) -> None:
    """Refuse a table in which nothing is wrong and nothing can be made wrong."""
    if all(e.sound and not any(perturber.attributes(e.prompt)) for e in examples.examples):
        raise DataError(
            "every caption is right, and none has a word that another could stand for; give --words FILE, with groups "
            "of words such as 'red, green, blue', one a line",
            file=path,
        )


@torch.no_grad()
def judge_dense(
    model: DenseModel,
    examples: DenseExamples,
    heldout: Sequence[int],
    perturber: Perturber,
    losses: Sequence[float],
    generator: torch.Generator,
) -> DenseTrained:
    """How well wrong words and regions are found on held-out prompts, with bootstrap intervals over prompts."""
    rows = both_ways(examples.examples, heldout, perturber, generator)
    place = {e: i for i, e in enumerate(dict.fromkeys(examples.examples[i].prompt for i in heldout))}
    score, wrong, groups = list[float](), list[bool](), list[int]()
    hits, hit_groups = list[float](), list[int]()
    for start in range(0, len(rows), 128):
        part = rows[start : start + 128]
        logits, heat, mask = model(part)
        for i, row in enumerate(part):
            could = perturber.attributes(row.text)
            prompt = _prompt_of(examples, row, place)
            for w, right in enumerate(row.right):
                if bool(mask[i, w]) and (could[w] or not right):
                    score.append(-float(logits[i, w]))
                    wrong.append(not right)
                    groups.append(prompt)
        if heat is None:
            continue
        known = [i for i, row in enumerate(part) if row.example is not None]
        marked = model.regions[[part[i].example for i in known]] >= MARKED
        hits += pointing_game(heat[known].cpu(), marked).tolist()
        hit_groups += [_prompt_of(examples, part[i], place) for i in known]
    found, truth = np.array(score), np.array(wrong, dtype=bool)
    told = np.array(hits)
    there = ~np.isnan(told)
    told = told[there]
    pointed = [group for group, yes in zip(hit_groups, there, strict=True) if yes]
    return DenseTrained(
        word_auroc=auroc(found, truth),
        word_ci95=bootstrap_interval(lambda r: auroc(found[r], truth[r]), groups),
        words=len(found),
        pointing=float(told.mean()) if len(told) else None,
        pointing_ci95=bootstrap_interval(lambda r: float(told[r].mean()), pointed) if len(told) else None,
        regions=len(told),
        epochs=len(losses),
        best_epoch=1 + int(np.argmin(losses)),
        rows=examples.rows,
        used=len(examples),
        rejected=examples.rejected,
    )


def _prompt_of(examples: DenseExamples, row: Captioned, place: dict[str, int]) -> int:
    """The held-out prompt that a row belongs to; one that was made wrong belongs to its picture's."""
    if row.example is not None:
        return place[examples.examples[row.example].prompt]
    return next(place[e.prompt] for e in examples.examples if e.medium == row.medium and e.prompt in place)


def write_dense(
    training: DenseTraining,
    model: DenseModel,
    clip: ClipReward,
    weights_of: str,
    trained: DenseTrained,
    examples: DenseExamples,
) -> None:
    """The weights, then ``card.yaml``, so that a folder with a card is whole."""
    head, backbone = model.state()
    digests = {}
    for name, state in ((HEAD, head), (BACKBONE, backbone)):
        if not state:
            continue
        write_weights(training.out / name, state)
        digests[name] = hashlib.sha256((training.out / name).read_bytes()).hexdigest()
    found = {"heldout_word_auroc": trained.word_auroc, "heldout_pointing": trained.pointing}
    said = f"wrong words found with AUROC {trained.word_auroc:.3f}"
    if trained.pointing is not None:
        said += f", wrong regions pointed at {trained.pointing:.3f}"
    card: dict[str, Any] = {
        "target": "mmalign.rewards.dense:DenseReward",
        "weights": BESIDE,
        "files": digests,
        "modalities": ["image"],
        "unit": UNIT,
        "higher_is_better": True,
        "differentiable": True,
        "licence": {**clip.card.licence, "head": "that of the captions"},
        "calibration": {k: float(v) for k, v in found.items() if v is not None and np.isfinite(v)},
        "source": (
            f"`mmalign reward train` on {trained.used} rows of {training.data.name}: "
            f"{len({e.prompt for e in examples.examples})} prompts; {said} on held-out prompts"
        ),
        "options": {
            "backbone": training.backbone,
            "weights_of": weights_of,
            "head": training.head.plain(),
        },
    }
    with whole_file(training.out / CARD) as unfinished:
        how = {"seed": training.seed, "negatives": training.negatives, **asdict(training.fit)}
        note = yaml.safe_dump(how, default_flow_style=True, width=1_000)
        unfinished.write_text(
            f"# Trained with {note.strip()}\n" + yaml.safe_dump(card, sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
