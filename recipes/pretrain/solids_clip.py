"""Make ``embedded/solids-clip``: a small open_clip CLIP that scores how well a view of a solid fits a caption.

``embedded/shapes-clip`` cannot tell solids apart: on them it is right about colours, and guesses kinds and sizes. This
one is trained as that one was, on single views of the training combinations of the views world.

    uv run python recipes/pretrain/solids_clip.py        # about 3 minutes on one core; resumes where it stopped
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
import tyro
from common import console, generator
from shapes_clip import ClipSettings, build_model, contrastive_loss, fit_clip, save, spoil
from torch import Tensor

from mmalign.worlds import views

TOKENS = 16
"""Length of captions."""


@dataclass(frozen=True, kw_only=True)
class Settings(ClipSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/solids-clip")
    work: Path = Path("runs/pretrain/solids-clip")
    drawn_per_solid: int = 24
    steps: int = 600
    batch: int = 45
    """One view of each training combination."""


def draw_world(settings: Settings, split: views.Split) -> tuple[list[views.Solid], Tensor]:
    """Solids and their views as bytes, [N, 4, 3, 32, 32]: every combination of a split in turn."""
    random = generator(settings.seed, 1, len(split))
    solids = views.all_solids(split) * settings.drawn_per_solid
    return solids, (views.render(solids, random) * 255).round().byte()


def wrong_solid(solid: views.Solid, random: torch.Generator, *, split: views.Split | None) -> views.Solid:
    """The solid with one attribute changed, itself of ``split``."""
    tables = {"kind": views.KINDS, "colour": tuple(views.COLOURS), "size": tuple(views.SIZES)}
    while True:
        name = views.ATTRIBUTES[int(torch.randint(len(views.ATTRIBUTES), (), generator=random))]
        options = tables[name]
        changed = replace(solid, **{name: options[int(torch.randint(len(options), (), generator=random))]})
        if changed != solid and split in (None, changed.split):
            return changed


def say(solid: views.Solid, random: torch.Generator) -> str:
    """A random paraphrase."""
    return views.caption(solid, int(torch.randint(len(views.TEMPLATES), (), generator=random)))


def train(settings: Settings, model: open_clip.CLIP, solids: list[views.Solid], pictures: Tensor) -> None:
    """On single views of training combinations, no two of one combination in a batch."""
    tokenize = open_clip.get_tokenizer(f"local-dir:{settings.out}")
    kinds, turns = len(views.all_solids("train")), pictures.shape[1]

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        distinct = torch.randperm(kinds, generator=random)[: settings.batch]
        rows = distinct + kinds * torch.randint(settings.drawn_per_solid, distinct.shape, generator=random)
        chosen = torch.randint(turns, rows.shape, generator=random)
        right = [solids[i] for i in rows]
        said = right + [wrong_solid(solid, random, split="train") for solid in right]
        texts = [say(solid, random) for solid in said]
        seen = spoil(pictures[rows, chosen].float() / 255, random).to(settings.device) * 2 - 1
        return contrastive_loss(model, tokenize, seen, said, texts)

    fit_clip(settings, model, loss)


@torch.no_grad()
def report(settings: Settings) -> None:
    """On held-out combinations: how often the right caption beats one with one wrong attribute, by four views."""
    model = open_clip.create_model(f"local-dir:{settings.out}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{settings.out}")
    random = generator(settings.seed, 3)
    solids, drawn = draw_world(settings, "heldout")
    wrong = [wrong_solid(solid, random, split=None) for solid in solids]
    clean = drawn.flatten(0, 1).float() / 255
    for state, pictures in (("clean", clean), ("spoiled", spoil(clean, random))):
        image = model.encode_image(pictures * 2 - 1, normalize=True).unflatten(0, drawn.shape[:2])
        sides = [tokenize([say(solid, random) for solid in side]) for side in (solids, wrong)]
        good, bad = (
            (image * model.encode_text(side, normalize=True)[:, None]).sum(-1).mean(1) for side in sides
        )
        won = (good > bad).float()
        line = f"{state}: {won.mean():.4f} (right {good.mean():.3f}, wrong {bad.mean():.3f})"
        for name in views.ATTRIBUTES:
            changed = [getattr(s, name) != getattr(t, name) for s, t in zip(solids, wrong, strict=True)]
            line += f", {name} {won[torch.tensor(changed)].mean():.3f}"
        console.print(line)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save in fp16, and report."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    settings.out.mkdir(parents=True, exist_ok=True)
    solids, pictures = draw_world(settings, "train")
    console.print(f"{len(solids)} solids drawn in {time.monotonic() - started:.0f} s")
    texts = views.captions("train") + views.captions("heldout")
    model = build_model(settings, texts, side_px=views.VIEW_PX, length=TOKENS)
    train(settings, model, solids, pictures)
    save(settings, model)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
