"""Make ``embedded/shapes-video-clip``: a small CLIP with a temporal head, which scores how well videos fit captions.

Trained as ``embedded/shapes-clip`` is, and like it only on the training combinations of its world: frames are softened,
tinted and sprinkled with noise, each batch holds distinct scenes, and each video also meets a caption that is wrong in
one attribute.

    uv run python recipes/pretrain/shapes_video_clip.py        # about 10 minutes on one core; resumes where it stopped
"""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
import tyro
from common import OTHER_WORDS, clip_tokenizer, console, fit, generator
from safetensors.torch import save_file
from shapes_clip import spoil
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.rewards.temporal_head import TemporalHead
from mmalign.worlds import moving_shapes
from mmalign.worlds.moving_shapes import MovingShape

SIDE_PX = 32
FRAMES = (0, 2, 4, 6, 8)
"""Of the nine; the others say nothing new."""
WIDTH, HEADS = 96, 4
"""Of the temporal head; its card says the heads too."""
VALUES = {
    "kind": moving_shapes.KINDS,
    "colour": tuple(moving_shapes.COLOURS),
    "direction": tuple(moving_shapes.DIRECTIONS),
    "speed": tuple(moving_shapes.SPEEDS),
}
OPPOSITE = {"to the left": "to the right", "to the right": "to the left", "up": "down", "down": "up"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-video-clip")
    work: Path = Path("runs/pretrain/shapes-video-clip")
    videos_per_scene: int = 24
    steps: int = 2_000
    batch: int = 48
    learning_rate: float = 1e-3
    bf16: bool = True
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


def draw_world(settings: Settings) -> tuple[list[MovingShape], Tensor]:
    """The frames that the model sees of videos of every training scene in turn, as bytes [N, 5, 3, 32, 32]."""
    random = generator(settings.seed, 1)
    scenes = moving_shapes.all_scenes("train")
    videos = [
        (moving_shapes.render(scenes, random, side_px=SIDE_PX)[:, FRAMES] * 255).round().byte()
        for _ in range(settings.videos_per_scene)
    ]
    return scenes, torch.cat(videos)


def spoiled(videos: Tensor, random: torch.Generator) -> Tensor:
    """What a generator does to videos [B, T, 3, H, W], to each frame to another degree."""
    return spoil(videos.flatten(0, 1), random).unflatten(0, videos.shape[:2])


def wrong_scene(
    scene: MovingShape,
    random: torch.Generator,
    *,
    split: moving_shapes.Split | None = "train",
    name: str = "",
) -> MovingShape:
    """The scene with one attribute changed, the one of that name or any."""
    while True:
        changes = name or list(VALUES)[int(torch.randint(len(VALUES), (), generator=random))]
        options = VALUES[changes]
        changed = replace(scene, **{changes: options[int(torch.randint(len(options), (), generator=random))]})
        if changes == "direction" and not name:  # the arrow is slower to learn than the axis
            changed = replace(scene, direction=OPPOSITE[scene.direction])
        if changed != scene and split in (None, changed.split):
            return changed


def say(scene: MovingShape, random: torch.Generator) -> str:
    """A random paraphrase."""
    return moving_shapes.caption(
        scene, int(torch.randint(len(moving_shapes.TEMPLATES), (), generator=random))
    )


def build_model(settings: Settings) -> open_clip.CLIP:
    """The untrained CLIP of frames and its ``open_clip_config.json``; its tokenizer is written to the output folder."""
    texts = [*moving_shapes.captions("train"), *moving_shapes.captions("heldout"), OTHER_WORDS]
    tokenizer = clip_tokenizer(texts, length=24, folder=settings.work / "tokenizer")
    tokenizer.save_pretrained(settings.out)
    config = {
        "model_cfg": {
            "embed_dim": WIDTH,
            "vision_cfg": {
                "image_size": SIDE_PX,
                "patch_size": 8,
                "width": 96,
                "layers": 2,
                "head_width": 24,
            },
            "text_cfg": {
                "context_length": 24,
                "vocab_size": len(tokenizer),
                "width": 96,
                "heads": 3,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": tokenizer.eos_token_id,
                # With a local folder, open_clip reads the tokenizer from that folder if this names any.
                "hf_tokenizer_name": "shapes-video-clip",
            },
        },
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",  # a centre crop would cut away where shapes come from
        },
    }
    (settings.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(settings.seed)
    model = open_clip.create_model(f"local-dir:{settings.out}", load_weights=False)
    return model.to(settings.device)


def train(
    settings: Settings, model: open_clip.CLIP, head: TemporalHead, scenes: list[MovingShape], videos: Tensor
) -> None:
    """Symmetric contrastive loss; each video also tells its caption from one that is wrong in one attribute."""
    tokenize = open_clip.get_tokenizer(f"local-dir:{settings.out}")

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        distinct = torch.randperm(len(scenes), generator=random)[: settings.batch]
        copies = torch.randint(settings.videos_per_scene, distinct.shape, generator=random)
        right = [scenes[i] for i in distinct]
        said = right + [wrong_scene(scene, random) for scene in right]
        tokens = tokenize([say(scene, random) for scene in said]).to(settings.device)
        seen = spoiled(videos[distinct + len(scenes) * copies].float() / 255, random)
        frames = model.encode_image((seen * 2 - 1).flatten(0, 1).to(settings.device))
        video = normalize(head(frames.unflatten(0, seen.shape[:2])), dim=-1)
        text = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.clamp(max=math.log(100)).exp() * video @ text.T
        # Elsewhere in the batch, a wrong caption may be right for another video.
        also_right = torch.tensor(
            [[a == b and i != j for j, b in enumerate(said)] for i, a in enumerate(right)]
        )
        logits = logits.masked_fill(also_right.to(logits.device), -math.inf)
        own = torch.arange(len(right), device=logits.device)
        return (cross_entropy(logits, own) + cross_entropy(logits[:, : len(right)].T, own)) / 2

    fit(
        "video-clip",
        nn.ModuleDict({"clip": model, "head": head}),
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        ema_decay=0.995,
        bf16=settings.bf16,
    )


def report(settings: Settings) -> None:
    """On held-out combinations: how often the right caption beats one with one wrong attribute, by attribute."""
    reward = load_reward("embedded/shapes-video-clip", weights=settings.out)
    random = generator(settings.seed, 3)
    scenes = moving_shapes.all_scenes("heldout") * 4
    clean = moving_shapes.render(scenes, random, side_px=SIDE_PX)
    for state, videos in (("clean", clean), ("spoiled", spoiled(clean, random))):
        media = [Video(frames, moving_shapes.FPS) for frames in videos]

        def scores(said: list[MovingShape]) -> Tensor:
            texts = [say(scene, random) for scene in said]
            return reward.score([Sample(t, m) for t, m in zip(texts, media, strict=True)]).value  # noqa: B023

        right = scores(scenes)
        line = f"{state}: right caption {right.mean():.1f}"
        for name in VALUES:
            wrong = scores([wrong_scene(scene, random, split=None, name=name) for scene in scenes])
            line += f"; {name} wrong {wrong.mean():.1f}, beaten {(right > wrong).float().mean():.3f}"
        console.print(line)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save in fp16, and report."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    settings.out.mkdir(parents=True, exist_ok=True)
    scenes, videos = draw_world(settings)
    console.print(f"{len(videos)} videos drawn in {time.monotonic() - started:.0f} s")
    model = build_model(settings)
    head = TemporalHead(frames=len(FRAMES), width=WIDTH, heads=HEADS, layers=2).to(settings.device)
    train(settings, model, head, scenes, videos)
    for part, file in ((model, "open_clip_model.safetensors"), (head, "temporal.safetensors")):
        weights = {name: weight.half().contiguous() for name, weight in part.state_dict().items()}
        save_file(weights, settings.out / file)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
