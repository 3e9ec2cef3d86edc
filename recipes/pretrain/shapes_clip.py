"""Make ``embedded/shapes-clip``: a small open_clip CLIP that scores how well pictures of the shapes world fit captions.

Trained only on the training combinations of the world, so that held-out captions test whether it has learned the
attributes and not the list. Pictures are softened, tinted and sprinkled with noise as a generator's are, each batch
holds distinct scenes, and each picture also meets a caption that is wrong in one attribute.

    uv run python recipes/pretrain/shapes_clip.py        # about 12 minutes on one core; resumes where it stopped
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
import tyro
from common import OTHER_WORDS, clip_tokenizer, console, fit, generator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, pad

from mmalign.worlds import shapes


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What the CLIPs of the embedded worlds share."""

    out: Path
    work: Path
    steps: int = 1_000
    batch: int = 96
    learning_rate: float = 1e-3
    device: str = "cpu"
    threads: int = 1
    """A small model gains nothing from more, and loses much where cores are shared."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings(ClipSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-clip")
    work: Path = Path("runs/pretrain/shapes-clip")
    pictures_per_shape: int = 16
    two_shape_pictures: int = 1_536
    two_shapes: float = 0.1
    """Share of two-shape scenes in a batch."""


Tokenize = Callable[[list[str]], Tensor]


def draw_world(settings: Settings) -> tuple[list[shapes.Scene], Tensor]:
    """The training pictures as bytes, [N, 3, 64, 64]: every training shape in turn, then scenes of two."""
    random = generator(settings.seed, 1)
    scenes: list[shapes.Scene] = []
    for _ in range(settings.pictures_per_shape):
        scenes += [(shape,) for shape in shapes.all_shapes("train")]
    scenes += [shapes.random_scene(random, two_shapes=1.0) for _ in range(settings.two_shape_pictures)]
    pictures = [
        (shapes.render(scenes[i : i + 250], random) * 255).round().byte() for i in range(0, len(scenes), 250)
    ]
    return scenes, torch.cat(pictures)


def spoil(pictures: Tensor, random: torch.Generator) -> Tensor:
    """What a generator does to pictures, each to a random degree: soft edges, coarse colours, a tint and noise."""

    def degree(most: float, *, channels: int = 1) -> Tensor:
        return most * torch.rand(len(pictures), channels, 1, 1, generator=random)

    soft = avg_pool2d(pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = interpolate(avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    pictures = pictures.lerp(soft, degree(1.0)).lerp(coarse, degree(0.7))
    tinted = pictures * (0.95 + degree(0.1, channels=3)) + degree(0.06, channels=3) - 0.03
    noise = torch.randn(pictures.shape, generator=random) * degree(0.05)
    return (tinted + noise).clamp(0, 1)


def wrong_scene(
    scene: shapes.Scene, random: torch.Generator, *, split: shapes.Split | None = "train"
) -> shapes.Scene:
    """The scene with one attribute changed; two shapes keep their places, and may exchange a value instead."""

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=random))

    values = {"kind": shapes.KINDS, "colour": tuple(shapes.COLOURS), "size": tuple(shapes.SIZES)}
    if len(scene) == 2 and draw(2):  # exchange what differs, so that which shape has which value matters
        name = tuple(values)[draw(3)]
        first, second = (getattr(s, name) for s in scene)
        if first != second:
            return (replace(scene[0], **{name: second}), replace(scene[1], **{name: first}))
    while True:
        position = draw(len(scene))
        name = shapes.ATTRIBUTES[draw(4 if len(scene) == 1 else 3)]
        options = values.get(name, tuple(shapes.PLACES))
        changed = replace(scene[position], **{name: options[draw(len(options))]})
        if changed != scene[position] and split in (None, changed.split):
            return (*scene[:position], changed, *scene[position + 1 :])


def say(scene: shapes.Scene, random: torch.Generator) -> str:
    """A random paraphrase; two shapes are named in either order."""
    template, turned = (int(torch.randint(n, (), generator=random)) for n in (len(shapes.TEMPLATES), 2))
    return shapes.caption(scene[::-1] if turned else scene, template)


def build_model(
    settings: ClipSettings, texts: list[str], *, side_px: int = 64, length: int = 32
) -> open_clip.CLIP:
    """The untrained model and its ``open_clip_config.json``; its tokenizer is written to the output folder.

    Args:
        settings: where and with which seed.
        texts: captions, of which every word becomes a token.
        side_px: of the pictures.
        length: of captions, in tokens.
    """
    tokenizer = clip_tokenizer([*texts, OTHER_WORDS], length=length, folder=settings.work / "tokenizer")
    tokenizer.save_pretrained(settings.out)
    config = {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": side_px,
                "patch_size": 8,
                "width": 128,
                "layers": 4,
                "head_width": 32,
            },
            "text_cfg": {
                "context_length": length,
                "vocab_size": len(tokenizer),
                "width": 96,
                "heads": 3,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": tokenizer.eos_token_id,
                # With a local folder, open_clip reads the tokenizer from that folder if this names any.
                "hf_tokenizer_name": settings.out.name,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",  # a centre crop would cut away the places
        },
    }
    (settings.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(settings.seed)
    model = open_clip.create_model(f"local-dir:{settings.out}", load_weights=False)
    return model.to(settings.device)


def contrastive_loss(
    model: open_clip.CLIP, tokenize: Tokenize, seen: Tensor, said: Sequence[object], texts: list[str]
) -> Tensor:
    """Symmetric contrastive loss; each picture also tells its caption from one that is wrong in one attribute.

    Args:
        model: an open_clip CLIP.
        tokenize: texts to its tokens [N, L].
        seen: [B, 3, H, W] in [-1, 1], no two of the same scene.
        said: 2 B scenes: of the pictures, then wrong ones.
        texts: captions of ``said``.
    """
    image = model.encode_image(seen, normalize=True)
    text = model.encode_text(tokenize(texts).to(seen.device), normalize=True)
    logits = model.logit_scale.clamp(max=math.log(100)).exp() * image @ text.T
    right = said[: len(seen)]
    # Elsewhere in the batch, a wrong caption may be right for another picture.
    also_right = torch.tensor([[a == b and i != j for j, b in enumerate(said)] for i, a in enumerate(right)])
    logits = logits.masked_fill(also_right.to(logits.device), -math.inf)
    own = torch.arange(len(right), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits[:, : len(right)].T, own)) / 2


def train(settings: Settings, model: open_clip.CLIP, scenes: list[shapes.Scene], pictures: Tensor) -> None:
    """On training combinations; a share of every batch shows two shapes."""
    tokenize = open_clip.get_tokenizer(f"local-dir:{settings.out}")
    kinds = len(shapes.all_shapes("train"))
    singles = kinds * settings.pictures_per_shape
    two = round(settings.batch * settings.two_shapes)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        distinct = torch.randperm(kinds, generator=random)[: settings.batch - two]
        copies = kinds * torch.randint(settings.pictures_per_shape, distinct.shape, generator=random)
        pairs = singles + torch.randperm(len(scenes) - singles, generator=random)[:two]
        rows = torch.cat([distinct + copies, pairs])
        right = [scenes[i] for i in rows]
        said = right + [wrong_scene(scene, random) for scene in right]
        texts = [say(scene, random) for scene in said]
        seen = spoil(pictures[rows].float() / 255, random).to(settings.device) * 2 - 1
        return contrastive_loss(model, tokenize, seen, said, texts)

    fit_clip(settings, model, loss)


def fit_clip(settings: ClipSettings, model: open_clip.CLIP, loss: Callable[[int], Tensor]) -> None:
    """Minimise ``loss(step)``."""
    fit(
        "clip",
        nn.ModuleDict({"clip": model}),
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        ema_decay=0.995,
    )


@torch.no_grad()
def report(settings: Settings) -> None:
    """On held-out combinations: how often the right caption beats one with one wrong attribute, by attribute."""
    model = open_clip.create_model(f"local-dir:{settings.out}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{settings.out}")
    random = generator(settings.seed, 3)
    one: list[shapes.Scene] = [(shape,) for shape in shapes.all_shapes("heldout") for _ in range(10)]
    two = [shapes.random_scene(random, split="heldout", two_shapes=1.0) for _ in range(500)]
    for title, scenes in (("one shape", one), ("two shapes", two)):
        wrong = [wrong_scene(scene, random, split=None) for scene in scenes]
        clean = shapes.render(scenes, random)
        for state, pictures in (("clean", clean), ("spoiled", spoil(clean, random))):
            image = model.encode_image(pictures * 2 - 1, normalize=True)
            texts = [[say(scene, random) for scene in side] for side in (scenes, wrong)]
            good, bad = ((image * model.encode_text(tokenize(t), normalize=True)).sum(-1) for t in texts)
            won = (good > bad).float()
            line = f"{title}, {state}: {won.mean():.4f} (right {good.mean():.3f}, wrong {bad.mean():.3f})"
            for name in shapes.ATTRIBUTES:
                pairs = zip(scenes, wrong, strict=True)
                changed = [
                    any(getattr(s, name) != getattr(t, name) for s, t in zip(*p, strict=True)) for p in pairs
                ]
                line += f", {name} {won[torch.tensor(changed)].mean():.3f}"
            console.print(line)


def save(settings: ClipSettings, model: open_clip.CLIP) -> None:
    """The weights in fp16, beside the config and the tokenizer."""
    weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, settings.out / "open_clip_model.safetensors")


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save in fp16, and report."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    settings.out.mkdir(parents=True, exist_ok=True)
    scenes, pictures = draw_world(settings)
    console.print(f"{len(scenes)} pictures drawn in {time.monotonic() - started:.0f} s")
    model = build_model(settings, shapes.captions("train") + shapes.captions("heldout"))
    train(settings, model, scenes, pictures)
    save(settings, model)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
