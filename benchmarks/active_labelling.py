"""How many labels a reward needs if it may choose its questions, or if a machine answers most of them.

The shapes world draws four pictures of each prompt, right or with up to three wrong attributes, some spoiled by noise;
linear heads on the frozen vectors of `embedded/shapes-clip` learn from pairs of them, which simulated people label by
the true reward (`shapes-truth`) and now and then get wrong. Everything is judged on pictures of other prompts.

Questions: rounds of 50 labels, chosen at random, by double Thompson sampling, or where the members disagree; how many
labels each needs for what random labelling has at the end. Routing: a machine labels all pairs, wrongly by chance or
because it does not see colour; people replace a share of its labels, at random or where the reward that was trained on
them believes them least (three rounds); the share at which this equals people's labels of all pairs.

    OMP_NUM_THREADS=1 uv run python benchmarks/active_labelling.py

Intervals are a bootstrap over seeds, of which each has its own pictures' share, people and first weights.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from reward_training import wrong
from torch import Tensor

from mmalign.rewards.label_routing import doubtful_labels
from mmalign.rewards.learned import load_backbone
from mmalign.rewards.learned_heads import OVERALL, HeadOptions, Heads
from mmalign.rewards.query_selection import select_queries
from mmalign.training.reward_data import Examples
from mmalign.training.reward_fitting import FitOptions, fit_heads
from mmalign.training.reward_objectives import Vectors
from mmalign.worlds import shapes
from mmalign.worlds.annotators import Annotator

Triples = list[tuple[int, int, int]]
"""(prompt, first, second), the two as numbers of its pictures."""
MACHINES = {
    "by chance": Annotator(name="machine", flip=0.25),
    "blind to colour": Annotator(
        name="machine", tastes={"presence": 1.0, "kind": 1.0, "size": 1.0, "place": 1.0}, flip=0.1
    ),
}
PUBLISHED_SHARE = 0.07
"""Of human labels, with which RLTHF claims the quality of human labels alone (arXiv:2502.13417)."""
TOLERANCE = 0.005
"""Of accuracy, within which two rewards count as equal."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    prompts: int = 500
    test_prompts: int = 150
    pictures: int = 4
    """Of each prompt."""
    spoiled: float = 0.2
    """Share of pictures with noise over them."""
    people_flip: float = 0.05
    """Chance that a person's verdict is turned."""
    first: int = 50
    """Random labels that all strategies begin with."""
    each: int = 50
    """Labels of a round."""
    budget: int = 400
    strategies: tuple[str, ...] = ("random", "thompson", "disagreement")
    shares: tuple[float, ...] = (0.0, 0.07, 0.15, 0.3, 0.6, 1.0)
    members: int = 5
    seeds: int = 3


@dataclass(frozen=True, eq=False)
class World:
    """All pictures: vectors, and what is true of them, named [M]; picture k of prompt m is m * pictures + k."""

    vectors: Vectors
    true: dict[str, Tensor]
    pictures: int
    test: int
    """The first prompt that is judged by."""

    def at(self, m: int, k: int) -> int:
        """A picture's place."""
        return m * self.pictures + k

    def measured(self, triples: Triples, side: int) -> dict[str, Tensor]:
        """Truth of the first (1) or second (2) pictures."""
        rows = torch.tensor([self.at(t[0], t[side]) for t in triples])
        return {name: values[rows] for name, values in self.true.items()}


def draw(settings: Settings) -> World:
    """Draw, measure, embed."""
    random = torch.Generator().manual_seed(0)
    choices = shapes.all_shapes("train")
    count = settings.prompts + settings.test_prompts
    scenes = [choices[int(torch.randint(len(choices), (), generator=random))] for _ in range(count)]
    backbone = load_backbone("embedded/shapes-clip")
    media, true = [], []
    for start in range(0, count, 50):
        wanted = [scene for scene in scenes[start : start + 50] for _ in range(settings.pictures)]
        faults = torch.randint(4, (len(wanted),), generator=random).tolist()
        drawn = [(wrong(scene, n, "train", random),) for scene, n in zip(wanted, faults, strict=True)]
        pictures = shapes.render(drawn, random)
        bad = torch.rand(len(wanted), generator=random) < settings.spoiled
        noise = 0.2 * torch.randn(int(bad.sum()), 3, 64, 64, generator=random)
        pictures[bad] = (pictures[bad] + noise).clamp(0, 1)
        true.append(shapes.measure(pictures, [(scene,) for scene in wanted]))
        with torch.no_grad():
            media.append(backbone.media_vectors_with_grad(pictures))
    captions = [shapes.caption((scene,)) for scene in scenes]
    vectors = Vectors(torch.cat(media), backbone.prompt_vectors(captions))
    measured = {name: torch.cat([part[name] for part in true]) for name in true[0]}
    return World(vectors, measured, settings.pictures, settings.prompts)


def answered(world: World, triples: Triples, who: Annotator, random: torch.Generator) -> Triples:
    """The same, the better one first; a tie keeps its random order."""
    verdict = who.verdicts(world.measured(triples, 1), world.measured(triples, 2), generator=random)
    return [t if v >= 0 else (t[0], t[2], t[1]) for t, v in zip(triples, verdict.tolist(), strict=True)]


def examples(world: World, labels: Triples) -> Examples:
    """As ``mmalign reward train`` reads them."""
    table = torch.tensor([(m, world.at(m, a), world.at(m, b)) for m, a, b in labels])
    return Examples(
        kind="pairs",
        media=(),
        prompts=(),
        aspects=(OVERALL,),
        annotators=("",),
        prompt=table[:, 0],
        first=table[:, 1],
        second=table[:, 2],
        target=torch.ones(len(labels)),
        aspect=torch.zeros(len(labels), dtype=torch.int64),
        annotator=torch.zeros(len(labels), dtype=torch.int64),
        row=torch.arange(1, len(labels) + 1),
        rows=len(labels),
        rejected=(),
    )


def fit(world: World, labels: Triples, stopping: Triples, settings: Settings, seed: int) -> Heads:
    """An ensemble of linear heads, as the command fits them."""
    heads, _ = fit_heads(
        world.vectors,
        examples(world, labels),
        examples(world, stopping),
        head=HeadOptions(members=settings.members),
        fit=FitOptions(batch_size=128),
        generator=torch.Generator().manual_seed(seed),
    )
    return heads


@torch.no_grad()
def scores(world: World, heads: Heads, prompts: range) -> Tensor:
    """[E, M, N], of all pictures of some prompts."""
    index = torch.arange(prompts.start, prompts.stop).repeat_interleave(world.pictures)
    media = torch.arange(prompts.start * world.pictures, prompts.stop * world.pictures)
    members = heads.members(world.vectors.features(media, index))[..., 0]
    return members.unflatten(1, (len(prompts), world.pictures))


def judged(world: World, heads: Heads) -> tuple[float, float]:
    """On prompts that nobody trained on: accuracy of pairs that truly differ, and the truth of each favourite."""
    prompts = range(world.test, len(world.vectors.prompts))
    said = scores(world, heads, prompts).mean(0)
    true = world.true["overall"][world.test * world.pictures :].unflatten(0, (len(prompts), world.pictures))
    i, j = torch.triu_indices(world.pictures, world.pictures, 1)
    gap, opinion = true[:, i] - true[:, j], said[:, i] - said[:, j]
    decided = gap.abs() > 1e-6
    accuracy = (gap.sign() == opinion.sign())[decided].float().mean()
    return float(accuracy), float(true.gather(1, said.argmax(1, keepdim=True)).mean())


def two_of_each(count: int, pictures: int, prompts: Tensor, random: torch.Generator) -> Triples:
    """A random pair of each of some random prompts."""
    chosen = prompts[torch.randperm(len(prompts), generator=random)[:count]].tolist()
    return [(m, *torch.randperm(pictures, generator=random)[:2].tolist()) for m in chosen]  # type: ignore[misc]


def questions(world: World, settings: Settings, seed: int) -> dict[str, list[tuple[float, float]]]:
    """Accuracy and favourite's truth after each round, by strategy."""
    random = torch.Generator().manual_seed(seed)
    people = Annotator(name="people", flip=settings.people_flip)
    order = torch.randperm(settings.prompts, generator=random)
    stopping_prompts, pool = order[:100], order[100:].sort().values
    stopping = answered(world, two_of_each(100, settings.pictures, stopping_prompts, random), people, random)
    begin = answered(world, two_of_each(settings.first, settings.pictures, pool, random), people, random)
    found: dict[str, list[tuple[float, float]]] = {}
    for strategy in settings.strategies:
        own = torch.Generator().manual_seed(1_000 + seed)
        labels, curve = list(begin), []
        while True:
            heads = fit(world, labels, stopping, settings, seed)
            curve.append(judged(world, heads))
            if len(labels) >= settings.budget:
                break
            opinions = scores(world, heads, range(settings.prompts))
            place = {m: i for i, m in enumerate(pool.tolist())}
            chosen = select_queries(
                [opinions[:, m] for m in pool.tolist()],
                strategy=strategy,  # type: ignore[arg-type]
                count=settings.each,
                generator=own,
                known=frozenset((place[m], min(a, b), max(a, b)) for m, a, b in labels),
            )
            asked = [(int(pool[q.prompt]), q.first, q.second) for q in chosen]
            labels += answered(world, asked, people, own)
        found[strategy] = curve
    return found


def routing(world: World, settings: Settings, seed: int) -> dict[str, dict[str, list[float]]]:
    """Accuracy at each share of human labels, by machine and by way of choosing them."""
    random = torch.Generator().manual_seed(seed)
    people = Annotator(name="people", flip=settings.people_flip)
    order = torch.randperm(settings.prompts, generator=random)
    stopping_rows, rows = order[:100], order[100:]
    asked = two_of_each(len(rows), settings.pictures, rows, random)
    human = answered(world, asked, people, random)
    found: dict[str, dict[str, list[float]]] = {}
    for name, machine in MACHINES.items():
        said = answered(world, asked, machine, random)
        stopping = answered(
            world, two_of_each(100, settings.pictures, stopping_rows, random), machine, random
        )
        found[name] = {}
        for way in ("random", "margin"):
            found[name][way] = []
            for share in settings.shares:
                count = round(share * len(asked))
                heads = routed(world, settings, said, human, stopping, count, way, seed)
                found[name][way].append(judged(world, heads)[0])
    return found


def routed(
    world: World,
    settings: Settings,
    said: Triples,
    human: Triples,
    stopping: Triples,
    count: int,
    way: str,
    seed: int,
) -> Heads:
    """The reward after people have given ``count`` of the labels; theirs count twice beside the machine's."""
    labels, theirs = list(said), set[int]()
    rounds = 3 if way == "margin" and 0 < count < len(said) else 1
    order = torch.randperm(len(said), generator=torch.Generator().manual_seed(seed)).tolist()
    heads = fit(world, labels, stopping, settings, seed) if rounds == 3 else None
    for number in range(rounds):
        wanted = round(count * (number + 1) / rounds) - len(theirs)
        if heads is not None:
            order = by_doubt(world, heads, labels)
        new = [i for i in order if i not in theirs][:wanted]
        theirs |= set(new)
        labels = [human[i] if i in theirs else said[i] for i in range(len(said))]
        twice = labels + [human[i] for i in sorted(theirs)] if len(theirs) < len(said) else labels
        heads = fit(world, twice, stopping, settings, seed)
    assert heads is not None
    return heads


@torch.no_grad()
def by_doubt(world: World, heads: Heads, labels: Triples) -> list[int]:
    """Labels, the least believed first."""
    data = examples(world, labels)

    def mean(media: Tensor) -> Tensor:
        return heads.members(world.vectors.features(media, data.prompt))[..., 0].mean(0)

    return doubtful_labels(mean(data.first) - mean(data.second), budget=len(labels))[0].tolist()


def reached(x: list[float], y: np.ndarray[Any, Any], target: float) -> float:
    """Where a curve, made rising, first reaches a height; infinite where it never does."""
    high = np.maximum.accumulate(y)
    if high[-1] < target:
        return float("inf")
    k = int(np.argmax(high >= target))
    if k == 0:
        return x[0]
    return x[k - 1] + (x[k] - x[k - 1]) * (target - high[k - 1]) / (high[k] - high[k - 1])


def interval(statistic: Callable[[list[int]], float], seeds: int) -> list[float]:
    """The number of all seeds, and its 95 % bootstrap interval over them."""
    random = np.random.default_rng(0)
    drawn = [statistic(random.integers(seeds, size=seeds).tolist()) for _ in range(1_000)]
    low, high = np.sort(drawn)[[25, 974]]
    return [statistic(list(range(seeds))), float(low), float(high)]


def plain(values: list[float]) -> list[float | None]:
    """For JSON: None is never reached."""
    return [round(v, 4) if np.isfinite(v) else None for v in values]


def main(settings: Settings) -> None:
    """Draw, ask, route, and print one line of JSON."""
    began = time.perf_counter()
    world = draw(settings)
    print(f"drawn in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    asked, sent = [], []
    for seed in range(settings.seeds):
        asked.append(questions(world, settings, seed))
        sent.append(routing(world, settings, seed))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    rounds = len(asked[0]["random"])
    labels = [float(settings.first + settings.each * i) for i in range(rounds)]
    table = {s: np.array([run[s] for run in asked]) for s in settings.strategies}  # [seeds, rounds, 2]
    found: dict[str, Any] = {"seeds": settings.seeds, "labels": labels, "questions": {}, "routing": {}}
    for strategy, values in table.items():
        entry: dict[str, Any] = {}
        for k, what in enumerate(("accuracy", "favourite")):

            def needed(rows: list[int], values: Any = values, k: int = k) -> float:
                # What random labelling has at the end, over its last three rounds, which are noisy one by one.
                target = table["random"][rows][:, -3:, k].mean()
                mine = reached(labels, values[rows][..., k].mean(0), target)
                return mine / reached(labels, table["random"][rows][..., k].mean(0), target)

            entry[what] = [round(v, 4) for v in values[..., k].mean(0).tolist()]
            entry[f"labels_over_random_{what}"] = plain(interval(needed, settings.seeds))
        found["questions"][strategy] = entry
    for name in MACHINES:
        found["routing"][name] = {}
        for way in ("random", "margin"):
            curves = np.array([run[name][way] for run in sent])  # [seeds, shares]

            def share(rows: list[int], curves: Any = curves) -> float:
                return reached(
                    list(settings.shares), curves[rows].mean(0), curves[rows][:, -1].mean() - TOLERANCE
                )

            def short(rows: list[int], curves: Any = curves) -> float:
                published = settings.shares.index(PUBLISHED_SHARE)
                return float((curves[rows][:, -1] - curves[rows][:, published]).mean())

            found["routing"][name][way] = {
                "shares": list(settings.shares),
                "accuracy": [round(v, 4) for v in curves.mean(0).tolist()],
                "share_needed": plain(interval(share, settings.seeds)),
                "short_of_people_at_7_percent": plain(interval(short, settings.seeds)),
            }
    found["wall_s"] = round(time.perf_counter() - began)
    print(json.dumps(found))


if __name__ == "__main__":
    main(tyro.cli(Settings))
