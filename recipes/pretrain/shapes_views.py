"""Make ``embedded/shapes-views``: a small StableDiffusion3Pipeline that draws four views of a solid in one picture.

It learns as ``embedded/shapes-flow`` does, and its VAE begins as that one's. Its flaw is the same random caption noise;
``scene3d.json`` in its folder says that its pictures are views, and from where each is seen.

    uv run python recipes/pretrain/shapes_views.py        # about 20 minutes on one core; resumes where it stopped
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import console, generator
from diffusers import AutoencoderKL
from diffusers.utils.logging import set_verbosity_error
from shapes_flow import (
    LONG_TOKENS,
    build_pipeline,
    encode_world,
    report,
    save,
    token_ids,
    train_flow,
    train_text,
    train_vae,
)
from shapes_flow import Settings as FlowSettings
from torch import Tensor

from mmalign.adapters.scene3d import write_settings
from mmalign.worlds import views

TOKENS = 16
"""Length of prompts in the CLIP encoders."""


@dataclass(frozen=True, kw_only=True)
class Settings(FlowSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-views")
    work: Path = Path("runs/pretrain/shapes-views")
    pictures: int = 1_500
    bf16: bool = True
    vae: Path | None = Path("assets/shapes-flow")
    """The pipeline whose VAE is where this one's begins; as it is, it mixes up the colours of what is shaded."""
    vae_steps: int = 400
    vae_batch: int = 8
    text_steps: int = 150
    flow_steps: int = 1_200
    flow_batch: int = 48
    clean_steps: int = 600
    layers: int = 4


def draw_world(settings: Settings) -> tuple[list[views.Solid], Tensor]:
    """The training grids, as bytes to keep them small: [N, 3, 64, 64]."""
    random = generator(settings.seed, 1)
    solids = [views.random_solid(random, split=None) for _ in range(settings.pictures)]
    grids = [
        (views.to_grid(views.render(solids[i : i + 250], random)) * 255).round().byte()
        for i in range(0, len(solids), 250)
    ]
    return solids, torch.cat(grids)


def described_solids(random: torch.Generator) -> tuple[list[str], Tensor]:
    """128 captions and, [128, 3], the index of every attribute of their solids."""
    solids = [views.random_solid(random, split=None) for _ in range(128)]
    tables = (views.KINDS, list(views.COLOURS), list(views.SIZES))
    indices = [
        [table.index(getattr(solid, name)) for name, table in zip(views.ATTRIBUTES, tables, strict=True)]
        for solid in solids
    ]
    return list(views.noisy_captions(solids, random, noise=0.0)), torch.tensor(indices)


def views_truth(grids: Tensor, prompts: list[str]) -> dict[str, Tensor]:
    """The true reward of grids [B, 3, 64, 64] and its parts, each [B]."""
    solids = [solid for solid in map(views.parse, prompts) if solid is not None]
    return views.measure(views.from_grid(grids), solids)


@torch.no_grad()
def check_vae(settings: Settings, vae: AutoencoderKL, solids: list[views.Solid], grids: Tensor) -> None:
    """The true reward of what the VAE gives back: no flow does better."""
    clean = grids[:128].to(settings.device) / 127.5 - 1
    again = vae.decode(vae.encode(clean).latent_dist.mean).sample.clamp(-1, 1).cpu() / 2 + 0.5
    truth = views_truth(again, [views.caption(solid) for solid in solids[:128]])
    console.print(f"through the vae: { {k: round(float(v.mean()), 3) for k, v in truth.items()} }")


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    solids, grids = draw_world(settings)
    console.print(f"{len(solids)} grids drawn in {time.monotonic() - started:.0f} s")
    start = settings.vae and AutoencoderKL.from_pretrained(settings.vae, subfolder="vae")
    vae = train_vae(settings, grids, start=start)
    latents = encode_world(settings, vae, grids)
    check_vae(settings, vae, solids, grids)
    texts = views.captions("train") + views.captions("heldout")
    pipeline = build_pipeline(settings, vae, texts, tokens=TOKENS, layers=settings.layers)
    tokenizers = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
    train_text(
        settings,
        {name: getattr(pipeline, name) for name in tokenizers},
        lambda name, texts: token_ids(tokenizers[name], texts, settings.device),
        steps=settings.text_steps,
        described=described_solids,
        choices=(len(views.KINDS), len(views.COLOURS), len(views.SIZES)),
    )
    train_flow(settings, pipeline, solids, latents, captions=views.noisy_captions)
    report(
        settings,
        pipeline,
        prompts=views.captions("heldout"),
        truth=views_truth,
        max_sequence_length=LONG_TOKENS,
    )
    save(pipeline, settings.out)
    write_settings(settings.out, rows=2, columns=2, cameras=views.CAMERAS)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
