"""Does pessimism keep a weak reward from being over-optimised? The members' minimum and the variance penalty, in truth.

Few pairs of the generator's own pictures, one label in four turned, train a deep head and an ensemble of five. Best of
N then picks among N held-out pictures of a prompt by one reward or another, and `shapes-truth` says what was picked:

    uv run python benchmarks/pessimism.py                        # best of n
    uv run python benchmarks/pessimism.py --policy image/rwr     # and what a policy makes of them, a run a seed and arm

The claim is of Coste et al. 2023 (arXiv:2310.02743): worst-case (WCO) and uncertainty-weighted optimisation (UWO) end
at least as high as the mean of the ensemble and above a single reward, with noisy labels most clearly.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

import mmalign
from mmalign.data.pairs import Pair, write_pairs
from mmalign.data.prompts import read_prompts
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.evaluation.overoptimisation import best_of_n_curve
from mmalign.media import Image, Sample, content_hash
from mmalign.rewards.cards import load_reward
from mmalign.rewards.careful import Careful
from mmalign.rewards.learned import LearnedReward
from mmalign.worlds.annotators import Annotator, annotate

MODEL, TRUTH = "embedded/shapes-flow", "shapes-truth"
ARMS = {
    "single": ("single", ""),
    "mean": ("ensemble", ""),
    "worst-case": ("ensemble", "@worst-case"),
    "uncertainty-weighted": ("ensemble", "@uncertainty-weighted=0.5"),
    "mean-less-std": ("ensemble", "@mean-less-std=1"),
}
"""Which trained reward, and how careful."""
SHORT = {
    "image/rwr": (
        *("--method.own.prompts", "100", "--method.own.group-size", "8", "--method.temperature", "0.2"),
        *("--train.steps", "100", "--evaluation.n", "128", "--evaluation.every", "100"),
        *("--train.checkpoint-every", "100", "--sampling.steps", "8"),
    ),
    "image/nft": (
        *("--train.steps", "40", "--train.checkpoint-every", "40", "--sampling.steps", "8"),
        *("--evaluation.n", "256", "--evaluation.every", "0"),
    ),
}
"""What makes a recipe short enough for nine runs."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much."""

    out: Path = Path("runs/pessimism")
    """Pictures, rewards and runs; what is there already is not made again."""
    pairs: int = 200
    flip: float = 0.25
    prompts: int = 60
    """Held-out ones for best of n."""
    n: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each draws its own labels, split and first weights."""
    policy: str | None = None
    """A recipe to train with each arm, on the first three seeds."""
    arms: tuple[str, ...] = ("single", "worst-case", "uncertainty-weighted")
    """Of the policies."""
    steps: int = 8
    """Of sampling."""
    train: tuple[str, ...] = field(default_factory=tuple)
    """Further options of `mmalign reward train`."""


def drawn(
    folder: Path, prompts: Sequence[str], each: int, *, first_seed: int, steps: int
) -> list[list[Sample]]:
    """``each`` pictures of every prompt, as PNG files that are drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(p, k, folder / f"{p:04d}-{k:03d}.png") for p in range(len(prompts)) for k in range(each)]
    missing = [entry for entry in wanted if not entry[2].is_file()]
    if missing:
        adapter: Any = mmalign.load_adapter(MODEL)
        for start in range(0, len(missing), 64):
            some = missing[start : start + 64]
            pictures = adapter.generate(
                [prompts[p] for p, _, _ in some],
                seeds=[first_seed + 1_000 * p + k for p, k, _ in some],
                steps=steps,
                guidance=1.0,
                max_sequence_length=1,
                batch_size=32,
            )
            for picture, (_, _, path) in zip(pictures, some, strict=True):
                picture.save(path)
            print(f"drawn {start + len(some)} of {len(missing)} into {folder}", file=sys.stderr)
    rows = [
        [Sample(prompt, Image.load(wanted[p * each + k][2])) for k in range(each)]
        for p, prompt in enumerate(prompts)
    ]
    return rows


def some(source: str, count: int, seed: int) -> list[str]:
    """Prompts of an embedded list, in a random order."""
    every = read_prompts(source)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
    return [every[i] for i in order[:count]]


def truth(rows: Sequence[Sequence[Sample]]) -> Tensor:
    """[P, K]."""
    flat = [sample for row in rows for sample in row]
    found = [load_reward(TRUTH).score(flat[i : i + 256]).value for i in range(0, len(flat), 256)]
    return torch.cat(found).reshape(len(rows), -1)


def train_rewards(
    settings: Settings, seed: int, pool: Sequence[Sequence[Sample]], true: Tensor
) -> dict[str, Path]:
    """One head and an ensemble of five from the same noisy pairs of a seed."""
    random = torch.Generator().manual_seed(seed)
    picked = torch.randperm(len(pool), generator=random)[: settings.pairs].tolist()
    folder = settings.out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "pairs.parquet"
    if not table.is_file():
        media = [(f"{p:04d}-000.png", f"{p:04d}-001.png") for p in picked]
        measured = tuple({"overall": true[picked, side]} for side in (0, 1))
        said = annotate(
            [Annotator(name="noisy", flip=settings.flip)],
            [pool[p][0].prompt for p in picked],
            media,
            (measured[0], measured[1]),
            generator=random,
        )
        at = (settings.out / "training").absolute()
        write_pairs(
            table,
            [Pair(r["prompt"], at / r["chosen"], at / r["rejected"], annotator="noisy") for r in said.pairs],
        )
    found = {}
    for name, members in (("single", "1"), ("ensemble", "5")):
        found[name] = folder / name
        if not (found[name] / "card.yaml").is_file():
            options = [
                "--head",
                "deep",
                "--hidden",
                "64",
                "--members",
                members,
                "--seed",
                str(seed),
                *settings.train,
            ]
            files = [
                "--data",
                str(table),
                "--out",
                str(found[name]),
                "--features",
                str(settings.out / "features"),
            ]
            command = [sys.executable, "-m", "mmalign", "reward", "train", *files, *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return found


class Remembering:
    """A backbone that embeds each picture once, whichever of the rewards asks."""

    known: dict[str, Tensor] = {}  # noqa: RUF012

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, D]."""
        names = [content_hash(sample) for sample in samples]
        new = {n: s for n, s in zip(names, samples, strict=True) if n not in self.known}
        if new:
            self.known.update(zip(new, self._backbone.media_vectors(list(new.values())), strict=True))
        return torch.stack([self.known[name] for name in names])


def proxy(name: str, rows: Sequence[Sequence[Sample]]) -> Tensor:
    """[P, K] of a reward by name."""
    reward = load_reward(name)
    learned = reward.reward if isinstance(reward, Careful) else reward
    assert isinstance(learned, LearnedReward)
    learned.backbone = Remembering(learned.backbone)
    return torch.stack([reward.score([Sample(s.prompt, s.media) for s in row]).value for row in rows])


def interval(values: np.ndarray[Any, Any]) -> list[float]:
    """Mean of [S, P] with its bootstrap interval over prompts, whose seeds stay together."""
    means = values.mean(0)
    low, high = bootstrap_interval(lambda rows: float(means[rows].mean()), range(len(means)))
    return [round(float(x), 4) for x in (means.mean(), low, high)]


def best_of_n(settings: Settings, rewards: dict[int, dict[str, Path]]) -> dict[str, Any]:
    """True rewards of what each arm picks, by n."""
    prompts = some("embedded/shapes-heldout", settings.prompts, 1)
    pool = drawn(
        settings.out / "candidates", prompts, settings.n, first_seed=10_000_000, steps=settings.steps
    )
    true = truth(pool)
    counts = [1 << i for i in range(settings.n.bit_length())]
    picked: dict[str, list[Tensor]] = {arm: [] for arm in ARMS}
    curves: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for trained in rewards.values():
        for arm, (which, careful) in ARMS.items():
            said = proxy(f"{trained[which]}{careful}", pool)
            picked[arm].append(true.gather(1, said.argmax(1, keepdim=True))[:, 0])
            curves[arm].append([gold for _, gold in best_of_n_curve(said.numpy(), true.numpy(), counts)])
    chosen = {arm: torch.stack(values).numpy() for arm, values in picked.items()}
    return {
        "n": counts,
        "oracle": round(float(true.amax(1).mean()), 4),
        "curves": {arm: [round(x, 4) for x in np.mean(values, 0)] for arm, values in curves.items()},
        "truth_at_n": {arm: interval(values) for arm, values in chosen.items()},
        "less_single": {arm: interval(chosen[arm] - chosen["single"]) for arm in ARMS if arm != "single"},
        "less_mean": {
            arm: interval(chosen[arm] - chosen["mean"]) for arm in ARMS if arm not in ("single", "mean")
        },
    }


def policies(settings: Settings, rewards: dict[int, dict[str, Path]]) -> dict[str, Any]:
    """True rewards of held-out prompts after training on each arm, the same prompts and noise for all."""
    assert settings.policy is not None
    after: dict[str, list[list[float]]] = {arm: [] for arm in settings.arms}
    before: list[list[float]] = []
    for seed in list(rewards)[:3]:
        for arm in settings.arms:
            which, careful = ARMS[arm]
            run = settings.out / "policies" / f"{settings.policy.replace('/', '-')}-{arm}-{seed}"
            if not (run / "summary.json").is_file():
                name = f"{rewards[seed][which]}{careful}"
                options = [
                    "--reward",
                    name,
                    "--train.seed",
                    str(seed),
                    "--out",
                    str(run),
                    *SHORT[settings.policy],
                ]
                command = [sys.executable, "-m", "mmalign", "align", settings.policy, *options]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            sides = {
                side: [
                    json.loads(line)["score"]
                    for line in (run / "samples" / side / "scores.jsonl").read_text().split("\n")
                    if line
                ]
                for side in ("before", "after")
            }
            after[arm].append(sides["after"])
            if arm == settings.arms[0]:
                before.append(sides["before"])
            print(
                f"{arm}, seed {seed}: {np.mean(sides['before']):.4f} to {np.mean(sides['after']):.4f}",
                file=sys.stderr,
            )
    values = {arm: np.array(rows) for arm, rows in after.items()}
    base, first = np.array(before), settings.arms[0]
    return {
        "recipe": settings.policy,
        "before": interval(base),
        "gain": {arm: interval(values[arm] - base) for arm in values},
        "by_seed": {arm: [round(float(x), 4) for x in (values[arm] - base).mean(1)] for arm in values},
        f"less_{first}": {arm: interval(values[arm] - values[first]) for arm in values if arm != first},
    }


def main(settings: Settings) -> None:
    """Draw, label, train, pick, and print one line of JSON."""
    prompts = some("embedded/shapes-train", 2 * settings.pairs, 0)
    pool = drawn(settings.out / "training", prompts, 2, first_seed=0, steps=settings.steps)
    true = truth(pool)
    rewards = {seed: train_rewards(settings, seed, pool, true) for seed in settings.seeds}
    found: dict[str, Any] = {"pairs": settings.pairs, "flip": settings.flip, "seeds": len(rewards)}
    if settings.policy is not None:
        found["policy"] = policies(settings, rewards)
    else:
        found["best_of_n"] = best_of_n(settings, rewards)
    print(json.dumps(found))


if __name__ == "__main__":
    main(tyro.cli(Settings))
