"""What annotators should not decide: the size of a shape, kept out by ODIN; and a minority, found by EM and served.

Size: everybody takes a large shape for a better one. A plain head and ODIN's quality head learn from them, and both are
judged by the truth, and by how their scores go with the covered area, on pictures that the bias never touched.

Groups: 30 people ask for the colour, ten for the place, one verdict in ten is turned, and nobody says who is who. One
reward for all and the least of two groups' rewards each pick the best of n pictures, and each group's own truth says
how good that is.

    uv run python benchmarks/biased_annotators.py    # bars: correlation 0.2 of the plain one's; groups 0.9 right
"""

import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from reward_training import Pictures, draw, train, write, wrong
from torch import Tensor

from mmalign.data.pairs import Pair, write_pairs
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.media import Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.covered_area import covered_area
from mmalign.rewards.groups import score_in_batches
from mmalign.worlds import shapes
from mmalign.worlds.annotators import Annotator, annotate, crowd

BARS = {"correlation_over_plain": 0.2, "groups": 0.9}
TASTES = {"majority": {"colour": 1.0}, "minority": {"place": 1.0}}
PEOPLE = {"majority": 30, "minority": 10}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much."""

    pairs: int = 3_000
    test_pairs: int = 1_000
    bias: float = 0.25
    """What one standard deviation of the covered area is worth, in the truth's unit; one attribute is worth as much."""
    flip: float = 0.1
    prompts: int = 150
    n: int = 16
    seed: int = 0


def table(path: Path, people: Sequence[Annotator], of: Pictures, folder: Path, *, seed: int) -> None:
    """What people say of pairs, as a preference file."""
    media = [(f"{i:05d}-a.png", f"{i:05d}-b.png") for i in range(len(of.prompts))]
    random = torch.Generator().manual_seed(seed)
    said = annotate(people, of.prompts, media, of.true, generator=random)
    write_pairs(
        path,
        [
            Pair(r["prompt"], folder / r["chosen"], folder / r["rejected"], annotator=r["annotator"])
            for r in said.pairs
        ],
    )


def with_area(pictures: Pictures) -> Pictures:
    """With the covered area among what is measured, in its standard deviations."""
    areas = [covered_area(side) for side in (pictures.first, pictures.second)]
    mean, std = torch.cat(areas).mean(), torch.cat(areas).std()
    for true, area in zip(pictures.true, areas, strict=True):
        true["area"] = (area - mean) / std
    return pictures


def values(reward: Any, prompts: Sequence[str], pictures: Tensor) -> Tensor:
    """[B]."""
    return score_in_batches(
        reward, [Sample(p, Image(x)) for p, x in zip(prompts, pictures, strict=True)]
    ).value


def interval(numbers: np.ndarray[Any, Any]) -> list[float]:
    """Mean and its bootstrap interval over prompts."""
    low, high = bootstrap_interval(lambda rows: float(numbers[rows].mean()), range(len(numbers)))
    return [round(float(x), 4) for x in (numbers.mean(), low, high)]


def size_bias(settings: Settings, folder: Path, data: Pictures, test: Pictures) -> dict[str, Any]:
    """A plain head, and ODIN's."""
    people = [Annotator(name="biased", bias={"area": settings.bias}, flip=settings.flip)]
    table(folder / "size.parquet", people, data, folder / "pictures", seed=settings.seed)
    found: dict[str, Any] = {}
    right: dict[str, np.ndarray[Any, Any]] = {}
    decided = test.difference.abs() > 1e-6
    for name, options in {
        "plain": (),
        "odin": ("--loss", "odin", "--nuisance", "covered-area"),
    }.items():
        train(folder / "size.parquet", folder / name, folder / "features", *options)
        reward = load_reward(str(folder / name))
        said = [values(reward, test.prompts, side) for side in (test.first, test.second)]
        area = torch.cat([true["area"] for true in test.true])
        right[name] = ((said[0] - said[1]).sign() == test.difference.sign())[decided].double().numpy()
        found[name] = {
            "correlation": round(float(np.corrcoef(torch.cat(said).numpy(), area.numpy())[0, 1]), 4),
            "accuracy": interval(right[name]),
        }
    found["accuracy_odin_less_plain"] = interval(right["odin"] - right["plain"])
    found["correlation_over_plain"] = round(
        abs(found["odin"]["correlation"]) / abs(found["plain"]["correlation"]), 4
    )
    return found


def candidates(settings: Settings, random: torch.Generator) -> tuple[list[str], Tensor, dict[str, Tensor]]:
    """Prompts, n pictures of each with none to three faults [P, n, 3, H, W], and what is true of them, [P, n] each."""
    choices = shapes.all_shapes("train")
    scenes = [
        choices[int(torch.randint(len(choices), (), generator=random))] for _ in range(settings.prompts)
    ]
    drawn, true = [], []
    for scene in scenes:
        faults = torch.randint(1, 4, (settings.n,), generator=random).tolist()
        pictures = shapes.render([(wrong(scene, f, "train", random),) for f in faults], random)
        drawn.append(pictures)
        true.append(shapes.measure(pictures, [(scene,)] * settings.n))
    measured = {name: torch.stack([one[name] for one in true]) for name in true[0]}
    return [shapes.caption((scene,)) for scene in scenes], torch.stack(drawn), measured


def groups(settings: Settings, folder: Path, data: Pictures) -> dict[str, Any]:
    """Who is found, and what the best of n is worth to each group."""
    people = [
        person
        for name, tastes in TASTES.items()
        for person in crowd(
            {name: Annotator(name=name, tastes=tastes, flip=settings.flip)}, each=PEOPLE[name]
        )
    ]
    table(folder / "groups.parquet", people, data, folder / "pictures", seed=settings.seed)
    options = {
        "one reward": (),
        "worst group": ("--groups", "2"),
        "mean of groups": ("--groups", "2", "--over-groups", "mean"),
    }
    prompts, pictures, true = candidates(settings, torch.Generator().manual_seed(settings.seed + 1))
    repeated = [prompt for prompt in prompts for _ in range(settings.n)]
    got: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name, more in options.items():
        out = folder / name.replace(" ", "-")
        train(folder / "groups.parquet", out, folder / "features", *more)
        said = values(load_reward(str(out)), repeated, pictures.flatten(0, 1)).reshape(len(prompts), -1)
        best = said.argmax(1, keepdim=True)
        got[name] = {
            group: true[next(iter(tastes))].gather(1, best)[:, 0].double().numpy()
            for group, tastes in TASTES.items()
        }
    with (folder / "worst-group" / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    same = [(row["annotator"].split("/")[0] == "majority") == (row["group"] == "group-1") for row in rows]
    share = sum(same) / len(same)
    return {
        "people": len(rows),
        "found": round(max(share, 1 - share), 4),
        "truth": {
            name: {group: interval(numbers) for group, numbers in of.items()} for name, of in got.items()
        },
        "less_one_reward": {
            name: {group: interval(of[group] - got["one reward"][group]) for group in TASTES}
            for name, of in got.items()
            if name != "one reward"
        },
    }


def main(settings: Settings) -> None:
    """Draw, label, train, judge, and print one line of JSON."""
    random = torch.Generator().manual_seed(settings.seed)
    data = with_area(draw(settings.pairs, "train", random, spoiled=0.0))
    test = with_area(draw(settings.test_pairs, "train", random, spoiled=0.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(data, folder / "pictures")
        found = {"size": size_bias(settings, folder, data, test), "groups": groups(settings, folder, data)}
    print(json.dumps({**found, "bars": BARS}))


if __name__ == "__main__":
    main(tyro.cli(Settings))
