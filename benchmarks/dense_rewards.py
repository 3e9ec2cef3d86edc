"""How well trained heads find wrong words and wrong regions, and whether rewards that are taken apart add up again.

The shapes world draws pictures of one and two shapes. `mmalign reward train --head token` sees right captions only and
makes wrong ones of them; `--head region` sees captions of two shapes, half of them wrong about one shape, with the
silhouette of that shape. Both are judged on combinations that neither the backbone nor the heads ever saw, with one
word exchanged: words only among those that could be wrong, since "a" and "the" are easy. A map hits where its hottest
patch lies to at least one half in the wrong shape; one that only finds shapes hits half of the time.

    uv run python benchmarks/dense_rewards.py      # bars: AUROC 0.95, pointing 0.9, sums to 1e-6; 18 minutes of a core

Sums are those of the words of both heads and, on samples of the embedded speech generator, of the reward of its
recogniser, which is redistributed over tokens.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmalign import load_adapter
from mmalign.data.faults import Fault, parse_marked, write_faults
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.evaluation.detection import auroc
from mmalign.evaluation.explanations import overlay
from mmalign.evaluation.saliency import pointing_game
from mmalign.media import Image, Sample
from mmalign.methods.base import Task
from mmalign.methods.token_credit import prefix_token_rewards
from mmalign.resources import resource
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.cards import load_reward
from mmalign.rewards.redistribution import potential_shaping, uniform_redistribution
from mmalign.training.reward_perturbations import Perturber
from mmalign.worlds.shape_faults import WORD_GROUPS, Faults, draw_faults

BARS = {"word_auroc": 0.95, "pointing": 0.9, "sum_error": 1e-6}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    pictures: int = 12_000
    """For each head."""
    test_pictures: int = 600
    epochs: int = 24
    tune: str = "frozen"
    patch_layer: int = -1
    heads: tuple[str, ...] = ("token", "region")
    keep: Path | None = None
    """A folder for the trained heads and some overlays."""
    spoken: int = 16
    """Samples of the speech generator."""
    seed: int = 0


def write(faults: Faults, folder: Path, head: str) -> Path:
    """Pictures, regions and the table of a head; of a token head, of right captions only."""
    (folder / head).mkdir(parents=True)
    entries = []
    for i, marked in enumerate(faults.marked):
        picture, region = (folder / head / f"{i:05d}{end}" for end in (".png", "-region.png"))
        Image(faults.pictures[i]).save(picture)
        wrong = bool(faults.regions[i].any())
        if head == "region" and wrong:
            Image(faults.regions[i].expand(3, -1, -1)).save(region)
        entries.append(Fault(faults.captions[i], picture, parse_marked(marked)[1], region if wrong else None))
    if head == "region":
        table = folder / "region.parquet"
        write_faults(table, entries)
    else:
        table = folder / "token.jsonl"
        rows = [{"prompt": e.prompt, "sample": e.sample.relative_to(folder).as_posix()} for e in entries]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


def train(table: Path, out: Path, head: str, words: Path, settings: Settings) -> float:
    """Seconds of the command."""
    began = time.perf_counter()
    command = [
        *(sys.executable, "-m", "mmalign", "reward", "train", "--data", str(table), "--out", str(out)),
        *("--head", head, "--words", str(words), "--epochs", str(settings.epochs), "--tune", settings.tune),
        *("--patch-layer", str(settings.patch_layer), "--patience", str(settings.epochs)),
        *("--seed", str(settings.seed)),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def word_auroc(score: Score, faults: Faults, shapes: int) -> dict[str, Any]:
    """Of wrong words among those that could be wrong, in scenes of so many shapes; an interval over pictures."""
    perturber = Perturber(WORD_GROUPS)
    suspicion, wrong, groups = [], [], []
    for i, marked in enumerate(faults.marked):
        if len(faults.scenes[i]) != shapes or score.tokens is None:
            continue
        could = perturber.attributes(faults.captions[i])
        for value, right, maybe in zip(score.tokens[i].score, parse_marked(marked)[1], could, strict=True):
            if maybe:
                suspicion.append(-value * len(could))
                wrong.append(not right)
                groups.append(i)
    s, w = torch.tensor(suspicion).numpy(), torch.tensor(wrong).numpy()
    return {
        "auroc": auroc(s, w),
        "ci95": bootstrap_interval(lambda rows: auroc(s[rows], w[rows]), groups),
        "words": len(w),
    }


def pointing(score: Score, faults: Faults) -> dict[str, Any]:
    """Of maps of wrong captions, with the share that a random patch would hit."""
    assert score.regions is not None
    shares = adaptive_avg_pool2d(faults.regions[:, None], score.regions.shape[1:])[:, 0]
    hits = pointing_game(score.regions, shares >= 0.5)
    wrong = ~hits.isnan()
    told = hits[wrong].numpy()
    return {
        "pointing": float(told.mean()),
        "ci95": bootstrap_interval(lambda rows: float(told[rows].mean()), list(range(len(told)))),
        "maps": len(told),
        "by_chance": float((shares[wrong] >= 0.5).float().mean()),
        "hottest_when_wrong": float(score.regions[wrong].flatten(1).amax(1).mean()),
        "hottest_when_right": float(score.regions[~wrong].flatten(1).amax(1).mean()),
    }


def sum_error(score: Score) -> float:
    """The largest difference of a value and the sum of its words."""
    assert score.tokens is not None
    sums = torch.tensor([sum(tokens.score) for tokens in score.tokens], dtype=torch.float64)
    return float((sums - score.value.double()).abs().max())


def spoken_sums(settings: Settings) -> dict[str, float]:
    """Of redistributions on samples of the speech generator: the largest difference of a sum and its reward."""
    adapter = load_adapter("embedded/commands")
    prompts = (
        (resource("assets/prompts") / "commands-heldout.txt").read_text().splitlines()[: settings.spoken]
    )
    task = Task(adapter, reward=load_reward("embedded/commands-asr"))
    drawn = adapter.generator.rollout(
        adapter.generator.condition(prompts),
        seeds=range(len(prompts)),
        frames=adapter.frames,
        temperature=1.0,
    )
    scores = task.score(drawn.tokens, prompts)
    mask = drawn.mask.flatten(1).cpu()
    parts = prefix_token_rewards(task, drawn.tokens, prompts, scores, parts=4)
    whole = scores.double()
    uniform = uniform_redistribution(whole, mask)
    shaped = potential_shaping(uniform, parts.cumsum(1) - parts, mask)
    redistributed: dict[str, Tensor] = {"prefix": parts, "uniform": uniform, "shaped": shaped}
    return {name: float((r.float().double().sum(1) - whole).abs().max()) for name, r in redistributed.items()}


def see(reward: Reward, faults: Faults) -> Score:
    """Scores of all pictures with their captions."""
    return reward.score(
        [Sample(text, Image(x)) for text, x in zip(faults.captions, faults.pictures, strict=True)]
    )


def main(settings: Settings) -> None:
    """Draw, train, judge, and print one line of JSON."""
    found: dict[str, Any] = {"pictures": settings.pictures, "tune": settings.tune, "heads": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = folder / "words.txt"
        words.write_text("\n".join(", ".join(group) for group in WORD_GROUPS) + "\n")
        for head in settings.heads:
            random = torch.Generator().manual_seed(settings.seed)
            two = 0.5 if head == "token" else 1.0
            data = draw_faults(
                settings.pictures, random, two_shapes=two, wrong=0.0 if head == "token" else 0.5
            )
            test = draw_faults(settings.test_pictures, random, split="heldout", two_shapes=two, wrong=0.6)
            out = (settings.keep or folder) / f"{head}-head"
            seconds = train(write(data, folder / head, head), out, head, words, settings)
            score = see(load_reward(str(out)), test)
            found["heads"][head] = judged = {"train_s": round(seconds), "sum_error": sum_error(score)}
            for count in (1, 2) if head == "token" else (2,):
                judged[f"words_of_{count}"] = word_auroc(score, test, count)
            if head == "region":
                judged["regions"] = pointing(score, test)
                if settings.keep is not None:
                    draw_overlays(score, test, settings.keep)
            print(json.dumps({head: judged}), file=sys.stderr, flush=True)
    found["spoken"] = spoken_sums(settings)
    print(json.dumps({**found, "bars": BARS}))


def draw_overlays(score: Score, faults: Faults, folder: Path) -> None:
    """The first wrong captions' maps over their pictures, with what was said."""
    assert score.regions is not None
    rows = faults.regions.flatten(1).any(1).nonzero()[:8, 0].tolist()
    for i in rows:
        wide = torch.cat([faults.pictures[i], overlay(score.regions[i], faults.pictures[i])], -1)
        Image(wide.clamp(0, 1)).save(folder / f"overlay-{i:03}.png")
    lines = [f"overlay-{i:03}.png: {faults.marked[i]}" for i in rows]
    (folder / "overlays.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
