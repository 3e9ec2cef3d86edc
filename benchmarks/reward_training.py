"""How good a reward `mmalign reward train` makes from 5,000 pairs of which one in four is wrong, and how long it takes.

The shapes world draws a picture of a prompt's scene, right or with one to three wrong attributes, some of them spoiled
by noise. Its true reward (`shapes-truth`) decides each pair; a simulated annotator turns a quarter of the verdicts. The
command trains on them, and on the same pairs without noise, whose accuracy is the ceiling. Both are judged on new
pictures of the training combinations' prompts, and of combinations that neither the backbone nor the head ever saw.

    uv run python benchmarks/reward_training.py      # bar: 0.90 of the ceiling, in 3 minutes on two cores

Intervals of the true difference of two pictures are fitted on half of the new pairs and counted on the other half, and
on pairs of unseen combinations. The std is asked to tell pictures of unseen combinations from new pictures of seen
ones, and beside it, from the same vectors, other measures of what is new: the members' spread alone, the distance to
the nearest training picture, Mahalanobis distance, the last layer's Laplace posterior, and a Gaussian process on random
Fourier features.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from mmalign.data.pairs import Pair, write_pairs
from mmalign.evaluation.detection import auroc, interval_coverage
from mmalign.media import Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.conformal import conformal_interval, conformal_radius
from mmalign.rewards.learned import LearnedReward
from mmalign.rewards.learned_heads import joint_features
from mmalign.worlds import shapes
from mmalign.worlds.annotators import Annotator, annotate

BARS = {"of_ceiling": 0.90, "train_s": 180.0, "coverage": (0.85, 0.95), "auroc": 0.80}
VALUES = {
    "kind": shapes.KINDS,
    "colour": tuple(shapes.COLOURS),
    "size": tuple(shapes.SIZES),
    "place": tuple(shapes.PLACES),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    pairs: int = 5_000
    test_pairs: int = 1_000
    flip: float = 0.25
    spoiled: float = 0.2
    """Share of pictures with noise over them."""
    heads: tuple[str, ...] = ("linear", "deep", "deep-keep")
    seed: int = 0


HEADS = {
    "linear": ["--head", "linear", "--members", "5"],
    "deep": ["--head", "deep", "--members", "5"],
    "deep-keep": ["--head", "deep", "--members", "10", "--keep", "0.5"],
}


@dataclass(frozen=True)
class Pictures:
    """Two pictures of each of n prompts, and what is true of them."""

    prompts: list[str]
    first: Tensor
    second: Tensor
    true: tuple[dict[str, Tensor], dict[str, Tensor]] = field(repr=False)

    @property
    def difference(self) -> Tensor:
        """[n], of the true reward."""
        return self.true[0]["overall"] - self.true[1]["overall"]


def wrong(
    shape: shapes.Shape, count: int, split: shapes.Split | None, random: torch.Generator
) -> shapes.Shape:
    """The shape with ``count`` other attributes, itself of a split, so that what is unseen stays so."""
    while True:
        other = shape
        for place in torch.randperm(4, generator=random)[:count].tolist():
            name = shapes.ATTRIBUTES[place]
            choices = [value for value in VALUES[name] if value != getattr(shape, name)]
            pick = int(torch.randint(len(choices), (), generator=random))
            other = replace(other, **{name: choices[pick]})
        if split is None or other.split == split:
            return other


def draw(count: int, split: shapes.Split, random: torch.Generator, *, spoiled: float) -> Pictures:
    """Pairs of pictures that differ in how many attributes are wrong; both sides of one split."""
    choices = shapes.all_shapes(split)
    scenes = [choices[int(torch.randint(len(choices), (), generator=random))] for _ in range(count)]
    template = torch.randint(len(shapes.TEMPLATES), (count,), generator=random).tolist()
    faults = torch.stack([torch.randperm(4, generator=random)[:2] for _ in range(count)]).tolist()
    sides, measured = [], []
    for side in (0, 1):
        drawn = [(wrong(s, f[side], split, random),) for s, f in zip(scenes, faults, strict=True)]
        pictures = torch.cat([shapes.render(drawn[i : i + 250], random) for i in range(0, count, 250)])
        bad = torch.rand(count, generator=random) < spoiled
        noise = 0.2 * torch.randn(int(bad.sum()), 3, 64, 64, generator=random)
        pictures[bad] = (pictures[bad] + noise).clamp(0, 1)
        pictures = (pictures * 255).round() / 255  # as PNG keeps them
        wanted = [(s,) for s in scenes]
        parts = [shapes.measure(pictures[i : i + 250], wanted[i : i + 250]) for i in range(0, count, 250)]
        sides.append(pictures)
        measured.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    prompts = [shapes.caption((s,), t) for s, t in zip(scenes, template, strict=True)]
    return Pictures(prompts, sides[0], sides[1], (measured[0], measured[1]))


def write(pictures: Pictures, folder: Path) -> list[tuple[str, str]]:
    """Save all pictures, and give their names."""
    folder.mkdir(parents=True)
    names = [(f"{i:05d}-a.png", f"{i:05d}-b.png") for i in range(len(pictures.prompts))]
    for i, pair in enumerate(names):
        for name, side in zip(pair, (pictures.first, pictures.second), strict=True):
            Image(side[i]).save(folder / name)
    return names


def train(data: Path, out: Path, features: Path, *options: str) -> float:
    """Seconds of the command, from its start to its end."""
    began = time.perf_counter()
    files = ["--data", str(data), "--out", str(out), "--features", str(features)]
    command = [sys.executable, "-m", "mmalign", "reward", "train", *files, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@dataclass(frozen=True)
class Seen:
    """What a reward says of pairs."""

    values: tuple[Tensor, Tensor]
    stds: tuple[Tensor, Tensor]


def see(reward: LearnedReward, pictures: Pictures) -> Seen:
    """Scores of both sides."""
    scores = [
        reward.score([Sample(p, Image(x)) for p, x in zip(pictures.prompts, side, strict=True)])
        for side in (pictures.first, pictures.second)
    ]
    nothing = torch.zeros(len(pictures.prompts))
    return Seen(
        (scores[0].value, scores[1].value),
        (
            nothing if scores[0].std is None else scores[0].std,
            nothing if scores[1].std is None else scores[1].std,
        ),
    )


def accuracy(seen: Seen, pictures: Pictures) -> float:
    """Share of the pairs with a true difference that the reward decides alike."""
    true = pictures.difference
    decided = true.abs() > 1e-6
    said = seen.values[0] - seen.values[1]
    return float((said.sign() == true.sign())[decided].float().mean())


def coverage(seen: Seen, pictures: Pictures, far: Seen, unseen: Pictures, *, scaled: bool) -> list[float]:
    """How often 90 % intervals of the true difference hold it: fitted on even pairs, counted on odd ones and on far."""

    def parts(said: Seen, of: Pictures) -> tuple[Tensor, Tensor, Tensor]:
        std = (said.stds[0] ** 2 + said.stds[1] ** 2).sqrt().clamp(min=1e-3)
        return said.values[0] - said.values[1], of.difference, std if scaled else torch.ones_like(std)

    fit, count = ([part[start::2] for part in parts(seen, pictures)] for start in (0, 1))
    said, true, std = fit
    slope = float((said * true).sum() / said.square().sum())  # no offset: swapping sides turns both
    radius = conformal_radius((true - slope * said) / std, miss=0.1)
    found = []
    for said, true, std in (count, parts(far, unseen)):
        low, high = conformal_interval(slope * said, radius, std)
        found.append(interval_coverage(low.numpy(), high.numpy(), true.numpy()))
    return found


def vectors(reward: LearnedReward, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Of all pictures and of their prompts, [2 n, D] each."""
    with torch.no_grad():
        media = [
            reward.backbone.media_vectors_with_grad(part)
            for side in (pictures.first, pictures.second)
            for part in side.split(250)
        ]
        prompts = reward.backbone.prompt_vectors(pictures.prompts)
    return torch.cat(media), torch.cat([prompts, prompts])


@torch.no_grad()
def measures(reward: LearnedReward, data: Pictures, *others: Pictures) -> dict[str, Tensor]:
    """What is new, by other measures than the reward's std: of all pictures of ``others``, larger is newer."""
    seen, prompts = vectors(reward, data)
    parts = [vectors(reward, other) for other in others]
    media, said = (torch.cat(side) for side in zip(*parts, strict=True))
    known, new = (
        (joint_features(m, p) - reward.heads.feature_mean) / reward.heads.feature_std
        for m, p in ((seen, prompts), (media, said))
    )
    apart = known[: len(known) // 2] - known[len(known) // 2 :]
    centred = seen - seen.mean(0)
    random = torch.Generator().manual_seed(0)
    turn, phase = (
        torch.randn(seen.shape[1], 1024, generator=random) / 0.3,
        6.2832 * torch.rand(1024, generator=random),
    )

    def waves(x: Tensor) -> Tensor:
        return (2 / 1024) ** 0.5 * torch.cos(x @ turn + phase)

    def spread(x: Tensor, precision: Tensor) -> Tensor:
        return (x * torch.linalg.solve(precision, x.mT).mT).sum(1)

    def plus(matrix: Tensor, ridge: float) -> Tensor:
        return matrix + ridge * torch.eye(len(matrix))

    members = reward.heads.overall(reward.heads.members(joint_features(media, said)))
    return {
        "members": members.std(0),
        "distance": torch.cat([torch.cdist(part, seen).amin(1) for part in media.split(250)]),
        "mahalanobis": spread(media - seen.mean(0), plus(centred.mT @ centred / len(seen), 1e-6)),
        # A pair of even odds has a curvature of 1 / 4.
        "laplace": spread(new, plus(apart.mT @ apart / 4, 1.0)),
        "fourier_process": spread(waves(media), plus(waves(seen).mT @ waves(seen) / 4, 1.0)),
    }


def main(settings: Settings) -> None:
    """Draw, train, judge, and print one line of JSON."""
    random = torch.Generator().manual_seed(settings.seed)
    began = time.perf_counter()
    data, test, unseen = (
        draw(count, split, random, spoiled=settings.spoiled)
        for count, split in (
            (settings.pairs, "train"),
            (settings.test_pairs, "train"),
            (settings.test_pairs, "heldout"),
        )
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        media = write(data, folder / "pictures")
        tables = {}
        for label, flip in (("noisy", settings.flip), ("clean", 0.0)):
            rows = annotate(
                [Annotator(name=label, flip=flip)], data.prompts, media, data.true, generator=random
            )
            tables[label] = folder / f"{label}.parquet"
            at = folder / "pictures"
            write_pairs(
                tables[label],
                [
                    Pair(r["prompt"], at / r["chosen"], at / r["rejected"], annotator=label)
                    for r in rows.pairs
                ],
            )
            print(f"{label}: {len(rows.pairs)} pairs, {sum(rows.turned)} turned", file=sys.stderr)
        print(f"drawn in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        found: dict[str, Any] = {"pairs": settings.pairs, "flip": settings.flip, "heads": {}}
        for kind in settings.heads:
            found["heads"][kind] = judge(kind, tables, folder, data, test, unseen)
            print(json.dumps({kind: found["heads"][kind]}), file=sys.stderr)
    print(json.dumps({**found, "bars": BARS}))


def judge(
    kind: str, tables: dict[str, Path], folder: Path, data: Pictures, test: Pictures, unseen: Pictures
) -> dict[str, float]:
    """All numbers of one kind of head; the first run embeds, and its time is the whole one."""
    seconds, rewards = {}, {}
    for label, table in tables.items():
        out = folder / f"{kind}-{label}"
        # The noisy run has no vectors yet, so that its time is what a user waits.
        features = folder / f"features-{kind}"
        seconds[label] = train(table, out, features, *HEADS[kind])
        rewards[label] = load_reward(str(out))
    reward = rewards["noisy"]
    assert isinstance(reward, LearnedReward)
    clean = rewards["clean"]
    assert isinstance(clean, LearnedReward)
    seen, far = see(reward, test), see(reward, unseen)
    ceiling, ceiling_far = accuracy(see(clean, test), test), accuracy(see(clean, unseen), unseen)
    positive = [False] * (2 * len(test.prompts)) + [True] * (2 * len(unseen.prompts))
    plain, scaled = (coverage(seen, test, far, unseen, scaled=scaled) for scaled in (False, True))
    found = {
        "accuracy": accuracy(seen, test),
        "ceiling": ceiling,
        "of_ceiling": accuracy(seen, test) / ceiling,
        "accuracy_unseen": accuracy(far, unseen),
        "of_ceiling_unseen": accuracy(far, unseen) / ceiling_far,
        "train_s": seconds["noisy"],
        "coverage": plain[0],
        "coverage_unseen": plain[1],
        "coverage_scaled_by_std": scaled[0],
        "coverage_scaled_by_std_unseen": scaled[1],
        "auroc_std": auroc(torch.cat([*seen.stds, *far.stds]).numpy(), positive),
    }
    for name, values in measures(reward, data, test, unseen).items():
        found[f"auroc_{name}"] = auroc(values.numpy(), positive)
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Settings))
