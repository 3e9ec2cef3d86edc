"""Distils held-out 3D prompts with a reward and without it, from the same noise: what does it add?

uv run python benchmarks/dream_fl.py        # prints a row of each prompt; two drawings in docs/pictures
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

import mmalign
from mmalign.data.prompts import read_prompts
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.evaluation.previews import save_previews
from mmalign.inference.dream_fl import as_scene, dream
from mmalign.media import Media, Sample

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
REWARD, HELD_OUT = "embedded/solids-clip-views", "shapes-views-truth"
console = Console()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How many prompts."""

    prompts: int = 12
    seed: int = 0


def main(settings: Settings) -> None:
    """Both sides of every prompt, and the interval of their difference over prompts."""
    adapter: Any = mmalign.load_adapter("embedded/shapes-views")
    reward, held_out = mmalign.load_reward(REWARD), mmalign.load_reward(HELD_OUT)
    every = read_prompts("embedded/shapes-views-heldout")
    random = torch.Generator().manual_seed(settings.seed)
    prompts = [every[i] for i in torch.randperm(len(every), generator=random)[: settings.prompts].tolist()]
    scenes: dict[str, list[Media]] = {"without": [], "with": []}
    for seed, prompt in enumerate(prompts):
        started = time.monotonic()
        for side, pull in (("without", None), ("with", reward)):
            field = dream(adapter, prompt, seed=seed, reward=pull, max_sequence_length=1)
            scenes[side].append(as_scene(field, adapter))
        pair = [Sample(prompt, scenes[side][-1]) for side in scenes]
        values = held_out.score(pair).value.tolist()
        console.print(
            f"{prompt}: without {values[0]:.3f}, with {values[1]:.3f}, {time.monotonic() - started:.0f} s"
        )
    truth = {
        side: held_out.score([Sample(p, s) for p, s in zip(prompts, made, strict=True)]).value
        for side, made in scenes.items()
    }
    gain = (truth["with"] - truth["without"]).numpy()
    low, high = bootstrap_interval(lambda rows: float(gain[rows].mean()), range(len(gain)))
    console.print(
        f"{HELD_OUT}: without {truth['without'].mean():.3f}, with {truth['with'].mean():.3f}, gain "
        f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}] over {len(gain)} prompts"
    )
    for side, made in scenes.items():
        captions = [f"{p}: {v:.2f}" for p, v in zip(prompts, truth[side].tolist(), strict=True)]
        save_previews(made, captions, PICTURES / f"dream-fl-{side}.png")


if __name__ == "__main__":
    main(tyro.cli(Settings))
