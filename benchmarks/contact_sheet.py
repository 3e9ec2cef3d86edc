"""Draws a blind contact sheet of finished runs: samples of the aligned model among samples of the model before.

Held-out prompts, one seed for both sides of a prompt, and a random order that only the key beside the picture gives
away, so that people can judge each sample before they know its side.

    uv run python benchmarks/contact_sheet.py --runs runs/image-nft runs/speech-rwr --guidance 2
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

import mmalign
from mmalign.data.prompts import read_prompts
from mmalign.evaluation.previews import save_previews
from mmalign.files import whole_file
from mmalign.media import Media, Sample
from mmalign.training.recipe import load_recipe

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which runs, and how many samples of each."""

    runs: tuple[Path, ...]
    aligned: int = 20
    before: int = 10
    guidance: float | None = None
    """In the place of the recipe's own; people generate with guidance, recipes align without."""
    temperature: float | None = None
    """The same, of token models."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample and its side."""

    side: str
    prompt: str
    seed: int
    media: Media


def draw(run: Path, settings: Settings) -> list[Drawn]:
    """The samples of a run, shuffled."""
    recipe = load_recipe(str(run / "recipe.yaml"))
    random = torch.Generator().manual_seed(settings.seed)
    prompts = read_prompts(recipe.heldout_prompts)
    chosen = [prompts[i] for i in torch.randperm(len(prompts), generator=random)[: settings.aligned].tolist()]
    changes = {"guidance": settings.guidance, "temperature": settings.temperature}
    sampling = replace(recipe.sampling, **{k: v for k, v in changes.items() if v is not None})
    adapter: Any = mmalign.load_adapter(recipe.model, **sampling.pipeline_options())
    adapter.load_lora(run / "lora")
    drawn = []
    for side, weights, count in (
        ("before", "reference", settings.before),
        ("aligned", "policy", len(chosen)),
    ):
        seeds = [1_000 + i for i in range(count)]
        with adapter.generator.weights(weights):
            media = adapter.generate(chosen[:count], seeds=seeds, **sampling.options())
        drawn += [Drawn(side, p, s, m) for p, s, m in zip(chosen, seeds, media, strict=False)]
    return [drawn[i] for i in torch.randperm(len(drawn), generator=random).tolist()]


def write(run: Path, settings: Settings) -> None:
    """The sheet and its key."""
    recipe = load_recipe(str(run / "recipe.yaml"))
    drawn = draw(run, settings)
    score = mmalign.load_reward(recipe.heldout_reward).score([Sample(d.prompt, d.media) for d in drawn])
    medium = drawn[0].media.modality
    captions = [f"{i}. {d.prompt}" for i, d in enumerate(drawn, 1)]
    if medium == "speech":
        heard = mmalign.load_reward("commands-wer").score([Sample(d.prompt, d.media) for d in drawn]).text
        captions = [f"{caption} | heard: {text}" for caption, text in zip(captions, heard or (), strict=True)]
    save_previews([d.media for d in drawn], captions, PICTURES / f"sheet-{medium}.png")
    key = {
        "recipe": recipe.name,
        "guidance": settings.guidance,
        "temperature": settings.temperature,
        "samples": [
            {"number": i, "side": d.side, "seed": d.seed, "prompt": d.prompt, "truth": round(float(value), 3)}
            for i, (d, value) in enumerate(zip(drawn, score.value, strict=True), 1)
        ],
    }
    with whole_file(PICTURES / f"sheet-{medium}.json") as unfinished:
        unfinished.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


def main(settings: Settings) -> None:
    """One sheet a run."""
    for run in settings.runs:
        write(run, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
